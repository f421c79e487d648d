/**
 * What goes on while there is other work: changes during the first sync, during verifications and during relists, and
 * what a verification costs. syncPeriod is a second, so that the table is read back for a good part of the time.
 */
import { execFileSync } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Quantiles, measureWhile } from './changes.js';
import { histogram, quantileOf } from './histogram.js';
import { cpuTimes } from './process-figures.js';
import { ApiServer, type Scale, coldStart, readMetrics, untilQuiet, writeConfig } from './world.js';

const VERIFICATIONS = 'kubeproxy_ipvs_verification_duration_seconds_count';
const CHANGES = 'kubeproxy_ipvs_change_duration_seconds';
const READINGS = '20';

/** `verify-limit` (verify-limit.c): the same reading by a C program. */
interface VerifyLimit {
  readonly cpuMs: number;
  readonly ms: number;
  /** The one call that lists all virtual servers: nothing can come in between. */
  readonly listMs: number;
  readonly virtualServers: number;
  readonly realServers: number;
}

export type SteadyResult = Awaited<ReturnType<typeof measureSteady>>;

export async function measureSteady(scale: Scale, directory: string, isQuick: boolean) {
  const server = await ApiServer.start(scale);
  writeConfig({ syncPeriod: '1s' });
  let isSynced = false;
  const starting = coldStart().finally(() => (isSynced = true));
  const duringColdSync = await measureWhile(scale, server, () => !isSynced);
  const { daemon } = await starting;
  await untilVerified();

  const verification = await costOfVerification(daemon.pid, isQuick ? 8 : 30);
  const seconds = isQuick ? 8 : 30;
  const duringVerification = await measured(scale, server, seconds);
  const duringRelist = await measured(scale, server, seconds, async (isOver) => {
    while (!isOver()) {
      await server.send({ op: 'disturb', how: 'error410', resource: 'services' });
      await sleep(1500);
    }
  });
  await untilQuietOf(daemon.pid);
  await daemon.stop();
  server.stop();
  const output = execFileSync(`${directory}/../verify-limit`, [READINGS], { encoding: 'utf8' });
  const limit = JSON.parse(output) as VerifyLimit;
  if (limit.virtualServers < scale.services) throw new Error(`verify-limit read ${output}`);
  return { duringColdSync, duringVerification, duringRelist, verification, limit };
}

/** Changes one after another for a while, beside `other` work; end to end and the daemon's own share. */
async function measured(
  scale: Scale,
  server: ApiServer,
  seconds: number,
  other: (isOver: () => boolean) => Promise<void> = () => Promise.resolve(),
): Promise<Quantiles & { readonly ownP50Ms: number; readonly ownP99Ms: number; readonly verifications: number }> {
  const [before, metrics] = [await histogram(CHANGES), await readMetrics()];
  const end = performance.now() + seconds * 1000;
  const isOver = (): boolean => performance.now() >= end;
  const [changes] = await Promise.all([measureWhile(scale, server, () => !isOver()), other(isOver)]);
  const [after, metricsAfter] = [await histogram(CHANGES), await readMetrics()];
  return {
    ...changes,
    ownP50Ms: quantileOf(before, after, 0.5) * 1000,
    ownP99Ms: quantileOf(before, after, 0.99) * 1000,
    verifications: (metricsAfter.get(VERIFICATIONS) ?? 0) - (metrics.get(VERIFICATIONS) ?? 0),
  };
}

/** CPU of the daemon, and of the programs it runs, per verification while nothing else happens. */
async function costOfVerification(pid: number, seconds: number): Promise<{ cpuMs: number; count: number }> {
  const [metrics, cpu] = [await readMetrics(), cpuTimes(pid)];
  await sleep(seconds * 1000);
  const [metricsAfter, cpuAfter] = [await readMetrics(), cpuTimes(pid)];
  const count = (metricsAfter.get(VERIFICATIONS) ?? 0) - (metrics.get(VERIFICATIONS) ?? 0);
  return { cpuMs: (cpuAfter.withChildren - cpu.withChildren) / count, count };
}

/** The first one also reads the rules back, and V8 cleans up after the start. */
async function untilVerified(): Promise<void> {
  while (((await readMetrics()).get(VERIFICATIONS) ?? 0) < 3) await sleep(1000);
}

/** A daemon that verifies every second is never quiet for long. */
async function untilQuietOf(pid: number): Promise<void> {
  await Promise.race([untilQuiet(pid), sleep(5000)]);
}
