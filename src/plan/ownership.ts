/**
 * Which virtual servers in the kernel are this program's business. Others (keepalived, kube-vip, an administrator's)
 * are never changed. Ours is what this process programmed or what stands on a VIP; at start and in `cleanup` also what
 * this program or kube-proxy left: a virtual server whose address is a VIP in the kernel, whose address and port stand
 * in one of the KUBE-* sets, or that serves a node port. A node port's number alone proves nothing: a keepalived in
 * front of NodePorts has to use it, too.
 */
import { type Address } from '../values/address.js';
import { type IpsetEntry, addressPortEntry, portEntry } from '../values/ipset.js';
import { type Prefix, prefixContains } from '../values/prefix.js';
import { type VirtualServerKey, virtualServerIdentity } from '../values/virtual-server.js';

/** The traces by which a virtual server is recognised. */
export interface OwnershipTraces {
  /** VIPs: addresses on kube-ipvs0, and routes that stand for them. */
  readonly boundAddresses: Pick<ReadonlySet<Address>, 'has'>;
  /** Elements of the KUBE-* sets of type hash:ip,port. */
  readonly addressPorts: ReadonlySet<IpsetEntry>;
  /** Elements of the KUBE-NODE-PORT-* bitmaps, by protocol. */
  readonly nodePorts: Readonly<Record<'TCP' | 'UDP', ReadonlySet<IpsetEntry>>>;
  /** Addresses on every other link: those that serve node ports. */
  readonly localAddresses: Pick<ReadonlySet<Address>, 'has'>;
}

/**
 * excludeCIDRs: never delete a virtual server in there, whoever made it (kube-proxy's ipvs.excludeCIDRs). An address on
 * kube-ipvs0 is not protected, there neither: a node must not go on answering for one that was given to somebody else.
 */
export function isExcluded(key: VirtualServerKey, excludeCIDRs: readonly Prefix[]): boolean {
  const identity = virtualServerIdentity(key);
  return identity.kind === 'address' && excludeCIDRs.some((cidr) => prefixContains(cidr, identity.address));
}

/**
 * Whether this program or kube-proxy made a virtual server, by its traces. `servesEndpoints` is asked about one on a
 * node port's number whose address is no longer local: whether it has real servers, all of them endpoints of Services.
 */
export function leftByServiceProxy(
  key: VirtualServerKey,
  traces: OwnershipTraces,
  servesEndpoints: () => boolean,
): boolean {
  const identity = virtualServerIdentity(key);
  if (identity.kind === 'fwmark') return false;
  if (traces.boundAddresses.has(identity.address)) return true;
  if (traces.addressPorts.has(addressPortEntry(key))) return true;
  if (identity.protocol === 'SCTP' || !traces.nodePorts[identity.protocol].has(portEntry(identity.port))) return false;
  return traces.localAddresses.has(identity.address) || servesEndpoints();
}
