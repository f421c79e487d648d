/**
 * The iptables rules beside the IPVS table: who is masqueraded, who is refused, what a firewall with policy DROP lets through. Their number depends
 * on the configuration alone, never on the number of Services: all facts about Services are in the ipsets of set-definitions.ts.
 *
 * Where IPVS stands decides where rules can be (net/netfilter/ipvs/ip_vs_core.c): a packet from elsewhere to a VIP passes nat PREROUTING and filter
 * INPUT before IPVS takes it (LOCAL_IN, priority 99); one from this node passes mangle and nat OUTPUT before (LOCAL_OUT, -98), but filter OUTPUT
 * only after, when it has the backend's address. Either way it then goes through POSTROUTING, and never through FORWARD: only answers do.
 *
 * Names of chains and the text of jump rules are kube-proxy's, so that takeover and rollback find each other's instead of doubling them.
 */
import { type Family } from '../values/address.js';
import { formatPrefix, type Prefix } from '../values/prefix.js';
import { type JumpRule, type RuleChain, type RuleSet, type RuleTable } from './rule-set.js';
import { setName, type SetRole } from './set-definitions.js';

/** How traffic of this node's (or cluster's) pods is told from that of others; prefixes are of the rule set's family. */
export type LocalDetection =
  | { readonly mode: 'ClusterCIDR' | 'NodeCIDR'; readonly cidrs: readonly Prefix[] }
  | { readonly mode: 'BridgeInterface'; readonly name: string }
  | { readonly mode: 'InterfaceNamePrefix'; readonly prefix: string }
  | { readonly mode: 'none' };

export interface RuleConfig {
  readonly family: Family;
  /** The mark itself, `1 << masqueradeBit`. */
  readonly masqueradeMark: number;
  readonly masqueradeAll: boolean;
  /** Whether iptables and the kernel know MASQUERADE --random-fully. */
  readonly randomFully: boolean;
  readonly detectLocal: LocalDetection;
}

/**
 * Where a TCP connection of the node itself to a Service without endpoints is sent, to be reset in INPUT. IPVS would refuse it by an ICMP message that
 * reaches an IPv6 socket while connect(2) still holds it, and is lost until the SYN is sent again a second later (measured, Linux 6.1).
 */
const REFUSAL_PORT = 1;

const FROM_NODE = '-m addrtype --src-type LOCAL';
const NOT_FROM_NODE = '-m addrtype ! --src-type LOCAL';
const PORTAL = '-m comment --comment "kubernetes service portals" -j KUBE-SERVICES';

/** All rules of one family. Duplicate-free and in the form that iptables-save prints. */
export function iptablesRules(config: RuleConfig): RuleSet {
  const rules = new RuleWriter(config);
  return { family: config.family, tables: [rules.filterTable(), rules.natTable(), rules.mangleTable()] };
}

/** Rules that match what comes from local pods, one per match; empty when nothing tells them apart. */
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

class RuleWriter {
  private readonly local: readonly string[];
  private readonly masquerade: string;
  private readonly mark: string;

  constructor(private readonly config: RuleConfig) {
    this.local = localMatches(config.detectLocal);
    this.masquerade = config.randomFully ? '-j MASQUERADE --random-fully' : '-j MASQUERADE';
    this.mark = `0x${(config.masqueradeMark >>> 0).toString(16)}`;
  }

  filterTable(): RuleTable {
    return {
      name: 'filter',
      chains: [
        this.hostPortFilter(),
        this.firewall(),
        this.sourceRanges(),
        this.healthCheckPorts(),
        this.serviceAccept(),
        // The request never passes FORWARD, the answer does; also what is RELATED, such as "fragmentation needed".
        chain('KUBE-FORWARD', ['-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT']),
      ],
      jumps: [
        first('INPUT', '-m comment --comment "kubernetes ipvs access filter" -j KUBE-IPVS-FILTER'),
        first('INPUT', '-m comment --comment "kube-proxy firewall rules" -j KUBE-PROXY-FIREWALL'),
        first('INPUT', '-m comment --comment "kubernetes health check rules" -j KUBE-NODE-PORT'),
        // Last, so that an administrator's own DROP in INPUT still holds and only the chain's policy is overruled.
        {
          chain: 'INPUT',
          rule: '-m comment --comment "kubernetes service accept" -j KUBE-IPVS-ACCEPT',
          position: 'last',
        },
        first('FORWARD', '-m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD'),
      ],
    };
  }

  natTable(): RuleTable {
    return {
      name: 'nat',
      chains: [
        this.servicePortals(),
        this.externalPortals(),
        this.nodePortPortals(),
        this.postrouting(),
        chain('KUBE-MARK-MASQ', [`-j MARK --set-xmark ${this.mark}/${this.mark}`]),
      ],
      jumps: [
        first('PREROUTING', PORTAL),
        first('OUTPUT', PORTAL),
        first('POSTROUTING', '-m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING'),
      ],
    };
  }

