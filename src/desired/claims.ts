import { type PortExposures } from './exposures.js';
import { type VirtualServerKey } from '../values/virtual-server.js';

interface Claimant {
  readonly service: string;
  readonly createdAt: number;
}

const NOTHING: readonly VirtualServerKey[] = [];

/**
 * Who owns which address, port and protocol. Two Services may claim the same external IP and port; the older one has it,
 * on a tie the one whose namespace/name sorts first, so that every node decides alike. kube-proxy leaves it to chance.
 */
export class Claims {
  readonly #owners = new Map<VirtualServerKey, Claimant>();
  readonly #contested = new Map<VirtualServerKey, Claimant[]>();
  readonly #claimedBy = new Map<string, readonly VirtualServerKey[]>();

  /** How many virtual servers more than one Service claims. */
  get conflicts(): number {
    return this.#contested.size;
  }

  owns(service: string, server: VirtualServerKey): boolean {
    return this.#owners.get(server)?.service === service;
  }

  /** Every virtual server that more than one Service claims, with who has it and who does not. */
  *contests(): Generator<{ server: VirtualServerKey; owner: string; losers: readonly string[] }> {
    for (const server of this.#contested.keys())
      yield { server, owner: this.#owners.get(server)!.service, losers: this.losers(server) };
  }

  /** The Services that claim `server` in vain. */
  losers(server: VirtualServerKey): readonly string[] {
    const owner = this.#owners.get(server)?.service;
    return (this.#contested.get(server) ?? []).map((one) => one.service).filter((service) => service !== owner);
  }

  /** Replaces a Service's claims; returns the other Services that gained or lost a virtual server by it. */
  update(service: string, createdAt: number, servers: readonly VirtualServerKey[]): Set<string> {
    const affected = new Set<string>();
    const before = this.#claimedBy.get(service) ?? NOTHING;
    const claimant: Claimant = { service, createdAt };
    const kept = new Set(servers);
    for (const server of before) if (!kept.has(server)) this.#withdraw(server, service, affected);
    for (const server of servers) this.#claim(server, claimant, affected);
    if (servers.length === 0) this.#claimedBy.delete(service);
    else this.#claimedBy.set(service, servers);
    affected.delete(service);
    return affected;
  }

  #claim(server: VirtualServerKey, claimant: Claimant, affected: Set<string>): void {
    const owner = this.#owners.get(server);
    if (owner === undefined || (owner.service === claimant.service && !this.#contested.has(server))) {
      this.#owners.set(server, claimant);
      return;
    }
    const rivals = (this.#contested.get(server) ?? [owner]).filter((one) => one.service !== claimant.service);
    this.#settle(server, [...rivals, claimant], affected);
  }

  #withdraw(server: VirtualServerKey, service: string, affected: Set<string>): void {
    const rivals = this.#contested.get(server);
    if (rivals === undefined) this.#owners.delete(server);
    else
      this.#settle(
        server,
        rivals.filter((one) => one.service !== service),
        affected,
      );
  }

  #settle(server: VirtualServerKey, claimants: Claimant[], affected: Set<string>): void {
    claimants.sort((a, b) => a.createdAt - b.createdAt || (a.service < b.service ? -1 : 1));
    const before = this.#owners.get(server);
    const winner = claimants[0]!;
    if (claimants.length > 1) this.#contested.set(server, claimants);
    else this.#contested.delete(server);
    this.#owners.set(server, winner);
    if (before !== undefined && before.service !== winner.service) {
      affected.add(before.service);
      affected.add(winner.service);
    }
  }
}

/** Every virtual server that these ask for: what a Service claims against others. */
export function exposedServers(found: readonly PortExposures[]): readonly VirtualServerKey[] {
  const servers = new Set<VirtualServerKey>();
  for (const { exposures } of found) for (const { server } of exposures) servers.add(server);
  return [...servers];
}
