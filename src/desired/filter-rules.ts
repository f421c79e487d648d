/**
 * The chains of the filter table: host ports on VIPs, source ranges, Services that nobody answers, health check
 * node ports.
 */
import { type Prefix } from '../values/prefix.js';
import { REFUSAL_PORT } from './nat-rules.js';
import { type RuleConfig } from './rule-config.js';
import { NOT_TCP, OPENS_OTHER, OPENS_TCP, PORTALS, fromLocalPods, inSet, notInSet, protocol } from './rule-matches.js';
import { ACCEPT, DROP, type Match, RETURN, type ProxyChain, type Verdict, jump, rule } from './rule-model.js';

const RESET: Verdict = { do: 'reject', by: 'reset' };
const UNREACHABLE: Verdict = { do: 'reject', by: 'unreachable' };
const HEALTH_CHECK_PORT: readonly Match[] = [protocol('tcp'), inSet('HEALTH-CHECK-NODE-PORT', 'dst')];
const ECHO_REQUEST: readonly Match[] = [{ of: 'echo-request' }, inSet('IPVS-IPS', 'dst')];

export function filterChains(config: RuleConfig): ProxyChain[] {
  const { acceptServiceTraffic } = config;
  return [
    hostPortFilter(),
    firewall(config),
    sourceRanges(),
    { name: 'KUBE-NODE-PORT', rules: [rule([HEALTH_CHECK_PORT], ACCEPT)] },
    ...(acceptServiceTraffic === undefined ? [] : [serviceAccept(acceptServiceTraffic.nodePortPrefixes)]),
    forward(config),
  ];
}

/**
 * Ports of the host are not reachable through VIPs, which are local addresses (on kube-ipvs0), but for health check
 * node ports: some load balancers probe them there (kubernetes/kubernetes#117621). An echo request is answered.
 */
function hostPortFilter(): ProxyChain {
  const fresh: Match = { of: 'state', states: ['NEW'] };
  return {
    name: 'KUBE-IPVS-FILTER',
    rules: [
      rule([notInSet('IPVS-IPS', 'dst')], RETURN),
      ...PORTALS.map((portal) => rule([portal], RETURN)),
      rule([HEALTH_CHECK_PORT], RETURN),
      rule([ECHO_REQUEST], RETURN),
      rule([protocol('tcp'), fresh], RESET),
      rule([NOT_TCP, fresh], UNREACHABLE),
    ],
  };
}

/**
 * Source ranges, then a policy Local that this node cannot honour: the table holds cluster endpoints for pods and
 * the node, others are dropped. When pods cannot be distinguished from others (detection `none`) nobody is dropped:
 * pods cut off from a load balancer's address are the worse failure. First, what nobody answers: IPVS would refuse
 * too, but by ICMP, which the kernel limits to one a second per client; a reset it sends without limit.
 */
function firewall(config: RuleConfig): ProxyChain {
  const unanswered = inSet('NO-ENDPOINTS', 'dst,dst');
  const local = inSet('NO-LOCAL-ENDPOINTS', 'dst,dst');
  const pods = fromLocalPods(config);
  const drops = [
    ...pods.map((from) => rule([from, local], RETURN)),
    rule([OPENS_TCP, local], DROP),
    rule([OPENS_OTHER, local], DROP),
  ];
  const redirected: readonly Match[] = [
    { of: 'interface', interface: 'lo' },
    { of: 'tcp-port', port: REFUSAL_PORT },
    { of: 'state', states: ['DNAT'] },
  ];
  return {
    name: 'KUBE-PROXY-FIREWALL',
    rules: [
      rule([inSet('LOAD-BALANCER-FW', 'dst,dst')], jump('KUBE-SOURCE-RANGES-FIREWALL')),
      rule([OPENS_TCP, unanswered], RESET),
      rule([OPENS_OTHER, unanswered], UNREACHABLE),
      rule([redirected], RESET),
      ...(pods.length === 0 ? [] : drops),
    ],
  };
}

function sourceRanges(): ProxyChain {
  return {
    name: 'KUBE-SOURCE-RANGES-FIREWALL',
    rules: [rule([inSet('LOAD-BALANCER-SOURCE-CIDR', 'dst,dst,src')], RETURN), rule([], DROP)],
  };
}

/** For INPUT policy DROP: requests to virtual servers pass INPUT, and so do the answers to what the node asked. */
function serviceAccept(nodePortPrefixes: readonly Prefix[]): ProxyChain {
  const nodePorts = (['tcp', 'udp'] as const).flatMap((name) =>
    nodePortPrefixes.map((prefix): readonly Match[] => [
      ...(prefix.bits === 0 ? [] : [{ of: 'destination', prefix } as const]),
      protocol(name),
      { of: 'local', address: 'destination' },
      inSet(name === 'tcp' ? 'NODE-PORT-TCP' : 'NODE-PORT-UDP', 'dst'),
    ]),
  );
  const accepted: readonly (Match | readonly Match[])[] = [
    ...PORTALS,
    ...nodePorts,
    [protocol('sctp'), inSet('NODE-PORT-SCTP-HASH', 'dst,dst')],
    ECHO_REQUEST,
    { of: 'reply' },
  ];
  return { name: 'KUBE-IPVS-ACCEPT', rules: accepted.map((match) => rule([match], ACCEPT)) };
}

/**
 * The request never passes FORWARD, the answer does; also what is RELATED, such as "fragmentation needed". What
 * bears the mark passes for others' sake: host port plugins and hand-made rules that jump to KUBE-MARK-MASQ rely on
 * kube-proxy's accepting it.
 */
function forward({ masqueradeMark: mark }: RuleConfig): ProxyChain {
  return {
    name: 'KUBE-FORWARD',
    rules: [rule([{ of: 'mark', mark }], ACCEPT), rule([{ of: 'state', states: ['RELATED', 'ESTABLISHED'] }], ACCEPT)],
  };
}
