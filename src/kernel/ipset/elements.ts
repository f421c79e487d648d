/** Sends elements, as many as fit into one message, and goes on behind each one that the kernel refuses. */
import { answerErrno, answerText } from '../../netlink/answer.js';
import { AttributeReader } from '../../netlink/attribute-reader.js';
import { MessageWriter, NLA_F_NESTED } from '../../netlink/attribute-writer.js';
import { type NetlinkConnection } from '../../netlink/connection.js';
import { NetlinkError, NetlinkProtocolError, errnoNumber, socketErrorCode } from '../../netlink/errors.js';
import {
  HEADER_LENGTH,
  type NetlinkMessage,
  NLMSG_ERROR,
  NLM_F_ACK,
  NLM_F_CAPPED,
  NLM_F_REQUEST,
} from '../../netlink/message.js';
import {
  NETFILTER_HEADER_LENGTH,
  NFNL_SUBSYS_IPSET,
  NFPROTO_IPV4,
  netfilterType,
  writeNetfilterHeader,
} from '../../netlink/nfnetlink.js';
import { MessageTemplate, differences } from '../../netlink/message-template.js';
import { type IpsetDefinition, type IpsetEntry, type IpsetType } from '../../values/ipset.js';
import { IpsetAttribute, IpsetCommand, MAX_ELEMENT_LENGTH, writeElement } from './message.js';

export interface ElementFailure {
  readonly index: number;
  readonly error: NetlinkError;
}

export interface ElementOutcome {
  readonly failures: readonly ElementFailure[];
  /** Index of the first entry that was not tried: behind the end, unless the set is full. */
  readonly next: number;
  readonly isFull: boolean;
}

interface ElementTemplate {
  readonly type: IpsetType;
  readonly element: MessageTemplate;
  /** Where the line number is. */
  readonly lineAt: number;
}

interface Answer {
  readonly error: NetlinkError;
  /** The line number of the element at fault; undefined when the whole message was refused. */
  readonly line: number | undefined;
}

/** A nested attribute's length is 16 bits, so all elements of one message must stay below 64 KiB. */
const MESSAGE_SIZE = 0xffff;
const MOST_ELEMENTS = 4096;
/**
 * After a refusal the rest is sent in smaller messages, or a thousand refusals would send a long list a thousand times.
 */
const FEWEST_ELEMENTS = 16;
const IPSET_ERR_HASH_FULL = 4352;

export class IpsetElementSender {
  readonly #writer = new MessageWriter(Buffer.allocUnsafeSlow(MESSAGE_SIZE));
  readonly #reader = new AttributeReader();
  /** Of the last element: those of one set are alike. */
  #template: ElementTemplate | undefined;

  readonly #connection: NetlinkConnection;
  readonly #protocolVersion: number;

  constructor(connection: NetlinkConnection, protocolVersion: number) {
    this.#connection = connection;
    this.#protocolVersion = protocolVersion;
  }

  /**
   * Sends `entries` from index `from` on. Stops early only when a hash set is full; the entries from `next` on were
   * then not tried. Messages go without NLM_F_EXCL, so present (add) or absent (delete) elements are no error.
   */
  send(
    operation: 'add' | 'delete',
    set: IpsetDefinition,
    entries: readonly IpsetEntry[],
    from: number,
  ): ElementOutcome {
    const failures: ElementFailure[] = [];
    let next = from;
    let most = MOST_ELEMENTS;
    while (next < entries.length) {
      const end = this.#encode(operation, set, entries, next, most);
      const answer = this.#exchange(operation, set.name);
      if (answer === undefined) {
        next = end;
        most = Math.min(most * 2, MOST_ELEMENTS);
        continue;
      }
      const { error, line } = answer;
      if (line === undefined || line < next || line >= end) {
        for (let index = next; index < end; index++) failures.push({ index, error });
        next = end;
        continue;
      }
      if (error.errno === IPSET_ERR_HASH_FULL && set.type !== 'bitmap:port') {
        return { failures, next: line, isFull: true };
      }
      failures.push({ index: line, error });
      next = line + 1;
      most = Math.max(most >> 2, FEWEST_ELEMENTS);
    }
    return { failures, next, isFull: false };
  }

