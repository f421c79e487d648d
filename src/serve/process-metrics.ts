import { readFileSync, readdirSync } from 'node:fs';
import { type EventLoopUtilization, type IntervalHistogram, monitorEventLoopDelay, performance } from 'node:perf_hooks';
import { Counter, Gauge, type Registry } from 'prom-client';

const RESOLUTION_MS = 20;

/**
 * The process_* metrics that every Prometheus client has, and how busy the event loop is. Read when scraped; an idle
 * process pays nothing. prom-client's own default metrics are not used: they wake up 100 times a second and watch every
 * garbage collection.
 */
export class ProcessMetrics {
  readonly #delay: IntervalHistogram;
  #longest = 0;
  #utilization: EventLoopUtilization = performance.eventLoopUtilization();

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
    gauge(
      'kubeproxy_ipvs_event_loop_busy_ratio',
      'Share of time since the last scrape that the event loop was busy',
      () => this.#busyRatio(),
    );
    gauge(
      'kubeproxy_ipvs_event_loop_longest_stall_seconds',
      'Longest stall of the event loop during a start or a sync, since the last scrape',
      () => this.#longestStall(),
    );
  }

  close(): void {
    this.#delay.disable();
  }

  /** Looks out for stalls, at the cost of a timer's wake-ups: worth it while there is work, from the start to the first sync and during each. */
  watchStalls(active: boolean): void {
    this.#note();
    if (active) this.#delay.enable();
    else this.#delay.disable();
  }

  /** `enable` forgets what was measured before; the histogram counts from one timer tick to the next, so the interval is taken off. */
  #note(): void {
    this.#longest = Math.max(this.#longest, (this.#delay.max - RESOLUTION_MS * 1e6) / 1e9);
  }

  #busyRatio(): number {
    const now = performance.eventLoopUtilization();
    const { utilization } = performance.eventLoopUtilization(now, this.#utilization);
    this.#utilization = now;
    return utilization;
  }

  #longestStall(): number {
    this.#note();
    const longest = this.#longest;
    this.#longest = 0;
    this.#delay.reset();
    return longest;
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
