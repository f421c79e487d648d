/**
 * Loaded before the fake API server (`node --import`): notes its garbage collections. On SIGUSR2 it writes them as
 * JSON, `[[end in Unix ms, length in ms], ...]`, to GC_FILE. A change that was written just before one waits for it,
 * whatever the daemon does.
 */
import { writeFileSync } from 'node:fs';
import { PerformanceObserver } from 'node:perf_hooks';

const pauses: [number, number][] = [];
new PerformanceObserver((list) => {
  for (const { startTime, duration } of list.getEntries())
    pauses.push([performance.timeOrigin + startTime + duration, duration]);
}).observe({ entryTypes: ['gc'] });
process.on('SIGUSR2', () => writeFileSync(process.env['GC_FILE']!, JSON.stringify(pauses)));
