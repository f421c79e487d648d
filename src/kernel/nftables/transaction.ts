/**
 * A transaction of nf_tables: its messages between NFNL_MSG_BATCH_BEGIN and NFNL_MSG_BATCH_END in one datagram, done as
 * a whole or not at all. include/uapi/linux/netfilter/nf_tables.h and nfnetlink.h.
 */
import { answerErrno, answerText } from '../../netlink/answer.js';
import { MessageWriter, NLA_F_NESTED } from '../../netlink/attribute-writer.js';
import { type NetlinkConnection } from '../../netlink/connection.js';
import { NetlinkError, NetlinkProtocolError, errnoNumber, socketErrorCode } from '../../netlink/errors.js';
import { NLMSG_ERROR, NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST } from '../../netlink/message.js';
import {
  NFNL_SUBSYS_NFTABLES,
  NFPROTO_IPV4,
  NFPROTO_IPV6,
  NFPROTO_UNSPEC,
  netfilterType,
  writeNetfilterHeader,
} from '../../netlink/nfnetlink.js';
import { type Family } from '../../values/address.js';
import { type NftElement, type NftHook, type NftOperation, type NftSet } from '../../values/nftables.js';
import { writeData, writeExpression } from './expression-codec.js';

const NFNL_MSG_BATCH_BEGIN = 0x10;
const NFNL_MSG_BATCH_END = 0x11;
/** res_id of struct nfgenmsg, big-endian: which subsystem the batch is for. */
const RESOURCE_AT = 2;

/** enum nf_tables_msg_types */
export const NftMessage = {
  newTable: 0,
  getTable: 1,
  deleteTable: 2,
  newChain: 3,
  getChain: 4,
  deleteChain: 5,
  newRule: 6,
  getRule: 7,
  deleteRule: 8,
  newSet: 9,
  getSet: 10,
  deleteSet: 11,
  newElement: 12,
  getElement: 13,
  deleteElement: 14,
} as const;

export const NFTA_TABLE_NAME = 1;
export const NFTA_TABLE_FLAGS = 2;
export const NFT_TABLE_F_DORMANT = 1;
export const NFTA_LIST_ELEM = 1;
export const ChainAttribute = { table: 1, name: 3, hook: 4, policy: 5, type: 7 } as const;
export const HookAttribute = { number: 1, priority: 2 } as const;
export const RuleAttribute = { table: 1, chain: 2, expressions: 4 } as const;
export const SetAttribute = {
  ...{ table: 1, name: 2, flags: 3, keyType: 4, keyLength: 5, description: 9, id: 10 },
} as const;
export const ElementAttribute = { table: 1, set: 2, elements: 3 } as const;
/** Of one element. */
export const ElementPart = { key: 1, flags: 3, end: 10 } as const;
export const NFT_SET_ANONYMOUS = 1;
export const NFT_SET_INTERVAL = 4;
export const NFT_SET_MAP = 8;
export const NFT_SET_CONCAT = 0x80;
const NFTA_SET_DESC_CONCAT = 2;
const NFTA_SET_FIELD_LEN = 1;
const NF_ACCEPT = 1;
/** A datatype of a concatenation is its parts', each in as many bits. */
const DATATYPE_BITS = 6;

const APPEND = 0x800;
/** Below what one netlink attribute, and so one list of elements, can hold. */
const MOST_LIST_BYTES = 60_000;
/** Of a buffer of this size, which the kernel takes as one datagram: our sockets may send 1 MiB. */
const BUFFER = 512 * 1024;
/** So many messages more than operations at most: a long list of elements takes several. */
const MOST_LISTS = Math.ceil(BUFFER / MOST_LIST_BYTES);

/** Bytes of a set's key: fields of a concatenation are padded to four. */
export function setKeyLength(key: NftSet['key']): number {
  if (key.length === 1) return key[0]!.length;
  return key.reduce((sum, { length }) => sum + ((length + 3) & ~3), 0);
}

