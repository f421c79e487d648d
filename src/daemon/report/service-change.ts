/**
 * What a change of one Service means: which backends it gained and lost, and why. Costs what the Service's own update
 * costs.
 */
import { type Address, type Family, addressLength, familyOf } from '../../values/address.js';
import {
  type RealServerKey,
  type RealServerList,
  type VirtualServerKey,
  realServerAddress,
  realServerKeyLength,
  virtualServerFamily,
} from '../../values/virtual-server.js';
import { type DesiredService } from '../../desired/service.js';
import { type EndpointSlice, READY, TERMINATING } from '../../model/endpoint-slice.js';
import { type EventDetail, type LossReason, NAMED } from './event-ring.js';

/** Virtual servers, or endpoints, compared in one go. */
const STEP = 500;

/** What came of a Service's update; nothing when it left all as it was, in steps. `slices` are the Service's now. */
export function* serviceEvents(
  service: string,
  before: DesiredService | undefined,
  after: DesiredService | undefined,
  slices: readonly EndpointSlice[],
): Generator<void, EventDetail[]> {
  const [was, is] = [before?.virtualServers.length ?? 0, after?.virtualServers.length ?? 0];
  if (was === 0 || is === 0) {
    if (was === is) return [];
    return [
      is > 0
        ? { kind: 'service-added', service, virtualServers: is }
        : { kind: 'service-removed', service, virtualServers: was },
    ];
  }
  const events: EventDetail[] = [];
  const { added, removed, pools } = yield* compareServers(before!, after!);
  if (added + removed > 0) events.push({ kind: 'service-changed', service, added, removed });
  const gained = new Set<RealServerKey>();
  const lost = new Set<RealServerKey>();
  let since = 0;
  for (const { was: old, is: now, family } of pools) {
    since += 1 + (old.length + now.length) / realServerKeyLength(family);
    if (since >= STEP) {
      since = 0;
      yield;
    }
    comparePools(old, now, family, gained, lost);
  }
  // A virtual server that gains what another one of the Service loses: a policy changed, and both are true.
  if (gained.size + lost.size > 0)
    events.push({
      ...{ kind: 'endpoints', service, gainedCount: gained.size, lostCount: lost.size },
      gained: first(gained).map(ownCopy),
      lost: first(lost).map((real) => ({ real: ownCopy(real), reason: lossReason(realServerAddress(real), slices) })),
    });
  return events;
}

interface Pools {
  readonly was: RealServerList;
  readonly is: RealServerList;
  readonly family: Family;
}

interface Comparison {
  readonly added: number;
  readonly removed: number;
  readonly pools: readonly Pools[];
}

function* compareServers(before: DesiredService, after: DesiredService): Generator<void, Comparison> {
  const old = new Map<VirtualServerKey, RealServerList>();
  let count = 0;
  for (const { key, realServers } of before.virtualServers) {
    if (++count % STEP === 0) yield;
    old.set(key, realServers);
  }
  const pools: Pools[] = [];
  let added = 0;
  for (const { key, realServers: is } of after.virtualServers) {
    if (++count % STEP === 0) yield;
    const was = old.get(key);
    if (was === undefined) {
      added++;
      continue;
    }
    old.delete(key);
    // The virtual servers of a port follow each other and share one pool, or two where a policy is Local.
    if (was === is || pools.slice(-2).some((pool) => pool.was === was && pool.is === is)) continue;
    pools.push({ was, is, family: virtualServerFamily(key) });
  }
  return { added, removed: old.size, pools };
}

/** Both lists are sorted. */
function comparePools(
  was: RealServerList,
  is: RealServerList,
  family: Family,
  gained: Set<RealServerKey>,
  lost: Set<RealServerKey>,
): void {
  const length = realServerKeyLength(family);
  for (let i = 0, j = 0; i < was.length || j < is.length;) {
    const old = was.slice(i, i + length) as RealServerKey;
    const now = is.slice(j, j + length) as RealServerKey;
    if (old === now) {
      i += length;
      j += length;
    } else if (now === '' || (old !== '' && old < now)) {
      lost.add(old);
      i += length;
    } else {
      gained.add(now);
      j += length;
    }
  }
}

function lossReason(address: Address, slices: readonly EndpointSlice[]): LossReason {
  const length = addressLength(familyOf(address));
  let reason: LossReason = 'gone';
  for (const { endpoints, family } of slices) {
    if (addressLength(family) !== length) continue;
    for (let at = 0; at < endpoints.length; at += length + 1) {
      if (!endpoints.startsWith(address, at)) continue;
      const flags = endpoints.charCodeAt(at + length);
      if (flags & READY) return 'left-out';
      reason = flags & TERMINATING ? 'terminating' : 'not-ready';
    }
  }
  return reason;
}

function first<T>(items: ReadonlySet<T>): T[] {
  const taken: T[] = [];
  for (const item of items) {
    if (taken.length === NAMED) break;
    taken.push(item);
  }
  return taken;
}

/** A slice of a string keeps the whole of it in memory, here a pool that may have been replaced long ago. */
function ownCopy(key: RealServerKey): RealServerKey {
  return Buffer.from(key, 'latin1').toString('latin1') as RealServerKey;
}
