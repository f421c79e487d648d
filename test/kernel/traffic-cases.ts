/**
 * The table: which client, at which address of which Service, by which protocol and family, must meet what.
 * traffic-table.ts says how to read a row, traffic-world.ts what the Services are; `near` is a backend on the node
 * under test, `far` one on the other node.
 */
import { type Row, row } from './traffic-table.js';

/** One way to run the daemon, and the rows that hold then. */
export interface Phase {
  readonly name: string;
  /** Of the KubeProxyConfiguration. */
  readonly config: Readonly<Record<string, unknown>>;
  /** Shell commands before the daemon starts, and after it has ended. */
  readonly before?: string;
  readonly after?: string;
  readonly rows: readonly Row[];
}

const PUBLIC = 'externalIP,loadBalancer,nodePort';
const EVERYBODY = 'client node other farclient outside';

const mainRows: readonly Row[] = [
  row('ClusterIP', 'basic clusterIP TCP,UDP,SCTP', 'client: near far as self', 'node other outside: near far as node'),
  row('hairpin: a pod reaches itself', 'self clusterIP TCP,UDP,SCTP', 'client node: client as node'),
  row('hairpin by NodePort', 'self nodePort TCP,UDP,SCTP', 'client node outside: client as node'),
  row('single-stack IPv4', 'single-ipv4 clusterIP,nodePort TCP,UDP IPv4', 'node outside: near far as node'),
  row('single-stack IPv4', 'single-ipv4 nodePort TCP IPv6', 'client outside: refused'),
  row('single-stack IPv6', 'single-ipv6 clusterIP,nodePort TCP,UDP IPv6', 'node outside: near far as node'),
  row('single-stack IPv6', 'single-ipv6 nodePort TCP IPv4', 'client outside: refused'),
  row('dual-stack, IPv6 first', 'ipv6-first clusterIP,nodePort TCP,UDP', 'node outside: near far as node'),
  row('NodePort', 'node-port nodePort TCP,UDP,SCTP', `${EVERYBODY}: near far as node`),
  row('NodePort, second node address', 'node-port second TCP,UDP IPv4', 'client outside: near far as node'),
  row('NodePort is not on loopback', 'node-port loopback TCP', 'node: refused'),
  row('external IP, LB IP', 'exposed externalIP,loadBalancer TCP,UDP', `${EVERYBODY}: near far as node`),
  row('LB IP by SCTP', 'exposed loadBalancer SCTP', 'client outside: near far as node'),
  row(
    'external policy Local',
    `external-local ${PUBLIC} TCP,UDP`,
    'client other outside: near as self',
    'node: near as node',
  ),
  row(
    'external policy Local, none local',
    `external-local-remote ${PUBLIC} TCP,UDP`,
    'client: far as self',
    'farclient: far as node',
    'other outside: dropped',
  ),
  row(
    'external policy Local, none local',
    'external-local-remote externalIP,loadBalancer TCP,UDP',
    'node: far as node',
  ),
  row(
    'external policy Local, none local: from a node address',
    'external-local-remote nodePort TCP,UDP',
    'node: far as target',
  ),
  row(
    'external policy Local, none local: from a node address',
    'external-local-remote second TCP,UDP IPv4',
    'node: far as target',
  ),
  row('external policy Local: from a node address', 'external-local second TCP,UDP IPv4', 'node: near as target'),
  row(
    'external policy Local, ClusterIP',
    'external-local-remote clusterIP TCP',
    'client: far as self',
    'node: far as node',
  ),
  row('internal policy Local', 'internal-local clusterIP TCP', 'client: near as self', 'node: near as node'),
  row('internal policy Local, none local', 'internal-local-remote clusterIP TCP', 'client node: refused'),
  row('both policies Local, none local', 'both-local-remote clusterIP TCP', 'client node outside: refused'),
  row(
    'both policies Local, none local',
    `both-local-remote ${PUBLIC} TCP`,
    'client: far as self',
    'node: far as node',
    'outside: dropped',
  ),
  row(
    'source ranges: outside only',
    'ranges-outside loadBalancer TCP,UDP',
    'outside: near far as node',
    'client node other: dropped',
  ),
  row('source ranges bind the LB IP only', 'ranges-outside clusterIP,nodePort TCP IPv4', 'node: near far as node'),
  row(
    'source ranges: this node and its pods',
    'ranges-inside loadBalancer TCP',
    'client node: near far as node',
    'farclient outside: dropped',
  ),
  row(
    'source ranges of IPv4 alone',
    'ranges-ipv4 loadBalancer TCP IPv4',
    'outside: near far as node',
    'client node: dropped',
  ),
  row('source ranges of IPv4 alone', 'ranges-ipv4 loadBalancer TCP IPv6', 'outside client node: near far as node'),
  row(
    'source ranges of everybody in IPv6, of few in IPv4',
    'ranges-open-ipv6 loadBalancer TCP IPv4',
    'outside: dropped',
    'client: near far as node',
  ),
  row(
    'source ranges of everybody in IPv6, of few in IPv4',
    'ranges-open-ipv6 loadBalancer TCP IPv6',
    'outside client node: near far as node',
  ),
  row('source ranges of which none can be read', 'ranges-bad loadBalancer TCP', 'outside client node: dropped'),
  row('source ranges that hold the VIP itself', 'ranges-hold-vip loadBalancer TCP', 'node outside: dropped'),
  row(
    'source ranges of another port on the same IP',
    'shares-restricted-ip loadBalancer TCP',
    'client node outside: near far as node',
  ),
  row('no endpoints', `no-endpoints clusterIP,${PUBLIC} TCP`, `${EVERYBODY}: refused`),
  row('no endpoints', 'no-endpoints clusterIP UDP', `${EVERYBODY}: refused`),
  row('no endpoints', 'no-endpoints nodePort,loadBalancer UDP', 'client node outside: refused'),
  row('not ready', 'not-ready clusterIP TCP', 'client node: refused'),
  row('terminating, nothing is ready', 'terminating-only clusterIP TCP', 'client: near as self'),
  row('terminating, another is ready', 'mixed-ready clusterIP TCP', 'client: near as self'),
  row('zone hints', 'zone-hints clusterIP TCP', 'client: near as self'),
  row('node hints', 'node-hints clusterIP TCP', 'client: far as self'),
  row(
    'terminating, nothing is ready',
    `terminating-exposed ${PUBLIC} TCP,UDP`,
    'client node outside: near far as node',
  ),
  row(
    'external policy Local, the local one is terminating',
    `terminating-local ${PUBLIC} TCP,UDP`,
    'client other outside: near as self',
    'node: near as node',
  ),
  row(
    'external policy Local, the local one is terminating: ClusterIP',
    'terminating-local clusterIP TCP',
    'client: far2 as self',
  ),
  row(
    'external policy Local, the local one is terminating: health check node port',
    'terminating-local nodePort HTTP',
    'outside client: health 503 0',
  ),
  row(
    'internal policy Local, the local one is terminating',
    'terminating-internal-local clusterIP TCP',
    'client: near as self',
    'node: near as node',
  ),
  row('terminating and not serving', 'terminating-unready clusterIP,nodePort TCP,UDP', 'client node outside: refused'),
  row(
    'terminating and not serving, but published',
    'terminating-published clusterIP,nodePort TCP',
    'node outside: near as node',
  ),
  row('slices of other port numbers', 'many-slices clusterIP TCP :80', 'client: near near2 far81 as self'),
  row('slices of other port numbers', 'many-slices clusterIP TCP :81', 'client: near81 far as self'),
  row('slices of other port numbers', 'many-slices nodePort TCP', 'client node outside: near near2 far81 as node'),
  row('slices of other port numbers', 'many-slices nodePort TCP :30138', 'client outside: near81 far as node'),
  row('each port in a slice of its own', 'port-per-slice clusterIP TCP :80', 'client: near as self'),
  row('each port in a slice of its own', 'port-per-slice clusterIP TCP :81', 'client: near281 far81 as self'),
  row('each port in a slice of its own', 'port-per-slice clusterIP TCP :82', 'client node outside: refused'),
  row('affinity', 'affinity clusterIP TCP', 'client node outside: one of near far'),
  row('affinity', `affinity-exposed clusterIP,${PUBLIC} TCP,UDP`, 'client node outside: one of near far'),
  row('affinity, external policy Local', `affinity-local ${PUBLIC} TCP`, 'client outside: one of near near2'),
  row('external IP = node IP', 'external-ip-is-node node TCP', 'client node outside: near far as node'),
  row('LB IP = node IP', 'lb-ip-is-node node TCP', 'client node outside: near far as node'),
  row('LB IP = node IP: NodePort', 'lb-ip-is-node nodePort TCP', 'client node outside: near far as node'),
  row(
    'LB IP = node IP: host port',
    'lb-ip-is-node node TCP :2222',
    'client outside: host as self',
    'node: host as node',
  ),
  row('host port on a VIP', 'exposed clusterIP,loadBalancer,externalIP TCP :2222', 'client node outside: refused'),
  row('host port on a VIP', 'exposed clusterIP UDP :2222', 'client outside: refused'),
  row('ping to a VIP', 'exposed clusterIP,loadBalancer PING', 'client node outside: echo'),
  row('ARP for a VIP, strictARP off', 'exposed loadBalancer ARP IPv4', 'router: echo'),
  row(
    'endpoint on the node’s network',
    'host-network clusterIP,nodePort TCP,UDP',
    'client outside: host as self',
    'node: host as node',
  ),
  row(
    'endpoint on the node’s network, internal policy Local',
    'host-network-internal-local clusterIP TCP',
    'client: host as self',
    'node: host as node',
  ),
  row(
    'endpoint on another node’s network',
    'host-network-remote clusterIP TCP,UDP',
    'client: otherhost as self',
    'node: otherhost as node',
  ),
  row(
    'endpoint on another node’s network',
    'host-network-remote nodePort TCP,UDP',
    'client node outside: otherhost as node',
  ),
  row('health check node port, one local', 'external-local nodePort HTTP', 'outside node: health 200 1'),
  row('health check node port, none local', 'external-local-remote nodePort HTTP', 'outside client: health 503 0'),
  row(
    'health check node port on a VIP',
    'external-local loadBalancer,externalIP,clusterIP HTTP',
    'outside client node other: health 200 1',
  ),
  row(
    'health check node port on a VIP, none local',
    'external-local-remote loadBalancer HTTP',
    'outside client: health 503 0',
  ),
  row('health check node port on a VIP, by UDP', 'external-local loadBalancer UDP :32006', 'outside client: refused'),
];

