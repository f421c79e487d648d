/** The daemon as shipped: cold start, then single changes, idleness, churn and a burst. */
import { execFileSync } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { ROOT } from '../kernel/harness/agent.js';
import { measureBurst, measureChanges, measureLaterChanges } from './changes.js';
import { histogram, quantileOf } from './histogram.js';
import { dumpState } from './part-restore.js';
import { cpuTimes, memory } from './process-figures.js';
import { writtenAfter } from './signalled-file.js';
import { ApiServer, type ColdStart, type Scale, coldStart, readMetrics, untilQuiet } from './world.js';
import { runChurn } from './churn.js';

/** ipvsadm -R takes minutes beyond this. */
export const MAX_RESTORE_SERVICES = 5000;
const SETTLE_MS = 10_000;
/** No pod gets the address of one of another part. */
const AHEAD_ROUND = 700;
const CHANGES = 'kubeproxy_ipvs_change_duration_seconds';
const PROCESSES = 'kubeproxy_ipvs_processes_spawned_total';
const MESSAGES = 'kubeproxy_ipvs_netlink_messages_total';
const VERIFICATIONS = 'kubeproxy_ipvs_verification_duration_seconds_count';
const VERIFICATION_SECONDS = 'kubeproxy_ipvs_verification_duration_seconds_sum';

export type ColdResult = Awaited<ReturnType<typeof measureCold>>;

export async function measureCold(scale: Scale, directory: string, isQuick: boolean) {
  const gcFile = `${directory}/gc.json`;
  const server = await ApiServer.start(scale, gcFile);
  const stallsFile = `${directory}/stalls.json`;
  const daemonGcFile = `${directory}/daemon-gc.json`;
  const nodeArgs = ['stalls', 'gc-pauses'].flatMap((name) => ['--import', `${ROOT}build/test/bench/${name}.js`]);
  const start = await coldStart({ nodeArgs, env: { STALLS_FILE: stallsFile, GC_FILE: daemonGcFile } });
  const { daemon } = start;
  const afterSync = await readMetrics();
  const signalDaemon = (): void => daemon.signal('SIGUSR2');
  const stalls = await writtenAfter<Pause[]>('the list of stalls', stallsFile, signalDaemon);
  await untilQuiet(daemon.pid);
  const peak = memory(daemon.pid).peak;
  await untilVerified();
  if (scale.services <= MAX_RESTORE_SERVICES) dumpState(directory);

  const idle = await window(daemon.pid, isQuick ? 32 : 60, () => Promise.resolve());
  const settled = memory(daemon.pid).now;
  const before = await readMetrics();
  const ownBefore = await histogram(CHANGES);
  const changes = await measureChanges(scale, server, isQuick ? 50 : 200);
  const afterChanges = await readMetrics();
  const ownAfter = await histogram(CHANGES);
  setRealTime(daemon.pid, true);
  await measureChanges(scale, server, isQuick ? 50 : 200, AHEAD_ROUND);
  setRealTime(daemon.pid, false);
  const ownAfterAhead = await histogram(CHANGES);
  const churn = await window(daemon.pid, isQuick ? 16 : 60, (seconds) => runChurn(scale, server, seconds));
  await untilQuiet(daemon.pid);
  const beforeBurst = { daemon: cpuTimes(daemon.pid), api: cpuTimes(server.pid) };
  const burstMs = await measureBurst(scale, server);
  const burstCpuMs = {
    daemon: cpuTimes(daemon.pid).own - beforeBurst.daemon.own,
    apiServer: cpuTimes(server.pid).own - beforeBurst.api.own,
  };
  const [burstOver, ownBeforeLater] = [Date.now(), await histogram(CHANGES)];
  const changesAfterBurst = await measureLaterChanges(scale, server, isQuick ? 20 : 120);
  const ownAfterLater = await histogram(CHANGES);
  const pauses = await writtenAfter<Pause[]>('the API server’s pauses', gcFile, () => server.writePauses());
  const daemonPauses = await writtenAfter<Pause[]>('the daemon’s pauses', daemonGcFile, signalDaemon);
  const end = { ...memory(daemon.pid) };
  await daemon.stop();
  server.stop();
  return {
    ...times(start),
    eventLoopMaxMs: round(longest(stalls, start.cachesSyncedAt, Date.parse(start.syncLine.time) + 100)),
    eventLoopMaxListMs: round(longest(stalls, 0, start.cachesSyncedAt)),
    netlinkMessages: afterSync.get(MESSAGES) ?? 0,
    rssMb: { peak, settled, end: end.now, peakEnd: end.peak },
    idle,
    churn,
    changes,
    changesAfterBurst: {
      ...changesAfterBurst,
      ownP99Ms: quantileOf(ownBeforeLater, ownAfterLater, 0.99) * 1000,
      ownMaxMs: quantileOf(ownBeforeLater, ownAfterLater, 1) * 1000,
      apiServerPauseMs: round(longest(pauses, burstOver, Infinity)),
      daemonPauseMs: round(longest(daemonPauses, burstOver, Infinity)),
    },
    ownP50Ms: quantileOf(ownBefore, ownAfter, 0.5) * 1000,
    ownP99Ms: quantileOf(ownBefore, ownAfter, 0.99) * 1000,
    ownAhead: {
      p50Ms: quantileOf(ownAfter, ownAfterAhead, 0.5) * 1000,
      p99Ms: quantileOf(ownAfter, ownAfterAhead, 0.99) * 1000,
    },
    messagesPerChange: difference(before, afterChanges, MESSAGES) / changes.count,
    processesPerChange: difference(before, afterChanges, PROCESSES) / changes.count,
    burstMs: round(burstMs),
    burstCpuMs,
  };
}

