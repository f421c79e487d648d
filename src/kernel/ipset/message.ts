/**
 * ipset's attributes (include/uapi/linux/netfilter/ipset/ip_set.h). Numbers that the header calls network order carry
 * NLA_F_NET_BYTEORDER and nested ones NLA_F_NESTED: the kernel checks both.
 */
import { AttributeReader } from '../../netlink/attribute-reader.js';
import { type MessageWriter, NLA_F_NESTED, NLA_F_NET_BYTEORDER } from '../../netlink/attribute-writer.js';
import { NetlinkProtocolError } from '../../netlink/errors.js';
import { NFPROTO_IPV4, NFPROTO_IPV6, NFPROTO_UNSPEC } from '../../netlink/nfnetlink.js';
import { type Family, addressFromBytes } from '../../values/address.js';
import { type IpsetEntry, type IpsetType } from '../../values/ipset.js';

export const IpsetCommand = {
  protocol: 1,
  create: 2,
  destroy: 3,
  swap: 6,
  list: 7,
  add: 9,
  delete: 10,
  type: 13,
} as const;

export const IpsetAttribute = {
  protocol: 1,
  setName: 2,
  typeName: 3,
  setName2: 3,
  revision: 4,
  family: 5,
  flags: 6,
  data: 7,
  adt: 8,
  lineNumber: 9,
  protocolMin: 10,
  revisionMin: 10,
} as const;

/** Inside DATA: of an element, or of a set's header. */
const Data = {
  ip: 1,
  port: 4,
  portTo: 5,
  timeout: 6,
  protocol: 7,
  lineNumber: 9,
  hashSize: 18,
  maxElements: 19,
  ip2: 20,
  cidr2: 21,
  elements: 24,
  references: 25,
} as const;

const IPADDR_IPV4 = 1;
const IPADDR_IPV6 = 2;
export const IPSET_FLAG_LIST_HEADER = 4;

/** The longest element: hash:ip,port,net of IPv6 with its line number. */
export const MAX_ELEMENT_LENGTH = 88;

/** One set as the kernel lists it, without its elements. */
export interface ObservedSet {
  readonly name: string;
  /** As the kernel names it; also types that this program does not use. */
  readonly type: string;
  /** Undefined for types without a family, such as bitmap:port. */
  readonly family: Family | undefined;
  readonly revision: number;
  /** Most elements it can hold; undefined for bitmaps. */
  readonly maxElements: number | undefined;
  /** Rules and sets that refer to it. */
  readonly references: number;
  readonly elements: number;
  /** True for a set whose elements expire: kept up by someone else, or made by hand. */
  readonly hasTimeout: boolean;
}

export function setFamilyNumber(type: string, family: Family): number {
  if (type === 'bitmap:port') return NFPROTO_UNSPEC;
  return family === 4 ? NFPROTO_IPV4 : NFPROTO_IPV6;
}

/** The nested DATA attribute of IPSET_CMD_CREATE. */
export function writeCreateData(writer: MessageWriter, type: IpsetType, hashSize: number, maxElements: number): void {
  const data = writer.beginNested(IpsetAttribute.data | NLA_F_NESTED);
  if (type === 'bitmap:port') {
    writer.u16be(Data.port | NLA_F_NET_BYTEORDER, 0);
    writer.u16be(Data.portTo | NLA_F_NET_BYTEORDER, 65535);
  } else {
    writer.u32be(Data.hashSize | NLA_F_NET_BYTEORDER, hashSize);
    writer.u32be(Data.maxElements | NLA_F_NET_BYTEORDER, maxElements);
  }
  writer.endNested(data);
}

/** One element as a nested DATA attribute; the kernel names `line` when it refuses the element. */
export function writeElement(writer: MessageWriter, type: IpsetType, entry: IpsetEntry, line: number): void {
  const data = writer.beginNested(IpsetAttribute.data | NLA_F_NESTED);
  if (type === 'bitmap:port') writeBytes(writer, Data.port | NLA_F_NET_BYTEORDER, entry, 0, 2);
  else if (type === 'hash:ip') writeIp(writer, Data.ip, entry, 0, entry.length);
  else writeServer(writer, type, entry);
  writer.u32(Data.lineNumber, line);
  writer.endNested(data);
}

/** Elements that begin with a VirtualServerKey: protocol(1) port(2) address(4|16), then what the type adds. */
function writeServer(writer: MessageWriter, type: IpsetType, entry: IpsetEntry): void {
  const end = entry.length < 19 ? 7 : 19;
  writeIp(writer, Data.ip, entry, 3, end);
  writeBytes(writer, Data.port | NLA_F_NET_BYTEORDER, entry, 1, 3);
  writer.u8(Data.protocol, entry.charCodeAt(0));
  if (type === 'hash:ip,port,ip') writeIp(writer, Data.ip2, entry, end, entry.length);
  if (type === 'hash:ip,port,net') {
    writeIp(writer, Data.ip2, entry, end + 1, entry.length);
    writer.u8(Data.cidr2, entry.charCodeAt(end));
  }
}

function writeIp(writer: MessageWriter, attribute: number, entry: string, from: number, to: number): void {
  const nested = writer.beginNested(attribute | NLA_F_NESTED);
  writeBytes(writer, (to - from === 4 ? IPADDR_IPV4 : IPADDR_IPV6) | NLA_F_NET_BYTEORDER, entry, from, to);
  writer.endNested(nested);
}

