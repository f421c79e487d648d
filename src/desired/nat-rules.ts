/**
 * The chains of the nat table: who is masqueraded, and where the node's own connections to what nobody answers are
 * sent.
 */
import { hostPrefix, parsePrefix } from '../values/prefix.js';
import { parseAddress } from '../values/address.js';
import { type IpsetRole } from './ipset-definitions.js';
import { type RuleConfig } from './rule-config.js';
import { FROM_VIP, NOT_FROM_VIP, OPENS_TCP, fromLocalPods, inSet, protocol } from './rule-matches.js';
import { ACCEPT, type Match, RETURN, type Rule, type ProxyChain, jump, rule } from './rule-model.js';

/**
 * Where a TCP connection of the node itself to a Service without endpoints is sent, to be reset in INPUT. IPVS
 * would refuse it by an ICMP message that reaches an IPv6 socket while connect(2) still holds it, and is lost until
 * the SYN is sent again a second later (measured, Linux 6.1).
 */
export const REFUSAL_PORT = 1;

const MARK_MASQ = jump('KUBE-MARK-MASQ');
const LOOPBACK = { 4: parsePrefix('127.0.0.0/8')!, 6: hostPrefix(parseAddress('::1')!) } as const;

export function natChains(config: RuleConfig): ProxyChain[] {
  return [
    servicePortals(config),
    externalPortals(config),
    nodePortPortals(config),
    postrouting(config),
    { name: 'KUBE-MARK-MASQ', rules: [rule([], { do: 'set-mark', mark: config.masqueradeMark })] },
  ];
}

/** ACCEPT ends the nat hook for a VIP: a CNI's host port rules, which come later, must not take its traffic. */
function servicePortals(config: RuleConfig): ProxyChain {
  const clusterIP = inSet('CLUSTER-IP', 'dst,dst');
  const external = (['LOAD-BALANCER', 'EXTERNAL-IP', 'EXTERNAL-IP-LOCAL'] as const).map((role) =>
    rule([inSet(role, 'dst,dst')], jump('KUBE-LOAD-BALANCER')),
  );
  const refused = [OPENS_TCP, inSet('NO-ENDPOINTS', 'dst,dst'), { of: 'local', address: 'source' } as const];
  const { masqueradeAll, detectLocal, family } = config;
  const local = masqueradeAll ? [] : detectLocal.mode === 'none' ? [[]] : fromLocalPods(config);
  return {
    name: 'KUBE-SERVICES',
    rules: [
      rule([{ of: 'source', prefix: LOOPBACK[family] }], RETURN),
      rule(refused, { do: 'redirect-port', port: REFUSAL_PORT }),
      ...local.map((from) => rule([from, NOT_FROM_VIP, clusterIP], ACCEPT)),
      rule([clusterIP], MARK_MASQ),
      rule([clusterIP], ACCEPT),
      ...external,
      rule([{ of: 'local', address: 'destination' }], jump('KUBE-NODE-PORT')),
    ],
  };
}

/**
 * Policy Local keeps the client's address, and so it does for pods of this node when the backend is on another one:
 * the answer comes back to the pod, and so through this node.
 */
function externalPortals(config: RuleConfig): ProxyChain {
  const keepsSource = (role: IpsetRole): Rule => rule([inSet(role, 'dst,dst')], ACCEPT);
  return {
    name: 'KUBE-LOAD-BALANCER',
    rules: [
      rule([FROM_VIP], MARK_MASQ),
      ...fromOtherNodes(config),
      keepsSource('LOAD-BALANCER-LOCAL'),
      keepsSource('EXTERNAL-IP-LOCAL'),
      rule([], MARK_MASQ),
      rule([], ACCEPT),
    ],
  };
}

/**
 * A pod of another node, of a Service with policy Local and no endpoint on this one: what the backend answered would go
 * to the pod directly, which asked somebody else.
 */
function fromOtherNodes(config: RuleConfig): Rule[] {
  const { detectLocal, uplinks = [] } = config;
  if (detectLocal.mode !== 'ClusterCIDR') return []; // other nodes' pods are not local then, and dropped
  const unlocal = inSet('NO-LOCAL-ENDPOINTS', 'dst,dst');
  return fromLocalPods(config).flatMap((from) =>
    uplinks.map((name) => rule([from, { of: 'interface', interface: name }, unlocal], MARK_MASQ)),
  );
}

function nodePortPortals(config: RuleConfig): ProxyChain {
  const keepsSource = (port: readonly Match[]): Rule => rule([port, NOT_FROM_VIP], RETURN);
  return {
    name: 'KUBE-NODE-PORT',
    rules: [
      ...fromOtherNodes(config),
      keepsSource([protocol('tcp'), inSet('NODE-PORT-LOCAL-TCP', 'dst')]),
      rule([protocol('tcp'), inSet('NODE-PORT-TCP', 'dst')], MARK_MASQ),
      keepsSource([protocol('udp'), inSet('NODE-PORT-LOCAL-UDP', 'dst')]),
      rule([protocol('udp'), inSet('NODE-PORT-UDP', 'dst')], MARK_MASQ),
      keepsSource([protocol('sctp'), inSet('NODE-PORT-LOCAL-SCTP-HASH', 'dst,dst')]),
      rule([protocol('sctp'), inSet('NODE-PORT-SCTP-HASH', 'dst,dst')], MARK_MASQ),
    ],
  };
}

/** The mark is taken off again: a tunnel would carry it to the outer packet, which would be masqueraded once more. */
function postrouting({ masqueradeMark: mark, randomFully }: RuleConfig): ProxyChain {
  const masquerade = { do: 'masquerade', randomFully } as const;
  return {
    name: 'KUBE-POSTROUTING',
    rules: [
      rule([inSet('LOOP-BACK', 'dst,dst,src')], masquerade),
      rule([{ of: 'mark', mark, negated: true }], RETURN),
      rule([], { do: 'flip-mark', mark }),
      rule([], masquerade),
    ],
  };
}
