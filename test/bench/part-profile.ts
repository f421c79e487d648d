/** Where the daemon's time goes: during the first sync, while nothing happens, and for single changes. */
import { setTimeout as sleep } from 'node:timers/promises';
import { ROOT } from '../kernel/harness/agent.js';
import { measureChanges } from './changes.js';
import { type CpuProfile } from './cpu-profile.js';
import { untilVerified } from './part-cold.js';
import { type Share, shares } from './profile-shares.js';
import { writtenAfter } from './signalled-file.js';
import { ApiServer, type Scale, coldStart, untilQuiet } from './world.js';

export interface ProfileResult {
  readonly coldSync: { readonly ms: number; readonly programsMs: number; readonly shares: readonly Share[] };
  readonly idle: { readonly seconds: number; readonly shares: readonly Share[] };
  readonly changes: { readonly count: number; readonly shares: readonly Share[] };
}

/** The compiled sources and not the bundle: so functions say which room they are of. */
const ENTRY = `${ROOT}build/src/main.js`;

export async function measureProfile(scale: Scale, directory: string, isQuick: boolean): Promise<ProfileResult> {
  const file = `${directory}/profile.cpuprofile`;
  const server = await ApiServer.start(scale);
  const nodeArgs = ['--import', `${ROOT}build/test/bench/cpu-profile.js`];
  const start = await coldStart({ entry: ENTRY, nodeArgs, env: { PROFILE_FILE: file } });
  const { daemon, cachesSyncedAt, syncedAt, rulesAt, programsMs } = start;
  const taken = (): Promise<CpuProfile> => writtenAfter('the profile', file, () => daemon.signal('SIGUSR2'));
  const servingAt = Math.max(syncedAt, rulesAt);
  const coldSync = shares(await taken(), cachesSyncedAt, servingAt);
  await untilQuiet(daemon.pid);
  await untilVerified();
  daemon.signal('SIGUSR2');
  const seconds = isQuick ? 32 : 60;
  await sleep(seconds * 1000);
  const idle = shares(await taken());
  daemon.signal('SIGUSR2');
  const count = isQuick ? 50 : 200;
  await measureChanges(scale, server, count);
  const changes = shares(await taken());
  await daemon.stop();
  server.stop();
  return {
    coldSync: { ms: servingAt - cachesSyncedAt, programsMs, shares: coldSync },
    idle: { seconds, shares: idle },
    changes: { count, shares: changes },
  };
}
