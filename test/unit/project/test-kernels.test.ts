/** The table of kernels and test files: the last run of a file counts, and what was not run is said. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

const ROOT = join(import.meta.dirname, '../../../..');

test('kept results become a table in its place; a failure anywhere is the exit code', (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'test-kernels-test-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const document = join(directory, 'page.md');
  const [begin, end] = ['<!-- kernels: written by scripts/test-kernels.mjs -->', '<!-- end of kernels -->'];
  writeFileSync(document, `before\n${begin}\nold\n${end}\nafter\n`);
  writeFileSync(join(directory, 'newest.release'), '9.9.9\n');
  const results = join(directory, 'newest.jsonl');
  const golden = { file: 'golden', seconds: 61.2, pass: 9, fail: 1, skipped: 0 };
  const print = (...lines: object[]): number | null => {
    writeFileSync(results, lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
    const script = [join(ROOT, 'scripts/test-kernels.mjs'), '--results', directory, '--table'];
    const options = ['--kernels', 'newest', '--markdown', document];
    return spawnSync(process.execPath, [...script, ...options], { encoding: 'utf8' }).status;
  };
  assert.equal(print(golden), 1);
  assert.match(readFileSync(document, 'utf8'), /\| golden \| 9 passed, \*\*1 failed\*\* \(61 s\) \|/);
  assert.equal(print(golden, { ...golden, seconds: 60, pass: 9, fail: 0, skipped: 1 }), 0);
  const text = readFileSync(document, 'utf8');
  assert.match(text, /\| golden \| 9 passed, 1 skipped \(60 s\) \|/);
  assert.match(text, /\| traffic \| not run \|/);
  assert.match(text, /\| test file \| Debian 9\.9\.9, nf_tables, 2 CPUs \|/);
  assert.ok(text.startsWith(`before\n${begin}\n\n|`) && text.endsWith(`|\n\n${end}\nafter\n`), text);
});

test('what a document says of the same kernel and rules stays, until there is a result', (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'test-kernels-test-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const document = join(directory, 'page.md');
  writeFileSync(
    document,
    [
      '<!-- kernels: written by scripts/test-kernels.mjs -->',
      '| test file | Debian 9.9.9, nf_tables, 2 CPUs | Debian 8.8.8, nf_tables, 2 CPUs |',
      '| --- | --- | --- |',
      '| golden | 8 passed (50 s) | 3 passed |',
      '| boot | 7 passed | 2 passed |',
      '<!-- end of kernels -->',
    ].join('\n'),
  );
  const result = (name: string, release: string, file: string): void => {
    writeFileSync(join(directory, `${name}.release`), release);
    writeFileSync(join(directory, `${name}.jsonl`), `${JSON.stringify({ file, pass: 1, fail: 0, skipped: 0 })}\n`);
  };
  result('release', '9.9.9', 'golden');
  result('release+nftables', '9.9.9', 'boot');
  result('newest', '8.8.9', 'boot');
  const script = [join(ROOT, 'scripts/test-kernels.mjs'), '--results', directory, '--table'];
  const options = ['--kernels', 'release,release+nftables,newest', '--markdown', document];
  assert.equal(spawnSync(process.execPath, [...script, ...options], { encoding: 'utf8' }).status, 0);
  const text = readFileSync(document, 'utf8');
  const name = 'Debian 9.9.9, nf_tables, 2 CPUs';
  assert.ok(
    text.includes(`| test file | ${name} | ${name}, rules: nftables | Debian 8.8.9, nf_tables, 2 CPUs |`),
    text,
  );
  assert.match(text, /\| golden \| 1 passed \| not run \| not run \|/);
  assert.match(text, /\| boot \| 7 passed \| 1 passed \| 1 passed \|/);
});
