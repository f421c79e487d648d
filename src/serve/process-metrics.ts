import { readFileSync, readdirSync } from 'node:fs';
import { type IntervalHistogram, monitorEventLoopDelay, performance } from 'node:perf_hooks';
import { Counter, Gauge, type Registry } from 'prom-client';

const RESOLUTION_MS = 20;
/** Figures of the event loop look back this far, whoever scraped meanwhile: two scrapers see the same. */
const WINDOW_MS = 120_000;
const SLOT_MS = 10_000;

/**
 * The process_* metrics that every Prometheus client has, and how busy the event loop is. Read when scraped; an idle
 * process pays nothing. prom-client's own default metrics are not used: they wake up 100 times a second and watch every
 * garbage collection.
 */
export class ProcessMetrics {
  readonly #delay: IntervalHistogram;
  /** Longest stall in seconds by slot of SLOT_MS. */
  readonly #stalls = new Map<number, number>();
  /** What was read at earlier scrapes, oldest first; the first is older than the window, if any is. */
  readonly #utilizations = [{ at: performance.now(), read: performance.eventLoopUtilization() }];

  constructor(register: Registry) {
    const registers = [register];
    const gauge = (name: string, help: string, read: () => number | undefined): void => {
      new Gauge({
        name,
        help,
        registers,
        collect() {
          const value = read();
          if (value !== undefined) this.set(value);
        },
      });
    };
    this.#delay = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
    this.watchStalls(true);
    const start = Date.now() / 1000 - process.uptime();
    gauge('process_start_time_seconds', 'Unix time when the process started', () => start);
    new Counter({
      name: 'process_cpu_seconds_total',
      help: 'CPU time used, user and system',
      registers,
      collect() {
        this.reset();
        this.inc(cpuSeconds());
      },
    });
    gauge('process_resident_memory_bytes', 'Resident memory', () => process.memoryUsage.rss());
    gauge('process_open_fds', 'Open file descriptors', openDescriptors);
    gauge('process_max_fds', 'Largest possible number of file descriptors', maxDescriptors);
    new Counter({
      name: 'kubeproxy_ipvs_event_loop_busy_seconds_total',
      help: 'Time that the event loop was busy',
      registers,
      collect() {
        this.reset();
        this.inc(performance.eventLoopUtilization().active / 1000);
      },
    });
    gauge(
      'kubeproxy_ipvs_event_loop_busy_ratio',
      'Share of the last two minutes (or since the scrape before, if that is longer ago) that the event loop was busy',
      () => this.#busyRatio(),
    );
    gauge(
      'kubeproxy_ipvs_event_loop_longest_stall_seconds',
      'Longest stall of the event loop during a start or a sync in the last two minutes',
      () => this.#longestStall(),
    );
  }

  close(): void {
    this.#delay.disable();
  }

  /**
   * Looks out for stalls, at the cost of a timer's wake-ups: worth it while there is work, from the start to the first
   * sync and during each.
   */
  watchStalls(active: boolean): void {
    this.#note();
    if (active) this.#delay.enable();
    else this.#delay.disable();
  }

  /**
   * `enable` forgets what was measured before; from one timer tick to the next is counted, so the interval is taken
   * off.
   */
  #note(): void {
    const longest = (this.#delay.max - RESOLUTION_MS * 1e6) / 1e9;
    this.#delay.reset();
    if (longest <= 0) return;
    const slot = Math.floor(performance.now() / SLOT_MS);
    this.#stalls.set(slot, Math.max(this.#stalls.get(slot) ?? 0, longest));
  }

  #busyRatio(): number {
    const at = performance.now();
    const read = performance.eventLoopUtilization();
    const earlier = this.#utilizations;
    while (earlier.length > 1 && earlier[1]!.at <= at - WINDOW_MS) earlier.shift();
    const { utilization } = performance.eventLoopUtilization(read, earlier[0]!.read);
    if (at - earlier.at(-1)!.at >= 1000) earlier.push({ at, read });
    return utilization;
  }

  #longestStall(): number {
    this.#note();
    const oldest = Math.floor((performance.now() - WINDOW_MS) / SLOT_MS);
    for (const slot of this.#stalls.keys()) if (slot < oldest) this.#stalls.delete(slot);
    return Math.max(0, ...this.#stalls.values());
  }
}

function cpuSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

function openDescriptors(): number | undefined {
  try {
    return readdirSync('/proc/self/fd').length - 1;
  } catch {
    return undefined;
  }
}

function maxDescriptors(): number | undefined {
  try {
    const match = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'));
    return match === null ? undefined : Number(match[1]);
  } catch {
    return undefined;
  }
}
