/** One thing wrong in a configuration: where, what is there, what may be there. */
export interface ConfigProblem {
  /** Field path as in the file (`ipvs.scheduler`), a flag (`--drain-timeout`), or '' for the document as a whole. */
  readonly path: string;
  readonly value: unknown;
  /** What is allowed, as the end of the sentence "allowed: ...". */
  readonly allowed: string;
}

/** A configuration that must not be used; the message has one line per problem and lists all of them. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';

  constructor(
    /** The file, or `command line`. */
    readonly source: string,
    readonly problems: readonly ConfigProblem[],
    options?: ErrorOptions,
  ) {
    super(problems.map((problem) => `${source}: ${formatProblem(problem)}`).join('\n'), options);
  }
}

function formatProblem({ path, value, allowed }: ConfigProblem): string {
  const subject = path === '' ? '' : `${path}: `;
  const found = value === undefined ? '' : `${shortJson(value)} is not allowed; `;
  return `${subject}${found}allowed: ${allowed}`;
}

function shortJson(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length <= 120 ? text : `${text.slice(0, 117)}...`;
}