  /**
   * What this node itself may not reach. mangle, because filter OUTPUT comes after IPVS and no longer sees the VIP. A client on the node has the VIP as its
   * source (it is a local address), so that source ranges are asked through SOURCE-IP first; a range that holds the VIP by chance allows nobody.
   */
  mangleTable(): RuleTable {
    const refused = `${this.set('NO-LOCAL-ENDPOINTS', 'dst,dst')} ${this.set('CLUSTER-IP', 'dst,dst')}`;
    const restricted = this.set('LOAD-BALANCER-FW', 'dst,dst');
    return {
      name: 'mangle',
      chains: [
        chain('KUBE-IPVS-OUT-FILTER', [
          `! -p tcp ${refused} -j DROP`, // TCP is on its way to REFUSAL_PORT
          `${this.set('LOAD-BALANCER-FW', 'dst,dst', '!')} -j RETURN`,
          `${this.set('LOAD-BALANCER-SOURCE-IP', 'dst,dst,src')} -j RETURN`,
          `${this.set('IPVS-IPS', 'src', '!')} ${this.set('LOAD-BALANCER-SOURCE-CIDR', 'dst,dst,src')} -j RETURN`,
          `${restricted} -j DROP`,
        ]),
      ],
      jumps: [first('OUTPUT', '-m comment --comment "kubernetes ipvs access filter" -j KUBE-IPVS-OUT-FILTER')],
    };
  }

  /** Ports of the host are not reachable through VIPs, which are local addresses (on kube-ipvs0); an echo request is answered. */
  private hostPortFilter(): RuleChain {
    const fresh = '-m conntrack --ctstate NEW';
    return chain('KUBE-IPVS-FILTER', [
      `${this.set('IPVS-IPS', 'dst', '!')} -j RETURN`,
      ...this.portalSets().map((match) => `${match} -j RETURN`),
      `${this.echoRequest()} -j RETURN`,
      ...this.refusals(fresh),
    ]);
  }

  /**
   * Source ranges, then a policy Local that this node cannot honour: the table holds cluster endpoints for pods and the node, others are dropped. When
   * pods cannot be told from others (detection `none`) nobody is dropped: pods cut off from a load balancer's address are the worse failure.
   * Last, what nobody answers: IPVS would refuse too, but by ICMP, which the kernel limits to one a second per client.
   */
  private firewall(): RuleChain {
    const unanswered = this.set('NO-ENDPOINTS', 'dst,dst');
    const local = this.set('NO-LOCAL-ENDPOINTS', 'dst,dst');
    const drops = [...this.local.map((from) => `${words(from, local)} -j RETURN`), `${local} -j DROP`];
    return chain('KUBE-PROXY-FIREWALL', [
      `${this.set('LOAD-BALANCER-FW', 'dst,dst')} -j KUBE-SOURCE-RANGES-FIREWALL`,
      ...this.refusals(unanswered),
      `-i lo -p tcp -m tcp --dport ${REFUSAL_PORT} -m conntrack --ctstate DNAT -j REJECT --reject-with tcp-reset`,
      ...(this.local.length === 0 ? [] : drops),
    ]);
  }

  private sourceRanges(): RuleChain {
    return chain('KUBE-SOURCE-RANGES-FIREWALL', [
      `${this.set('LOAD-BALANCER-SOURCE-CIDR', 'dst,dst,src')} -j RETURN`,
      '-j DROP',
    ]);
  }

  private healthCheckPorts(): RuleChain {
    const port = this.set('HEALTH-CHECK-NODE-PORT', 'dst');
    return chain('KUBE-NODE-PORT', [`-p tcp ${port} ${this.set('IPVS-IPS', 'dst', '!')} -j ACCEPT`]);
  }

  /** For INPUT policy DROP: requests to virtual servers pass INPUT, and so do the answers to what the node asked. */
  private serviceAccept(): RuleChain {
    const matches = [
      ...this.portalSets(),
      `-p tcp -m addrtype --dst-type LOCAL ${this.set('NODE-PORT-TCP', 'dst')}`,
      `-p udp -m addrtype --dst-type LOCAL ${this.set('NODE-PORT-UDP', 'dst')}`,
      `-p sctp ${this.set('NODE-PORT-SCTP-HASH', 'dst,dst')}`,
      this.echoRequest(),
      '-m conntrack --ctstate RELATED,ESTABLISHED --ctdir REPLY',
    ];
    return chain(
      'KUBE-IPVS-ACCEPT',
      matches.map((match) => `${match} -j ACCEPT`),
    );
  }

