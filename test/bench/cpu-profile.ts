/**
 * Loaded before the daemon (`node --import`): V8's sampling profiler runs from the start. SIGUSR2 ends it and
 * writes PROFILE_FILE, the next one begins anew; a sample every two milliseconds, since user-mode-linux comes to
 * nothing else with the usual ten times as many.
 */
import { writeFileSync } from 'node:fs';
import { type Profiler, Session } from 'node:inspector/promises';

/** One stretch of time; samples are as `Profiler.stop` gives them. */
export interface CpuProfile {
  /** Unix ms. */
  readonly startedAt: number;
  readonly profile: Profiler.Profile;
}

const INTERVAL_US = 2000;

const session = new Session();
session.connect();
await session.post('Profiler.enable');
await session.post('Profiler.setSamplingInterval', { interval: INTERVAL_US });
let startedAt: number | undefined;
const begin = async (): Promise<void> => {
  startedAt = Date.now();
  await session.post('Profiler.start');
};
const end = async (since: number): Promise<void> => {
  startedAt = undefined;
  const { profile } = await session.post('Profiler.stop');
  writeFileSync(process.env['PROFILE_FILE']!, JSON.stringify({ startedAt: since, profile } satisfies CpuProfile));
};
await begin();
process.on('SIGUSR2', () => void (startedAt === undefined ? begin() : end(startedAt)));
