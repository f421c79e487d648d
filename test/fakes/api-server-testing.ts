import { setTimeout as wait } from 'node:timers/promises';
import { type WallClock } from '../../src/time/clock.js';
import { type ResourceSink } from '../../src/kube/sink.js';
import { type ApiObject } from './api-server-store.js';

/** Timers longer than this are time-outs, shorter ones are waits of the back-off. */
export const LONGEST_WAIT_MS = 350_000;

/**
 * Time for tests against real sockets: waits pass at once and are written down in `waits`; time-outs (give them more
 * than LONGEST_WAIT_MS) fire only on `expireTimeouts`.
 */
export class TestClock implements WallClock {
  time = 1_700_000_000_000;
  /** Somebody set the clock. */
  wallOffset = 0;
  readonly waits: number[] = [];
  readonly #timeouts = new Set<{ readonly due: number; readonly callback: () => void }>();

  now(): number {
    return this.time;
  }

  wall(): number {
    return this.time + this.wallOffset;
  }

  random(): number {
    return 0.5;
  }

  after(ms: number, callback: () => void): () => void {
    if (ms > LONGEST_WAIT_MS) {
      const entry = { due: this.time + ms, callback };
      this.#timeouts.add(entry);
      return () => this.#timeouts.delete(entry);
    }
    this.waits.push(ms);
    const handle = setImmediate(() => {
      this.time += ms;
      callback();
    });
    return () => clearImmediate(handle);
  }

  /** Moves time on; fires the time-outs that fall due. */
  advance(ms: number): void {
    this.time += ms;
    for (const entry of [...this.#timeouts]) {
      if (entry.due > this.time || !this.#timeouts.delete(entry)) continue;
      entry.callback();
    }
  }
}

/** Holds what it is told and writes down the calls. */
export class TestSink<T> implements ResourceSink<T> {
  readonly values = new Map<string, T>();
  readonly calls: string[] = [];
  syncs = 0;

  replaceStart(): void {
    this.calls.push('replaceStart');
  }

  upsert(key: string, value: T): void {
    this.values.set(key, value);
    this.calls.push(`upsert ${key}`);
  }

  delete(key: string): void {
    this.values.delete(key);
    this.calls.push(`delete ${key}`);
  }

  replaceEnd(): void {
    this.calls.push('replaceEnd');
  }

  synced(): void {
    this.syncs++;
  }

  /** The calls since the last `take`. */
  take(): string[] {
    return this.calls.splice(0);
  }

  get keys(): string[] {
    return [...this.values.keys()].sort();
  }
}

/** Waits until `condition` holds; throws after a minute, naming what did not happen. */
export async function until(what: string, condition: () => boolean): Promise<void> {
  const deadline = Date.now() + 60_000;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`did not happen within 60 s: ${what}`);
    await wait(2);
  }
}

/** A small ClusterIP Service. */
export function testService(
  name: string,
  fields: { labels?: Record<string, string>; clusterIP?: string } = {},
): ApiObject {
  const clusterIP = fields.clusterIP ?? '10.96.0.10';
  return {
    kind: 'Service',
    apiVersion: 'v1',
    metadata: { name, namespace: 'default', ...(fields.labels === undefined ? {} : { labels: fields.labels }) },
    spec: {
      ports: [{ name: 'http', protocol: 'TCP', port: 80, targetPort: 8080 }],
      clusterIP,
      clusterIPs: [clusterIP],
      type: 'ClusterIP',
      sessionAffinity: 'None',
      ipFamilies: ['IPv4'],
      ipFamilyPolicy: 'SingleStack',
      internalTrafficPolicy: 'Cluster',
    },
    status: { loadBalancer: {} },
  };
}