/** What `nft list` prints keys by: TYPE_BITS of nftables' datatypes. */
export function setKeyType(key: NftSet['key']): number {
  return key.reduce((type, { datatype }) => (type << DATATYPE_BITS) | datatype, 0);
}

export function protocolOf(family: Family): number {
  return family === 4 ? NFPROTO_IPV4 : NFPROTO_IPV6;
}

/** Collects the operations of one transaction on one table, and sends them. */
export class NftTransaction {
  readonly #writer = new MessageWriter(Buffer.allocUnsafeSlow(BUFFER));
  #count = 0;
  #first = 0;
  #lastStart = 0;
  #setId = 0;

  constructor(
    readonly connection: NetlinkConnection,
    readonly family: Family,
    readonly table: string,
  ) {}

  /** Does all of `operations`, or none of it. Throws NetlinkError with the kernel's answer to the first it refuses. */
  commit(operation: string, operations: readonly NftOperation[]): void {
    const writer = this.#writer;
    writer.offset = 0;
    this.#count = 0;
    this.#first = this.connection.takeSequences(operations.length + MOST_LISTS + 2);
    this.#border(NFNL_MSG_BATCH_BEGIN);
    for (const one of operations) this.#write(one);
    // The last one alone asks for an acknowledgement; what is refused is answered in any case.
    const flags = this.#lastStart + 6;
    writer.buffer.writeUInt16LE(writer.buffer.readUInt16LE(flags) | NLM_F_ACK, flags);
    const last = this.#first + this.#count - 1;
    this.#border(NFNL_MSG_BATCH_END);
    this.connection.sendDatagram(operation, writer.buffer, writer.offset, this.#count);
    this.#readAnswers(operation, last);
  }

  #readAnswers(operation: string, last: number): void {
    const first = this.#first;
    let refusal: NetlinkError | undefined;
    try {
      while (
        !this.connection.receiveMessages((message) => {
          const { sequence } = message;
          if (message.type !== NLMSG_ERROR || sequence < first || sequence > last + 1) return false;
          const errno = answerErrno(message);
          if (errno !== 0) refusal ??= new NetlinkError({ operation, errno, extAck: answerText(message), sequence });
          // A batch that is refused as a whole is answered at its beginning, and then no more, or by the rest of it.
          return sequence === last;
        })
      );
    } catch (error) {
      if (refusal === undefined) throw lostAnswer(operation, error);
    }
    if (refusal !== undefined) {
      this.connection.drain();
      throw refusal;
    }
  }

  #border(type: number): void {
    const writer = this.#writer;
    const start = writer.beginMessage(type, NLM_F_REQUEST, this.#first + this.#count++);
    const header = writer.offset;
    writeNetfilterHeader(writer, NFPROTO_UNSPEC);
    writer.buffer.writeUInt16BE(NFNL_SUBSYS_NFTABLES, header + RESOURCE_AT);
    writer.endMessage(start);
  }

  #message(command: number, flags: number, write: (writer: MessageWriter) => void): void {
    const writer = this.#writer;
    const type = netfilterType(NFNL_SUBSYS_NFTABLES, command);
    const start = writer.beginMessage(type, NLM_F_REQUEST | flags, this.#first + this.#count++);
    this.#lastStart = start;
    writeNetfilterHeader(writer, protocolOf(this.family));
    writer.string(NFTA_TABLE_NAME, this.table); // attribute 1 of every message
    write(writer);
    writer.endMessage(start);
  }

