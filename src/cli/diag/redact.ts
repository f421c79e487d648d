/** Takes secrets out of text. The parts of a bundle hold none by construction; this is for what nobody thought of. */

const HIDDEN = '[redacted]';
/** Shorter words are no secrets, and would be found everywhere. */
const SHORTEST_SECRET = 6;
/** Words as long as this in a kubeconfig are taken for secrets, but for paths and addresses. */
const LONG_WORD = 16;

const SECRET_NAME = /token|passw(or)?d|secret|credential|api[-_]?key|private[-_]?key|access[-_]?key|auth/i;
const SECRET_KEY =
  '[\\w.-]*(?:token|passw(?:or)?d|secret|credentials?|api[-_]?key|key-data|certificate-data|access[-_]?key)';

/** What looks like a secret wherever it stands. */
const PATTERNS: readonly (readonly [RegExp, string])[] = [
  [/-----BEGIN [A-Z ]+-----[\s\S]*?(?:-----END [A-Z ]+-----|$)/g, HIDDEN],
  [/\beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?/g, HIDDEN],
  [/\b(Bearer|Basic)[ \t]+[\w~+/.=-]{6,}/gi, `$1 ${HIDDEN}`],
  [/(\w:\/\/)[^/\s@"']+@/g, `$1${HIDDEN}@`],
  [
    new RegExp(`(["']?\\b${SECRET_KEY}["']?[ \\t]*[:=][ \\t]*)(?:"[^"\\n]*"|'[^'\\n]*'|[^\\s"',}]+)`, 'gi'),
    `$1${HIDDEN}`,
  ],
];

/** Replaces what looks like a secret, and each of `secrets` wherever it stands. */
export function redact(text: string, secrets: readonly string[]): string {
  let clean = text;
  for (const secret of secrets) clean = clean.replaceAll(secret, HIDDEN);
  for (const [pattern, replacement] of PATTERNS) clean = clean.replace(pattern, replacement);
  return clean;
}

/** The values of environment variables by whose names they may be secrets. */
export function secretsOfEnvironment(variables: Readonly<Record<string, string | undefined>>): string[] {
  const found = Object.entries(variables).filter(([name]) => SECRET_NAME.test(name));
  return found.flatMap(([, value]) => (value !== undefined && value.length >= SHORTEST_SECRET ? [value] : []));
}

/**
 * The words of a kubeconfig (or of a token's file) that must not be told: a parser's complaint may quote any line of
 * it. So a broken one is not parsed here either; every long word counts that is neither a path nor an address.
 */
export function secretsOfKubeconfig(text: string): string[] {
  const secrets = new Set<string>();
  for (const line of text.split('\n')) {
    const [, key = '', value = ''] = /^[\s-]*["']?([\w.-]+)["']?[ \t]*:[ \t]*(.*)$/.exec(line) ?? [];
    for (const word of (key === '' ? line : value).split(/[\s"',[\]{}]+/)) {
      if (/^\/|:\/\//.test(word)) continue;
      const isNamed = SECRET_NAME.test(key) && !/file$/i.test(key);
      if (word.length >= (isNamed ? SHORTEST_SECRET : LONG_WORD)) secrets.add(word);
    }
  }
  // Longer ones first: one may be a part of another.
  return [...secrets].sort((a, b) => b.length - a.length);
}