/** What depends on how local pods are told from others: by each place, whether it counts as local. */
function masqueradeRows(local: { client: boolean; bridged: boolean; farclient: boolean }): Row[] {
  const seen = (place: keyof typeof local): string => (local[place] ? 'self' : 'node');
  const unlocal = (place: keyof typeof local): string => `${place}: ${local[place] ? 'far as self' : 'dropped'}`;
  return [
    row(
      'ClusterIP',
      'basic clusterIP TCP,UDP',
      `client: near far as ${seen('client')}`,
      `bridged: near far as ${seen('bridged')}`,
      'node other outside: near far as node',
    ),
    row('ClusterIP, the other node’s pod', 'internal-local clusterIP TCP', `farclient: near as ${seen('farclient')}`),
    row('NodePort, LB IP', 'exposed nodePort,loadBalancer TCP', 'client bridged node outside: near far as node'),
    row(
      'external policy Local, none local',
      'external-local-remote nodePort,loadBalancer TCP',
      unlocal('client'),
      unlocal('bridged'),
      `farclient: ${local.farclient ? 'far as node' : 'dropped'}`,
      'node: far as node',
      'outside: dropped',
    ),
    row('hairpin', 'self clusterIP TCP', 'client: client as node'),
    row('hairpin on a bridge', 'self-bridged clusterIP TCP', 'bridged: bridged as node'),
  ];
}

