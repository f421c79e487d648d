/** Reading untrusted JSON without casts: every accessor returns a typed value or a harmless default. */
export type JsonObject = Readonly<Record<string, unknown>>;
export type Report = (problem: string) => void;

export function asObject(value: unknown): JsonObject | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as JsonObject) : undefined;
}

export function asArray(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? (value as unknown[]) : [];
}

export function asString(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

/** The value when it is a whole number within [low, high]; undefined otherwise. */
export function asInteger(value: unknown, low: number, high: number): number | undefined {
  return typeof value === 'number' && Number.isInteger(value) && value >= low && value <= high ? value : undefined;
}

/** `namespace/name` of an object, and its creation time; undefined (reported) without a name. */
export function objectMeta(
  object: JsonObject,
  report: Report,
): { key: string; namespace: string; metadata: JsonObject } | undefined {
  const metadata = asObject(object['metadata']);
  const name = asString(metadata?.['name']);
  if (metadata === undefined || name === '') {
    report('metadata.name is missing');
    return undefined;
  }
  const namespace = asString(metadata['namespace']);
  // Joined, the key is one flat string from the start; a template would leave a tree that keeps its pieces.
  return { key: [namespace, name].join('/'), namespace, metadata };
}

/** A short rendering of a bad value for a log line; never longer than 80 characters. */
export function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? 'undefined';
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}

const MAX_PROBLEMS = 20;

/** Passes the first problems of one object on, and of the others that there are some: an object may hold thousands. */
export function boundedReport(report: Report): Report {
  let count = 0;
  return (problem) => {
    count++;
    if (count < MAX_PROBLEMS) report(problem);
    else if (count === MAX_PROBLEMS) report('there are more problems with this object');
  };
}
