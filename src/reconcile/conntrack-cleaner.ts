import { type Family, FAMILIES } from '../values/address.js';
import { isFwmarkKey, realServerKeys, virtualServerFamily } from '../values/virtual-server.js';
import { type ConntrackClient, StaleFlows } from '../kernel/conntrack/client.js';
import { type AppliedVirtualServer } from '../plan/applied.js';
import { doubledWait } from '../time/backoff.js';
import { type Clock } from '../time/clock.js';
import { Pacer } from '../time/pacer.js';
import { type ConntrackCleanup, type StaleUdp, type SyncRecord } from './sync-record.js';

const MAX_NAMED = 5;
/** What could not be cleaned up is tried again after this, ms; each time twice as long, up to the most. */
const FIRST_RETRY_MS = 1000;
const MOST_RETRY_MS = 60_000;
/** Backends remembered for another try. */
const MOST_LEFT = 50_000;

export interface ConntrackCleanerOptions {
  readonly conntrack: ConntrackClient;
  readonly clock: Clock;
  /** What the IPVS table holds: a backend that is served again is stale no more. */
  readonly applied: ReadonlyMap<StaleUdp['server'], AppliedVirtualServer>;
}

/**
 * Deletes the conntrack entries of UDP backends that are gone, and of virtual servers that are new (their clients'
 * packets went elsewhere before). One dump per family, whatever the number; what fails is tried again, or the clients
 * of what is gone would black-hole as long as they go on sending.
 */
export class ConntrackCleaner {
  #left: StaleUdp[] = [];
  #failures = 0;
  #retryAt = Infinity;

  constructor(readonly options: ConntrackCleanerOptions) {}

  /** Milliseconds until what failed should be tried again. */
  get dueIn(): number {
    return Math.max(0, this.#retryAt - this.options.clock.now());
  }

  /**
   * Cleans up after the backends that `record` says were taken away since the last call, and what failed before. Never
   * rejects.
   */
  async clean(record: SyncRecord): Promise<void> {
    const fresh = record.staleUdp.slice(record.staleUdpCleaned);
    record.staleUdpCleaned = record.staleUdp.length;
    if (fresh.length === 0 && this.dueIn > 0) return;
    const stale = [...this.#left.filter((one) => !this.#isServed(one)), ...fresh];
    this.#left = [];
    for (const family of FAMILIES) {
      const ofFamily = stale.filter(({ server }) => virtualServerFamily(server) === family);
      if (ofFamily.length === 0) continue;
      const cleanup = await this.#cleanUp(family, ofFamily);
      record.conntrack.push(cleanup);
      if (cleanup.error === undefined && cleanup.failures.length === 0) continue;
      for (const one of ofFamily) if (this.#left.length < MOST_LEFT) this.#left.push(one);
    }
    this.#failures = this.#left.length === 0 ? 0 : this.#failures + 1;
    const wait = doubledWait(FIRST_RETRY_MS, MOST_RETRY_MS, this.#failures);
    this.#retryAt = this.#failures === 0 ? Infinity : this.options.clock.now() + wait;
  }

  async #cleanUp(family: Family, stale: readonly StaleUdp[]): Promise<ConntrackCleanup> {
    const { conntrack, clock } = this.options;
    const start = clock.now();
    // Not broken off when the process is to end: nobody knows of these entries afterwards.
    const pacer = new Pacer(undefined, undefined, 1);
    const isRepeated = this.#failures > 0;
    try {
      const { deleted, failures } = await conntrack.deleteStale(flowsOf(stale), () => pacer.yieldIfDue());
      return { family, ms: clock.now() - start, deleted, failures, error: undefined, isRepeated };
    } catch (cause) {
      const servers = stale.slice(0, MAX_NAMED).map(({ server }) => server);
      return { family, ms: clock.now() - start, deleted: 0, failures: [], error: { cause, servers }, isRepeated };
    }
  }

  #isServed({ server, real }: StaleUdp): boolean {
    const applied = this.options.applied.get(server);
    if (real === undefined || applied === undefined) return false;
    return realServerKeys(applied.realServers, virtualServerFamily(server)).includes(real);
  }
}

function flowsOf(stale: readonly StaleUdp[]): StaleFlows {
  const flows = new StaleFlows();
  for (const { server, real } of stale) {
    if (isFwmarkKey(server)) continue;
    if (real === undefined) flows.addUnanswered(server);
    else flows.addPair(server, real);
  }
  return flows;
}