/**
 * Only neighbour discovery passes, and 127.0.0.1, where the API server of the test is; and the administrator has a rule
 * of his own against one NodePort. INPUT is emptied, as by a firewall that is loaded at boot: the daemon comes after
 * it. One host port is hand-made and marks its clients by KUBE-MARK-MASQ, as CNI portmap may.
 */
const FIREWALL = `
$IPTABLES -t nat -A PREROUTING -p tcp -d 10.200.0.2 --dport 8001 -j KUBE-MARK-MASQ
$IPTABLES -t nat -A PREROUTING -p tcp -d 10.200.0.2 --dport 8001 -j DNAT --to-destination 10.128.0.11:8080
$IPTABLES -F INPUT
$IPTABLES -A INPUT -i lo -d 127.0.0.1 -j ACCEPT
$IPTABLES -A INPUT -p tcp --dport 30004 -s 203.0.113.0/24 -j DROP
for chain in INPUT FORWARD; do $IPTABLES -P $chain DROP; $IP6TABLES -P $chain DROP; done
for type in 133 134 135 136; do $IP6TABLES -A INPUT -p ipv6-icmp --icmpv6-type $type -j ACCEPT; done
`;
const NO_FIREWALL = `
$IPTABLES -t nat -D PREROUTING -p tcp -d 10.200.0.2 --dport 8001 -j KUBE-MARK-MASQ
$IPTABLES -t nat -D PREROUTING -p tcp -d 10.200.0.2 --dport 8001 -j DNAT --to-destination 10.128.0.11:8080
for chain in INPUT FORWARD; do $IPTABLES -P $chain ACCEPT; $IP6TABLES -P $chain ACCEPT; done
$IPTABLES -D INPUT -i lo -d 127.0.0.1 -j ACCEPT
$IPTABLES -D INPUT -p tcp --dport 30004 -s 203.0.113.0/24 -j DROP
for type in 133 134 135 136; do $IP6TABLES -D INPUT -p ipv6-icmp --icmpv6-type $type -j ACCEPT; done
`;