  /** ACCEPT ends the nat hook for a VIP: a CNI's host port rules, which come later, must not take its traffic. */
  private servicePortals(): RuleChain {
    const clusterIP = this.set('CLUSTER-IP', 'dst,dst');
    const external = (['LOAD-BALANCER', 'EXTERNAL-IP', 'EXTERNAL-IP-LOCAL'] as const).map(
      (role) => `${this.set(role, 'dst,dst')} -j KUBE-LOAD-BALANCER`,
    );
    const local = this.config.masqueradeAll ? [] : this.config.detectLocal.mode === 'none' ? [''] : this.local;
    return chain('KUBE-SERVICES', [
      this.config.family === 4 ? '-s 127.0.0.0/8 -j RETURN' : '-s ::1/128 -j RETURN',
      `-p tcp ${this.set('NO-ENDPOINTS', 'dst,dst')} ${FROM_NODE} -j DNAT --to-destination :${REFUSAL_PORT}`,
      ...local.map((from) => `${words(from, clusterIP)} ${NOT_FROM_NODE} -j ACCEPT`),
      `${clusterIP} -j KUBE-MARK-MASQ`,
      `${clusterIP} -j ACCEPT`,
      ...external,
      '-m addrtype --dst-type LOCAL -j KUBE-NODE-PORT',
    ]);
  }

  /** Policy Local keeps the client's address, except where the answer would not come back through this node. */
  private externalPortals(): RuleChain {
    const keepsSource = (role: SetRole): string => `${this.set(role, 'dst,dst')} -j ACCEPT`;
    return chain('KUBE-LOAD-BALANCER', [
      `${FROM_NODE} -j KUBE-MARK-MASQ`,
      `${this.set('NO-LOCAL-ENDPOINTS', 'dst,dst')} -j KUBE-MARK-MASQ`,
      keepsSource('LOAD-BALANCER-LOCAL'),
      keepsSource('EXTERNAL-IP-LOCAL'),
      '-j KUBE-MARK-MASQ',
      '-j ACCEPT',
    ]);
  }

  private nodePortPortals(): RuleChain {
    const unlocal = this.set('NO-LOCAL-ENDPOINTS', 'dst,dst', '!');
    const keepsSource = (port: string): string => `${port} ${unlocal} ${NOT_FROM_NODE} -j RETURN`;
    return chain('KUBE-NODE-PORT', [
      keepsSource(`-p tcp ${this.set('NODE-PORT-LOCAL-TCP', 'dst')}`),
      `-p tcp ${this.set('NODE-PORT-TCP', 'dst')} -j KUBE-MARK-MASQ`,
      keepsSource(`-p udp ${this.set('NODE-PORT-LOCAL-UDP', 'dst')}`),
      `-p udp ${this.set('NODE-PORT-UDP', 'dst')} -j KUBE-MARK-MASQ`,
      keepsSource(`-p sctp ${this.set('NODE-PORT-LOCAL-SCTP-HASH', 'dst,dst')}`),
      `-p sctp ${this.set('NODE-PORT-SCTP-HASH', 'dst,dst')} -j KUBE-MARK-MASQ`,
    ]);
  }

  /** The mark is taken off again: a tunnel would carry it to the outer packet, which would be masqueraded once more. */
  private postrouting(): RuleChain {
    return chain('KUBE-POSTROUTING', [
      `${this.set('LOOP-BACK', 'dst,dst,src')} ${this.masquerade}`,
      `-m mark ! --mark ${this.mark}/${this.mark} -j RETURN`,
      `-j MARK --set-xmark ${this.mark}/0x0`,
      this.masquerade,
    ]);
  }

  private portalSets(): string[] {
    const roles = ['CLUSTER-IP', 'LOAD-BALANCER', 'EXTERNAL-IP', 'EXTERNAL-IP-LOCAL'] as const;
    return roles.map((role) => this.set(role, 'dst,dst'));
  }

  /** A reset for TCP, which the kernel sends without limit; ICMP for the rest. */
  private refusals(match: string): string[] {
    const unreachable = this.config.family === 4 ? 'icmp-port-unreachable' : 'icmp6-port-unreachable';
    return [
      `-p tcp ${match} -j REJECT --reject-with tcp-reset`,
      `! -p tcp ${match} -j REJECT --reject-with ${unreachable}`,
    ];
  }

  private echoRequest(): string {
    const message =
      this.config.family === 4 ? '-p icmp -m icmp --icmp-type 8' : '-p ipv6-icmp -m icmp6 --icmpv6-type 128';
    return `${message} ${this.set('IPVS-IPS', 'dst')}`;
  }

  private set(role: SetRole, directions: string, negation = ''): string {
    return words('-m set', negation, '--match-set', setName(this.config.family, role), directions);
  }
}

function chain(name: string, rules: readonly string[]): RuleChain {
  return { name, rules };
}

function first(chainName: JumpRule['chain'], rule: string): JumpRule {
  return { chain: chainName, rule, position: 'first' };
}

function words(...parts: string[]): string {
  return parts.filter((part) => part !== '').join(' ');
}
