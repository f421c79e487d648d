/** From what the parts measured to the rows of the JSON file and the printed table. */
import { type ColdResult } from './part-cold.js';
import { type LimitResult } from './part-limit.js';
import { type RestoreResult } from './part-restore.js';
import { type StraceResult } from './part-strace.js';

export interface Parts {
  cold?: ColdResult;
  limit?: LimitResult;
  restore?: RestoreResult;
  strace?: StraceResult;
}

/** One row of the published table; null where a part was not run or does not apply. */
export interface Row {
  readonly services: number;
  readonly endpoints: number;
  readonly coldSyncMs: number | null;
  readonly startToServingMs: number | null;
  readonly kernelLimitMs: number | null;
  readonly ratio: number | null;
  readonly ipvsadmRestoreMs: number | null;
  readonly changeP50Ms: number | null;
  readonly changeP99Ms: number | null;
  readonly burstMs: number | null;
  /** Single changes in the two minutes after the rolling update. */
  readonly changeAfterBurstP99Ms: number | null;
  /**
   * One full verification by the daemon's own metric: on one CPU with nothing else to do, elapsed time is CPU time at
   * most.
   */
  readonly verifyMs: number | null;
  /** With the programs that the daemon runs to read the rules back. */
  readonly cpuPercentIdle: number | null;
  readonly cpuPercentChurn: number | null;
  readonly rssMb: { readonly peak: number | null; readonly settled: number | null };
  readonly eventLoopMaxMs: number | null;
  readonly netlinkMessages: number | null;
  readonly syscalls: number | null;
  readonly processesPerChange: number | null;
  readonly processesPerVerify: number | null;
  /** Everything else that was measured. */
  readonly details: Parts;
}

export interface Report {
  readonly machine: Readonly<Record<string, unknown>>;
  readonly quick: boolean;
  readonly rows: readonly Row[];
}

export function rowOf(services: number, endpoints: number, parts: Parts): Row {
  const { cold, limit, restore, strace } = parts;
  const ratio = cold === undefined || limit === undefined ? undefined : cold.coldSyncMs / limit.ms;
  return {
    services,
    endpoints,
    coldSyncMs: rounded(cold?.coldSyncMs, 1),
    startToServingMs: rounded(cold?.startToServingMs, 0),
    kernelLimitMs: rounded(limit?.ms, 1),
    ratio: rounded(ratio, 2),
    ipvsadmRestoreMs: rounded(restore?.ms, 0),
    changeP50Ms: rounded(cold?.changes.p50Ms, 2),
    changeP99Ms: rounded(cold?.changes.p99Ms, 2),
    burstMs: rounded(cold?.burstMs, 0),
    changeAfterBurstP99Ms: rounded(cold?.changesAfterBurst.p99Ms, 2),
    verifyMs: rounded(cold?.idle.verificationWallMs, 0),
    cpuPercentIdle: rounded(cold?.idle.cpuPercent, 2),
    cpuPercentChurn: rounded(cold?.churn.cpuPercent, 2),
    rssMb: { peak: rounded(cold?.rssMb.peak, 1), settled: rounded(cold?.rssMb.settled, 1) },
    eventLoopMaxMs: rounded(cold?.eventLoopMaxMs, 1),
    netlinkMessages: cold?.netlinkMessages ?? null,
    syscalls: strace?.syscalls ?? null,
    processesPerChange: rounded(cold?.processesPerChange, 2),
    processesPerVerify: rounded(cold?.idle.processesPerVerify, 2),
    details: parts,
  };
}

/** Figures down, rows across, as wide as they need to be. */
export function table({ machine, quick, rows }: Report): string {
  const figures: [name: string, value: (row: Row) => number | null][] = [
    ['Services', (row) => row.services],
    ['endpoints', (row) => row.endpoints],
    ['cold sync, ms', (row) => row.coldSyncMs],
    ['kernel limit (C), ms', (row) => row.kernelLimitMs],
    ['ratio', (row) => row.ratio],
    ['start to serving, ms', (row) => row.startToServingMs],
    ['ipvsadm -R + ipset + ip -batch, ms', (row) => row.ipvsadmRestoreMs],
    ['one change p50, ms', (row) => row.changeP50Ms],
    ['one change p99, ms', (row) => row.changeP99Ms],
    ['10 % of endpoints change, ms', (row) => row.burstMs],
    ['one change p99 in 2 min after, ms', (row) => row.changeAfterBurstP99Ms],
    ['one verification, ms', (row) => row.verifyMs],
    ['CPU idle, %', (row) => row.cpuPercentIdle],
    ['CPU at 1 % churn/min, %', (row) => row.cpuPercentChurn],
    ['memory settled, MB', (row) => row.rssMb.settled],
    ['memory peak, MB', (row) => row.rssMb.peak],
    ['event loop longest stall, ms', (row) => row.eventLoopMaxMs],
    ['netlink messages, cold sync', (row) => row.netlinkMessages],
    ['system calls, cold start', (row) => row.syscalls],
    ['processes per change', (row) => row.processesPerChange],
    ['processes per verification', (row) => row.processesPerVerify],
  ];
  const cells = figures.map(([name, value]) => [name, ...rows.map((row) => String(value(row) ?? '-'))]);
  const widths = cells[0]!.map((_, column) => Math.max(...cells.map((line) => line[column]!.length)));
  const lines = cells.map((line) =>
    line.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join('  '),
  );
  const where = Object.entries(machine).map(([name, value]) => `${name}: ${String(value)}`);
  const mark = quick ? ['QUICK RUN: short windows, few changes; not for publication'] : [];
  return [...where, ...mark, '', ...lines, ''].join('\n');
}

function rounded(value: number | undefined, digits: number): number | null {
  if (value === undefined || !Number.isFinite(value)) return null;
  return Math.round(value * 10 ** digits) / 10 ** digits;
}
