/** What rules ask of a packet. */
import { type IpsetRole } from './ipset-definitions.js';
import { type RuleConfig } from './rule-config.js';
import { type Match } from './rule-model.js';

type SetFacts = (Match & { readonly of: 'set' })['facts'];

export function inSet(role: IpsetRole, facts: SetFacts): Match {
  return { of: 'set', role, facts };
}

export function notInSet(role: IpsetRole, facts: SetFacts): Match {
  return { of: 'set', role, facts, negated: true };
}

export function protocol(name: 'tcp' | 'udp' | 'sctp'): Match {
  return { of: 'protocol', protocol: name };
}

/**
 * A VIP as source address: a client on the node itself, which has the VIP it asks as its own address and would hand
 * it to the backend. What the backend answered to it would never come back to this node.
 */
export const FROM_VIP = inSet('IPVS-IPS', 'src');
export const NOT_FROM_VIP = notInSet('IPVS-IPS', 'src');
export const NOT_TCP: Match = { of: 'protocol', protocol: 'tcp', negated: true };

/**
 * A SYN, whatever conntrack makes of it: one from the port of a connection that conntrack still holds opens a
 * new connection all the same, and a packet in the middle of a connection whose conntrack entry was lost (state
 * NEW) belongs to a connection that IPVS still knows.
 */
export const OPENS_TCP: Match = { of: 'syn' };
/** Of other protocols, what belongs to no known flow. */
export const OPENS_OTHER: readonly Match[] = [
  NOT_TCP,
  { of: 'state', states: ['RELATED', 'ESTABLISHED'], negated: true },
];

/** Address and port of any Service but its NodePorts. */
export const PORTALS: readonly Match[] = (
  ['CLUSTER-IP', 'LOAD-BALANCER', 'EXTERNAL-IP', 'EXTERNAL-IP-LOCAL'] as const
).map((role) => inSet(role, 'dst,dst'));

/** What comes from local pods, one match each; empty when nothing distinguishes them. */
export function fromLocalPods({ detectLocal }: Pick<RuleConfig, 'detectLocal'>): readonly (readonly Match[])[] {
  switch (detectLocal.mode) {
    case 'ClusterCIDR':
    case 'NodeCIDR':
      return detectLocal.cidrs.map((prefix) => (prefix.bits === 0 ? [] : [{ of: 'source', prefix }]));
    case 'BridgeInterface':
      return [[{ of: 'interface', interface: detectLocal.name }]];
    case 'InterfaceNamePrefix':
      return [[{ of: 'interface', interface: detectLocal.prefix, isPrefix: true }]];
    case 'none':
      return [];
  }
}