const HAND_MADE = row('policy DROP: hand-made host port', 'basic node TCP IPv4 :8001', 'outside other: near as node');

/** As with kube-proxy: INPUT decides, and it lets nothing in but what comes for a health check. */
const firewallRows: readonly Row[] = [
  row('policy DROP', 'basic clusterIP TCP,UDP,SCTP', 'client outside: dropped'),
  row('policy DROP', `exposed ${PUBLIC} TCP,UDP`, 'client outside: dropped'),
  row('policy DROP', `external-local ${PUBLIC} TCP,UDP`, 'client outside: dropped'),
  row('policy DROP: health check', 'external-local nodePort,loadBalancer HTTP', 'outside client: health 200 1'),
  row('policy DROP: no endpoints', 'no-endpoints clusterIP,nodePort TCP', 'client outside: refused'),
  row('policy DROP: host port', 'exposed node TCP :2222', 'client outside: dropped'),
  HAND_MADE,
];

const acceptedRows: readonly Row[] = [
  row('policy DROP', 'basic clusterIP TCP,UDP,SCTP', 'client: near far as self', 'node outside: near far as node'),
  row('policy DROP', 'node-port nodePort TCP,UDP,SCTP', 'client node outside: near far as node'),
  row('policy DROP', `external-local ${PUBLIC} TCP,UDP`, 'client outside: near as self', 'node: near as node'),
  row('policy DROP: health check', 'external-local nodePort,loadBalancer HTTP', 'outside: health 200 1'),
  row('policy DROP: no endpoints', 'no-endpoints clusterIP,nodePort TCP', 'client outside: refused'),
  row('policy DROP: host port', 'exposed node TCP :2222', 'client outside: dropped'),
  row('policy DROP: ping to a VIP', 'exposed loadBalancer PING', 'client outside: echo'),
  row('an administrator’s DROP', 'exposed nodePort TCP IPv4', 'outside: dropped', 'client: near far as node'),
  HAND_MADE,
];

/** NodePorts are accepted where they are served; a host's own server on the same port of another address is not. */
const acceptedHereRows: readonly Row[] = [
  row('policy DROP', 'external-local second TCP,UDP IPv4', 'client outside: near as self'),
  row(
    'policy DROP: a host port with a NodePort’s number',
    'external-local nodePort TCP,UDP IPv4',
    'client outside: dropped',
  ),
];

const masqueradeAllRows: readonly Row[] = [
  row('masqueradeAll', 'basic clusterIP TCP,UDP', 'client node outside: near far as node'),
  row('ARP for a VIP, strictARP on', 'exposed loadBalancer ARP IPv4', 'router: silence'),
  row('ARP for the node, strictARP on', 'exposed node ARP IPv4', 'router: echo'),
];

