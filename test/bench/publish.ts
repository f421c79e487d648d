/** What a run has measured, put into the documentation: two pictures and the table of docs/performance.md. */
import { readFileSync, writeFileSync } from 'node:fs';
import { type Chart, svgChart } from './chart.js';
import { type Report, type Row, markdownTable } from './report.js';
import { type Vips } from './world.js';

const BEGIN = '<!-- bench:begin: `npm run bench -- --publish` writes what is between here and bench:end -->';
const END = '<!-- bench:end -->';
const [OURS, LIMIT, OTHER] = ['#1b6ac9', '#888888', '#d9822b'];

/** Writes docs/cold-sync.svg, docs/change-latency.svg and the table; `directory` is that of the documentation. */
export function publish(report: Report, directory: string): void {
  writeFileSync(`${directory}/cold-sync.svg`, svgChart(coldSyncChart(report)));
  writeFileSync(`${directory}/change-latency.svg`, svgChart(changeChart(report)));
  const path = `${directory}/performance.md`;
  writeFileSync(path, withFigures(readFileSync(path, 'utf8'), report));
}

/** The page with the figures of this run; throws when it has no place for them. */
export function withFigures(page: string, report: Report): string {
  const [from, to] = [page.indexOf(BEGIN), page.indexOf(END)];
  if (from < 0 || to < from) throw new Error(`no "${BEGIN}" before "${END}"`);
  return `${page.slice(0, from + BEGIN.length)}\n\n${figures(report)}\n\n${page.slice(to)}`;
}

function figures(report: Report): string {
  return `${machineLine(report)}\n\n${markdownTable(report)}`;
}

function machineLine({ machine, quick }: Report): string {
  const [cpu, cores, kernel, node, testKernel, at] = (
    ['cpu', 'cores', 'kernel', 'node', 'testKernel', 'at'] as const
  ).map((name) => textOf(machine, name));
  const mark = quick ? ' **A quick run, for developers: not to be quoted.**' : '';
  return `Measured ${at}: ${cores} vCPUs of ${cpu} (Linux ${kernel}), Node ${node}; test kernel: ${testKernel}.${mark}`;
}

/** Cold sync over size: ours, and the same messages sent by a C program. */
export function coldSyncChart({ rows, machine }: Report): Chart {
  return {
    title: 'Cold sync over size',
    note: `caches synced to everything in the kernel; 10 endpoints per Service; ${textOf(machine, 'testKernel')}`,
    xLabel: 'Services',
    yLabel: 'time',
    formatY: formatMs,
    series: [
      { name: 'this daemon', color: OURS, points: pointsOf(rows, (row) => row.coldSyncMs) },
      { name: 'the same by C', color: LIMIT, isDashed: true, points: pointsOf(rows, (row) => row.kernelLimitMs) },
      { name: 'VIPs as routes', color: '#2d8a4e', points: pointsOf(rows, (row) => row.coldSyncMs, 'routes') },
      { name: 'ipvsadm, ipset, ip', color: OTHER, points: pointsOf(rows, (row) => row.ipvsadmRestoreMs) },
    ],
  };
}

/** One change over size: end to end, the daemon's own share, and the bounds that are set for both. */
export function changeChart({ rows, machine }: Report): Chart {
  return {
    title: 'One change over size',
    note: `from the API server's write to the real server in the kernel; ${textOf(machine, 'testKernel')}`,
    xLabel: 'Services',
    yLabel: 'time',
    formatY: formatMs,
    series: [
      { name: 'p99, end to end', color: OURS, points: pointsOf(rows, (row) => row.changeP99Ms) },
      { name: 'p50, end to end', color: OTHER, points: pointsOf(rows, (row) => row.changeP50Ms) },
      { name: 'p99, own work', color: '#2d8a4e', points: pointsOf(rows, (row) => row.ownWorkP99Ms) },
      { name: 'limit, end to end', color: LIMIT, isDashed: true, points: pointsOf(rows, () => 5) },
      { name: 'limit, own work', color: LIMIT, isDashed: true, points: pointsOf(rows, () => 1) },
    ],
  };
}

function pointsOf(
  rows: readonly Row[],
  value: (row: Row) => number | null,
  vips: Vips = 'addresses',
): (readonly [number, number])[] {
  return rows.flatMap((row) => {
    if (row.vips !== vips) return [];
    const y = value(row);
    return y === null || y <= 0 ? [] : [[row.services, y] as const];
  });
}

function formatMs(ms: number): string {
  return ms >= 1000 ? `${ms / 1000} s` : `${Math.round(ms * 1000) / 1000} ms`;
}

function textOf(machine: Report['machine'], name: string): string {
  const value = machine[name];
  return typeof value === 'string' || typeof value === 'number' ? String(value) : 'unknown';
}
