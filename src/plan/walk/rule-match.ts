/**
 * Whether a packet that opens a connection meets a rule's conditions, as the kernel would decide with the desired
 * sets.
 */
import { type Address } from '../../values/address.js';
import {
  type IpsetDefinition,
  type IpsetEntry,
  addressEntry,
  addressPortAddressEntry,
  addressPortEntry,
  addressPortNetEntry,
  formatIpsetEntry,
  portEntry,
} from '../../values/ipset.js';
import { prefixContains, prefixOf } from '../../values/prefix.js';
import { type Protocol } from '../../values/protocol.js';
import { addressServerKey } from '../../values/virtual-server.js';
import { type IpsetName, allIpsetDefinitions } from '../../desired/ipset-definitions.js';
import { type Condition } from './rule-parse.js';

/** A packet on its way; rules change its mark and its port, IPVS its destination. */
export interface PacketState {
  readonly protocol: Protocol;
  readonly source: Address;
  readonly destination: Address;
  readonly port: number;
  readonly mark: number;
  /** Whether it comes in by an interface of this name (`+` at the end: one that begins so). */
  readonly comesBy: (name: string) => boolean;
  /** A rule gave it another destination. */
  readonly isRedirected: boolean;
}

/** What the conditions look things up in. */
export interface Surroundings {
  hasEntry(set: IpsetName, entry: IpsetEntry): boolean;
  /** An address of this node, VIPs on kube-ipvs0 included. */
  isLocal(address: Address): boolean;
}

/** An entry by which a packet is found in a set. */
export interface FoundEntry {
  readonly set: string;
  /** As `ipset save` prints it. */
  readonly entry: string;
}

/** Whether all conditions hold; then with the entries by which the packet was found in sets. */
export function meets(
  conditions: readonly Condition[],
  packet: PacketState,
  around: Surroundings,
): { readonly entries: readonly FoundEntry[] } | undefined {
  const entries: FoundEntry[] = [];
  for (const condition of conditions) {
    let holds: boolean;
    if (condition.kind === 'set') {
      const found = findInSet(condition, packet, around);
      if (found !== undefined && !condition.negated) entries.push({ set: condition.set, entry: found });
      holds = found !== undefined;
    } else holds = holdsFor(condition, packet, around);
    if (holds === condition.negated) return undefined;
  }
  return { entries };
}

function holdsFor(condition: Exclude<Condition, { kind: 'set' }>, packet: PacketState, around: Surroundings): boolean {
  switch (condition.kind) {
    case 'protocol':
      return packet.protocol === condition.protocol;
    case 'source':
      return prefixContains(condition.prefix, packet.source);
    case 'destination':
      return prefixContains(condition.prefix, packet.destination);
    case 'interface':
      return packet.comesBy(condition.name);
    case 'local':
      return around.isLocal(condition.end === 'src' ? packet.source : packet.destination);
    case 'port':
      return packet.port === condition.port;
    case 'mark':
      return (packet.mark & condition.mask) >>> 0 === condition.value;
    case 'states':
      return condition.states.includes('NEW') || (packet.isRedirected && condition.states.includes('DNAT'));
    case 'opensTcp':
      return packet.protocol === 'TCP';
    case 'reply':
    case 'echo':
      return false;
  }
}

/**
 * The entry that holds the packet. Destination and port come first in all sets of ours; `src` alone asks for the
 * source.
 */
function findInSet(
  { set, directions }: { readonly set: string; readonly directions: string },
  packet: PacketState,
  around: Surroundings,
): string | undefined {
  const definition = DEFINITIONS.get(set as IpsetName);
  if (definition === undefined) throw new SyntaxError(`not a set of ours: ${set}`);
  const entries =
    directions === 'src' && definition.type === 'hash:ip'
      ? [addressEntry(packet.source)]
      : candidates(definition, packet);
  for (const entry of entries)
    if (around.hasEntry(set as IpsetName, entry)) return formatIpsetEntry(definition.type, entry);
  return undefined;
}

const DEFINITIONS = allIpsetDefinitions();

function* candidates({ type }: IpsetDefinition, packet: PacketState): Iterable<IpsetEntry> {
  const { source, destination, port } = packet;
  const server = addressServerKey(packet.protocol, destination, port);
  switch (type) {
    case 'hash:ip':
      yield addressEntry(destination);
      return;
    case 'hash:ip,port':
      yield addressPortEntry(server);
      return;
    case 'hash:ip,port,ip':
      yield addressPortAddressEntry(server, source);
      return;
    case 'bitmap:port':
      yield portEntry(port);
      return;
    case 'hash:ip,port,net':
      for (let bits = source.length * 8; bits > 0; bits--) yield addressPortNetEntry(server, prefixOf(source, bits));
  }
}
