/**
 * A kernel at the netlink seam: sockets that take and give real bytes, a handler per netlink family that holds state,
 * and faults. It answers as the kernel does: inside `send`, each failed message by its own error, others only with
 * NLM_F_ACK. Reads and writes bytes without src/netlink.
 */
import { constants } from 'node:os';
import { type NetlinkSocket, type OpenNetlinkSocket } from '../../src/netlink/socket.js';
import { passesFilter } from './classic-bpf.js';
import { type FakeFault, type FaultAt, chooseFault } from './fake-kernel-faults.js';
import { type WireMessage, attribute, i32, messagesIn, netlinkMessage, text } from './netlink-bytes.js';

const [NLMSG_ERROR, NLMSG_DONE] = [2, 3];
/** NLMSG_MIN_TYPE: smaller ones are the protocol's own. */
const FIRST_FAMILY_TYPE = 0x10;
const [NLM_F_REQUEST, NLM_F_MULTI, NLM_F_ACK, NLM_F_DUMP_INTR] = [1, 2, 4, 0x10];
const [NLM_F_CAPPED, NLM_F_ACK_TLVS] = [0x100, 0x200];
const NLM_F_DUMP = 0x300;

/** A message of an answer: its type and what follows the netlink header. */
export interface FakeMessage {
  readonly type: number;
  readonly body: Buffer;
}

/** What a handler makes of a request. With an `error` the messages are not sent. */
export interface FakeAnswer {
  /** Its errno, by name, or by number where it has none. */
  readonly error?: string | number | undefined;
  /** Extended text for the error. */
  readonly text?: string;
  /** What of the request comes back with the error; its header unless it is said. */
  readonly echo?: Buffer | undefined;
  readonly messages?: readonly FakeMessage[];
}

/** One netlink family (NETLINK_GENERIC, ...). `isDump`: the request has NLM_F_DUMP, and every message is wanted. */
export type FakeFamily = (request: WireMessage, isDump: boolean) => FakeAnswer;

const MESSAGES_PER_DUMP_PART = 100;

interface Family {
  readonly handle: FakeFamily;
  readonly perDatagram: number;
}

export class FakeKernel {
  readonly faults: FakeFault[] = [];
  /** Messages handled so far, NLMSG_NOOP not counted. */
  handled = 0;
  /** Set to false, every request is refused with EPERM. */
  permitted = true;
  /** Called with every datagram before anything becomes of it. */
  onSend: (datagram: Buffer, protocol: number) => void = () => undefined;
  readonly #families = new Map<number, Family>();
  readonly #sockets = new Set<FakeSocket>();
  #nextPort = 1000;
  #isWell = false;

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

  /** `perDatagram`: how many messages of a dump come in one datagram. */
  addFamily(protocol: number, handle: FakeFamily, perDatagram = MESSAGES_PER_DUMP_PART): void {
    this.#families.set(protocol, { handle, perDatagram });
  }

  /** Sends a notification to the members of a multicast group. */
  notify(protocol: number, group: number, message: FakeMessage, flags = 0): void {
    const datagram = netlinkMessage(message.type, flags, 0, 0, message.body);
    for (const socket of this.#sockets) {
      if (socket.protocol === protocol && socket.groups.includes(group)) socket.deliver(datagram);
    }
  }

  /** Does `work` as if there were no faults; they wait. */
  withoutFaults<T>(work: () => T): T {
    this.#isWell = true;
    try {
      return work();
    } finally {
      this.#isWell = false;
    }
  }

  /** What strikes now, if anything does: used up unless it stays. */
  takeFault<At extends FaultAt>(
    at: At,
    protocol: number,
    messages: readonly WireMessage[] = [],
  ): Extract<FakeFault, { at: At }> | undefined {
    return this.#isWell ? undefined : chooseFault(this.faults, at, protocol, messages);
  }

  /** Handles one datagram of requests, as netlink_rcv_skb does. */
  handle(socket: FakeSocket, datagram: Buffer): void {
    for (const request of messagesIn(datagram)) this.#handleMessage(socket, request);
  }

