#!/usr/bin/env node
/**
 * Runs compiled tests with Node's own runner and ends with their counts.
 *
 *   node scripts/run-tests.mjs unit             test/unit, in this process's kernel
 *   node scripts/run-tests.mjs kernel           test/kernel, each file in a test kernel of its own, two at a time
 *   node scripts/run-tests.mjs kernel traffic   only files whose name contains "traffic"
 *
 * A kernel test may say what it needs in a line of its source: `// test-kernel: mem=4G timeout=600 seconds=90 waits`.
 * `seconds` is how long it takes, about, until a run here has measured it: the longest begin first, so that none is
 * left alone at the end. `waits`: it mostly waits for intervals and time-outs, so it runs beside the two.
 * With `--counts FILE` the counts, and which tests failed, are added to the file, for a sum over several runs;
 * `--results FILE` gets one JSON line per file. KERNEL=qemu:NAME takes another kernel
 * (test/kernel/harness/run.mjs). Exit code 1 when a test failed.
 */
import { spawn } from 'node:child_process';
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { performance } from 'node:perf_hooks';
import { parseArgs } from 'node:util';

const root = fileURLToPath(new URL('../', import.meta.url));
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { counts: { type: 'string' }, results: { type: 'string' } },
});
/** An emulated machine has two CPUs for itself and needs several times the time. */
const isEmulated = (process.env.KERNEL ?? '').startsWith('qemu:');
/** Of a kernel test that does not say. */
const USUAL_SECONDS = 25;
const [kind, ...patterns] = positionals;
if (kind !== 'unit' && kind !== 'kernel')
  throw new Error('usage: run-tests.mjs unit|kernel [--counts FILE] [pattern...]');

const sources = findTests(join(root, 'test', kind)).filter(
  (path) => patterns.length === 0 || patterns.some((pattern) => path.includes(pattern)),
);
if (sources.length === 0) {
  console.log(`${kind} tests: no file matches ${patterns.join(' ') || `test/${kind}/**/*.test.ts`}`);
  process.exit(1);
}
const scratch = mkdtempSync(join(tmpdir(), 'test-counts-'));
process.on('exit', () => rmSync(scratch, { recursive: true, force: true }));
const children = new Set();
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.on(signal, () => {
    sources.length = 0; // what has not begun does not begin
    process.exitCode = 130;
    for (const child of children) child.kill(signal);
  });
}
const total = kind === 'unit' ? await runUnit() : await runKernel();
if (values.counts !== undefined) appendFileSync(values.counts, `${JSON.stringify(total)}\n`);
for (const failure of total.failures) console.log(`failed: ${failure}`);
console.log(`${kind} tests: ${total.pass} passed, ${total.fail} failed, ${total.skipped} skipped`);
process.exitCode ??= total.fail > 0 ? 1 : 0;

async function runUnit() {
  const counts = join(scratch, 'unit');
  // By itself the runner leaves one CPU to others, which is half of a small machine.
  const concurrency = `--test-concurrency=${availableParallelism()}`;
  const code = await run(process.execPath, [concurrency, ...testArguments(counts, sources.map(compiled))], 'inherit');
  return readCounts(counts, code, 'unit tests');
}

async function runKernel() {
  const times = readTimes();
  const seconds = (source) => times[basename(source)] ?? Number(needsOf(source, 'seconds') ?? USUAL_SECONDS);
  sources.sort((a, b) => seconds(b) - seconds(a));
  const total = { pass: 0, fail: 0, skipped: 0, failures: [] };
  /** `first` is what it takes as long as there is some, `others` whether it goes on with the rest then. */
  const worker = async ({ cpu, first, others }) => {
    for (let source = take(first, others); source !== undefined; source = take(first, others)) {
      const begun = performance.now();
      const { code, output, counts } = await runInKernel(source, cpu);
      const took = (performance.now() - begun) / 1000;
      times[basename(source)] = took;
      console.log(`== ${basename(source, '.ts')}: exit ${code}, ${took.toFixed(0)} s\n${output.trimEnd()}\n`);
      for (const name of ['pass', 'fail', 'skipped']) total[name] += counts[name];
      total.failures.push(...counts.failures);
      if (values.results !== undefined)
        appendFileSync(
          values.results,
          `${JSON.stringify({ file: basename(source, '.test.ts'), seconds: took, ...counts })}\n`,
        );
    }
  };
  const works = (source) => needsOf(source, 'waits') === undefined;
  const atOnce = isEmulated ? 1 : Math.min(2, availableParallelism());
  const workers = Array.from({ length: atOnce }, (_, cpu) => ({ cpu, first: works, others: true }));
  if (!isEmulated) workers.push({ cpu: atOnce, first: (source) => !works(source), others: false });
  await Promise.all(workers.map(worker));
  mkdirSync(join(root, 'build'), { recursive: true });
  writeFileSync(timesFile(), JSON.stringify(times, null, 1));
  return total;
}

