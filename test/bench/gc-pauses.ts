/**
 * Loaded before the daemon or the fake API server (`node --import`): notes garbage collections. SIGUSR2 writes them as
 * JSON, `[[end in Unix ms, length in ms], ...]`, to GC_FILE. A change that comes just before one waits for it.
 */
import { writeFileSync } from 'node:fs';
import { PerformanceObserver } from 'node:perf_hooks';

const pauses: [number, number][] = [];
new PerformanceObserver((list) => {
  for (const { startTime, duration } of list.getEntries())
    pauses.push([performance.timeOrigin + startTime + duration, duration]);
}).observe({ entryTypes: ['gc'] });
process.on('SIGUSR2', () => writeFileSync(process.env['GC_FILE']!, JSON.stringify(pauses)));
