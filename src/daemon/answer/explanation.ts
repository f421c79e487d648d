/** What happens to a packet on this node: walked through the desired state, and held against the kernel. */
import { type Address, type Family, addressLength, familyOf, formatAddress, isLoopback } from '../../values/address.js';
import { type Protocol } from '../../values/protocol.js';
import { prefixContains } from '../../values/prefix.js';
import { addressServerKey } from '../../values/virtual-server.js';
import { LOCAL } from '../../model/endpoint-slice.js';
import { type Service } from '../../model/service.js';
import { type Packet, type PacketWalk, walkPacket } from '../../plan/walk/packet-walk.js';
import { type Change } from '../../reconcile/change.js';
import { type DryRun } from '../dry-run.js';
import { formatClaimed } from '../report/event-ring.js';

export interface PacketQuestion {
  readonly destination: Address;
  readonly port: number;
  readonly protocol: Protocol;
  /** undefined: this node itself. */
  readonly from: Address | undefined;
  /** By which it comes in, where that is known. */
  readonly comesBy: string | undefined;
}

export interface Explanation extends PacketWalk {
  readonly packet: {
    readonly protocol: Protocol;
    readonly destination: string;
    readonly port: number;
    readonly source: string;
    readonly from: 'this node' | 'a pod of this node' | 'elsewhere';
  };
  /** What the answer takes for granted, and what an operator should know besides. */
  readonly notes: readonly string[];
  /** What the kernel lacks of the facts used, or has besides, as the changes that would mend it. */
  readonly kernelDiffers: readonly Change[];
}

/** What `found` says of the packet; nothing is written. Rejects when the family is not served. */
export async function explanation(question: PacketQuestion, found: DryRun): Promise<Explanation> {
  const { dataPlane, config } = found;
  const { updater, cluster } = dataPlane;
  const family = familyOf(question.destination);
  const rules = found.rules.find((one) => one.family === family);
  if (rules === undefined) throw new Error(`this node does not serve IPv${family}`);
  const saved = await dataPlane.ruleBackend.savedRules(family);
  const inputPolicy = saved.get('filter')?.get('INPUT')?.policy === 'DROP' ? 'DROP' : 'ACCEPT';
  const { nodePortAddresses } = updater.context;
  const isEverywhere = config.nodePortAddresses[family].all;
  const packet = packetOf(question, found);
  const walk = walkPacket(packet, {
    desired: updater.desired,
    rules,
    localAddresses: cluster.localAddresses,
    inputPolicy,
    servesHealthChecks: (address) => isEverywhere || nodePortAddresses[family].includes(address),
  });
  return {
    packet: {
      ...{ protocol: packet.protocol, destination: formatAddress(packet.destination), port: packet.port },
      source: formatAddress(packet.source),
      from: packet.isFromNode ? 'this node' : packet.isFromPodHere ? 'a pod of this node' : 'elsewhere',
    },
    ...walk,
    notes: notesOf(question, packet, found, othersInInput(saved.get('filter')?.get('INPUT')?.rules ?? [])),
    kernelDiffers: found.inspection.changes.filter((change) => concerns(change, packet, walk, family)),
  };
}

/** The node asks a VIP, or itself, from that very address: it has it, and the kernel prefers it. */
function packetOf(question: PacketQuestion, { dataPlane, config }: DryRun): Packet {
  const { cluster, updater } = dataPlane;
  const { destination, from } = question;
  const isLocal = (address: Address): boolean =>
    cluster.localAddresses.has(address) || updater.desired.hasAddress(address) || isLoopback(address);
  const isFromNode = from === undefined || isLocal(from);
  const own = isLocal(destination) ? destination : updater.context.nodeIP[familyOf(destination)];
  const isFromPodHere = !isFromNode && isPodHere(from, dataPlane);
  return {
    ...{ protocol: question.protocol, destination, port: question.port, isFromNode, isFromPodHere },
    source: from ?? own ?? destination,
    comesBy: (name) => comesBy(name, question.comesBy, isFromPodHere, config.detectLocal.mode),
  };
}

/**
 * Where nobody said by which interface it comes in: rules name those of local pods, or (mode ClusterCIDR) those by
 * which other machines are reached.
 */
function comesBy(name: string, known: string | undefined, isFromPodHere: boolean, mode: string): boolean {
  if (known !== undefined) return name.endsWith('+') ? known.startsWith(name.slice(0, -1)) : known === name;
  return name !== 'lo' && isFromPodHere === (mode !== 'ClusterCIDR');
}