function writeBytes(writer: MessageWriter, attribute: number, entry: string, from: number, to: number): void {
  const start = writer.raw(attribute, to - from);
  for (let i = from; i < to; i++) writer.buffer[start + i - from] = entry.charCodeAt(i);
}

/** Takes listed sets and elements out of IPSET_CMD_LIST answers. Bounds are checked: NetlinkProtocolError. */
export class IpsetListReader {
  readonly #data = new AttributeReader();
  readonly #element = new AttributeReader();
  readonly #ip = new AttributeReader();

  /**
   * The set that the attributes of one message describe; undefined for a part of a set that began in an earlier
   * message.
   */
  header(attributes: AttributeReader): ObservedSet | undefined {
    let name = '';
    let type = '';
    let familyNumber = 0;
    let revision = 0;
    let counts: HeaderCounts | undefined;
    while (attributes.next()) {
      if (attributes.type === IpsetAttribute.setName) name = attributes.string();
      else if (attributes.type === IpsetAttribute.typeName) type = attributes.string();
      else if (attributes.type === IpsetAttribute.family) familyNumber = attributes.u8();
      else if (attributes.type === IpsetAttribute.revision) revision = attributes.u8();
      else if (attributes.type === IpsetAttribute.data) counts = this.#headerCounts(attributes);
    }
    if (counts === undefined || type === '') return undefined;
    const family = familyNumber === NFPROTO_IPV4 ? 4 : familyNumber === NFPROTO_IPV6 ? 6 : undefined;
    return { name, type, family, revision, ...counts };
  }

  #headerCounts(attributes: AttributeReader): HeaderCounts {
    const data = this.#data.enter(attributes);
    let maxElements: number | undefined;
    let references = 0;
    let elements = 0;
    let hasTimeout = false;
    while (data.next()) {
      if (data.type === Data.maxElements) maxElements = data.u32be();
      else if (data.type === Data.references) references = data.u32be();
      else if (data.type === Data.elements) elements = data.u32be();
      else if (data.type === Data.timeout) hasTimeout = true;
    }
    return { maxElements, references, elements, hasTimeout };
  }

  /** Appends the elements in one message's attributes to `entries`. */
  elements(attributes: AttributeReader, type: IpsetType, add: (entry: IpsetEntry) => void): void {
    while (attributes.next()) {
      if (attributes.type !== IpsetAttribute.adt) continue;
      const list = this.#data.enter(attributes);
      while (list.next()) {
        if (list.type === IpsetAttribute.data) add(this.#entry(this.#element.enter(list), type));
      }
    }
  }

  #entry(data: AttributeReader, type: IpsetType): IpsetEntry {
    let address = '';
    let address2 = '';
    let port = '';
    let protocol = 0;
    let bits = -1;
    while (data.next()) {
      if (data.type === Data.ip) address = this.#address(data);
      else if (data.type === Data.ip2) address2 = this.#address(data);
      else if (data.type === Data.protocol) protocol = data.u8();
      else if (data.type === Data.cidr2) bits = data.u8();
      else if (data.type === Data.port) port = twoBytes(data);
    }
    return packEntry(type, { address, address2, port, protocol, bits });
  }

  #address(data: AttributeReader): string {
    const ip = this.#ip.enter(data);
    if (!ip.next()) throw new NetlinkProtocolError('ipset element with an empty address');
    const family: Family = ip.type === IPADDR_IPV4 ? 4 : 6;
    ip.need(family === 4 ? 4 : 16);
    return addressFromBytes(ip.buffer, ip.start, family);
  }
}

type HeaderCounts = Pick<ObservedSet, 'maxElements' | 'references' | 'elements' | 'hasTimeout'>;

interface ElementFields {
  readonly address: string;
  readonly address2: string;
  readonly port: string;
  readonly protocol: number;
  readonly bits: number;
}

function packEntry(type: IpsetType, fields: ElementFields): IpsetEntry {
  const needsPort = type !== 'hash:ip';
  const needsSecond = type === 'hash:ip,port,ip' || type === 'hash:ip,port,net';
  const isWhole =
    (type === 'bitmap:port' || fields.address !== '') &&
    (!needsPort || fields.port !== '') &&
    (!needsSecond || fields.address2.length === fields.address.length);
  if (!isWhole) throw new NetlinkProtocolError(`ipset element of ${type} without all its parts`);
  if (type === 'bitmap:port') return fields.port as IpsetEntry;
  if (type === 'hash:ip') return fields.address as IpsetEntry;
  const server = String.fromCharCode(fields.protocol) + fields.port + fields.address;
  if (type === 'hash:ip,port') return server as IpsetEntry;
  if (type === 'hash:ip,port,ip') return (server + fields.address2) as IpsetEntry;
  // The kernel leaves CIDR2 out of no element, but a host prefix is what its absence would mean.
  const bits = fields.bits < 0 ? fields.address2.length * 8 : fields.bits;
  return (server + String.fromCharCode(bits) + fields.address2) as IpsetEntry;
}

function twoBytes(data: AttributeReader): string {
  const value = data.u16be();
  return String.fromCharCode(value >> 8, value & 255);
}
