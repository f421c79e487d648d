/**
 * The laboratory's network as data, and the `ip` commands that build it.
 *
 *                outside (203.0.113.10)            a host outside the cluster
 *                   |
 *                router (bridge br0: 10.200.0.1)   knows the way to service addresses and to both nodes' pods
 *                 |         |
 *    the node ('' : 10.200.0.2)   other (10.200.0.3)    two nodes on one Ethernet
 *         |    |                    |
 *       pods on this node         pods on the other node
 *
 * `routed` pods have a /32 (/128) each, the default route 169.254.1.1 (fe80::1) and proxy ARP on the node's side, as
 * Calico and others do; `bridge` pods share the bridge cbr0, as kubenet and the bridge plugin do.
 */
export interface PodSpec {
  /** Name of its namespace, up to 13 characters. */
  readonly name: string;
  /** Without prefix length. */
  readonly addresses: readonly string[];
  readonly place?: 'node' | 'other';
  readonly link?: 'routed' | 'bridge';
  /** Name of the interface on the node's side; `v-NAME` when left out. */
  readonly interface?: string;
}

export interface LabSpec {
  readonly pods: readonly PodSpec[];
  /** With prefix lengths; the router takes the first host address of these networks (10.200.0.1). */
  readonly nodeAddresses?: readonly string[];
  readonly otherNodeAddresses?: readonly string[];
  readonly outsideAddresses?: readonly string[];
  /** Where the pods live, as the other machines' routes say. */
  readonly nodePodPrefixes?: readonly string[];
  readonly otherNodePodPrefixes?: readonly string[];
  /** The bridge's own addresses, with prefix length; only used when a pod has `link: 'bridge'`. */
  readonly bridgeAddresses?: readonly string[];
  /** Service addresses that router, other node and outside reach through this node. */
  readonly servicePrefixes?: readonly string[];
}

export const DEFAULTS: Required<Omit<LabSpec, 'pods'>> = {
  nodeAddresses: ['10.200.0.2/24', 'fd00:200::2/64'],
  otherNodeAddresses: ['10.200.0.3/24', 'fd00:200::3/64'],
  outsideAddresses: ['203.0.113.10/24', 'fd00:203::10/64'],
  nodePodPrefixes: ['10.128.0.0/24', 'fd00:10:128::/64'],
  otherNodePodPrefixes: ['10.128.1.0/24', 'fd00:10:128:1::/64'],
  bridgeAddresses: ['10.128.0.1/24', 'fd00:10:128::1/64'],
  servicePrefixes: ['10.96.0.0/16', 'fd00:96::/64', '192.0.2.0/24', '198.51.100.0/24'],
};

/** The namespaces besides the node's own and the pods'. */
export const ROUTER = 'router';
export const OTHER_NODE = 'other';
export const OUTSIDE = 'outside';

/** Shell script that makes router, other node and outside host and connects the node; namespaces must exist. */
export function fabricScript(spec: Required<LabSpec>): string {
  const node = spec.nodeAddresses;
  const other = spec.otherNodeAddresses;
  const outside = spec.outsideAddresses;
  const toNode = (prefixes: readonly string[]): string[] => routes(prefixes, node);
  const toOther = routes(spec.otherNodePodPrefixes, other);
  return [
    batch('', [
      `link add eth0 type veth peer name node netns ${ROUTER}`,
      ...up('eth0', node),
      ...defaults(node),
      ...toOther,
    ]),
    batch(ROUTER, [
      'link set lo up',
      'link add br0 type bridge forward_delay 0',
      `link add other type veth peer name eth0 netns ${OTHER_NODE}`,
      `link add out0 type veth peer name eth0 netns ${OUTSIDE}`,
      ...['node', 'other'].map((port) => `link set ${port} master br0 up`),
      ...up('br0', node.map(gateway)),
      ...up('out0', outside.map(gateway)),
      ...toNode([...spec.servicePrefixes, ...spec.nodePodPrefixes]),
      ...toOther,
    ]),
    batch(OTHER_NODE, [
      'link set lo up',
      ...up('eth0', other),
      ...defaults(other),
      ...toNode([...spec.servicePrefixes, ...spec.nodePodPrefixes]),
    ]),
    batch(OUTSIDE, ['link set lo up', ...up('eth0', outside), ...defaults(outside)]),
  ].join('');
}