  #handleMessage(socket: FakeSocket, request: WireMessage): void {
    if ((request.flags & NLM_F_REQUEST) === 0 || request.type < FIRST_FAMILY_TYPE) {
      if ((request.flags & NLM_F_ACK) !== 0) this.#acknowledge(socket, request, {});
      return;
    }
    this.handled++;
    const isDump = (request.flags & NLM_F_DUMP) === NLM_F_DUMP;
    const family = this.#families.get(socket.protocol)!;
    const answer = this.#refusal(socket.protocol, request) ?? family.handle(request, isDump);
    if (isDump && answer.error === undefined)
      return this.#sendDump(socket, request, answer.messages ?? [], family.perDatagram);
    if (answer.error === undefined) {
      for (const { type, body } of answer.messages ?? []) {
        this.#send(socket, netlinkMessage(type, 0, request.sequence, socket.portId, body));
      }
    }
    if (answer.error !== undefined || (request.flags & NLM_F_ACK) !== 0) this.#acknowledge(socket, request, answer);
  }

  #refusal(protocol: number, request: WireMessage): FakeAnswer | undefined {
    if (!this.permitted && !this.#isWell) return { error: 'EPERM' };
    const fault = this.takeFault('message', protocol, [request]);
    if (fault === undefined) return undefined;
    return { error: fault.code, ...(fault.text === undefined ? {} : { text: fault.text }) };
  }

  #acknowledge(socket: FakeSocket, request: WireMessage, { error, text: extended, echo }: FakeAnswer): void {
    const errno = error === undefined ? 0 : typeof error === 'number' ? error : errnoNumber(error);
    const back = Buffer.from(echo ?? request.bytes.subarray(0, 16));
    const attributes = extended === undefined ? Buffer.alloc(0) : attribute(1, text(extended));
    const flags = (echo === undefined ? NLM_F_CAPPED : 0) | (extended === undefined ? 0 : NLM_F_ACK_TLVS);
    const body = Buffer.concat([i32(-errno), back, attributes]);
    this.#send(socket, netlinkMessage(NLMSG_ERROR, flags, request.sequence, socket.portId, body));
  }

  #sendDump(socket: FakeSocket, request: WireMessage, messages: readonly FakeMessage[], perDatagram: number): void {
    const interrupted = this.takeFault('dump', socket.protocol) === undefined ? 0 : NLM_F_DUMP_INTR;
    const { sequence } = request;
    for (let i = 0; i < messages.length; i += perDatagram) {
      const part = messages.slice(i, i + perDatagram);
      const frames = part.map(({ type, body }) => netlinkMessage(type, NLM_F_MULTI, sequence, socket.portId, body));
      this.#send(socket, Buffer.concat(frames));
    }
    this.#send(socket, netlinkMessage(NLMSG_DONE, NLM_F_MULTI | interrupted, sequence, socket.portId, i32(0)));
  }

  #send(socket: FakeSocket, datagram: Buffer): void {
    const fault = this.takeFault('answer', socket.protocol);
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
    const datagram = Buffer.from(buffer.subarray(0, length));
    this.#kernel.onSend(datagram, this.protocol);
    const messages = this.#kernel.faults.length === 0 ? [] : [...messagesIn(datagram)];
    const fault = this.#kernel.takeFault('send', this.protocol, messages);
    if (fault !== undefined) throw socketError(fault.code);
    this.#kernel.handle(this, datagram);
    return length;
  }

  receive(buffer: Uint8Array): number {
    if (this.#closed) throw socketError('EBADF');
    const fault = this.#kernel.takeFault('receive', this.protocol);
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

function errnoNumber(code: string): number {
  return (constants.errno as Readonly<Record<string, number>>)[code]!;
}

/** An error as `node:fs` throws it. */
export function socketError(code: string): Error {
  return Object.assign(new Error(`${code}: fake socket`), { code, errno: -errnoNumber(code), syscall: 'fake' });
}
