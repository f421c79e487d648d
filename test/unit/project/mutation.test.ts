/** The faults that `npm run mutation` tries: of every kind, each at its place, and none where tests cannot look. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';

interface Mutant {
  readonly start: number;
  readonly end: number;
  readonly before: string;
  readonly after: string;
}

const ROOT = join(import.meta.dirname, '../../../..');
const { mutantsOf } = (await import(pathToFileURL(join(ROOT, 'scripts/mutants.mjs')).href)) as {
  mutantsOf: (text: string) => Mutant[];
};

function faults(text: string): string[] {
  return mutantsOf(text).map(({ start, end, after }) => text.slice(0, start) + after + text.slice(end));
}

test('each kind of fault, in the order of the text', () => {
  const text = 'function f(a) { if (!a.b && a.c < 1) go(a); return a.n + 2; }';
  assert.deepEqual(faults(text), [
    'function f(a) { if (!a.b || a.c < 1) go(a); return a.n + 2; }',
    'function f(a) { if (a.b && a.c < 1) go(a); return a.n + 2; }',
    'function f(a) { if (!a.b && a.c <= 1) go(a); return a.n + 2; }',
    'function f(a) { if (!a.b && a.c < 2) go(a); return a.n + 2; }',
    'function f(a) { if (!a.b && a.c < 1) ; return a.n + 2; }',
    'function f(a) { if (!a.b && a.c < 1) go(a); return undefined; }',
    'function f(a) { if (!a.b && a.c < 1) go(a); return a.n - 2; }',
    'function f(a) { if (!a.b && a.c < 1) go(a); return a.n + 3; }',
  ]);
  assert.deepEqual(faults('x = true; y = 0x10;'), ['x = false; y = 0x10;', 'x = true; y = 0;']);
});

test('none in imports, thrown errors, log lines, sums of texts and a millisecond of a long time', () => {
  for (const text of [
    "import { a } from './a.js';",
    'throw new Error(`no ${1 + x}`);',
    "this.#options.log.info({ count: 1 }, 'synced');",
    "log.warn('x');",
    'const s = "a" + b;',
    'super();',
    'function f() { return undefined; }',
    'const WAIT_MS = 10_000;',
  ])
    assert.deepEqual(faults(text), [], text);
  assert.deepEqual(faults('const A_MS = 5 * 60_000, B_MS = 999, MOST = 1000;'), [
    'const A_MS = 5 / 60_000, B_MS = 999, MOST = 1000;',
    'const A_MS = 6 * 60_000, B_MS = 999, MOST = 1000;',
    'const A_MS = 5 * 60_000, B_MS = 1000, MOST = 1000;',
    'const A_MS = 5 * 60_000, B_MS = 999, MOST = 1001;',
  ]);
});

test('every fault that is said to be invisible is in a file that exists, and has a reason', () => {
  const lines = readFileSync(join(ROOT, 'test/mutation-equivalent.txt'), 'utf8').split('\n');
  for (const line of lines.filter((one) => one !== '' && !one.startsWith('#'))) {
    const [file = '', change = '', ...rest] = line.split(' | ');
    assert.ok(existsSync(join(ROOT, file)), file);
    assert.match(change, /^".*" -> ".*"$/);
    assert.ok(rest.length >= 2 && rest.at(-1)!.length > 15, line);
  }
});
