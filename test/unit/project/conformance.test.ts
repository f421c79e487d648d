/** docs/conformance.md names tests that exist, and is what the list of cases says. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { SECTIONS } from '../../conformance/cases.js';
import { brokenReferences, ciliumSkip, withConformance } from '../../conformance/markdown.js';

const ROOT = join(import.meta.dirname, '../../../..');

function sourceOf(path: string): string | undefined {
  const file = join(ROOT, path);
  return existsSync(file) ? readFileSync(file, 'utf8') : undefined;
}

test('every test that a case of the conformance table names exists', () => {
  assert.deepEqual(brokenReferences(sourceOf), []);
});

test('a test that was renamed or a file that is gone is found', () => {
  const renamed = brokenReferences((path) =>
    sourceOf(path)?.replaceAll("'large requests", "'").replaceAll('`large requests', '`'),
  );
  assert.deepEqual(new Set(renamed.map((one) => one.split(' (')[0])), new Set(['live-packets: large requests: ']));
  assert.ok(brokenReferences((path) => (path.includes('live-flows') ? undefined : sourceOf(path))).length > 10);
});

test('what is shown names a test, what is not says why, and no case is there twice', () => {
  for (const { cases } of SECTIONS)
    for (const { name, verdict, tests, note } of cases) {
      assert.equal(tests.length > 0, verdict !== 'none' && verdict !== 'other', name);
      assert.equal(note === undefined, verdict === 'packets', name);
    }
  const names = SECTIONS.flatMap(({ group, cases }) => cases.map(({ name }) => `${group} ${name}`));
  assert.equal(new Set(names).size, names.length);
  assert.ok(names.length > 110, String(names.length));
});

test('what Cilium skips is told by the names, as its expressions are applied', () => {
  const skipOf = (text: string): (string | undefined)[] =>
    SECTIONS.flatMap((section) =>
      section.cases.filter(({ name }) => name.includes(text)).map((one) => ciliumSkip(section, one)),
    );
  assert.deepEqual(skipOf('should be rejected when no endpoints exist'), ['rejected']);
  assert.deepEqual(skipOf('should work from pods'), ['LoadBalancer']);
  assert.deepEqual(skipOf('should allow pods to hairpin'), [undefined]);
  assert.deepEqual(skipOf('externallTrafficPolicy=Cluster'), [undefined], 'the slip in its name saves it');
});

test('docs/conformance.md is that of the list', () => {
  const text = sourceOf('docs/conformance.md')!;
  assert.equal(withConformance(text), text, 'node build/test/conformance/markdown.js --write docs/conformance.md');
});