  /** Writes one message with entries from `from` on, at most `most`; returns the index behind the last one. */
  #encode(
    operation: 'add' | 'delete',
    set: IpsetDefinition,
    entries: readonly IpsetEntry[],
    from: number,
    most: number,
  ): number {
    const writer = this.#writer;
    writer.offset = 0;
    const type = netfilterType(NFNL_SUBSYS_IPSET, operation === 'add' ? IpsetCommand.add : IpsetCommand.delete);
    const message = writer.beginMessage(type, NLM_F_REQUEST | NLM_F_ACK, this.#connection.takeSequences(1));
    writeNetfilterHeader(writer, NFPROTO_IPV4);
    writer.u8(IpsetAttribute.protocol, this.#protocolVersion);
    writer.string(IpsetAttribute.setName, set.name);
    writer.u32(IpsetAttribute.lineNumber, 0); // the kernel puts the line at fault here, in its copy of the message
    const list = writer.beginNested(IpsetAttribute.adt | NLA_F_NESTED);
    const last = Math.min(entries.length, from + most);
    let index = from;
    while (index < last && writer.offset + MAX_ELEMENT_LENGTH <= MESSAGE_SIZE) {
      const entry = entries[index]!;
      const { element, lineAt } = this.#templateOf(set.type, entry.length);
      const start = writer.reserve(element.bytes.length);
      element.copy(writer.buffer, start, entry);
      writer.buffer.writeUInt32LE(++index, start + lineAt); // line 0 would mean that there is none
    }
    writer.endNested(list);
    writer.endMessage(message);
    return index;
  }

  #templateOf(type: IpsetType, length: number): ElementTemplate {
    let template = this.#template;
    if (template?.type === type && template.element.length === length) return template;
    const element = new MessageTemplate(length, (writer, entry) => writeElement(writer, type, entry as IpsetEntry, 0));
    const numbered = new MessageTemplate(length, (writer, entry) =>
      writeElement(writer, type, entry as IpsetEntry, 0xff),
    );
    const lineAt = differences(element.bytes, numbered.bytes)[0]!;
    template = { type, element, lineAt };
    this.#template = template;
    return template;
  }

  /** Undefined when the kernel accepted all elements. */
  #exchange(operation: string, set: string): Answer | undefined {
    const { buffer, offset } = this.#writer;
    const sequence = buffer.readUInt32LE(8);
    const name = `ipset ${operation} ${set}`;
    let answer: Answer | undefined;
    const visit = (message: NetlinkMessage): boolean => {
      if (message.sequence !== sequence || message.type !== NLMSG_ERROR) return false;
      const errno = answerErrno(message);
      if (errno !== 0) {
        const error = new NetlinkError({ operation: name, errno, extAck: answerText(message), sequence });
        answer = { error, line: this.#lineOf(message) };
      }
      return true;
    };
    try {
      this.#connection.sendDatagram(name, buffer, offset, 1);
      while (!this.#connection.receiveMessages(visit));
    } catch (error) {
      return { error: this.#lostAnswer(name, sequence, error), line: undefined };
    }
    return answer;
  }

  #lostAnswer(operation: string, sequence: number, error: unknown): NetlinkError {
    if (error instanceof NetlinkError) {
      if (error.resultUnknown) this.#connection.drain();
      return error;
    }
    const code = socketErrorCode(error);
    if (code === undefined && !(error instanceof NetlinkProtocolError)) throw error;
    this.#connection.drain();
    const errno = errnoNumber(code ?? 'EBADMSG');
    return new NetlinkError({ operation, errno, sequence, resultUnknown: true, cause: error });
  }

  /**
   * The index of the entry at fault, from IPSET_ATTR_LINENO in the request that the error repeats; only errors about
   * one element repeat it.
   */
  #lineOf(message: NetlinkMessage): number | undefined {
    if ((message.flags & NLM_F_CAPPED) !== 0) return undefined;
    const attributes = message.start + 4 + HEADER_LENGTH + NETFILTER_HEADER_LENGTH;
    if (attributes >= message.end) return undefined;
    const reader = this.#reader.reset(message.buffer, attributes, message.end);
    while (reader.next()) {
      if (reader.type !== IpsetAttribute.lineNumber) continue;
      const line = reader.u32();
      return line === 0 ? undefined : line - 1;
    }
    return undefined;
  }
}