const restrictedRows = (first: string, second: string): Row[] => [
  row('nodePortAddresses', 'node-port nodePort TCP,UDP IPv4', `client outside: ${first}`),
  row('nodePortAddresses', 'node-port second TCP,UDP IPv4', `client outside: ${second}`),
];

/** rr is what all other phases have. */
const SCHEDULERS = ['wrr', 'lc', 'wlc', 'lblc', 'lblcr', 'dh', 'sh', 'mh', 'sed', 'nq', 'fo', 'ovf'];
const CLUSTER_CIDR = { clusterCIDR: '10.128.0.0/16,fd00:10:128::/40' };

export const PHASES: readonly Phase[] = [
  { name: 'ClusterCIDR', config: CLUSTER_CIDR, rows: mainRows },
  {
    name: 'policy DROP, acceptServiceTraffic, masqueradeBit 20',
    config: { ...CLUSTER_CIDR, iptables: { masqueradeBit: 20 }, kubeProxyIpvs: { acceptServiceTraffic: true } },
    before: FIREWALL,
    rows: acceptedRows,
  },
  {
    name: 'policy DROP, acceptServiceTraffic, nodePortAddresses 10.201.0.0/24',
    config: {
      ...CLUSTER_CIDR,
      nodePortAddresses: ['10.201.0.0/24'],
      kubeProxyIpvs: { acceptServiceTraffic: true },
    },
    rows: acceptedHereRows,
  },
  {
    name: 'policy DROP',
    config: CLUSTER_CIDR,
    after: NO_FIREWALL,
    rows: firewallRows,
  },
  {
    name: 'detectLocalMode ClusterCIDR',
    config: CLUSTER_CIDR,
    rows: masqueradeRows({ client: true, bridged: true, farclient: true }),
  },
  {
    name: 'detectLocalMode NodeCIDR',
    config: { detectLocalMode: 'NodeCIDR' },
    rows: masqueradeRows({ client: true, bridged: true, farclient: false }),
  },
  {
    name: 'detectLocalMode BridgeInterface',
    config: { detectLocalMode: 'BridgeInterface', detectLocal: { bridgeInterface: 'cbr0' } },
    rows: masqueradeRows({ client: false, bridged: true, farclient: false }),
  },
  {
    name: 'detectLocalMode InterfaceNamePrefix',
    config: { detectLocalMode: 'InterfaceNamePrefix', detectLocal: { interfaceNamePrefix: 'v-' } },
    rows: masqueradeRows({ client: true, bridged: false, farclient: false }),
  },
  {
    name: 'detectLocalMode ClusterCIDR without clusterCIDR',
    config: {},
    rows: [
      row('ClusterIP', 'basic clusterIP TCP,UDP', 'client bridged: near far as self', 'node: near far as node'),
      row('NodePort, LB IP', 'exposed nodePort,loadBalancer TCP', 'client bridged node outside: near far as node'),
      row(
        'external policy Local, none local',
        'external-local-remote nodePort,loadBalancer TCP',
        'client bridged: far as self',
        'node: far as node',
        'outside: dropped',
      ),
      row('hairpin', 'self clusterIP TCP', 'client: client as node'),
    ],
  },
  {
    name: 'masqueradeAll, strictARP',
    config: { ...CLUSTER_CIDR, iptables: { masqueradeAll: true }, ipvs: { strictARP: true } },
    rows: masqueradeAllRows,
  },
  {
    name: 'nodePortAddresses 10.201.0.0/24',
    config: { ...CLUSTER_CIDR, nodePortAddresses: ['10.201.0.0/24'] },
    rows: restrictedRows('refused', 'near far as node'),
  },
  {
    name: 'nodePortAddresses primary',
    config: { ...CLUSTER_CIDR, nodePortAddresses: ['primary'] },
    rows: restrictedRows('near far as node', 'refused'),
  },
  ...SCHEDULERS.map((scheduler) => ({
    name: `scheduler ${scheduler}`,
    config: { ...CLUSTER_CIDR, ipvs: { scheduler } },
    rows: [row(`scheduler ${scheduler}`, 'basic clusterIP TCP,UDP', 'client outside: any of near far')],
  })),
];
