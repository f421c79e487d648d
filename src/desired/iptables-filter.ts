/**
 * The chains of the filter table: host ports on VIPs, source ranges, Services that nobody answers, health check
 * node ports.
 */
import { formatPrefix, type Prefix } from '../values/prefix.js';
import { REFUSAL_PORT } from './iptables-nat.js';
import { OPENS_OTHER, OPENS_TCP, type RuleMatches, words } from './iptables-matches.js';
import { chain, type RuleChain } from './iptables-rule-set.js';

export function filterChains(matches: RuleMatches): RuleChain[] {
  const { acceptServiceTraffic } = matches.config;
  return [
    hostPortFilter(matches),
    firewall(matches),
    sourceRanges(matches),
    healthCheckPorts(matches),
    ...(acceptServiceTraffic === undefined ? [] : [serviceAccept(matches, acceptServiceTraffic.nodePortPrefixes)]),
    forward(matches),
  ];
}

/**
 * Ports of the host are not reachable through VIPs, which are local addresses (on kube-ipvs0), but for health check
 * node ports: some load balancers probe them there (kubernetes/kubernetes#117621). An echo request is answered.
 */
function hostPortFilter(matches: RuleMatches): RuleChain {
  const fresh = '-m conntrack --ctstate NEW';
  return chain('KUBE-IPVS-FILTER', [
    `${matches.set('IPVS-IPS', 'dst', '!')} -j RETURN`,
    ...matches.portals().map((match) => `${match} -j RETURN`),
    `${healthCheckPort(matches)} -j RETURN`,
    `${matches.echoRequest()} -j RETURN`,
    `-p tcp ${fresh} -j REJECT --reject-with tcp-reset`,
    `! -p tcp ${fresh} -j REJECT --reject-with ${matches.unreachable}`,
  ]);
}

/**
 * Source ranges, then a policy Local that this node cannot honour: the table holds cluster endpoints for pods and
 * the node, others are dropped. When pods cannot be distinguished from others (detection `none`) nobody is dropped:
 * pods cut
 * off from a load balancer's address are the worse failure. First, what nobody answers: IPVS would refuse too, but
 * by ICMP, which the kernel limits to one a second per client; a reset it sends without limit.
 */
function firewall(matches: RuleMatches): RuleChain {
  const unanswered = matches.set('NO-ENDPOINTS', 'dst,dst');
  const local = matches.set('NO-LOCAL-ENDPOINTS', 'dst,dst');
  const drops = [
    ...matches.localPods.map((from) => `${words(from, local)} -j RETURN`),
    `${OPENS_TCP} ${local} -j DROP`,
    `${OPENS_OTHER} ${local} -j DROP`,
  ];
  return chain('KUBE-PROXY-FIREWALL', [
    `${matches.set('LOAD-BALANCER-FW', 'dst,dst')} -j KUBE-SOURCE-RANGES-FIREWALL`,
    `${OPENS_TCP} ${unanswered} -j REJECT --reject-with tcp-reset`,
    `${OPENS_OTHER} ${unanswered} -j REJECT --reject-with ${matches.unreachable}`,
    `-i lo -p tcp -m tcp --dport ${REFUSAL_PORT} -m conntrack --ctstate DNAT -j REJECT --reject-with tcp-reset`,
    ...(matches.localPods.length === 0 ? [] : drops),
  ]);
}

function sourceRanges(matches: RuleMatches): RuleChain {
  return chain('KUBE-SOURCE-RANGES-FIREWALL', [
    `${matches.set('LOAD-BALANCER-SOURCE-CIDR', 'dst,dst,src')} -j RETURN`,
    '-j DROP',
  ]);
}

function healthCheckPorts(matches: RuleMatches): RuleChain {
  return chain('KUBE-NODE-PORT', [`${healthCheckPort(matches)} -j ACCEPT`]);
}

function healthCheckPort(matches: RuleMatches): string {
  return `-p tcp ${matches.set('HEALTH-CHECK-NODE-PORT', 'dst')}`;
}

/** For INPUT policy DROP: requests to virtual servers pass INPUT, and so do the answers to what the node asked. */
function serviceAccept(matches: RuleMatches, nodePortPrefixes: readonly Prefix[]): RuleChain {
  const nodePorts = (['tcp', 'udp'] as const).flatMap((protocol) =>
    nodePortPrefixes.map((prefix) =>
      words(
        prefix.bits === 0 ? '' : `-d ${formatPrefix(prefix)}`,
        `-p ${protocol} -m addrtype --dst-type LOCAL`,
        matches.set(protocol === 'tcp' ? 'NODE-PORT-TCP' : 'NODE-PORT-UDP', 'dst'),
      ),
    ),
  );
  const accepted = [
    ...matches.portals(),
    ...nodePorts,
    `-p sctp ${matches.set('NODE-PORT-SCTP-HASH', 'dst,dst')}`,
    matches.echoRequest(),
    '-m conntrack --ctstate RELATED,ESTABLISHED --ctdir REPLY',
  ];
  return chain(
    'KUBE-IPVS-ACCEPT',
    accepted.map((match) => `${match} -j ACCEPT`),
  );
}

/**
 * The request never passes FORWARD, the answer does; also what is RELATED, such as "fragmentation needed". What
 * bears the mark passes for others' sake: host port plugins and hand-made rules that jump to KUBE-MARK-MASQ rely on
 * kube-proxy's accepting it.
 */
function forward(matches: RuleMatches): RuleChain {
  const { mark } = matches;
  return chain('KUBE-FORWARD', [
    `-m mark --mark ${mark}/${mark} -j ACCEPT`,
    '-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT',
  ]);
}
