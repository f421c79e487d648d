/** What rules ask of a packet, as iptables-save prints it. */
import { formatPrefix } from '../values/prefix.js';
import { type LocalDetection, type RuleConfig } from './iptables-config.js';
import { ipsetName, type IpsetRole } from './ipset-definitions.js';

/**
 * A VIP as source address: a client on the node itself, which has the VIP it asks as its own address and would hand
 * it to the backend. What the backend answered to it would never come back to this node.
 */
const VIP_SOURCE = ['IPVS-IPS', 'src'] as const;

/** The matches of one family's rules. */
export class RuleMatches {
  /** What comes from local pods, one match each; empty when nothing distinguishes them. */
  readonly localPods: readonly string[];
  readonly fromVip: string;
  readonly notFromVip: string;
  readonly fromNode = '-m addrtype --src-type LOCAL';
  /** The masquerade mark: `0x4000`. */
  readonly mark: string;

  constructor(readonly config: RuleConfig) {
    this.localPods = localMatches(config.detectLocal);
    this.mark = `0x${(config.masqueradeMark >>> 0).toString(16)}`;
    this.fromVip = this.set(...VIP_SOURCE);
    this.notFromVip = this.set(...VIP_SOURCE, '!');
  }

  set(role: IpsetRole, directions: string, negation = ''): string {
    return words('-m set', negation, '--match-set', ipsetName(this.config.family, role), directions);
  }

  /** Address and port of any Service but its NodePorts. */
  portals(): string[] {
    const roles = ['CLUSTER-IP', 'LOAD-BALANCER', 'EXTERNAL-IP', 'EXTERNAL-IP-LOCAL'] as const;
    return roles.map((role) => this.set(role, 'dst,dst'));
  }

  echoRequest(): string {
    const message =
      this.config.family === 4 ? '-p icmp -m icmp --icmp-type 8' : '-p ipv6-icmp -m icmp6 --icmpv6-type 128';
    return words(message, this.set('IPVS-IPS', 'dst'));
  }

  get unreachable(): string {
    return this.config.family === 4 ? 'icmp-port-unreachable' : 'icmp6-port-unreachable';
  }
}

/**
 * A SYN, whatever conntrack makes of it: one from the port of a connection that conntrack still holds opens a
 * new connection all the same, and a packet in the middle of a connection whose conntrack entry was lost (state
 * NEW) belongs to a connection that IPVS still knows.
 */
export const OPENS_TCP = '-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN';
/** Of other protocols, what belongs to no known flow. */
export const OPENS_OTHER = '! -p tcp -m conntrack ! --ctstate RELATED,ESTABLISHED';

export function words(...parts: string[]): string {
  return parts.filter((part) => part !== '').join(' ');
}

function localMatches(detection: LocalDetection): string[] {
  switch (detection.mode) {
    case 'ClusterCIDR':
    case 'NodeCIDR':
      return detection.cidrs.map((cidr) => (cidr.bits === 0 ? '' : `-s ${formatPrefix(cidr)}`));
    case 'BridgeInterface':
      return [`-i ${detection.name}`];
    case 'InterfaceNamePrefix':
      return [`-i ${detection.prefix}+`];
    case 'none':
      return [];
  }
}
