/** rtnetlink links and addresses: include/uapi/linux/rtnetlink.h, if_link.h, if_addr.h. */
import { type AttributeReader } from '../../netlink/attribute-reader.js';
import { type MessageWriter } from '../../netlink/attribute-writer.js';
import { NetlinkProtocolError } from '../../netlink/errors.js';
import { type NetlinkMessage } from '../../netlink/message.js';
import { type Address, type Family, addressFromBytes, familyOf } from '../../values/address.js';

export const RTM_NEWLINK = 16;
export const RTM_DELLINK = 17;
export const RTM_GETLINK = 18;
export const RTM_NEWADDR = 20;
export const RTM_DELADDR = 21;
export const RTM_GETADDR = 22;

export const RTNLGRP_LINK = 1;
export const RTNLGRP_IPV4_IFADDR = 5;
export const RTNLGRP_IPV6_IFADDR = 9;

export const IFF_UP = 0x1;
/** struct ifinfomsg: u8 family, u8 pad, u16 type, s32 index, u32 flags, u32 change. */
export const LINK_HEADER = 16;
/** struct ifaddrmsg: u8 family, u8 prefix length, u8 flags, u8 scope, u32 index. */
export const ADDRESS_HEADER = 8;
export const LinkAttribute = { name: 3, info: 18 } as const;
export const LINK_INFO_KIND = 1;
export const AddressAttribute = { address: 1, local: 2, cacheInfo: 6, flags: 8 } as const;
const IFA_F_NODAD = 0x02;
const CACHE_INFO_LENGTH = 16;
const VALID_FOR_EVER = 0xffffffff;
// include/uapi/linux/bpf_common.h: LD|B|ABS, LD|H|ABS, LD|W|ABS, JMP|JEQ|K, JMP|JSET|K, RET|K
export const BPF_LOAD_BYTE = 0x30;
export const BPF_LOAD_HALF = 0x28;
export const BPF_LOAD_WORD = 0x20;
export const BPF_JUMP_EQUAL = 0x15;
export const BPF_JUMP_SET = 0x45;
export const BPF_RETURN = 0x06;
const AF_INET = 2;
const AF_INET6 = 10;

export interface Link {
  readonly index: number;
  readonly name: string;
  readonly up: boolean;
  /** IFF_* */
  readonly flags: number;
  /** `dummy`, `veth`, `bridge`; empty for links without a kind, such as hardware and lo. */
  readonly kind: string;
}

export interface LinkAddress {
  /** Index of the link that has it. */
  readonly index: number;
  /** The local address, also where the link is point-to-point. */
  readonly address: Address;
  readonly prefixLength: number;
  /** RT_SCOPE_*: 0 universe, 253 link, 254 host. */
  readonly scope: number;
  /** IFA_F_* */
  readonly flags: number;
}

export function writeLinkHeader(writer: MessageWriter, index: number, flags: number, change: number): void {
  const start = writer.reserve(LINK_HEADER);
  writer.buffer.fill(0, start, start + LINK_HEADER);
  writer.buffer.writeInt32LE(index, start + 4);
  writer.buffer.writeUInt32LE(flags, start + 8);
  writer.buffer.writeUInt32LE(change, start + 12);
}

export function writeAddressHeader(writer: MessageWriter, index: number): number {
  const start = writer.reserve(ADDRESS_HEADER);
  writer.buffer.fill(0, start, start + ADDRESS_HEADER);
  writer.buffer.writeUInt32LE(index, start + 4);
  return start;
}

/** A /32 or /128 of universe scope. IPv6 skips duplicate address detection: it is usable at once. */
export function writeHostAddress(writer: MessageWriter, index: number, address: Address): void {
  const isIPv4 = familyOf(address) === 4;
  const start = writeAddressHeader(writer, index);
  writer.buffer[start] = isIPv4 ? AF_INET : AF_INET6;
  writer.buffer[start + 1] = address.length * 8;
  if (!isIPv4) writer.buffer[start + 2] = IFA_F_NODAD;
  writer.packed(AddressAttribute.local, address);
  writer.packed(AddressAttribute.address, address);
  if (!isIPv4) writeCacheInfo(writer);
}

/**
 * struct ifa_cacheinfo: valid for ever, preferred never. A virtual address answers, but is no source address for the
 * node's own traffic: MASQUERADE towards an interface without an address of its own would otherwise choose some VIP.
 */