/**
 * A node has a CPU for the daemon when a change comes; the test kernel has one for all, and whoever runs goes on for up
 * to 10 ms. With a real-time priority the daemon goes first: what is left is its own.
 */
function setRealTime(pid: number, isOn: boolean): void {
  execFileSync('chrt', ['--all-tasks', ...(isOn ? ['--fifo'] : ['--other']), '--pid', isOn ? '1' : '0', String(pid)]);
}

/**
 * The first verification also reads the rules back and is followed by V8's clean-up of the start: idleness begins after
 * it.
 */
export async function untilVerified(): Promise<void> {
  while (((await readMetrics()).get(VERIFICATIONS) ?? 0) === 0) await sleep(1000);
  await sleep(SETTLE_MS);
}

/**
 * Programs write the rules while the daemon goes on with the rest, on the one CPU that there is: without them it would
 * be done so much sooner.
 */
function times({ startedAt, cachesSyncedAt, syncedAt, rulesAt, programsMs }: ColdStart) {
  const servingAt = Math.max(syncedAt, rulesAt);
  return {
    coldSyncMs: servingAt - cachesSyncedAt,
    coldSyncWithoutRulesMs: servingAt - cachesSyncedAt - programsMs,
    startToServingMs: servingAt - startedAt,
  };
}

/** What the daemon uses while `work` goes on for so many seconds. */
async function window(pid: number, seconds: number, work: (seconds: number) => Promise<void>) {
  const [metrics, cpu, start] = [await readMetrics(), cpuTimes(pid), performance.now()];
  await Promise.all([work(seconds), sleep(seconds * 1000)]);
  const [metricsAfter, cpuAfter, ms] = [await readMetrics(), cpuTimes(pid), performance.now() - start];
  const verifications = difference(metrics, metricsAfter, VERIFICATIONS);
  return {
    seconds,
    cpuMs: cpuAfter.withChildren - cpu.withChildren,
    cpuPercent: (100 * (cpuAfter.withChildren - cpu.withChildren)) / ms,
    cpuPercentWithoutChildren: (100 * (cpuAfter.own - cpu.own)) / ms,
    verifications,
    verificationWallMs: (1000 * difference(metrics, metricsAfter, VERIFICATION_SECONDS)) / verifications,
    processesPerVerify: difference(metrics, metricsAfter, PROCESSES) / verifications,
  };
}

type Metrics = ReadonlyMap<string, number>;

function difference(before: Metrics, after: Metrics, name: string): number {
  return (after.get(name) ?? 0) - (before.get(name) ?? 0);
}

/** Of an event loop: its end in Unix ms, its length in ms. */
type Pause = readonly [end: number, length: number];

function longest(pauses: readonly Pause[], from: number, to: number): number {
  return Math.max(0, ...pauses.filter(([end]) => end >= from && end <= to).map(([, length]) => length));
}

function round(ms: number): number {
  return Math.round(ms * 10) / 10;
}
