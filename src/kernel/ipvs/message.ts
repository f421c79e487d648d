/**
 * The generic netlink family "IPVS": include/uapi/linux/ip_vs.h, net/netfilter/ipvs/ip_vs_ctl.c. Addresses are always
 * 16 bytes, and IPv4 uses the first four: what they are is given by the family attribute and by nothing else.
 */
import { type AttributeReader } from '../../netlink/attribute-reader.js';
import { type MessageWriter } from '../../netlink/attribute-writer.js';
import { type Family, addressFromBytes } from '../../values/address.js';
import { protocolName } from '../../values/protocol.js';
import {
  FLAG_HASHED,
  type RealServerKey,
  type VirtualServerKey,
  type VirtualServerSettings,
  addressServerKey,
  fwmarkServerKey,
  isFwmarkKey,
  realServerKey,
  virtualServerFamily,
} from '../../values/virtual-server.js';

export const IPVS_FAMILY = 'IPVS';
export const IPVS_VERSION = 1;

export const IpvsCommand = {
  newService: 1,
  setService: 2,
  deleteService: 3,
  getService: 4,
  newDestination: 5,
  setDestination: 6,
  deleteDestination: 7,
  getDestination: 8,
  setConfig: 12,
  getConfig: 13,
  setInfo: 14,
  getInfo: 15,
} as const;

export const IpvsAttribute = { service: 1, destination: 2, timeoutTcp: 4, timeoutTcpFin: 5, timeoutUdp: 6 } as const;
export const IpvsInfoAttribute = { version: 1 } as const;
export const ServiceAttribute = {
  family: 1,
  protocol: 2,
  address: 3,
  port: 4,
  mark: 5,
  scheduler: 6,
  flags: 7,
  timeout: 8,
  netmask: 9,
  persistenceEngine: 11,
} as const;
export const DestinationAttribute = {
  address: 1,
  port: 2,
  forwarding: 3,
  weight: 4,
  upperThreshold: 5,
  lowerThreshold: 6,
  activeConnections: 7,
  inactiveConnections: 8,
  persistentConnections: 9,
  family: 11,
} as const;

export const AF_INET = 2;
export const AF_INET6 = 10;
const ADDRESS_BYTES = 16;
/** Where in an address-keyed VirtualServerKey the address begins: behind protocol and port. */
const ADDRESS_IN_KEY = 3;
const FORWARDING_MASK = 0x7;
const IPV4_HOST_MASK = 0xffffffff;
const IPV6_HOST_BITS = 128;

/** How packets reach a real server (IP_VS_CONN_F_FWD_MASK). */
export type Forwarding = 'masquerade' | 'local' | 'tunnel' | 'route' | 'bypass';
const FORWARDINGS: readonly Forwarding[] = ['masquerade', 'local', 'tunnel', 'route', 'bypass'];

/** The forwarding method in a real server's connection flags. */
export function forwardingOf(connectionFlags: number): Forwarding {
  return FORWARDINGS[connectionFlags & FORWARDING_MASK] ?? 'bypass';
}

export interface DumpedVirtualServer {
  readonly key: VirtualServerKey;
  readonly settings: VirtualServerSettings;
  /**
   * Set up in a way that this program never does (a persistence netmask or engine), so that equal settings are not
   * enough.
   */
  readonly modified: boolean;
}

export interface DumpedRealServer {
  readonly key: RealServerKey;
  readonly weight: number;
  readonly forwarding: Forwarding;
  readonly activeConnections: number;
  readonly inactiveConnections: number;
}

function addressFamilyNumber(family: Family): number {
  return family === 4 ? AF_INET : AF_INET6;
}

function familyFromNumber(number: number): Family | undefined {
  return number === AF_INET ? 4 : number === AF_INET6 ? 6 : undefined;
}

/** Where in a message the bytes that name an address-keyed virtual server are. */
export interface ServiceOffsets {
  readonly protocol: number;
  readonly address: number;
  readonly port: number;
}