function writeCacheInfo(writer: MessageWriter): void {
  const start = writer.raw(AddressAttribute.cacheInfo, CACHE_INFO_LENGTH);
  writer.buffer.fill(0, start, start + CACHE_INFO_LENGTH);
  writer.buffer.writeUInt32LE(VALID_FOR_EVER, start + 4);
}

/** Reads RTM_NEWLINK or RTM_DELLINK; throws NetlinkProtocolError when it is truncated. */
export function readLink(message: NetlinkMessage, reader: AttributeReader, nested: AttributeReader): Link {
  const { buffer, start } = message;
  if (message.end - start < LINK_HEADER) throw new NetlinkProtocolError('truncated link message');
  const flags = buffer.readUInt32LE(start + 8);
  let name = '';
  let kind = '';
  reader.reset(buffer, start + LINK_HEADER, message.end);
  while (reader.next()) {
    if (reader.type === LinkAttribute.name) name = reader.string();
    else if (reader.type === LinkAttribute.info) {
      nested.enter(reader);
      while (nested.next()) if (nested.type === LINK_INFO_KIND) kind = nested.string();
    }
  }
  return { index: buffer.readInt32LE(start + 4), name, up: (flags & IFF_UP) !== 0, flags, kind };
}

/** Reads RTM_NEWADDR or RTM_DELADDR; undefined for families other than IPv4 and IPv6. */
export function readAddress(message: NetlinkMessage, reader: AttributeReader): LinkAddress | undefined {
  const { buffer, start } = message;
  if (message.end - start < ADDRESS_HEADER) throw new NetlinkProtocolError('truncated address message');
  const family: Family | undefined = buffer[start] === AF_INET ? 4 : buffer[start] === AF_INET6 ? 6 : undefined;
  if (family === undefined) return undefined;
  let flags = buffer[start + 2]!;
  let at = -1;
  let isLocal = false;
  reader.reset(buffer, start + ADDRESS_HEADER, message.end);
  while (reader.next()) {
    if (reader.type === AddressAttribute.flags) flags = reader.u32();
    else if (reader.type === AddressAttribute.local || (reader.type === AddressAttribute.address && !isLocal)) {
      reader.need(family === 4 ? 4 : 16);
      isLocal = reader.type === AddressAttribute.local;
      at = reader.start;
    }
  }
  if (at < 0) return undefined;
  return {
    index: buffer.readUInt32LE(start + 4),
    address: addressFromBytes(buffer, at, family),
    prefixLength: buffer[start + 1]!,
    scope: buffer[start + 3]!,
    flags,
  };
}

/** A classic BPF program that drops RTM_NEWADDR messages for one link and passes all else. */
export function addedAddressFilter(index: number): Buffer {
  return bpfProgram([
    [BPF_LOAD_HALF, 0, 0, 4], // nlmsghdr.type
    [BPF_JUMP_EQUAL, 0, 3, swappedHalf(RTM_NEWADDR)],
    [BPF_LOAD_WORD, 0, 0, 20], // ifaddrmsg.index
    [BPF_JUMP_EQUAL, 0, 1, swappedWord(index)],
    [BPF_RETURN, 0, 0, 0],
    [BPF_RETURN, 0, 0, 0xffffffff],
  ]);
}

/** BPF loads are big-endian and netlink is not, so constants to compare with are swapped. */
export function swappedHalf(value: number): number {
  return ((value & 0xff) << 8) | (value >> 8);
}

/** The same for 32 bits. */
export function swappedWord(value: number): number {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes.readUInt32BE();
}

type BpfInstruction = readonly [code: number, jumpTrue: number, jumpFalse: number, k: number];

/** struct sock_filter[]: u16 code, u8 jump if true, u8 jump if false, u32 k. */
export function bpfProgram(program: readonly BpfInstruction[]): Buffer {
  const bytes = Buffer.alloc(program.length * 8);
  for (const [i, [code, jumpTrue, jumpFalse, k]] of program.entries()) {
    bytes.writeUInt16LE(code, i * 8);
    bytes[i * 8 + 2] = jumpTrue;
    bytes[i * 8 + 3] = jumpFalse;
    bytes.writeUInt32LE(k, i * 8 + 4);
  }
  return bytes;
}
