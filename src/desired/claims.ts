import { type Address } from '../values/address.js';
import { type VirtualServerKey } from '../values/virtual-server.js';
import { AddressIndex } from '../model/address-index.js';
import { type Conflict, ConflictPairs } from './conflict-pairs.js';
import { EXPOSURE_KINDS, type PortExposures } from './exposures.js';

interface Claimant {
  readonly service: string;
  readonly createdAt: number;
  /** Place of the exposure's kind in EXPOSURE_KINDS. */
  readonly rank: number;
}

/** What one Service claims; flat, because there are tens of thousands. */
interface Claim {
  readonly createdAt: number;
  readonly servers: readonly VirtualServerKey[];
  /** One character per virtual server: the rank by which it is claimed. */
  readonly ranks: string;
  readonly clusterIPs: readonly Address[];
  readonly externalIPs: readonly Address[];
  /** External IPs that are the cluster IP of another Service, which is named: they are void. */
  readonly voided: readonly Voided[];
}

interface Voided {
  readonly address: Address;
  readonly owner: string;
}

const EXTERNAL_IP = EXPOSURE_KINDS.indexOf('externalIP');
const STEP = 250;
const UNSETTLED = '-';
const NONE: readonly never[] = [];
const NOTHING: Claim = { createdAt: 0, servers: NONE, ranks: '', clusterIPs: NONE, externalIPs: NONE, voided: NONE };

/**
 * Who owns which address, port and protocol. When several Services claim the same, a cluster IP wins over a NodePort, a
 * load balancer's address and an external IP, in this order: the first three are allocated by the control plane, the
 * last is free text. Then the older Service wins, then the one whose namespace/name sorts first, so that every node
 * decides alike, whatever came first. kube-proxy leaves it to chance.
 *
 * A cluster IP is its Service's with every port: an external IP of another Service on it is void. Addresses of load
 * balancers and nodes may be shared port by port, as is common practice.
 */
export class Claims {
  /** All claimants of each virtual server, the owner first; alone where nobody else wants it. */
  readonly #claimants = new Map<VirtualServerKey, Claimant | readonly Claimant[]>();
  readonly #claims = new Map<string, Claim>();
  readonly #clusterIPs = new AddressIndex();
  readonly #externalIPs = new AddressIndex();
  readonly #pairs = new ConflictPairs();
  #contested = 0;
  #voided = 0;

  /** `step`: how many virtual servers are claimed, or let go, in one go. */
  constructor(readonly step = STEP) {}

  /** How many virtual servers more than one Service claims, and external IPs that are another Service's cluster IP. */
  get conflicts(): number {
    return this.#contested + this.#voided;
  }

  /** The pairs of Services that claim the same. */
  get pairs(): Pick<ConflictPairs, 'size' | 'takeNew'> & Iterable<Conflict> {
    return this.#pairs;
  }

  owns(service: string, server: VirtualServerKey): boolean {
    const claimants = this.#claimants.get(server);
    if (claimants === undefined) return false;
    return ('service' in claimants ? claimants : claimants[0]!).service === service;
  }

  /**
   * Replaces a Service's claims, in steps; adds the other Services that may have gained or lost something by it to
   * `affected`, as it finds them. One Service at a time; steps that broke off are made good by the next ones of the
   * same Service, whatever it claims by then.
   */
  *update(
    service: string,
    createdAt: number,
    found: readonly PortExposures[],
    affected: Pick<Set<string>, 'add'>,
  ): Generator<void, void> {
    const before = this.#claims.get(service) ?? NOTHING;
    const next = yield* this.#claimOf(service, createdAt, found);
    if (!isSame(before, next)) {
      this.#claims.set(service, unsettled(before, next));
      yield* this.#settleAll(service, before, next, affected);
      this.#moveAddresses(service, before, next, affected);
    }
    if (found.length === 0) this.#claims.delete(service);
    else this.#claims.set(service, next);
  }