/**
 * Writes the nested service attribute: its identity and, when given, its settings. Returns where the identity is;
 * undefined for a firewall mark.
 */
export function writeService(
  writer: MessageWriter,
  key: VirtualServerKey,
  settings?: VirtualServerSettings,
): ServiceOffsets | undefined {
  const service = writer.beginNested(IpvsAttribute.service);
  const family = virtualServerFamily(key);
  writer.u16(ServiceAttribute.family, addressFamilyNumber(family));
  let offsets: ServiceOffsets | undefined;
  if (isFwmarkKey(key)) {
    const [a, b] = [(key.charCodeAt(1) << 8) | key.charCodeAt(2), (key.charCodeAt(3) << 8) | key.charCodeAt(4)];
    writer.u32(ServiceAttribute.mark, ((a << 16) | b) >>> 0);
  } else {
    offsets = {
      protocol: writer.raw(ServiceAttribute.protocol, 2),
      address: writer.raw(ServiceAttribute.address, ADDRESS_BYTES),
      port: writer.raw(ServiceAttribute.port, 2),
    };
    patchService(writer.buffer, 0, offsets, key);
  }
  if (settings !== undefined) writeSettings(writer, settings, family);
  writer.endNested(service);
  return offsets;
}

/** Puts another virtual server's identity, of the same family, into a message that begins at `start`. */
export function patchService(buffer: Buffer, start: number, offsets: ServiceOffsets, key: VirtualServerKey): void {
  buffer[start + offsets.protocol] = key.charCodeAt(0);
  buffer[start + offsets.port] = key.charCodeAt(1);
  buffer[start + offsets.port + 1] = key.charCodeAt(2);
  const address = start + offsets.address - ADDRESS_IN_KEY;
  for (let i = ADDRESS_IN_KEY; i < key.length; i++) buffer[address + i] = key.charCodeAt(i);
}

function writeSettings(writer: MessageWriter, settings: VirtualServerSettings, family: Family): void {
  writer.string(ServiceAttribute.scheduler, settings.scheduler);
  const flags = writer.raw(ServiceAttribute.flags, 8); // struct ip_vs_flags: flags, mask
  writer.buffer.writeUInt32LE(settings.flags >>> 0, flags);
  writer.buffer.writeUInt32LE(0xffffffff, flags + 4);
  writer.u32(ServiceAttribute.timeout, settings.timeout);
  writer.u32(ServiceAttribute.netmask, family === 4 ? IPV4_HOST_MASK : IPV6_HOST_BITS);
}

/** Where in a template the bytes of the real server are. */
export interface DestinationOffsets {
  readonly address: number;
  readonly port: number;
  readonly weight: number;
}

/** Writes the nested destination attribute of a new or changed real server with zero for what differs between them. */
export function writeDestination(writer: MessageWriter): DestinationOffsets {
  const destination = writer.beginNested(IpvsAttribute.destination);
  const address = writer.raw(DestinationAttribute.address, ADDRESS_BYTES);
  const port = writer.raw(DestinationAttribute.port, 2);
  writer.u32(DestinationAttribute.forwarding, 0); // IP_VS_CONN_F_MASQ
  const weight = writer.raw(DestinationAttribute.weight, 4);
  writer.u32(DestinationAttribute.upperThreshold, 0);
  writer.u32(DestinationAttribute.lowerThreshold, 0);
  writer.endNested(destination);
  return { address, port, weight };
}

/**
 * Reads the attributes inside IPVS_CMD_ATTR_SERVICE; undefined for a server that no VirtualServerKey can name (another
 * protocol or address family). Throws NetlinkProtocolError on attributes that are too short.
 */