/** Takes the first of the sources that `first` is true for, or else, with `others`, the first of all. */
function take(first, others) {
  const index = sources.findIndex(first);
  return index >= 0 ? sources.splice(index, 1)[0] : others ? sources.shift() : undefined;
}

/** What the file's line says of `name`: a value, '' for a word without one, undefined when it is not there. */
function needsOf(source, name) {
  const needs = /^\/\/ test-kernel:(.*)$/m.exec(readFileSync(source, 'utf8'))?.[1] ?? '';
  const found = new RegExp(`(?:^| )${name}(?:=(\\S+))?(?: |$)`).exec(needs);
  return found === null ? undefined : (found[1] ?? '');
}

async function runInKernel(source, cpu) {
  const [mem, timeout] = ['mem', 'timeout'].map((name) => needsOf(source, name));
  const name = basename(source, '.ts');
  const directory = join(scratch, name);
  mkdirSync(directory);
  const counts = join(directory, 'counts');
  const chunks = [];
  const code = await run(
    process.execPath,
    [
      ...[join(root, 'test/kernel/harness/run.mjs'), '--mem', isEmulated ? '6G' : (mem ?? '2G')],
      ...['--timeout', String(Number(timeout ?? '300') * (isEmulated ? 8 : 1))],
      ...['--cpu', String(cpu), '--share', directory, '--', 'node', ...testArguments(counts, [compiled(source)])],
    ],
    ['ignore', 'pipe', 'pipe'],
    chunks,
  );
  return { code, output: Buffer.concat(chunks).toString(), counts: readCounts(counts, code, name) };
}

function testArguments(counts, files) {
  return [
    ...['--enable-source-maps', '--test', '--test-reporter=spec', '--test-reporter-destination=stdout'],
    `--test-reporter=${new URL('counts-reporter.mjs', import.meta.url).href}`,
    `--test-reporter-destination=${counts}`,
    ...files,
  ];
}

/** A run without counts (a crash, a time-out) is one failure; cancelled tests are failures. */
function readCounts(file, code, what) {
  const counts = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8') || '{}') : {};
  const fail = (counts.fail ?? 0) + (counts.cancelled ?? 0);
  const failures = counts.failures ?? [];
  if (code !== 0 && failures.length === 0) failures.push(`${what} ended with exit code ${code}`);
  return { pass: counts.pass ?? 0, fail: fail === 0 && code !== 0 ? 1 : fail, skipped: counts.skipped ?? 0, failures };
}

function run(program, args, stdio, chunks) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd: root, stdio });
    child.stdout?.on('data', (chunk) => chunks.push(chunk));
    child.stderr?.on('data', (chunk) => chunks.push(chunk));
    child.on('error', reject);
    child.on('close', (code) => resolve(code ?? 1));
    children.add(child);
    child.on('close', () => children.delete(child));
  });
}

function findTests(directory) {
  return readdirSync(directory, { recursive: true })
    .filter((name) => name.endsWith('.test.ts'))
    .map((name) => join(directory, name))
    .sort();
}

function compiled(source) {
  return join(root, 'build', source.slice(root.length)).replace(/\.ts$/, '.js');
}

function timesFile() {
  return join(root, 'build', 'kernel-test-seconds.json');
}

function readTimes() {
  return existsSync(timesFile()) ? JSON.parse(readFileSync(timesFile(), 'utf8')) : {};
}
