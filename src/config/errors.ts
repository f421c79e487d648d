/** One thing wrong in a configuration: where, what is there, what may be there. */
export interface ConfigProblem {
  /** Field path as in the file (`ipvs.scheduler`), a flag (`--drain-timeout`), or '' for the document as a whole. */
  readonly path: string;
  /** undefined: `allowed` is a sentence of its own. */
  readonly value: unknown;
  /** What is allowed, as the end of the sentence "allowed: ..."; without a value what is wrong, in full. */
  readonly allowed: string;
  /** In the file, from 1. */
  readonly line?: number | undefined;
}

/** A configuration that must not be used; the message has one line per problem and lists all of them. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';

  constructor(
    /** The file, or `command line`. */
    readonly source: string,
    readonly problems: readonly ConfigProblem[],
    options?: ErrorOptions & {
      /** What was noticed beside the problems: unknown fields, settings without effect. */
      readonly warnings?: readonly string[];
    },
  ) {
    super(problems.map((problem) => formatProblem(source, problem)).join('\n'), options);
    this.warnings = options?.warnings ?? [];
  }

  readonly warnings: readonly string[];
}

/** `config.conf:12: ipvs.scheduler: "fast" is not allowed; allowed: rr, lc`. */
function formatProblem(source: string, { path, value, allowed, line }: ConfigProblem): string {
  const place = line === undefined ? source : `${source}:${line}`;
  const subject = path === '' ? '' : `${path}: `;
  const found = value === undefined ? '' : `${shortJson(value)} is not allowed; allowed: `;
  return `${place}: ${subject}${found}${allowed}`;
}

function shortJson(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length <= 120 ? text : `${text.slice(0, 117)}...`;
}
