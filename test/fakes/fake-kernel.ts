/**
 * A kernel at the netlink seam: sockets that take and give real bytes, a handler per netlink family that holds state,
 * and faults. It answers as the kernel does: inside `send`, each failed message by its own error, others only with
 * NLM_F_ACK.
 */
import { errnoNumber } from '../../src/netlink/errors.js';
import {
  type NetlinkMessage,
  NLMSG_DONE,
  NLMSG_ERROR,
  NLM_F_ACK,
  NLM_F_ACK_TLVS,
  NLM_F_CAPPED,
  NLM_F_DUMP,
  NLM_F_DUMP_INTR,
  NLM_F_MULTI,
  NLM_F_REQUEST,
  emptyMessage,
  readMessage,
} from '../../src/netlink/message.js';
import { type NetlinkSocket, type OpenNetlinkSocket } from '../../src/netlink/socket.js';
import { passesFilter } from './classic-bpf.js';
import { attribute, i32, netlinkMessage, text } from './netlink-bytes.js';

/** A message of an answer: its type and what follows the netlink header. */
/** NLMSG_MIN_TYPE: smaller ones are the protocol's own. */
const FIRST_FAMILY_TYPE = 0x10;

export interface FakeMessage {
  readonly type: number;
  readonly body: Buffer;
}

/** What a handler makes of a request. With an errno name in `error` the messages are not sent. */
export interface FakeAnswer {
  readonly error?: string | undefined;
  /** Extended text for the error. */
  readonly text?: string;
  readonly messages?: readonly FakeMessage[];
}

/** One netlink family (NETLINK_GENERIC, ...). `isDump`: the request has NLM_F_DUMP, and every message is wanted. */
export type FakeFamily = (request: NetlinkMessage, isDump: boolean) => FakeAnswer;

/** Each is used once, in the order in which they were added, then forgotten. */
export type FakeFault =
  /** Refuses a request without handling it, after letting `skip` others of this netlink family (or of any) pass. */
  | { at: 'message'; code: string; skip?: number; protocol?: number; text?: string }
  /** `send` throws; nothing of the datagram is handled. */
  | { at: 'send'; code: string }
  /** `receive` throws; with ENOBUFS the answers that wait are lost, as after an overrun. */
  | { at: 'receive'; code: string }
  /** Changes a datagram on its way out (truncated, garbage), or loses it (undefined). */
  | { at: 'answer'; change: (datagram: Buffer) => Buffer | undefined }
  /** Marks a dump as interrupted (NLM_F_DUMP_INTR). */
  | { at: 'dump' };

const MESSAGES_PER_DUMP_PART = 100;

export class FakeKernel {
  readonly faults: FakeFault[] = [];
  /** Messages handled so far, NLMSG_NOOP not counted. */
  handled = 0;
  /** Set to false, every request is refused with EPERM. */
  permitted = true;
  readonly #families = new Map<number, FakeFamily>();
  readonly #sockets = new Set<FakeSocket>();
  #nextPort = 1000;

  /** Hand this to what wants to open sockets. */
  readonly open: OpenNetlinkSocket = (protocol, groups = []) => {
    const family = this.#families.get(protocol);
    if (family === undefined) throw socketError('EPROTONOSUPPORT');
    const socket = new FakeSocket(this, protocol, groups, this.#nextPort++, () => this.#sockets.delete(socket));
    this.#sockets.add(socket);
    return socket;
  };

  get openSockets(): number {
    return this.#sockets.size;
  }

  addFamily(protocol: number, family: FakeFamily): void {
    this.#families.set(protocol, family);
  }

  /** Sends a notification to the members of a multicast group. */
  notify(protocol: number, group: number, message: FakeMessage): void {
    const datagram = netlinkMessage(message.type, 0, 0, 0, message.body);
    for (const socket of this.#sockets) {
      if (socket.protocol === protocol && socket.groups.includes(group)) socket.deliver(datagram);
    }
  }

  /** Takes the first fault of a kind, if there is one. */
  takeFault<At extends FakeFault['at']>(at: At): Extract<FakeFault, { at: At }> | undefined {
    const index = this.faults.findIndex((fault) => fault.at === at);
    if (index < 0) return undefined;
    return this.faults.splice(index, 1)[0] as Extract<FakeFault, { at: At }>;
  }

  /** Handles one datagram of requests, as netlink_rcv_skb does. */
  handle(socket: FakeSocket, datagram: Buffer): void {
    const request = emptyMessage(datagram);
    for (let offset = 0; offset + 16 <= datagram.length;) {
      const length = datagram.readUInt32LE(offset);
      if (length < 16 || length > datagram.length - offset) return; // the kernel stops without a word
      offset = readMessage(request, datagram, offset, datagram.length);
      this.#handleMessage(socket, request);
    }
  }

  #handleMessage(socket: FakeSocket, request: NetlinkMessage): void {
    if ((request.flags & NLM_F_REQUEST) === 0 || request.type < FIRST_FAMILY_TYPE) {
      if ((request.flags & NLM_F_ACK) !== 0) this.#acknowledge(socket, request, {});
      return;
    }
    this.handled++;
    const isDump = (request.flags & NLM_F_DUMP) === NLM_F_DUMP;
    const answer = this.#refusal(socket.protocol) ?? this.#families.get(socket.protocol)!(request, isDump);
    if (isDump && answer.error === undefined) return this.#sendDump(socket, request, answer.messages ?? []);
    if (answer.error === undefined) {
      for (const { type, body } of answer.messages ?? []) {
        this.#send(socket, netlinkMessage(type, 0, request.sequence, socket.portId, body));
      }
    }
    if (answer.error !== undefined || (request.flags & NLM_F_ACK) !== 0) this.#acknowledge(socket, request, answer);
  }

