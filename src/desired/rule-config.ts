import { type Family } from '../values/address.js';
import { type Prefix } from '../values/prefix.js';

/**
 * How traffic of this node's (or cluster's) pods is distinguished from that of others; prefixes are of the rule set's
 * family.
 */
export type LocalDetection =
  | { readonly mode: 'ClusterCIDR' | 'NodeCIDR'; readonly cidrs: readonly Prefix[] }
  | { readonly mode: 'BridgeInterface'; readonly name: string }
  | { readonly mode: 'InterfaceNamePrefix'; readonly prefix: string }
  | { readonly mode: 'none' };

/** All that the rules of one family depend on: configuration and node, never a Service. */
export interface RuleConfig {
  readonly family: Family;
  /** The mark itself, `1 << masqueradeBit`. */
  readonly masqueradeMark: number;
  readonly masqueradeAll: boolean;
  /** Whether iptables and the kernel know MASQUERADE --random-fully. */
  readonly randomFully: boolean;
  readonly detectLocal: LocalDetection;
  /**
   * Interfaces by which packets of other machines come in. Where the cluster's pods are recognised by address
   * alone, they distinguish those of other nodes from those of this one.
   */
  readonly uplinks?: readonly string[] | undefined;
  /**
   * Undefined: a firewall with policy DROP in INPUT holds for Service traffic, too, as with kube-proxy. Else such
   * traffic is accepted; NodePorts at addresses within `nodePortPrefixes`.
   */
  readonly acceptServiceTraffic?: { readonly nodePortPrefixes: readonly Prefix[] } | undefined;
}