/** By the node's pod CIDRs, and where the network gives addresses otherwise by the endpoints that are on this node. */
function isPodHere(address: Address, { cluster }: DryRun['dataPlane']): boolean {
  if ((cluster.node?.podCIDRs ?? []).some((cidr) => prefixContains(cidr, address))) return true;
  const length = addressLength(familyOf(address)) + 1;
  for (const service of cluster.services.keys())
    for (const { endpoints, family } of cluster.slicesOf(service)) {
      if (family !== familyOf(address)) continue;
      for (let at = 0; at < endpoints.length; at += length)
        if (endpoints.startsWith(address, at) && (endpoints.charCodeAt(at + length - 1) & LOCAL) !== 0) return true;
    }
  return false;
}

/** How many rules of filter INPUT are not ours: the walk knows nothing of them. */
function othersInInput(rules: readonly string[]): number {
  return rules.filter((rule) => !/-j KUBE-(IPVS-FILTER|PROXY-FIREWALL|NODE-PORT|IPVS-ACCEPT)$/.test(rule)).length;
}

function notesOf(question: PacketQuestion, packet: Packet, { dataPlane, config }: DryRun, others: number): string[] {
  const { updater, cluster } = dataPlane;
  const { destination, protocol, port } = packet;
  const notes: string[] = [];
  const { mode } = config.detectLocal;
  if (!packet.isFromNode && question.comesBy === undefined && /^(Bridge|Interface)/.test(mode))
    notes.push(
      `detectLocalMode ${mode}: taken ${packet.isFromPodHere ? '' : 'not '}to come in by an interface of local pods; --interface says it`,
    );
  if (others > 0) notes.push(`filter INPUT has ${others} rules of others, which are not looked into`);
  const key = addressServerKey(protocol, destination, port);
  const owner = updater.desired.virtualServers.get(key)?.service;
  for (const { winner, loser, example } of updater.claims.pairs)
    if (winner === owner) notes.push(`${loser} claims what ${winner} has, for one ${formatClaimed(example)}`);
  const text = formatAddress(destination);
  for (const [service, refusals] of updater.refusals)
    for (const refusal of refusals)
      if (refusal.text.includes(` ${text} `)) notes.push(`Service ${service}: ${refusal.text}`);
  if (!updater.desired.virtualServers.has(key)) notes.push(...servicesAt(cluster.services.values(), destination));
  return notes.slice(0, MAX_NOTES);
}

const MAX_NOTES = 20;

/** The ports that Services do have at an address of which another was asked. */
function* servicesAt(services: Iterable<Service>, address: Address): Iterable<string> {
  for (const { key, clusterIPs, externalIPs, loadBalancerIPs, ports } of services) {
    if (![...clusterIPs, ...externalIPs, ...loadBalancerIPs].includes(address)) continue;
    const listed = ports.slice(0, 10).map(({ protocol, port }) => `${port}/${protocol}`);
    yield `${formatAddress(address)} is an address of Service ${key}, with ports ${listed.join(', ')}`;
  }
}

/** Whether a difference touches what the answer follows from. */
function concerns(change: Change, packet: Packet, { steps, verdict }: PacketWalk, family: Family): boolean {
  const { protocol, port } = packet;
  const destination = formatAddress(packet.destination);
  switch (change.object) {
    case 'link':
    case 'sysctl':
      return true;
    case 'set':
    case 'rule':
      return change.family === family;
    case 'address':
      return change.address === destination;
    case 'virtual_server':
    case 'real_server': {
      const server = change.virtualServer;
      return (
        !('fwmark' in server) && server.address === destination && server.port === port && server.protocol === protocol
      );
    }
    case 'set_entry': {
      const { set, entry } = change;
      const isUsed = steps.some(({ entries }) => entries?.some((one) => one.set === set && one.entry === entry));
      const backends = verdict.kind === 'served' ? verdict.backends : [];
      const keys = [{ address: destination, port }, ...backends].map(
        (one) => `${one.address},${protocol.toLowerCase()}:${one.port}`,
      );
      const isNodePorts = set.includes('-NODE-PORT') && entry === String(port);
      return isUsed || isNodePorts || entry === destination || keys.some((key) => `${entry},`.startsWith(`${key},`));
    }
  }
}
