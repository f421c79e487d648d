/**
 * ctnetlink (include/uapi/linux/netfilter/nfnetlink_conntrack.h): reading the two tuples of an entry, asking for some,
 * naming one.
 */
import { AttributeReader } from '../../netlink/attribute-reader.js';
import { type MessageWriter, NLA_F_NESTED } from '../../netlink/attribute-writer.js';
import { type NetlinkMessage } from '../../netlink/message.js';
import { NFPROTO_IPV4, NFPROTO_IPV6, netfilterAttributes, writeNetfilterHeader } from '../../netlink/nfnetlink.js';
import { type Address, type Family, addressFromBytes } from '../../values/address.js';

export const ConntrackCommand = { new: 0, get: 1, delete: 2 } as const;

const Attribute = { tupleOriginal: 1, tupleReply: 2, id: 12, zone: 18, filter: 25 } as const;
const Tuple = { ip: 1, protocol: 2 } as const;
const Ip = { source4: 1, destination4: 2, source6: 3, destination6: 4 } as const;
const Protocol = { number: 1, sourcePort: 2, destinationPort: 3 } as const;
const Filter = { originalFlags: 1, replyFlags: 2 } as const;
/**
 * Bits of CTA_FILTER_*_FLAGS (CTA_FILTER_F_* in the kernel's net/netfilter/nf_internals.h): compare this part of the
 * tuple.
 */
const COMPARE_PROTOCOL = 1 << 3;

/** One direction of an entry; ports are 0 for protocols without. */
export interface FlowTuple {
  source: Address;
  destination: Address;
  protocol: number;
  sourcePort: number;
  destinationPort: number;
}

/** A conntrack entry; reused from message to message. */
export interface Flow {
  readonly original: FlowTuple;
  readonly reply: FlowTuple;
}

export function netfilterFamily(family: Family): number {
  return family === 4 ? NFPROTO_IPV4 : NFPROTO_IPV6;
}

/**
 * Asks for entries of one family, and where the kernel can filter (5.8) of one protocol. Older kernels ignore the
 * filter.
 */
export function writeDumpRequest(writer: MessageWriter, family: Family, protocol: number | undefined): void {
  writeNetfilterHeader(writer, netfilterFamily(family));
  if (protocol === undefined) return;
  const tuple = writer.beginNested(Attribute.tupleOriginal | NLA_F_NESTED);
  const part = writer.beginNested(Tuple.protocol | NLA_F_NESTED);
  writer.u8(Protocol.number, protocol);
  writer.endNested(part);
  writer.endNested(tuple);
  const filter = writer.beginNested(Attribute.filter | NLA_F_NESTED);
  writer.u32(Filter.originalFlags, COMPARE_PROTOCOL);
  writer.u32(Filter.replyFlags, 0);
  writer.endNested(filter);
}

/** Reads entries out of a dump; bounds are checked (NetlinkProtocolError). */
export class FlowReader {
  readonly flow: Flow = { original: emptyTuple(), reply: emptyTuple() };
  readonly #attributes = new AttributeReader();
  readonly #tuple = new AttributeReader();
  readonly #part = new AttributeReader();

  /** Fills `flow`; false when the message lacks a tuple. */
  read(message: NetlinkMessage): boolean {
    const attributes = netfilterAttributes(message, this.#attributes);
    let seen = 0;
    while (attributes.next()) {
      if (attributes.type === Attribute.tupleOriginal) seen |= this.#readTuple(attributes, this.flow.original) ? 1 : 0;
      else if (attributes.type === Attribute.tupleReply) seen |= this.#readTuple(attributes, this.flow.reply) ? 2 : 0;
    }
    return seen === 3;
  }

  /**
   * The attributes that name the entry just read and no later one with the same tuple: its original tuple, id and zone,
   * as they came (CTA_ID makes the kernel refuse with ENOENT when the entry was replaced meanwhile).
   */
  identityOf(message: NetlinkMessage): Buffer {
    const attributes = netfilterAttributes(message, this.#attributes);
    const parts: Buffer[] = [];
    while (attributes.next()) {
      const { type, start, end } = attributes;
      if (type !== Attribute.tupleOriginal && type !== Attribute.id && type !== Attribute.zone) continue;
      // The four header bytes before the payload keep the nested flag; padding is ours.
      const padded = Buffer.alloc((end - start + 4 + 3) & ~3);
      message.buffer.copy(padded, 0, start - 4, end);
      parts.push(padded);
    }
    return Buffer.concat(parts);
  }

  #readTuple(attributes: AttributeReader, into: FlowTuple): boolean {
    const tuple = this.#tuple.enter(attributes);
    into.sourcePort = into.destinationPort = into.protocol = 0;
    let hasAddresses = false;
    while (tuple.next()) {
      if (tuple.type === Tuple.ip) hasAddresses = this.#readAddresses(tuple, into);
      else if (tuple.type === Tuple.protocol) this.#readPorts(tuple, into);
    }
    return hasAddresses;
  }

  #readAddresses(tuple: AttributeReader, into: FlowTuple): boolean {
    const part = this.#part.enter(tuple);
    let seen = 0;
    while (part.next()) {
      const family: Family = part.type === Ip.source4 || part.type === Ip.destination4 ? 4 : 6;
      part.need(family === 4 ? 4 : 16);
      const address = addressFromBytes(part.buffer, part.start, family);
      if (part.type === Ip.source4 || part.type === Ip.source6) {
        into.source = address;
        seen |= 1;
      } else if (part.type === Ip.destination4 || part.type === Ip.destination6) {
        into.destination = address;
        seen |= 2;
      }
    }
    return seen === 3;
  }

  #readPorts(tuple: AttributeReader, into: FlowTuple): void {
    const part = this.#part.enter(tuple);
    while (part.next()) {
      if (part.type === Protocol.number) into.protocol = part.u8();
      else if (part.type === Protocol.sourcePort) into.sourcePort = part.u16be();
      else if (part.type === Protocol.destinationPort) into.destinationPort = part.u16be();
    }
  }
}

function emptyTuple(): FlowTuple {
  return { source: '' as Address, destination: '' as Address, protocol: 0, sourcePort: 0, destinationPort: 0 };
}