/** Shell script that makes the bridge for pods on the node. */
export function bridgeScript(spec: Required<LabSpec>): string {
  return batch('', ['link add cbr0 type bridge forward_delay 0', ...up('cbr0', spec.bridgeAddresses)]);
}

/** Shell script that connects one pod; its namespace must exist. */
export function podScript(pod: PodSpec, spec: Required<LabSpec>): string {
  const host = podInterface(pod);
  const machine = pod.place === 'other' ? OTHER_NODE : '';
  const create = `link add ${host} type veth peer name eth0 netns ${pod.name}`;
  if (pod.link === 'bridge') {
    const lengths = spec.bridgeAddresses.map((address) => address.split('/') as [string, string]);
    const full = pod.addresses.map((address) => {
      const match = lengths.find(([bridge]) => isIPv6(bridge) === isIPv6(address));
      return `${address}/${match?.[1] ?? (isIPv6(address) ? 64 : 24)}`;
    });
    const via = lengths.map(([bridge]) => `route add default via ${bridge}`);
    return (
      batch(machine, [create, `link set ${host} master cbr0 up`]) +
      batch(pod.name, ['link set lo up', ...up('eth0', full), ...via])
    );
  }
  const hostRoutes = pod.addresses.map((address) => `route add ${address} dev ${host}`);
  return (
    batch(machine, [create, ...up(host, ['fe80::1/64']), ...hostRoutes]) +
    batch(pod.name, [
      'link set lo up',
      ...up(
        'eth0',
        pod.addresses.map((address) => `${address}/${isIPv6(address) ? 128 : 32}`),
      ),
      'route add 169.254.1.1 dev eth0 scope link',
      'route add default via 169.254.1.1 dev eth0',
      'route add default via fe80::1 dev eth0',
    ])
  );
}

export function podInterface(pod: PodSpec): string {
  return pod.interface ?? `v-${pod.name}`;
}

/** Sysctls of one machine, before its interfaces exist: no duplicate address detection. */
export function machineSysctls(isForwarding: boolean): [path: string, text: string][] {
  const forwarding: [string, string][] = [
    ['/proc/sys/net/ipv4/ip_forward', '1'],
    ['/proc/sys/net/ipv6/conf/all/forwarding', '1'],
  ];
  return [['/proc/sys/net/ipv6/conf/default/accept_dad', '0'], ...(isForwarding ? forwarding : [])];
}

function batch(namespace: string, lines: readonly string[]): string {
  const place = namespace === '' ? '' : `-n ${namespace} `;
  return `ip ${place}-batch - <<'END'\n${lines.join('\n')}\nEND\n`;
}

function up(link: string, addresses: readonly string[]): string[] {
  return [
    ...addresses.map((address) => `addr add ${address} dev ${link}${isIPv6(address) ? ' nodad' : ''}`),
    `link set ${link} up`,
  ];
}

function defaults(addresses: readonly string[]): string[] {
  return addresses.map((address) => `route add default via ${bare(gateway(address))}`);
}

/** Routes to the prefixes through the machine's address of the same family. */
function routes(prefixes: readonly string[], machine: readonly string[]): string[] {
  return prefixes.flatMap((prefix) => {
    const via = machine.find((address) => isIPv6(address) === isIPv6(prefix));
    return via === undefined ? [] : [`route add ${prefix} via ${bare(via)}`];
  });
}

/** 10.200.0.2/24 -> 10.200.0.1/24, fd00:200::2/64 -> fd00:200::1/64. */
function gateway(address: string): string {
  return address.replace(/[0-9a-f]+\//, '1/');
}

function bare(address: string): string {
  return address.split('/')[0]!;
}

function isIPv6(text: string): boolean {
  return text.includes(':');
}
