import { type Address, type Family, familyOf, isIpv6LinkLocal, isLoopback } from '../values/address.js';
import { type NodePortSelection } from '../values/node-port-selection.js';
import { prefixContains } from '../values/prefix.js';
import { type NodeInfo } from '../model/node.js';

/** The node's own address of one family, for `primary` and for "may the node itself use this load balancer?" */
export interface PrimaryAddress {
  readonly address: Address | undefined;
  /** False while neither the Node object nor the configuration says anything. */
  readonly isKnown: boolean;
}

/**
 * As kube-proxy's detectNodeIPs: bindAddress (`bound`) where it is an address of the family, else the Node's first
 * InternalIP of the family, else its first ExternalIP.
 */
export function primaryAddress(node: NodeInfo | undefined, bound: Address | undefined, family: Family): PrimaryAddress {
  if (bound !== undefined && familyOf(bound) === family)
    return { address: isLoopback(bound) ? undefined : bound, isKnown: true };
  const address = node?.addresses.find((one) => familyOf(one) === family && !isLoopback(one));
  return { address, isKnown: node !== undefined };
}

/**
 * The addresses of one family on which NodePorts are served, sorted. Loopback never is: IPVS cannot serve it (martian
 * replies), and kube-proxy's IPVS mode leaves it out too; neither is IPv6 link-local, which has no meaning without a
 * zone.
 */
export function nodePortAddresses(
  selection: NodePortSelection,
  family: Family,
  local: ReadonlySet<Address>,
  primary: PrimaryAddress,
): readonly Address[] {
  const ofFamily = [...local].filter((address) => familyOf(address) === family);
  return ofFamily.filter((address) => servesNodePorts(selection, address, primary)).sort();
}

/** Whether NodePorts are served on `address`, of the selection's family, once the node has it. */
export function servesNodePorts(selection: NodePortSelection, address: Address, primary: PrimaryAddress): boolean {
  if (isLoopback(address) || isIpv6LinkLocal(address)) return false;
  if (selection.all || (selection.primary && isPrimary(address, primary))) return true;
  return selection.cidrs.some((cidr) => prefixContains(cidr, address));
}

/**
 * A family of which the Node has no address is served on all addresses, as in kube-proxy: `primary` then says nothing
 * about it. While the Node is unknown nothing is opened.
 */
function isPrimary(address: Address, primary: PrimaryAddress): boolean {
  return primary.address === undefined ? primary.isKnown : address === primary.address;
}