export function readService(reader: AttributeReader): DumpedVirtualServer | undefined {
  let familyNumber = 0;
  let protocol = 0;
  let port = 0;
  let mark = 0;
  let addressAt = -1;
  let scheduler = '';
  let flags = 0;
  let timeout = 0;
  let netmask = 0;
  let engine = false;
  while (reader.next()) {
    if (reader.type === ServiceAttribute.family) familyNumber = reader.u16();
    else if (reader.type === ServiceAttribute.protocol) protocol = reader.u16();
    else if (reader.type === ServiceAttribute.address) addressAt = payload(reader);
    else if (reader.type === ServiceAttribute.port) port = reader.u16be();
    else if (reader.type === ServiceAttribute.mark) mark = reader.u32();
    else if (reader.type === ServiceAttribute.scheduler) scheduler = reader.string();
    else if (reader.type === ServiceAttribute.flags) flags = reader.u32();
    else if (reader.type === ServiceAttribute.timeout) timeout = reader.u32();
    else if (reader.type === ServiceAttribute.netmask) netmask = reader.u32();
    else if (reader.type === ServiceAttribute.persistenceEngine) engine = true;
  }
  const family = familyFromNumber(familyNumber);
  if (family === undefined) return undefined;
  const key = serviceKey(family, mark, protocol, addressAt < 0 ? undefined : reader.buffer, addressAt, port);
  if (key === undefined) return undefined;
  const modified = engine || netmask !== (family === 4 ? IPV4_HOST_MASK : IPV6_HOST_BITS);
  return { key, settings: sharedSettings(scheduler, (flags & ~FLAG_HASHED) >>> 0, timeout), modified };
}

let lastSettings: VirtualServerSettings = { scheduler: '', flags: 0, timeout: 0 };

/** Nearly all virtual servers have the same settings: one object serves them all. */
function sharedSettings(scheduler: string, flags: number, timeout: number): VirtualServerSettings {
  const last = lastSettings;
  if (last.flags === flags && last.timeout === timeout && last.scheduler === scheduler) return last;
  return (lastSettings = { scheduler, flags, timeout });
}

function serviceKey(
  family: Family,
  mark: number,
  protocolNumber: number,
  buffer: Buffer | undefined,
  addressAt: number,
  port: number,
): VirtualServerKey | undefined {
  if (mark !== 0) return fwmarkServerKey(family, mark);
  const protocol = protocolName(protocolNumber);
  if (protocol === undefined || buffer === undefined) return undefined;
  return addressServerKey(protocol, addressFromBytes(buffer, addressAt, family), port);
}

/**
 * Reads the attributes inside IPVS_CMD_ATTR_DEST. A real server has its own family only on kernels since 3.18, and only
 * tunnels differ from their virtual server (`family`). Undefined without an address.
 */
export function readDestination(reader: AttributeReader, family: Family): DumpedRealServer | undefined {
  let familyNumber = addressFamilyNumber(family);
  let addressAt = -1;
  let port = 0;
  let forwarding = 0;
  let weight = 0;
  let activeConnections = 0;
  let inactiveConnections = 0;
  while (reader.next()) {
    if (reader.type === DestinationAttribute.address) addressAt = payload(reader);
    else if (reader.type === DestinationAttribute.port) port = reader.u16be();
    else if (reader.type === DestinationAttribute.forwarding) forwarding = reader.u32();
    else if (reader.type === DestinationAttribute.weight) weight = reader.u32() | 0;
    else if (reader.type === DestinationAttribute.activeConnections) activeConnections = reader.u32();
    else if (reader.type === DestinationAttribute.inactiveConnections) inactiveConnections = reader.u32();
    else if (reader.type === DestinationAttribute.family) familyNumber = reader.u16();
  }
  const own = familyFromNumber(familyNumber);
  if (own === undefined || addressAt < 0) return undefined;
  const address = addressFromBytes(reader.buffer, addressAt, own);
  const method = forwardingOf(forwarding);
  return { key: realServerKey(address, port), weight, forwarding: method, activeConnections, inactiveConnections };
}

function payload(reader: AttributeReader): number {
  reader.need(ADDRESS_BYTES);
  return reader.start;
}
