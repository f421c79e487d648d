/**
 * Which virtual servers in the kernel are this program's business. Others (keepalived, kube-vip, an administrator's) are
 * never changed. Ours is what this process programmed, and at start what this program or kube-proxy left: a virtual
 * server whose address is bound to kube-ipvs0, or whose address and port (or node port) stand in one of the KUBE-* sets.
 */
import { type Address } from '../values/address.js';
import { type SetEntry, addressPortEntry, portEntry } from '../values/ip-set.js';
import { type Prefix, prefixContains } from '../values/prefix.js';
import { type VirtualServerKey, virtualServerIdentity } from '../values/virtual-server.js';

/** The traces by which a virtual server is recognised. */
export interface OwnershipTraces {
  /** Addresses on kube-ipvs0. */
  readonly boundAddresses: Pick<ReadonlySet<Address>, 'has'>;
  /** Elements of the KUBE-* sets of type hash:ip,port. */
  readonly addressPorts: ReadonlySet<SetEntry>;
  /** Elements of the KUBE-NODE-PORT-* bitmaps, by protocol. */
  readonly nodePorts: Readonly<Record<'TCP' | 'UDP', ReadonlySet<SetEntry>>>;
}

/** excludeCIDRs: never delete what is in there, whoever made it (kube-proxy's ipvs.excludeCIDRs). */
export function isExcluded(key: VirtualServerKey, excludeCIDRs: readonly Prefix[]): boolean {
  const identity = virtualServerIdentity(key);
  return identity.kind === 'address' && isExcludedAddress(identity.address, excludeCIDRs);
}

/** The same for an address on kube-ipvs0: a virtual server that is kept is of no use without it. */
export function isExcludedAddress(address: Address, excludeCIDRs: readonly Prefix[]): boolean {
  return excludeCIDRs.some((cidr) => prefixContains(cidr, address));
}

export function leftByServiceProxy(key: VirtualServerKey, traces: OwnershipTraces): boolean {
  const identity = virtualServerIdentity(key);
  if (identity.kind === 'fwmark') return false;
  if (traces.boundAddresses.has(identity.address)) return true;
  if (traces.addressPorts.has(addressPortEntry(key))) return true;
  return identity.protocol !== 'SCTP' && traces.nodePorts[identity.protocol].has(portEntry(identity.port));
}
