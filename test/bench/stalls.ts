/**
 * Loaded before the daemon (`node --import`): notes when its event loop stalls. On SIGUSR2 it writes them as JSON,
 * `[[end in Unix ms, length in ms], ...]`, to STALLS_FILE and stops looking.
 */
import { writeFileSync } from 'node:fs';

/** Each tick costs the daemon half a dozen system calls: rare enough that those do not count. */
const TICK_MS = 5;
/** Shorter stalls are none worth noting. */
const LEAST_MS = 3;

const stalls: [number, number][] = [];
let last = performance.now();
const timer = setInterval(() => {
  const now = performance.now();
  const stall = now - last - TICK_MS;
  if (stall >= LEAST_MS) stalls.push([performance.timeOrigin + now, stall]);
  last = now;
}, TICK_MS);
timer.unref();
process.once('SIGUSR2', () => {
  clearInterval(timer);
  writeFileSync(process.env['STALLS_FILE']!, JSON.stringify(stalls));
});
