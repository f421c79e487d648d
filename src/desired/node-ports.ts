import { type Address, type Family, familyOf, isLinkLocal, isLoopback } from '../values/address.js';
import { type Prefix, prefixContains } from '../values/prefix.js';

/**
 * nodePortAddresses of one family: every address, the node's primary one, or those within CIDRs; any of the three may
 * apply.
 */
export interface NodePortSelection {
  readonly all: boolean;
  readonly primary: boolean;
  readonly cidrs: readonly Prefix[];
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
  primary: readonly Address[],
): readonly Address[] {
  const ofFamily = [...local].filter((address) => familyOf(address) === family);
  return ofFamily.filter((address) => servesNodePorts(selection, address, primary)).sort();
}

/** Whether NodePorts are served on `address`, of the selection's family, once the node has it. */
export function servesNodePorts(selection: NodePortSelection, address: Address, primary: readonly Address[]): boolean {
  return isServable(address) && isSelected(selection, address, primary);
}

function isServable(address: Address): boolean {
  return !isLoopback(address) && !(familyOf(address) === 6 && isLinkLocal(address));
}

function isSelected(selection: NodePortSelection, address: Address, primary: readonly Address[]): boolean {
  if (selection.all || (selection.primary && primary.includes(address))) return true;
  return selection.cidrs.some((cidr) => prefixContains(cidr, address));
}
