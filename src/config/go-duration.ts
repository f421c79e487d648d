const UNIT_MS: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3,
  μs: 1e-3,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
};
// Escaped: one character beyond Latin-1 makes V8 keep the whole bundle in two bytes a character.
const WHOLE = /^[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:ns|us|\u00b5s|\u03bcs|ms|s|m|h))+$/;
const PART = /([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|\u00b5s|\u03bcs|ms|s|m|h)/g;

/** time.Duration is an int64 of nanoseconds: about 292 years. */
const LARGEST_MS = Number(2n ** 63n - 1n) / 1e6;

/**
 * Parses what Go's time.ParseDuration accepts (`30s`, `1m0s`, `1h2m3.5s`, `100ms`, `0`), as metav1.Duration fields are
 * written. Returns milliseconds, possibly fractional or negative; undefined when malformed or beyond 292 years.
 */
export function parseGoDuration(text: string): number | undefined {
  if (/^[+-]?0$/.test(text)) return 0;
  if (!WHOLE.test(text)) return undefined;
  let total = 0;
  for (const [, amount, unit] of text.matchAll(PART)) total += Number(amount) * UNIT_MS[unit!]!;
  if (total > LARGEST_MS) return undefined;
  return text.startsWith('-') ? -total : total;
}

/** Writes milliseconds the way Go's Duration.String does: `1h0m0s`, `1m30s`, `2.5s`, `100ms`, `0s`. */
export function formatGoDuration(milliseconds: number): string {
  const sign = milliseconds < 0 ? '-' : '';
  const size = Math.abs(milliseconds);
  if (size === 0) return '0s';
  if (size < UNIT_MS.us!) return `${sign}${round(size * 1e6)}ns`;
  if (size < 1) return `${sign}${round(size * 1000)}µs`;
  if (size < 1000) return `${sign}${round(size)}ms`;
  const hours = Math.floor(size / UNIT_MS.h!);
  const minutes = Math.floor((size % UNIT_MS.h!) / UNIT_MS.m!);
  const seconds = `${round((size % UNIT_MS.m!) / 1000)}s`;
  if (hours > 0) return `${sign}${hours}h${minutes}m${seconds}`;
  return minutes > 0 ? `${sign}${minutes}m${seconds}` : `${sign}${seconds}`;
}

function round(value: number): number {
  return Math.round(value * 1e6) / 1e6;
}
