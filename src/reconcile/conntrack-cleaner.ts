import { type ConntrackClient, type ConntrackResult, StaleFlows } from '../kernel/conntrack/client.js';
import { type StaleUdp } from './ipvs-applier.js';

/**
 * Deletes the conntrack entries of UDP backends that are gone, and of virtual servers that are new (their clients' packets
 * went elsewhere before). One dump per family, whatever the number. Throws when conntrack cannot be listed.
 */
export function cleanConntrack(conntrack: ConntrackClient, stale: readonly StaleUdp[]): ConntrackResult {
  const flows = new StaleFlows();
  for (const { server, real } of stale) {
    if (server.charCodeAt(0) === 0) continue;
    if (real === undefined) flows.addUnanswered(server);
    else flows.addPair(server, real);
  }
  return conntrack.deleteStale(flows);
}
