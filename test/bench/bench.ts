/**
 * The benchmark: `npm run bench -- [--rows 100x10,10000x10r] [--json FILE] [--quick] [--parts cold,...] [--publish]`;
 * `npm run bench -- --publish --from FILE` measures nothing and publishes what an earlier run wrote to FILE.
 *
 * Each part of each row runs in a test kernel of its own, freshly booted (test/kernel/harness/run.mjs; KERNEL and
 * TEST_RULES choose another, and the other backend of the rules, as they do for the kernel tests). `--quick`
 * shortens what is measured over a time; its figures are for developers. `--publish` draws the pictures and writes the
 * table of docs/performance.md.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, loadavg, release } from 'node:os';
import { parseArgs } from 'node:util';
import { ROOT } from '../kernel/harness/agent.js';
import { MAX_RESTORE_SERVICES } from './part-cold.js';
import { publish } from './publish.js';
import { type Parts, type Report, profileText, rowOf, table } from './report.js';

const DEFAULT_ROWS = '100x10,1000x10,5000x10,10000x10,50000x10,10000x10r,50000x10r';
const ALL_PARTS = ['cold', 'record', 'limit', 'restore', 'steady', 'traffic', 'profile', 'strace'] as const;
/** Besides these, profile is for whoever wants to know what bounds a figure. */
const USUAL_PARTS = ALL_PARTS.filter((part) => part !== 'profile');
const PROGRAMS = ['kernel-limit', 'verify-limit', 'traffic'];
const TIMEOUT_SECONDS = 3600;
/** strace sometimes stops for ever in user-mode-linux; the other figures are not to be lost for that. */
const STRACE_TIMEOUT_SECONDS = 300;
/** Beyond this the test kernel takes too long under strace. */
const MAX_STRACE_SERVICES = 10_000;

const { values } = parseArgs({
  options: {
    rows: { type: 'string', default: DEFAULT_ROWS },
    json: { type: 'string' },
    quick: { type: 'boolean', default: false },
    parts: { type: 'string', default: USUAL_PARTS.join(',') },
    publish: { type: 'boolean', default: false },
    from: { type: 'string' },
  },
});
const work = `${ROOT}build/bench`;
const machine = {
  cpu: cpus()[0]?.model ?? 'unknown',
  cores: cpus().length,
  kernel: release(),
  node: process.version,
  loadBefore: loadavg()[0],
  at: new Date().toISOString().slice(0, 10),
};

let testKernel = '';
const result = values.from === undefined ? measure() : (JSON.parse(readFileSync(values.from, 'utf8')) as Report);
save(result);
process.stdout.write(table(result) + result.rows.map(profileText).join(''));
if (values.publish) publish(result, `${ROOT}docs`);

function measure(): Report {
  mkdirSync(work, { recursive: true });
  for (const program of PROGRAMS)
    execFileSync('gcc', ['-O2', '-Wall', '-o', `${work}/${program}`, `${ROOT}test/bench/${program}.c`], {
      stdio: 'inherit',
    });
  const rows: Report['rows'][number][] = [];
  const report = (): Report => ({ machine: { ...machine, testKernel }, quick: values.quick, rows });
  for (const scale of values.rows.split(',')) {
    rows.push(measureRow(scale));
    save(report()); // a later row may fail
  }
  return report();
}

function save(report: Report): void {
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(report, undefined, 1)}\n`);
}

function measureRow(scale: string) {
  const match = /^(\d+)x(\d+)(r?)$/.exec(scale);
  if (match === null) throw new Error(`--rows ${scale}: not SERVICESxENDPOINTS, with an r for VIPs as routes`);
  const [services, endpointsPerService] = [Number(match[1]), Number(match[2])];
  const directory = `${work}/${scale}`;
  rmSync(directory, { recursive: true, force: true });
  mkdirSync(directory, { recursive: true });
  const parts: Parts = {};
  for (const part of ALL_PARTS) {
    if (!values.parts.split(',').includes(part)) continue;
    if (part === 'strace' && services > MAX_STRACE_SERVICES) continue;
    if (part === 'restore' && (services > MAX_RESTORE_SERVICES || !existsSync(`${directory}/ipvs`))) continue;
    runPart(part, scale, directory, services * endpointsPerService);
    Object.assign(parts, { [part]: JSON.parse(readFileSync(`${directory}/${part}.json`, 'utf8')) as unknown });
  }
  return rowOf(services, services * endpointsPerService, parts, match[3] === 'r' ? 'routes' : 'addresses');
}

function runPart(part: string, scale: string, directory: string, endpoints: number): void {
  process.stderr.write(`bench: ${scale} ${part}\n`);
  const memory = process.env['BENCH_MEM'] ?? (endpoints > 200_000 ? '8G' : '3G');
  const command = [
    process.execPath,
    '--enable-source-maps',
    '--max-semi-space-size=2',
    `${ROOT}build/test/bench/guest.js`,
  ];
  const flags = values.quick ? ['--quick'] : [];
  const timeout = part === 'strace' ? STRACE_TIMEOUT_SECONDS : TIMEOUT_SECONDS;
  const shell = `uname -srm > "$1/kernel"; shift; exec "$@"`;
  const { status } = spawnSync(
    process.execPath,
    [
      `${ROOT}test/kernel/harness/run.mjs`,
      ...['--mem', memory, '--timeout', String(timeout), '--share', work, '--share', directory, '--'],
      ...['sh', '-c', shell, 'sh', directory, ...command, part, scale, directory, ...flags],
    ],
    { stdio: ['ignore', 'inherit', 'inherit'], cwd: ROOT },
  );
  if (status !== 0 && part === 'strace') {
    const why = `strace did not come to its end in ${timeout} s`;
    writeFileSync(`${directory}/strace.json`, JSON.stringify({ syscalls: null, why }));
  } else if (status !== 0) throw new Error(`${part} of ${scale} ended with ${status}`);
  testKernel = readFileSync(`${directory}/kernel`, 'utf8').trim();
}