  #refusal(protocol: number): FakeAnswer | undefined {
    if (!this.permitted) return { error: 'EPERM' };
    const index = this.faults.findIndex((fault) => fault.at === 'message' && (fault.protocol ?? protocol) === protocol);
    const fault = this.faults[index];
    if (fault?.at !== 'message') return undefined;
    if (fault.skip !== undefined && fault.skip > 0) {
      fault.skip--;
      return undefined;
    }
    this.faults.splice(index, 1);
    return { error: fault.code, ...(fault.text === undefined ? {} : { text: fault.text }) };
  }

  #acknowledge(socket: FakeSocket, request: NetlinkMessage, { error, text: extended }: FakeAnswer): void {
    const errno = error === undefined ? 0 : errnoNumber(error);
    const header = Buffer.from(request.buffer.subarray(request.start - 16, request.start));
    const attributes = extended === undefined ? Buffer.alloc(0) : attribute(1, text(extended));
    const flags = NLM_F_CAPPED | (extended === undefined ? 0 : NLM_F_ACK_TLVS);
    const body = Buffer.concat([i32(-errno), header, attributes]);
    this.#send(socket, netlinkMessage(NLMSG_ERROR, flags, request.sequence, socket.portId, body));
  }

  #sendDump(socket: FakeSocket, request: NetlinkMessage, messages: readonly FakeMessage[]): void {
    const interrupted = this.takeFault('dump') === undefined ? 0 : NLM_F_DUMP_INTR;
    const { sequence } = request;
    for (let i = 0; i < messages.length; i += MESSAGES_PER_DUMP_PART) {
      const part = messages.slice(i, i + MESSAGES_PER_DUMP_PART);
      const frames = part.map(({ type, body }) => netlinkMessage(type, NLM_F_MULTI, sequence, socket.portId, body));
      this.#send(socket, Buffer.concat(frames));
    }
    this.#send(socket, netlinkMessage(NLMSG_DONE, NLM_F_MULTI | interrupted, sequence, socket.portId, i32(0)));
  }

  #send(socket: FakeSocket, datagram: Buffer): void {
    const fault = this.takeFault('answer');
    const changed = fault === undefined ? datagram : fault.change(datagram);
    if (changed !== undefined) socket.deliver(changed);
  }
}

export class FakeSocket implements NetlinkSocket {
  #queue: Buffer[] = [];
  #filter: Buffer | undefined;
  #readers: (() => void)[] = [];
  #closed = false;

  readonly #kernel: FakeKernel;
  readonly #onClose: () => void;

  constructor(
    kernel: FakeKernel,
    readonly protocol: number,
    readonly groups: readonly number[],
    readonly portId: number,
    onClose: () => void,
  ) {
    this.#kernel = kernel;
    this.#onClose = onClose;
  }

  send(buffer: Uint8Array, length: number): number {
    if (this.#closed) throw socketError('EBADF');
    const fault = this.#kernel.takeFault('send');
    if (fault !== undefined) throw socketError(fault.code);
    this.#kernel.handle(this, Buffer.from(buffer.subarray(0, length)));
    return length;
  }

  receive(buffer: Uint8Array): number {
    if (this.#closed) throw socketError('EBADF');
    const fault = this.#kernel.takeFault('receive');
    if (fault !== undefined) {
      if (fault.code === 'ENOBUFS') this.#queue = [];
      throw socketError(fault.code);
    }
    const datagram = this.#queue.shift();
    if (datagram === undefined) throw socketError('EAGAIN');
    const length = Math.min(datagram.length, buffer.length);
    buffer.set(datagram.subarray(0, length));
    return length;
  }

  waitReadable(): Promise<void> {
    if (this.#queue.length > 0) return Promise.resolve();
    return new Promise((resolve) => this.#readers.push(resolve));
  }

  attachFilter(program: Buffer): void {
    this.#filter = Buffer.from(program);
  }

  deliver(datagram: Buffer): void {
    if (this.#filter !== undefined && !passesFilter(this.#filter, datagram)) return;
    this.#queue.push(datagram);
    this.wakeReaders();
  }

  /** Makes a waiting reader look, without anything to read: a `receive` fault can then strike. */
  wakeReaders(): void {
    for (const wake of this.#readers.splice(0)) wake();
  }

  close(): void {
    this.#closed = true;
    this.#onClose();
  }
}

/** An error as `node:fs` throws it. */
export function socketError(code: string): Error {
  return Object.assign(new Error(`${code}: fake socket`), { code, errno: -errnoNumber(code), syscall: 'fake' });
}
