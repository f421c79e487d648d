/**
 * The rules beside the IPVS table: who is masqueraded, who is refused. Their number depends on the
 * configuration alone, never on the number of Services: all facts about Services are in the sets of
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
import { filterChains } from './filter-rules.js';
import { natChains } from './nat-rules.js';
import { type RuleConfig } from './rule-config.js';
import { NOT_FROM_VIP, OPENS_OTHER, inSet, notInSet } from './rule-matches.js';
import { DROP, type HookName, type Jump, type ProxyRules, RETURN, type ProxyTable, rule } from './rule-model.js';

/** All rules of one family. */
export function proxyRules(config: RuleConfig): ProxyRules {
  return { family: config.family, tables: [filterTable(config), natTable(config), mangleTable()] };
}

function filterTable(config: RuleConfig): ProxyTable {
  // Last, so that an administrator's own DROP in INPUT still holds and only the chain's policy is overruled.
  const accept: Jump = {
    hook: 'INPUT',
    chain: 'KUBE-IPVS-ACCEPT',
    comment: 'kubernetes service accept',
    position: 'last',
    onlyAccepts: true,
  };
  return {
    name: 'filter',
    chains: filterChains(config),
    jumps: [
      first('INPUT', 'KUBE-IPVS-FILTER', 'kubernetes ipvs access filter'),
      first('INPUT', 'KUBE-PROXY-FIREWALL', 'kube-proxy firewall rules'),
      { ...first('INPUT', 'KUBE-NODE-PORT', 'kubernetes health check rules'), onlyAccepts: true },
      ...(config.acceptServiceTraffic === undefined ? [] : [accept]),
      { ...first('FORWARD', 'KUBE-FORWARD', 'kubernetes forwarding rules'), onlyAccepts: true },
    ],
  };
}

function natTable(config: RuleConfig): ProxyTable {
  return {
    name: 'nat',
    chains: natChains(config),
    jumps: [
      first('PREROUTING', 'KUBE-SERVICES', 'kubernetes service portals'),
      first('OUTPUT', 'KUBE-SERVICES', 'kubernetes service portals'),
      first('POSTROUTING', 'KUBE-POSTROUTING', 'kubernetes postrouting rules'),
    ],
  };
}

/**
 * What this node itself may not reach. mangle, because filter OUTPUT comes after IPVS and no longer sees the VIP. A
 * client on the node has the VIP as its source (it is a local address), so that source ranges are asked through
 * SOURCE-IP first; a range that holds the VIP by chance allows nobody.
 */
function mangleTable(): ProxyTable {
  const refused = [inSet('NO-LOCAL-ENDPOINTS', 'dst,dst'), inSet('CLUSTER-IP', 'dst,dst')];
  const rules = [
    rule([OPENS_OTHER, refused], DROP), // TCP is on its way to the refusal port
    rule([notInSet('LOAD-BALANCER-FW', 'dst,dst')], RETURN),
    rule([inSet('LOAD-BALANCER-SOURCE-IP', 'dst,dst,src')], RETURN),
    rule([NOT_FROM_VIP, inSet('LOAD-BALANCER-SOURCE-CIDR', 'dst,dst,src')], RETURN),
    rule([inSet('LOAD-BALANCER-FW', 'dst,dst')], DROP),
  ];
  return {
    name: 'mangle',
    chains: [{ name: 'KUBE-IPVS-OUT-FILTER', rules }],
    jumps: [first('OUTPUT', 'KUBE-IPVS-OUT-FILTER', 'kubernetes ipvs access filter')],
  };
}

function first(hook: HookName, chain: string, comment: string): Jump {
  return { hook, chain, comment, position: 'first' };
}