  *#settleAll(service: string, before: Claim, next: Claim, affected: Pick<Set<string>, 'add'>): Generator<void, void> {
    const { createdAt } = next;
    const old = new Map<VirtualServerKey, string>();
    for (const [i, server] of before.servers.entries()) {
      if ((i + 1) % this.step === 0) yield;
      old.set(server, before.ranks[i]!);
    }
    for (const [i, server] of next.servers.entries()) {
      if ((i + 1) % this.step === 0) yield;
      const rank = next.ranks[i]!;
      if (old.get(server) !== rank || before.createdAt !== createdAt)
        this.#settle(server, service, { service, createdAt, rank: Number(rank) }, affected);
      old.delete(server);
    }
    let count = 0;
    for (const server of old.keys()) {
      if (++count % this.step === 0) yield;
      this.#settle(server, service, undefined, affected);
    }
  }

  *#claimOf(service: string, createdAt: number, found: readonly PortExposures[]): Generator<void, Claim> {
    const ranks = new Map<VirtualServerKey, number>();
    const [clusterIPs, externalIPs] = [new Set<Address>(), new Set<Address>()];
    const isStep = stepCounter(this.step);
    for (const { exposures } of found) {
      if (isStep(exposures.length)) yield;
      for (const { kind, address } of exposures)
        if (kind === 'clusterIP') clusterIPs.add(address);
        else if (kind === 'externalIP') externalIPs.add(address);
    }
    const owners = new Map<Address, string>();
    for (const address of externalIPs) {
      const owner = clusterIPs.has(address) ? undefined : this.#foreignOwner(address, service);
      if (owner !== undefined) owners.set(address, owner);
    }
    for (const { exposures } of found) {
      if (isStep(exposures.length)) yield;
      for (const { kind, server, address } of exposures) {
        const rank = EXPOSURE_KINDS.indexOf(kind);
        if (rank === EXTERNAL_IP && owners.has(address)) continue;
        ranks.set(server, Math.min(rank, ranks.get(server) ?? rank));
      }
    }
    return {
      createdAt,
      servers: [...ranks.keys()],
      ranks: [...ranks.values()].join(''),
      clusterIPs: [...clusterIPs],
      externalIPs: externalIPs.size === 0 ? NONE : [...externalIPs],
      voided: owners.size === 0 ? NONE : [...owners].map(([address, owner]) => ({ address, owner })),
    };
  }

  /** Another Service with this cluster IP; the first by name, though the API server does not allow two. */
  #foreignOwner(address: Address, service: string): string | undefined {
    return [...this.#clusterIPs.at(address)].filter((other) => other !== service).sort()[0];
  }

  /** Services with external IPs on a cluster IP that comes or goes are affected: theirs get void, or count again. */
  #moveAddresses(service: string, before: Claim, next: Claim, affected: Pick<Set<string>, 'add'>): void {
    const change = (address: Address, act: 'add' | 'delete'): void => {
      this.#clusterIPs[act](address, service);
      for (const other of this.#externalIPs.at(address)) if (other !== service) affected.add(other);
    };
    for (const address of before.clusterIPs) if (!next.clusterIPs.includes(address)) change(address, 'delete');
    for (const address of next.clusterIPs) if (!before.clusterIPs.includes(address)) change(address, 'add');
    for (const address of before.externalIPs) this.#externalIPs.delete(address, service);
    for (const address of next.externalIPs) this.#externalIPs.add(address, service);
    const pairOf = ({ address, owner }: Voided): Conflict => {
      return { winner: owner, loser: service, example: { clusterIP: address } };
    };
    for (const one of next.voided) this.#pairs.add(pairOf(one));
    for (const one of before.voided) this.#pairs.remove(pairOf(one));
    this.#voided += next.voided.length - before.voided.length;
  }

  /** Replaces the claim of `service` on `server` by `claimant`; undefined withdraws it. */
  #settle(
    server: VirtualServerKey,
    service: string,
    claimant: Claimant | undefined,
    affected: Pick<Set<string>, 'add'>,
  ): void {
    const before = all(this.#claimants.get(server));
    const next = before.filter((one) => one.service !== service);
    if (claimant !== undefined) {
      const worse = next.findIndex((one) => isBefore(claimant, one));
      next.splice(worse < 0 ? next.length : worse, 0, claimant);
    }
    if (next.length === 0) this.#claimants.delete(server);
    else this.#claimants.set(server, next.length === 1 ? next[0]! : next);
    this.#contested += Number(next.length > 1) - Number(before.length > 1);
    const [loser, winner] = [before[0], next[0]];
    if (loser?.service === winner?.service) return this.#countLoser(server, service, before, next);
    this.#countPairs(server, before, next);
    if (loser === undefined || winner === undefined) return;
    for (const other of [loser.service, winner.service]) if (other !== service) affected.add(other);
  }

  /** The owner is the same: only `service` may have joined or left those who claim in vain. */
  #countLoser(server: VirtualServerKey, service: string, before: readonly Claimant[], next: readonly Claimant[]): void {
    if (before.length === next.length) return;
    const conflict = { winner: next[0]!.service, loser: service, example: { server } };
    if (next.length > before.length) this.#pairs.add(conflict);
    else this.#pairs.remove(conflict);
  }

  /** Added before removed, so that a pair that stays is not taken for a new one. */
  #countPairs(server: VirtualServerKey, before: readonly Claimant[], next: readonly Claimant[]): void {
    const pairOf = (winner: Claimant, loser: Claimant): Conflict => {
      return { winner: winner.service, loser: loser.service, example: { server } };
    };
    for (const loser of next.slice(1)) this.#pairs.add(pairOf(next[0]!, loser));
    for (const loser of before.slice(1)) this.#pairs.remove(pairOf(before[0]!, loser));
  }
}

function all(claimants: Claimant | readonly Claimant[] | undefined): readonly Claimant[] {
  if (claimants === undefined) return NONE;
  return 'service' in claimants ? [claimants] : claimants;
}

/** Everything that either claims, by a rank that none has; addresses are moved when all that is settled. */
function unsettled(before: Claim, next: Claim): Claim {
  const servers = [...before.servers, ...next.servers];
  return { ...before, servers, ranks: UNSETTLED.repeat(servers.length) };
}

/** True whenever the counts so far make another step. */
function stepCounter(step: number): (count: number) => boolean {
  let since = 0;
  return (count) => {
    since += 1 + count;
    if (since < step) return false;
    since = 0;
    return true;
  };
}

function isBefore(one: Claimant, other: Claimant): boolean {
  if (one.rank !== other.rank) return one.rank < other.rank;
  if (one.createdAt !== other.createdAt) return one.createdAt < other.createdAt;
  return one.service < other.service;
}

/** The usual case by far: endpoints of the Service changed, its addresses and ports did not. */
function isSame(one: Claim, other: Claim): boolean {
  return (
    one.createdAt === other.createdAt &&
    one.ranks === other.ranks &&
    one.servers.every((server, i) => server === other.servers[i]) &&
    isSameList(one.clusterIPs, other.clusterIPs) &&
    isSameList(one.externalIPs, other.externalIPs) &&
    one.voided.length === other.voided.length &&
    one.voided.every(
      ({ address, owner }, i) => address === other.voided[i]!.address && owner === other.voided[i]!.owner,
    )
  );
}

function isSameList(one: readonly Address[], other: readonly Address[]): boolean {
  return one.length === other.length && one.every((address, i) => address === other[i]);
}
