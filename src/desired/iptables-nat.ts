/**
 * The chains of the nat table: who is masqueraded, and where the node's own connections to what nobody answers are
 * sent.
 */
import { OPENS_TCP, type RuleMatches, words } from './iptables-matches.js';
import { type IpsetRole } from './ipset-definitions.js';
import { chain, type RuleChain } from './iptables-rule-set.js';

/**
 * Where a TCP connection of the node itself to a Service without endpoints is sent, to be reset in INPUT. IPVS
 * would refuse it by an ICMP message that reaches an IPv6 socket while connect(2) still holds it, and is lost until
 * the SYN is sent again a second later (measured, Linux 6.1).
 */
export const REFUSAL_PORT = 1;

export function natChains(matches: RuleMatches): RuleChain[] {
  const { mark } = matches;
  return [
    servicePortals(matches),
    externalPortals(matches),
    nodePortPortals(matches),
    postrouting(matches),
    chain('KUBE-MARK-MASQ', [`-j MARK --set-xmark ${mark}/${mark}`]),
  ];
}

/** ACCEPT ends the nat hook for a VIP: a CNI's host port rules, which come later, must not take its traffic. */
function servicePortals(matches: RuleMatches): RuleChain {
  const { masqueradeAll, detectLocal, family } = matches.config;
  const clusterIP = matches.set('CLUSTER-IP', 'dst,dst');
  const external = (['LOAD-BALANCER', 'EXTERNAL-IP', 'EXTERNAL-IP-LOCAL'] as const).map(
    (role) => `${matches.set(role, 'dst,dst')} -j KUBE-LOAD-BALANCER`,
  );
  const local = masqueradeAll ? [] : detectLocal.mode === 'none' ? [''] : matches.localPods;
  return chain('KUBE-SERVICES', [
    family === 4 ? '-s 127.0.0.0/8 -j RETURN' : '-s ::1/128 -j RETURN',
    `${OPENS_TCP} ${matches.set('NO-ENDPOINTS', 'dst,dst')} ${matches.fromNode} -j DNAT --to-destination :${REFUSAL_PORT}`,
    ...local.map((from) => `${words(from, matches.notFromVip, clusterIP)} -j ACCEPT`),
    `${clusterIP} -j KUBE-MARK-MASQ`,
    `${clusterIP} -j ACCEPT`,
    ...external,
    '-m addrtype --dst-type LOCAL -j KUBE-NODE-PORT',
  ]);
}

/**
 * Policy Local keeps the client's address, and so it does for pods of this node when the backend is on another one:
 * the answer comes back to the pod, and so through this node.
 */
function externalPortals(matches: RuleMatches): RuleChain {
  const keepsSource = (role: IpsetRole): string => `${matches.set(role, 'dst,dst')} -j ACCEPT`;
  return chain('KUBE-LOAD-BALANCER', [
    `${matches.fromVip} -j KUBE-MARK-MASQ`,
    ...fromOtherNodes(matches),
    keepsSource('LOAD-BALANCER-LOCAL'),
    keepsSource('EXTERNAL-IP-LOCAL'),
    '-j KUBE-MARK-MASQ',
    '-j ACCEPT',
  ]);
}

/**
 * A pod of another node, of a Service with policy Local and no endpoint on this one: what the backend answered would go
 * to the pod directly, which asked somebody else.
 */
function fromOtherNodes(matches: RuleMatches): string[] {
  const { detectLocal, uplinks = [] } = matches.config;
  if (detectLocal.mode !== 'ClusterCIDR') return []; // other nodes' pods are not local then, and dropped
  const unlocal = matches.set('NO-LOCAL-ENDPOINTS', 'dst,dst');
  return matches.localPods.flatMap((from) =>
    uplinks.map((name) => `${words(from, `-i ${name}`, unlocal)} -j KUBE-MARK-MASQ`),
  );
}

function nodePortPortals(matches: RuleMatches): RuleChain {
  const keepsSource = (port: string): string => `${port} ${matches.notFromVip} -j RETURN`;
  return chain('KUBE-NODE-PORT', [
    ...fromOtherNodes(matches),
    keepsSource(`-p tcp ${matches.set('NODE-PORT-LOCAL-TCP', 'dst')}`),
    `-p tcp ${matches.set('NODE-PORT-TCP', 'dst')} -j KUBE-MARK-MASQ`,
    keepsSource(`-p udp ${matches.set('NODE-PORT-LOCAL-UDP', 'dst')}`),
    `-p udp ${matches.set('NODE-PORT-UDP', 'dst')} -j KUBE-MARK-MASQ`,
    keepsSource(`-p sctp ${matches.set('NODE-PORT-LOCAL-SCTP-HASH', 'dst,dst')}`),
    `-p sctp ${matches.set('NODE-PORT-SCTP-HASH', 'dst,dst')} -j KUBE-MARK-MASQ`,
  ]);
}

/** The mark is taken off again: a tunnel would carry it to the outer packet, which would be masqueraded once more. */
function postrouting(matches: RuleMatches): RuleChain {
  const { mark } = matches;
  const masquerade = matches.config.randomFully ? '-j MASQUERADE --random-fully' : '-j MASQUERADE';
  return chain('KUBE-POSTROUTING', [
    `${matches.set('LOOP-BACK', 'dst,dst,src')} ${masquerade}`,
    `-m mark ! --mark ${mark}/${mark} -j RETURN`,
    `-j MARK --set-xmark ${mark}/0x0`,
    masquerade,
  ]);
}
