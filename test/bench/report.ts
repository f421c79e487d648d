/** From what the parts measured to the rows of the JSON file and the printed table. */
import { type ColdResult } from './part-cold.js';
import { type LimitResult } from './part-limit.js';
import { type ProfileResult } from './part-profile.js';
import { type RestoreResult } from './part-restore.js';
import { type SteadyResult } from './part-steady.js';
import { type StraceResult } from './part-strace.js';
import { type TrafficResult } from './part-traffic.js';
import { type Vips } from './world.js';

export interface Parts {
  cold?: ColdResult;
  limit?: LimitResult;
  restore?: RestoreResult;
  steady?: SteadyResult;
  traffic?: TrafficResult;
  profile?: ProfileResult;
  strace?: StraceResult;
}

/** One row of the published table; null where a part was not run or does not apply. */
export interface Row {
  readonly services: number;
  readonly endpoints: number;
  readonly vips: Vips;
  readonly coldSyncMs: number | null;
  /** Without the rules, which the C program does not write either. */
  readonly coldSyncWithoutRulesMs: number | null;
  readonly startToServingMs: number | null;
  readonly kernelLimitMs: number | null;
  readonly ratio: number | null;
  readonly ratioWithoutRules: number | null;
  readonly ipvsadmRestoreMs: number | null;
  readonly changeP50Ms: number | null;
  readonly changeP99Ms: number | null;
  /**
   * The daemon's own share, from the arrival of the bytes to the kernel's answer: upper bounds of histogram buckets.
   */
  readonly ownWorkP50Ms: number | null;
  readonly ownWorkP99Ms: number | null;
  /** The same while the daemon goes before everything else on the one CPU. */
  readonly ownWorkAheadP50Ms: number | null;
  readonly ownWorkAheadP99Ms: number | null;
  /** p99 of changes in the middle of other work: with a syncPeriod of a second, while Services are listed anew. */
  readonly changeInVerificationP99Ms: number | null;
  readonly changeInRelistP99Ms: number | null;
  /** Of what is programmed already, while the first sync goes on. */
  readonly changeInColdSyncP99Ms: number | null;
  readonly burstMs: number | null;
  /** Single changes in the two minutes after the rolling update. */
  readonly changeAfterBurstP99Ms: number | null;
  readonly ownWorkAfterBurstP99Ms: number | null;
  /** Nobody else's: the fake API server stands still meanwhile, and the change waits in it. */
  readonly apiServerPauseAfterBurstMs: number | null;
  readonly daemonPauseAfterBurstMs: number | null;
  /**
   * One full verification by the daemon's own metric: on one CPU with nothing else to do, elapsed time is CPU time at
   * most.
   */
  readonly verifyMs: number | null;
  /** CPU of one verification, and of a C program that makes the same calls. */
  readonly verifyCpuMs: number | null;
  readonly verifyLimitCpuMs: number | null;
  readonly verifyRatio: number | null;
  /** New connections per second, one after another, and microseconds to the first answer. */
  readonly traffic: {
    readonly perSecond: number | null;
    readonly p50Us: number | null;
    readonly p99Us: number | null;
    readonly directP50Us: number | null;
  };
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

export function rowOf(services: number, endpoints: number, parts: Parts, vips: Vips = 'addresses'): Row {
  const { cold, limit, restore, steady, traffic, strace } = parts;
  const verifyRatio = steady && steady.verification.cpuMs / steady.limit.cpuMs;
  const ratioOf = (ms: number | undefined): number | undefined =>
    ms === undefined || limit === undefined ? undefined : ms / limit.ms;
  return {
    services,
    endpoints,
    vips,
    coldSyncMs: rounded(cold?.coldSyncMs, 1),
    coldSyncWithoutRulesMs: rounded(cold?.coldSyncWithoutRulesMs, 1),
    startToServingMs: rounded(cold?.startToServingMs, 0),
    kernelLimitMs: rounded(limit?.ms, 1),
    ratio: rounded(ratioOf(cold?.coldSyncMs), 2),
    ratioWithoutRules: rounded(ratioOf(cold?.coldSyncWithoutRulesMs), 2),
    ipvsadmRestoreMs: rounded(restore?.ms, 0),
    changeP50Ms: rounded(cold?.changes.p50Ms, 2),
    changeP99Ms: rounded(cold?.changes.p99Ms, 2),
    ownWorkP50Ms: rounded(cold?.ownP50Ms, 2),
    ownWorkP99Ms: rounded(cold?.ownP99Ms, 2),
    ownWorkAheadP50Ms: rounded(cold?.ownAhead.p50Ms, 2),
    ownWorkAheadP99Ms: rounded(cold?.ownAhead.p99Ms, 2),
    changeInVerificationP99Ms: rounded(steady?.duringVerification.p99Ms, 2),
    changeInRelistP99Ms: rounded(steady?.duringRelist.p99Ms, 2),
    changeInColdSyncP99Ms: rounded(steady?.duringColdSync.p99Ms, 2),
    burstMs: rounded(cold?.burstMs, 0),
    changeAfterBurstP99Ms: rounded(cold?.changesAfterBurst.p99Ms, 2),
    ownWorkAfterBurstP99Ms: rounded(cold?.changesAfterBurst.ownP99Ms, 2),
    apiServerPauseAfterBurstMs: rounded(cold?.changesAfterBurst.apiServerPauseMs, 1),
    daemonPauseAfterBurstMs: rounded(cold?.changesAfterBurst.daemonPauseMs, 1),
    verifyMs: rounded(cold?.idle.verificationWallMs, 0),
    verifyCpuMs: rounded(steady?.verification.cpuMs, 1),
    verifyLimitCpuMs: rounded(steady?.limit.cpuMs, 1),
    verifyRatio: rounded(verifyRatio, 2),
    traffic: {
      perSecond: rounded(traffic?.throughIpvs.perSecond, 0),
      p50Us: rounded(traffic?.throughIpvs.p50Us, 0),
      p99Us: rounded(traffic?.throughIpvs.p99Us, 0),
      directP50Us: rounded(traffic?.direct.p50Us, 0),
    },
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

type Figure = readonly [name: string, value: (row: Row) => number | string | null];

/** Of the figures below, those that stand in the published table's head. */
const HEAD_FIGURES = 3;

/** In the order of the published table. */
const FIGURES: readonly Figure[] = [
  ['Services', (row) => row.services],
  ['endpoints', (row) => row.endpoints],
  ['VIPs as', (row) => row.vips],
  ['cold sync, ms', (row) => row.coldSyncMs],
  ['kernel limit (C), ms', (row) => row.kernelLimitMs],
  ['ratio of the two', (row) => row.ratio],
  ["cold sync less the CPU of the rules' programs, ms", (row) => row.coldSyncWithoutRulesMs],
  ['ratio of that to C', (row) => row.ratioWithoutRules],
  ['start to serving, ms', (row) => row.startToServingMs],
  ['ipvsadm -R + ipset + ip -batch, ms', (row) => row.ipvsadmRestoreMs],
  ['one change p50, ms', (row) => row.changeP50Ms],
  ['one change p99, ms', (row) => row.changeP99Ms],
  ["the daemon's own work of it p50, ms at most", (row) => row.ownWorkP50Ms],
  ["the daemon's own work of it p99, ms at most", (row) => row.ownWorkP99Ms],
  ['own work p50, the daemon before all others, ms at most', (row) => row.ownWorkAheadP50Ms],
  ['own work p99, the daemon before all others, ms at most', (row) => row.ownWorkAheadP99Ms],
  ['change p99 while verifying, ms', (row) => row.changeInVerificationP99Ms],
  ['change p99 while Services are listed anew, ms', (row) => row.changeInRelistP99Ms],
  ['change p99 during the cold sync, ms', (row) => row.changeInColdSyncP99Ms],
  ['10 % of endpoints change, ms', (row) => row.burstMs],
  ['one change p99 in 2 min after, ms', (row) => row.changeAfterBurstP99Ms],
  ['own work p99 of those, ms at most', (row) => row.ownWorkAfterBurstP99Ms],
  ['longest garbage collection of the API server meanwhile, ms', (row) => row.apiServerPauseAfterBurstMs],
  ['longest garbage collection of the daemon meanwhile, ms', (row) => row.daemonPauseAfterBurstMs],
  ['one verification, ms', (row) => row.verifyMs],
  ['CPU of one verification, ms', (row) => row.verifyCpuMs],
  ['the same reading by C, ms', (row) => row.verifyLimitCpuMs],
  ['its CPU against the same by C', (row) => row.verifyRatio],
  ['CPU idle, %', (row) => row.cpuPercentIdle],
  ['CPU at 1 % churn/min, %', (row) => row.cpuPercentChurn],
  ['memory settled, MB', (row) => row.rssMb.settled],
  ['memory peak, MB', (row) => row.rssMb.peak],
  ['event loop longest stall, ms', (row) => row.eventLoopMaxMs],
  ['netlink messages, cold sync', (row) => row.netlinkMessages],
  ['system calls, cold start', (row) => row.syscalls],
  ['processes per change', (row) => row.processesPerChange],
  ['processes per verification', (row) => row.processesPerVerify],
  ['new connections per second', (row) => row.traffic.perSecond],
  ['first answer p50, us', (row) => row.traffic.p50Us],
  ['first answer p99, us', (row) => row.traffic.p99Us],
  ['the same without IPVS p50, us', (row) => row.traffic.directP50Us],
];

function cellsOf(rows: readonly Row[]): string[][] {
  return FIGURES.map(([name, value]) => [name, ...rows.map((row) => String(value(row) ?? '-'))]);
}

/** Figures down, rows across, as wide as they need to be. */
export function table({ machine, quick, rows }: Report): string {
  const cells = cellsOf(rows);
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

/** The table as docs/performance.md has it; figures that no row has are left out. */
export function markdownTable({ rows }: Report): string {
  const head = [
    'Services x endpoints',
    ...rows.map(
      ({ services, endpoints, vips }) =>
        `${thousands(services)} x ${endpoints / services}${vips === 'routes' ? ', VIPs as routes' : ''}`,
    ),
  ];
  const measured = cellsOf(rows)
    .slice(HEAD_FIGURES)
    .filter(([, ...cells]) => cells.some((cell) => cell !== '-'))
    .map(([name = '', ...cells]) => [name, ...cells.map((cell) => (cell === '-' ? '' : thousands(Number(cell))))]);
  return [head, head.map(() => '---'), ...measured].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

function thousands(value: number): string {
  return value.toLocaleString('en-US', { maximumFractionDigits: 2 });
}

/** Where the time went in this row, if that was looked at: milliseconds by what was running. */
export function profileText({ services, endpoints, details: { profile } }: Row): string {
  if (profile === undefined) return '';
  const { coldSync, idle, changes } = profile;
  const parts = [
    [
      `cold sync, ${coldSync.ms} ms with the profiler, of which programs for the rules ${coldSync.programsMs} ms`,
      coldSync,
    ],
    [`${idle.seconds} s of idleness`, idle],
    [`${changes.count} single changes`, changes],
  ] as const;
  const lines = parts.flatMap(([title, { shares }]) => [
    `${title}:`,
    ...shares.filter(({ ms }) => ms > 0).map(({ what, ms }) => `  ${String(ms).padStart(6)} ms  ${what}`),
  ]);
  return [`${services} Services, ${endpoints} endpoints`, ...lines, ''].join('\n');
}
