import { isFwmarkKey, virtualServerFamily } from '../values/virtual-server.js';
import { type ConntrackClient, StaleFlows } from '../kernel/conntrack/client.js';
import { type Clock } from './clock.js';
import { type ConntrackCleanup, type StaleUdp, type SyncRecord } from './sync-record.js';

const MAX_NAMED = 5;

/**
 * Deletes the conntrack entries of UDP backends that are gone, and of virtual servers that are new (their clients'
 * packets went elsewhere before). One dump per family, whatever the number.
 */
export class ConntrackCleaner {
  constructor(
    readonly conntrack: ConntrackClient,
    readonly clock: Clock,
  ) {}

  /** Cleans up after the backends that `record` says were taken away since the last call. Never throws. */
  clean(record: SyncRecord): void {
    const stale = record.staleUdp.slice(record.staleUdpCleaned);
    record.staleUdpCleaned = record.staleUdp.length;
    if (stale.length > 0) record.conntrack.push(this.#cleanUp(stale));
  }

  #cleanUp(stale: readonly StaleUdp[]): ConntrackCleanup {
    const start = this.clock.now();
    const families = [...new Set(stale.map(({ server }) => virtualServerFamily(server)))];
    try {
      const { deleted, failures } = this.conntrack.deleteStale(flowsOf(stale));
      return { families, ms: this.clock.now() - start, deleted, failures, error: undefined };
    } catch (cause) {
      const servers = stale.slice(0, MAX_NAMED).map(({ server }) => server);
      return { families, ms: this.clock.now() - start, deleted: 0, failures: [], error: { cause, servers } };
    }
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