  #write(operation: NftOperation): void {
    switch (operation.verb) {
      case 'add-table':
        return this.#message(NftMessage.newTable, NLM_F_CREATE, () => undefined);
      case 'wake-table':
        return this.#message(NftMessage.newTable, 0, (writer) => writer.u32be(NFTA_TABLE_FLAGS, 0));
      case 'delete-table':
        return this.#message(NftMessage.deleteTable, 0, () => undefined);
      case 'add-chain':
        return this.#message(NftMessage.newChain, NLM_F_CREATE, (writer) => writeChain(writer, operation.chain));
      case 'delete-chain':
        return this.#message(NftMessage.deleteChain, 0, (writer) => writer.string(ChainAttribute.name, operation.name));
      case 'flush-chain':
        return this.#message(NftMessage.deleteRule, 0, (writer) => writer.string(RuleAttribute.chain, operation.name));
      case 'flush-rules':
        return this.#message(NftMessage.deleteRule, 0, () => undefined);
      case 'add-rule':
        return this.#message(NftMessage.newRule, NLM_F_CREATE | APPEND, (writer) => {
          writer.string(RuleAttribute.chain, operation.chain);
          const list = writer.beginNested(RuleAttribute.expressions | NLA_F_NESTED);
          for (const expression of operation.rule) writeExpression(writer, NFTA_LIST_ELEM, expression);
          writer.endNested(list);
        });
      case 'add-set':
        return this.#message(NftMessage.newSet, NLM_F_CREATE, (writer) =>
          writeSet(writer, operation.set, ++this.#setId),
        );
      case 'delete-set':
        return this.#message(NftMessage.deleteSet, 0, (writer) => writer.string(SetAttribute.name, operation.name));
      case 'add-elements':
        return this.#elements(NftMessage.newElement, NLM_F_CREATE, operation.set, operation.elements);
      case 'delete-elements':
        return this.#elements(NftMessage.deleteElement, 0, operation.set, operation.elements);
    }
  }

  #elements(command: number, flags: number, set: string, elements: readonly NftElement[]): void {
    let index = 0;
    while (index < elements.length)
      this.#message(command, flags, (writer) => {
        writer.string(ElementAttribute.set, set);
        const list = writer.beginNested(ElementAttribute.elements | NLA_F_NESTED);
        for (const end = writer.offset + MOST_LIST_BYTES; index < elements.length && writer.offset < end; index++) {
          const element = writer.beginNested(NFTA_LIST_ELEM | NLA_F_NESTED);
          const { key, end: last } = elements[index]!;
          writeData(writer, ElementPart.key, key);
          if (last !== undefined) writeData(writer, ElementPart.end, last);
          writer.endNested(element);
        }
        writer.endNested(list);
      });
  }
}

function writeChain(writer: MessageWriter, { name, hook }: { name: string; hook?: NftHook | undefined }): void {
  writer.string(ChainAttribute.name, name);
  if (hook === undefined) return;
  writer.string(ChainAttribute.type, hook.type);
  writer.u32be(ChainAttribute.policy, NF_ACCEPT);
  const nested = writer.beginNested(ChainAttribute.hook | NLA_F_NESTED);
  writer.u32be(HookAttribute.number, hook.hook);
  writer.u32be(HookAttribute.priority, hook.priority);
  writer.endNested(nested);
}

function writeSet(writer: MessageWriter, { name, key, isInterval }: NftSet, id: number): void {
  writer.string(SetAttribute.name, name);
  writer.u32be(SetAttribute.flags, isInterval ? NFT_SET_INTERVAL | NFT_SET_CONCAT : 0);
  writer.u32be(SetAttribute.keyType, setKeyType(key));
  writer.u32be(SetAttribute.keyLength, setKeyLength(key));
  writer.u32be(SetAttribute.id, id);
  if (!isInterval) return;
  const description = writer.beginNested(SetAttribute.description | NLA_F_NESTED);
  const fields = writer.beginNested(NFTA_SET_DESC_CONCAT | NLA_F_NESTED);
  for (const { length } of key) {
    const one = writer.beginNested(NFTA_LIST_ELEM | NLA_F_NESTED);
    writer.u32be(NFTA_SET_FIELD_LEN, length);
    writer.endNested(one);
  }
  writer.endNested(fields);
  writer.endNested(description);
}

function lostAnswer(operation: string, error: unknown): Error {
  const code = error instanceof NetlinkProtocolError ? 'EBADMSG' : socketErrorCode(error);
  if (code === undefined) throw error;
  return new NetlinkError({ operation, errno: errnoNumber(code), resultUnknown: true, cause: error });
}
