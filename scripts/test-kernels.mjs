#!/usr/bin/env node
/**
 * npm run test:kernels: the kernel tests on user-mode-linux (one CPU, legacy iptables), on the kernel of this machine's
 * Debian release and on Debian's newest (both emulated by QEMU: two CPUs, nf_tables), and one table of what came out.
 *
 *   npm run test:kernels -- [--kernels uml,release,newest] [--markdown FILE] [pattern...]
 *
 * Takes an hour or two: see docs/developing.md. Exit code 1 when a test failed anywhere.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, existsSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = fileURLToPath(new URL('../', import.meta.url));
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { kernels: { type: 'string', default: 'uml,release,newest' }, markdown: { type: 'string' } },
});
const scratch = mkdtempSync(join(tmpdir(), 'test-kernels-'));
process.on('exit', () => rmSync(scratch, { recursive: true, force: true }));

const columns = values.kernels.split(',').map(runOn);
const files = [...new Set(columns.flatMap(({ results }) => [...results.keys()]))].sort();
const rows = [
  ['test file', ...columns.map(({ title }) => title)],
  ...files.map((file) => [file, ...columns.map(({ results }) => cell(results.get(file)))]),
];
const table = render(rows);
console.log(`\n${table}`);
if (values.markdown !== undefined) writeFileSync(values.markdown, `${table}\n`);
process.exitCode = columns.every(({ ok }) => ok) ? 0 : 1;

/** @param {string} name */
function runOn(name) {
  const kernel = name === 'uml' ? 'uml' : `qemu:${name}`;
  const file = join(scratch, name);
  const env = { ...process.env, KERNEL: kernel };
  const release = spawnSync(process.execPath, [join(root, 'test/kernel/harness/run.mjs'), '--', 'uname', '-r'], {
    ...{ cwd: root, env, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] },
  });
  const title = `${name === 'uml' ? 'user-mode-linux' : 'Debian'} ${release.stdout.trim()}`;
  console.log(`--- ${title}`);
  const run = spawnSync(
    process.execPath,
    [join(root, 'scripts/run-tests.mjs'), 'kernel', '--results', file, ...positionals],
    { cwd: root, env, stdio: 'inherit' },
  );
  const lines = existsSync(file) ? readFileSync(file, 'utf8').split('\n').filter(Boolean) : [];
  const results = new Map(lines.map((line) => JSON.parse(line)).map((result) => [result.file, result]));
  return { title, results, ok: run.status === 0 };
}

function cell(result) {
  if (result === undefined) return 'not run';
  const { pass, fail, skipped, seconds } = result;
  const counts = `${pass} passed${fail > 0 ? `, **${fail} failed**` : ''}${skipped > 0 ? `, ${skipped} skipped` : ''}`;
  return `${counts} (${Math.round(seconds)} s)`;
}

/** A Markdown table whose columns are as wide as their widest cell. */
function render([head, ...body]) {
  const widths = head.map((_, column) => Math.max(...[head, ...body].map((row) => row[column].length)));
  const line = (row) => `| ${row.map((text, column) => text.padEnd(widths[column])).join(' | ')} |`;
  return [line(head), line(widths.map((width) => '-'.repeat(width))), ...body.map(line)].join('\n');
}
