/**
 * The iptables rules beside the IPVS table: who is masqueraded, who is refused. Their number depends on the
 * configuration alone, never on the number of Services: all facts about Services are in the ipsets of
 * ipset-definitions.ts.
 *
 * Where IPVS stands decides where rules can be (net/netfilter/ipvs/ip_vs_core.c): a packet from elsewhere to a VIP
 * passes nat PREROUTING and filter INPUT before IPVS takes it (LOCAL_IN, priority 99); one from this node passes
 * mangle and nat OUTPUT before (LOCAL_OUT, -98), but filter OUTPUT only after, when it has the backend's address.
 * Either way it then goes through POSTROUTING, and never through FORWARD: only answers do. Every packet of a
 * connection comes through INPUT again, so that what refuses or drops there must look at what opens a connection
 * alone, or a backend that drains would lose those it still serves.
 *
 * Names of chains and the text of jump rules are kube-proxy's, so that takeover and rollback find each other's
 * instead of doubling them.
 */
import { filterChains } from './iptables-filter.js';
import { natChains } from './iptables-nat.js';
import { type RuleConfig } from './iptables-config.js';
import { OPENS_OTHER, RuleMatches } from './iptables-matches.js';
import { chain, type JumpRule, type RuleSet, type RuleTable } from './iptables-rule-set.js';

export type { LocalDetection, RuleConfig } from './iptables-config.js';

const PORTAL = '-m comment --comment "kubernetes service portals" -j KUBE-SERVICES';

/** All rules of one family. Duplicate-free and in the form that iptables-save prints. */
export function iptablesRules(config: RuleConfig): RuleSet {
  const matches = new RuleMatches(config);
  return { family: config.family, tables: [filterTable(matches), natTable(matches), mangleTable(matches)] };
}

function filterTable(matches: RuleMatches): RuleTable {
  // Last, so that an administrator's own DROP in INPUT still holds and only the chain's policy is overruled.
  const accept: JumpRule = {
    chain: 'INPUT',
    rule: '-m comment --comment "kubernetes service accept" -j KUBE-IPVS-ACCEPT',
    position: 'last',
  };
  return {
    name: 'filter',
    chains: filterChains(matches),
    jumps: [
      first('INPUT', '-m comment --comment "kubernetes ipvs access filter" -j KUBE-IPVS-FILTER'),
      first('INPUT', '-m comment --comment "kube-proxy firewall rules" -j KUBE-PROXY-FIREWALL'),
      first('INPUT', '-m comment --comment "kubernetes health check rules" -j KUBE-NODE-PORT'),
      ...(matches.config.acceptServiceTraffic === undefined ? [] : [accept]),
      first('FORWARD', '-m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD'),
    ],
  };
}

function natTable(matches: RuleMatches): RuleTable {
  return {
    name: 'nat',
    chains: natChains(matches),
    jumps: [
      first('PREROUTING', PORTAL),
      first('OUTPUT', PORTAL),
      first('POSTROUTING', '-m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING'),
    ],
  };
}

/**
 * What this node itself may not reach. mangle, because filter OUTPUT comes after IPVS and no longer sees the VIP. A
 * client on the node has the VIP as its source (it is a local address), so that source ranges are asked through
 * SOURCE-IP first; a range that holds the VIP by chance allows nobody.
 */
function mangleTable(matches: RuleMatches): RuleTable {
  const refused = `${matches.set('NO-LOCAL-ENDPOINTS', 'dst,dst')} ${matches.set('CLUSTER-IP', 'dst,dst')}`;
  const restricted = matches.set('LOAD-BALANCER-FW', 'dst,dst');
  return {
    name: 'mangle',
    chains: [
      chain('KUBE-IPVS-OUT-FILTER', [
        `${OPENS_OTHER} ${refused} -j DROP`, // TCP is on its way to the refusal port
        `${matches.set('LOAD-BALANCER-FW', 'dst,dst', '!')} -j RETURN`,
        `${matches.set('LOAD-BALANCER-SOURCE-IP', 'dst,dst,src')} -j RETURN`,
        `${matches.notFromVip} ${matches.set('LOAD-BALANCER-SOURCE-CIDR', 'dst,dst,src')} -j RETURN`,
        `${restricted} -j DROP`,
      ]),
    ],
    jumps: [first('OUTPUT', '-m comment --comment "kubernetes ipvs access filter" -j KUBE-IPVS-OUT-FILTER')],
  };
}

function first(chainName: JumpRule['chain'], rule: string): JumpRule {
  return { chain: chainName, rule, position: 'first' };
}
