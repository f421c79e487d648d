/** Arguments as Go's flag libraries (pflag, component-base) take them, rewritten for commander. */

/** What strconv.ParseBool takes. */
const BOOLEANS: Readonly<Record<string, boolean>> = {
  ...{ 1: true, t: true, T: true, true: true, TRUE: true, True: true },
  ...{ 0: false, f: false, F: false, false: false, FALSE: false, False: false },
};

/** undefined when `text` is no boolean to Go. */
export function parseGoBoolean(text: string): boolean | undefined {
  return Object.hasOwn(BOOLEANS, text) ? BOOLEANS[text] : undefined;
}

/**
 * Rewrites `-v=2`, `-o=json`, `--masquerade_all` (component-base takes underscores for dashes), and
 * `--masquerade-all=true`, where
 * `booleans` names the flags that take no value of their own: `=false` becomes `--no-masquerade-all`. Values, and
 * everything after `--`, stay as they are.
 */
export function normaliseGoFlags(args: readonly string[], booleans: ReadonlySet<string>): string[] {
  const end = args.indexOf('--');
  const flags = end < 0 ? args : args.slice(0, end);
  return [...flags.map((argument) => normalise(argument, booleans)), ...args.slice(flags.length)];
}

function normalise(argument: string, booleans: ReadonlySet<string>): string {
  const [, dashes = '', written = '', value] = /^(--?)([a-z][a-z_-]*)(?:=(.*))?$/s.exec(argument) ?? [];
  const name = written.replaceAll('_', '-');
  if (dashes === '-' && value !== undefined && name.length === 1)
    return name === 'v' ? `--v=${value}` : `-${name}${value}`;
  if (dashes === '-') return argument;
  if (name === '') return argument;
  if (value === undefined) return `--${name}`;
  const isSet = booleans.has(name) ? parseGoBoolean(value) : undefined;
  if (isSet === undefined) return `--${name}=${value}`;
  return isSet ? `--${name}` : `--no-${name}`;
}
