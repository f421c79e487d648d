import { type Address } from '../values/address.js';
import { AddressIndex } from './address-index.js';
import { type EndpointSlice } from './endpoint-slice.js';
import { type NodeInfo } from './node.js';
import { ProtectedAddresses, type Protection } from './protected-addresses.js';
import { type Service } from './service.js';

const NO_SLICES: readonly EndpointSlice[] = [];

/**
 * The cluster as last heard, and which Services changed since they were last taken. Every mutation costs O(the change):
 * nothing here walks the cluster, except when the node itself changes.
 */
export class ClusterState {
  readonly services = new Map<string, Service>();
  readonly #slices = new Map<string, EndpointSlice>();
  readonly #slicesOf = new Map<string, readonly EndpointSlice[]>();
  readonly #nodePortServices = new Set<string>();
  readonly #servicesAt = new AddressIndex();
  readonly #protected = new ProtectedAddresses();
  #servesNodePorts: (address: Address) => boolean = () => true;
  #dirty = new Set<string>();
  #node: NodeInfo | undefined;
  #localAddresses: ReadonlySet<Address> = new Set();

  get node(): NodeInfo | undefined {
    return this.#node;
  }

  /** Addresses on this node's interfaces, the daemon's own dummy interface left out. */
  get localAddresses(): ReadonlySet<Address> {
    return this.#localAddresses;
  }

  get sliceCount(): number {
    return this.#slices.size;
  }

  get dirtyCount(): number {
    return this.#dirty.size;
  }

  /** Addresses that no VIP may take from this node. */
  get protectedAddresses(): Pick<ProtectedAddresses, 'addresses' | 'has' | 'reason' | 'size'> {
    return this.#protected;
  }

  setService(service: Service): void {
    this.#unindex(this.services.get(service.key));
    for (const address of namedAddresses(service)) this.#servicesAt.add(address, service.key);
    this.services.set(service.key, service);
    if (service.ports.some((port) => port.nodePort > 0)) this.#nodePortServices.add(service.key);
    else this.#nodePortServices.delete(service.key);
    this.#dirty.add(service.key);
  }

  deleteService(key: string): void {
    const previous = this.services.get(key);
    if (previous === undefined) return;
    this.#unindex(previous);
    this.services.delete(key);
    this.#nodePortServices.delete(key);
    this.#dirty.add(key);
  }

  /** Adds or replaces a slice; one whose Service label changed leaves its former Service. */
  setSlice(slice: EndpointSlice): void {
    const previous = this.#slices.get(slice.key);
    if (previous !== undefined) this.#detach(previous);
    this.#slices.set(slice.key, slice);
    this.#slicesOf.set(slice.service, withSlice(this.slicesOf(slice.service), slice));
    this.#dirty.add(slice.service);
  }

  deleteSlice(key: string): void {
    const previous = this.#slices.get(key);
    if (previous === undefined) return;
    this.#slices.delete(key);
    this.#detach(previous);
  }

  slicesOf(service: string): readonly EndpointSlice[] {
    return this.#slicesOf.get(service) ?? NO_SLICES;
  }

  /** Zone and node addresses decide everywhere, so a change of them makes every Service dirty. */
  setNode(node: NodeInfo | undefined): void {
    const before = this.#node;
    this.#node = node;
    if (before?.zone !== node?.zone || before?.addresses.join() !== node?.addresses.join()) this.markAllDirty();
  }

  /** Which addresses serve NodePorts, should the node have them: only those make NodePort Services dirty. */
  decideNodePortsBy(servesNodePorts: (address: Address) => boolean): void {
    this.#servesNodePorts = servesNodePorts;
  }

  /**
   * Node addresses came or went. Concerned are NodePort Services, if such an address serves NodePorts, and the Services
   * that name one of the addresses; the fe80:: of a new veth concerns nobody.
   */
  setLocalAddresses(addresses: ReadonlySet<Address>): void {
    const changed = new Set<Address>();
    for (const address of addresses) if (!this.#localAddresses.has(address)) changed.add(address);
    for (const address of this.#localAddresses) if (!addresses.has(address)) changed.add(address);
    if (changed.size === 0) return;
    this.#localAddresses = addresses;
    this.#markNaming(changed);
    for (const address of changed) {
      if (!this.#servesNodePorts(address)) continue;
      for (const key of this.#nodePortServices) this.#dirty.add(key);
      return;
    }
  }

  /**
   * Replaces the addresses that `source` (any name, `node node-3`) knows to be needed elsewhere; undefined: none any
   * more. Makes dirty the Services that name one of them, and returns whether there are any: then a sync is due.
   */
  protect(source: string, protection: Protection | undefined): boolean {
    return this.#markNaming(this.#protected.set(source, protection));
  }

  /** The keys of Services that name `address` as cluster, external or load balancer IP. */
  servicesNaming(address: Address): Iterable<string> {
    return this.#servicesAt.at(address);
  }

  markDirty(key: string): void {
    this.#dirty.add(key);
  }

  markAllDirty(): void {
    for (const key of this.services.keys()) this.#dirty.add(key);
  }

  /** The keys of Services that changed since the last call, in the order of their first change. */
  takeDirty(): Set<string> {
    const taken = this.#dirty;
    this.#dirty = new Set();
    return taken;
  }

  #markNaming(addresses: ReadonlySet<Address>): boolean {
    let isAnyConcerned = false;
    for (const address of addresses)
      for (const key of this.#servicesAt.at(address)) {
        this.#dirty.add(key);
        isAnyConcerned = true;
      }
    return isAnyConcerned;
  }

  #unindex(service: Service | undefined): void {
    if (service === undefined) return;
    for (const address of namedAddresses(service)) this.#servicesAt.delete(address, service.key);
  }

  #detach(slice: EndpointSlice): void {
    const rest = this.slicesOf(slice.service).filter((other) => other !== slice);
    if (rest.length === 0) this.#slicesOf.delete(slice.service);
    else this.#slicesOf.set(slice.service, rest);
    this.#dirty.add(slice.service);
  }
}

/**
 * In the order of their keys: where two slices disagree about an endpoint, every node and every restart decides alike.
 */
function withSlice(slices: readonly EndpointSlice[], slice: EndpointSlice): readonly EndpointSlice[] {
  const after = slices.findIndex((other) => other.key > slice.key);
  return after < 0 ? [...slices, slice] : [...slices.slice(0, after), slice, ...slices.slice(after)];
}

function* namedAddresses(service: Service): Iterable<Address> {
  yield* service.clusterIPs;
  yield* service.externalIPs;
  yield* service.loadBalancerIPs;
}
