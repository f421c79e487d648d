import {
  type RealServerKey,
  type RealServerList,
  type VirtualServerKey,
  type VirtualServerSettings,
  isUdp,
  realServerKeyLength,
  virtualServerFamily,
} from '../values/virtual-server.js';
import { type Prefix } from '../values/prefix.js';
import { type DesiredState } from '../desired/desired-state.js';
import { type IpvsClient, type IpvsFailure } from '../kernel/ipvs/client.js';
import { type AppliedVirtualServer } from '../plan/applied.js';
import { isExcluded } from '../plan/ownership.js';
import { type IpvsOperations, planVirtualServer, rotationOf } from '../plan/virtual-server-plan.js';
import { observeVirtualServer } from './observe-ipvs.js';
import { Pacer } from './pacer.js';

const ACTIVE_WEIGHT = 1;

/** A UDP backend that went away: its conntrack entries must go too, or clients with a fixed source port black-hole. */
export interface StaleUdp {
  readonly server: VirtualServerKey;
  /** undefined: the virtual server itself is new, so entries made before it existed are stale. */
  readonly real: RealServerKey | undefined;
}

export interface IpvsCounts {
  virtualServersAdded: number;
  virtualServersChanged: number;
  virtualServersDeleted: number;
  realServersAdded: number;
  realServersChanged: number;
  realServersDeleted: number;
}

export function newIpvsCounts(): IpvsCounts {
  return {
    virtualServersAdded: 0,
    virtualServersChanged: 0,
    virtualServersDeleted: 0,
    realServersAdded: 0,
    realServersChanged: 0,
    realServersDeleted: 0,
  };
}

/**
 * Brings the kernel's IPVS table to the desired state, one virtual server at a time, and knows what the table holds. A
 * virtual server with a failed change is `suspect`: what the kernel holds of it is read back before the next attempt.
 */
export class IpvsApplier implements IpvsOperations {
  readonly applied = new Map<VirtualServerKey, AppliedVirtualServer>();
  readonly suspects = new Set<VirtualServerKey>();
  #failures: IpvsFailure[] = [];
  #staleUdp: StaleUdp[] = [];
  counts = newIpvsCounts();

  constructor(
    readonly client: IpvsClient,
    readonly nodeSeed: number,
    readonly excludeCIDRs: readonly Prefix[],
    readonly onChanged: (server: VirtualServerKey) => void,
  ) {}

  /** Creates and changes the virtual servers among `servers` that are desired. */
  async upsert(servers: Iterable<VirtualServerKey>, desired: DesiredState): Promise<void> {
    this.#refreshSuspects();
    const pacer = new Pacer();
    for (const key of servers) {
      const wanted = desired.virtualServers.get(key);
      if (wanted === undefined) continue;
      const before = this.applied.get(key);
      if (before === undefined && isUdp(key) && wanted.realServers !== '')
        this.#staleUdp.push({ server: key, real: undefined });
      const after = planVirtualServer(key, wanted, before, this, rotationOf(this.nodeSeed, key));
      this.applied.set(key, after);
      this.onChanged(key);
      if (pacer.isDue) await pacer.breathe();
    }
    this.#flush();
  }

  /** Deletes the virtual servers among `servers` that are applied but not desired, with all their real servers. */
  async remove(servers: Iterable<VirtualServerKey>, desired: DesiredState): Promise<void> {
    const pacer = new Pacer();
    for (const key of servers) {
      if (desired.virtualServers.has(key) || !this.applied.delete(key)) continue;
      if (!isExcluded(key, this.excludeCIDRs)) this.deleteVirtualServer(key);
      this.onChanged(key);
      if (pacer.isDue) await pacer.breathe();
    }
    this.#flush();
  }

  /** What failed since the last call; each virtual server named is suspect now. */
  takeFailures(): IpvsFailure[] {
    const taken = this.#failures;
    this.#failures = [];
    return taken;
  }

  takeStaleUdp(): StaleUdp[] {
    const taken = this.#staleUdp;
    this.#staleUdp = [];
    return taken;
  }

  takeCounts(): IpvsCounts {
    const taken = this.counts;
    this.counts = newIpvsCounts();
    return taken;
  }

  /** Deletes drained real servers, with `flush` at the latest, and forgets them. */
  deleteDrained(server: VirtualServerKey, reals: readonly RealServerKey[], left: AppliedVirtualServer): void {
    for (const real of reals) this.deleteRealServer(server, real);
    this.applied.set(server, left);
  }

  /** Sends what `deleteDrained` left. */
  flush(): void {
    this.#flush();
  }

  addVirtualServer(key: VirtualServerKey, settings: VirtualServerSettings): void {
    this.counts.virtualServersAdded++;
    if (this.client.addVirtualServer(key, settings)) this.#flush();
  }

  setVirtualServer(key: VirtualServerKey, settings: VirtualServerSettings): void {
    this.counts.virtualServersChanged++;
    if (this.client.setVirtualServer(key, settings)) this.#flush();
  }

  deleteVirtualServer(key: VirtualServerKey): void {
    this.counts.virtualServersDeleted++;
    if (this.client.deleteVirtualServer(key)) this.#flush();
  }

  addRealServers(server: VirtualServerKey, reals: RealServerList, from: number): void {
    this.counts.realServersAdded += reals.length / realServerKeyLength(virtualServerFamily(server));
    this.#addRange(server, reals, from, reals.length);
    this.#addRange(server, reals, 0, from);
  }

  setRealServer(server: VirtualServerKey, real: RealServerKey, weight: number): void {
    this.counts.realServersChanged++;
    if (this.client.setRealServer(server, real, weight)) this.#flush();
  }

  deleteRealServer(server: VirtualServerKey, real: RealServerKey): void {
    this.counts.realServersDeleted++;
    if (isUdp(server)) this.#staleUdp.push({ server, real });
    if (this.client.deleteRealServer(server, real)) this.#flush();
  }

  #addRange(server: VirtualServerKey, reals: RealServerList, from: number, to: number): void {
    for (let at = from; at < to;) {
      at = this.client.addRealServers(server, reals, ACTIVE_WEIGHT, at, to);
      if (this.client.isFull) this.#flush();
    }
  }

  #flush(): void {
    for (const failure of this.client.flush()) {
      if (isAlreadyGone(failure)) continue;
      this.#failures.push(failure);
      this.suspects.add(failure.virtualServer);
    }
  }

  #refreshSuspects(): void {
    if (this.suspects.size === 0) return;
    const listed = new Map(this.client.listVirtualServers().servers.map((server) => [server.key, server.settings]));
    for (const key of this.suspects) {
      const settings = listed.get(key);
      if (settings === undefined) this.applied.delete(key);
      else this.applied.set(key, observeVirtualServer(key, settings, this.client.listRealServers(key)));
    }
    this.suspects.clear();
  }
}

/** Deleting what somebody else deleted first is what was wanted. */
function isAlreadyGone(failure: IpvsFailure): boolean {
  if (failure.error.resultUnknown) return false;
  const { code } = failure.error;
  if (failure.operation === 'delete-virtual-server') return code === 'ESRCH';
  return failure.operation === 'delete-real-server' && (code === 'ENOENT' || code === 'ESRCH');
}
