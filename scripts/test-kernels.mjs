#!/usr/bin/env node
/**
 * npm run test:kernels: the kernel tests on user-mode-linux (one CPU, legacy iptables), on the kernel of this machine's
 * Debian release and on Debian's newest (both emulated by QEMU: two CPUs, nf_tables), and one table of what came out.
 *
 *   npm run test:kernels -- [--kernels uml,release,newest] [--results DIR] [--markdown FILE] [pattern...]
 *   node scripts/test-kernels.mjs --results DIR --table --markdown docs/developing.md
 *
 * `release+nftables` is the release's kernel with the daemon's rules in nf_tables (TEST_RULES). Takes an hour or two:
 * see docs/developing.md. With --results the results are kept, and those of earlier runs count for the files that are
 * not run now; --table runs nothing. --markdown writes the table, into the place that a document has for it; what the
 * document says there of the same kernel and rules stays for the files of which there is no result. Exit code 1 when a
 * test failed anywhere.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = fileURLToPath(new URL('../', import.meta.url));
const BEGIN = '<!-- kernels: written by scripts/test-kernels.mjs -->';
const END = '<!-- end of kernels -->';
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    kernels: { type: 'string', default: 'uml,release,newest' },
    markdown: { type: 'string' },
    results: { type: 'string' },
    table: { type: 'boolean', default: false },
  },
});
if (values.table && values.results === undefined) throw new Error('--table needs --results DIR');
const directory = values.results ?? mkdtempSync(join(tmpdir(), 'test-kernels-'));
if (values.results === undefined) process.on('exit', () => rmSync(directory, { recursive: true, force: true }));
else mkdirSync(directory, { recursive: true });

const columns = values.kernels.split(',').map(values.table ? readBack : runOn);
const files = readdirSync(join(root, 'test/kernel'))
  .filter((file) => file.endsWith('.test.ts'))
  .map((file) => basename(file, '.test.ts'))
  .filter((file) => values.results !== undefined || columns.some(({ results }) => results.has(file)));
const written = values.markdown === undefined ? new Map() : cellsOf(values.markdown);
const rows = [
  ['test file', ...columns.map(({ title }) => title)],
  ...files.map((file) => [
    file,
    ...columns.map(({ results, key }) => cell(results.get(file)) ?? written.get(`${key} ${file}`) ?? 'not run'),
  ]),
];
const table = render(rows);
console.log(`\n${table}`);
if (values.markdown !== undefined) writeMarkdown(values.markdown);
process.exitCode = columns.every(({ ok }) => ok) ? 0 : 1;

/** @param {string} name */
function runOn(name) {
  const [kernel, rules = ''] = name.split('+');
  const env = { ...process.env, KERNEL: kernel === 'uml' ? 'uml' : `qemu:${kernel}`, TEST_RULES: rules };
  const release = spawnSync(process.execPath, [join(root, 'test/kernel/harness/run.mjs'), '--', 'uname', '-r'], {
    ...{ cwd: root, env, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] },
  });
  writeFileSync(join(directory, `${name}.release`), release.stdout.trim());
  console.log(`--- ${name} ${release.stdout.trim()}`);
  const run = spawnSync(
    process.execPath,
    [join(root, 'scripts/run-tests.mjs'), 'kernel', '--results', join(directory, `${name}.jsonl`), ...positionals],
    { cwd: root, env, stdio: 'inherit' },
  );
  return { ...readBack(name), ok: run.status === 0 };
}

/** What is known of a kernel; the last run of a file counts. */
function readBack(name) {
  const text = (file) => (existsSync(join(directory, file)) ? readFileSync(join(directory, file), 'utf8') : '');
  const release = text(`${name}.release`).trim();
  const results = new Map(
    text(`${name}.jsonl`)
      .split('\n')
      .filter(Boolean)
      .map((line) => JSON.parse(line))
      .map((result) => [result.file, result]),
  );
  const [kernel, rules] = name.split('+');
  const title = kernel === 'uml' ? `user-mode-linux ${release}` : `Debian ${release}, nf_tables, 2 CPUs`;
  return {
    title: rules === undefined ? title : `${title}, rules: ${rules}`,
    key: keyOf(release, rules),
    results,
    ok: [...results.values()].every(({ fail }) => fail === 0),
  };
}

/** Of a column: kernel and rules. */
function keyOf(release, rules = 'iptables') {
  return `${release} ${rules}`;
}

/** The cells of the table that a document has, by column and test file. */
function cellsOf(file) {
  const text = existsSync(file) ? readFileSync(file, 'utf8') : '';
  const table = text.slice(text.indexOf(BEGIN), text.indexOf(END)).split('\n');
  const [head = [], , ...body] = table
    .filter((line) => line.startsWith('| '))
    .map((line) => line.slice(2, -2).split(' | '));
  const keys = head.map((title) => keyOf(/ (\d\S*?)(?:,|$)/.exec(title)?.[1], / rules: (\S+)$/.exec(title)?.[1]));
  const cells = body.flatMap(([name, ...row]) => row.map((value, i) => [`${keys[i + 1]} ${name}`, value]));
  return new Map(cells.filter(([, value]) => value !== 'not run'));
}

/** Into the place between the markers, or as a file of its own. */
function writeMarkdown(file) {
  const text = existsSync(file) ? readFileSync(file, 'utf8') : '';
  const [begin, end] = [text.indexOf(BEGIN), text.indexOf(END)];
  if (begin < 0 || end < begin) writeFileSync(file, `${table}\n`);
  else writeFileSync(file, `${text.slice(0, begin + BEGIN.length)}\n\n${table}\n\n${text.slice(end)}`);
}

/** Undefined where there is no result. */
function cell(result) {
  if (result === undefined) return undefined;
  const { pass, fail, skipped, seconds } = result;
  const counts = `${pass} passed${fail > 0 ? `, **${fail} failed**` : ''}${skipped > 0 ? `, ${skipped} skipped` : ''}`;
  return seconds === undefined ? counts : `${counts} (${Math.round(seconds)} s)`;
}

/** A Markdown table. */
function render([head, ...body]) {
  const line = (row) => `| ${row.join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...body.map(line)].join('\n');
}
