/** Request and answer over one socket: sequence numbers, single requests, dumps, counters. */
import { answerErrno, answerText } from './answer.js';
import { MessageWriter } from './attribute-writer.js';
import { NetlinkError, NetlinkProtocolError, errnoNumber, socketErrorCode } from './errors.js';
import {
  type NetlinkMessage,
  NLMSG_DONE,
  NLMSG_ERROR,
  NLM_F_ACK,
  NLM_F_DUMP,
  NLM_F_DUMP_INTR,
  NLM_F_MULTI,
  NLM_F_REQUEST,
  emptyMessage,
  readMessage,
} from './message.js';
import { type NetlinkSocket } from './socket.js';

/** What went over the socket since it was opened. */
export interface NetlinkCounters {
  messagesSent: number;
  datagramsSent: number;
  datagramsReceived: number;
  /** Dumps that had to be started again (NLM_F_DUMP_INTR, ENOBUFS). */
  dumpRetries: number;
}

export interface NetlinkRequest {
  /** For error messages. */
  readonly operation: string;
  readonly type: number;
  readonly flags?: number;
  /** Writes what follows the netlink header. */
  readonly write?: (writer: MessageWriter) => void;
}

/** The kernel sends at most 32 KiB per part of a dump; a datagram that fills this buffer counts as truncated. */
const RECEIVE_BUFFER = 128 * 1024;
const REQUEST_BUFFER = 16 * 1024;
const DUMP_ATTEMPTS = 8;
/** More leftovers than any socket buffer holds: the end of patience while draining. */
const DRAIN_LIMIT = 65_536;

type Outcome = 'done' | 'interrupted';
type Decode<Found> = (message: NetlinkMessage, found: Found) => void;

export class NetlinkConnection {
  /** Those of the sockets that long dumps have for themselves included. */
  readonly counters: NetlinkCounters;
  readonly #receiveBuffer = Buffer.allocUnsafeSlow(RECEIVE_BUFFER);
  readonly #writer = new MessageWriter(Buffer.alloc(REQUEST_BUFFER));
  readonly #message = emptyMessage(this.#receiveBuffer);
  #sequence = 0;
  readonly #open: () => NetlinkSocket;
  readonly #socket: NetlinkSocket;
  /** Connections of earlier long dumps, to be used again. */
  readonly #idle: NetlinkConnection[] = [];
  #isClosed = false;

  /** Throws what `open` throws. */
  constructor(open: () => NetlinkSocket, counters?: NetlinkCounters) {
    this.#open = open;
    this.#socket = open();
    this.counters = counters ?? { messagesSent: 0, datagramsSent: 0, datagramsReceived: 0, dumpRetries: 0 };
  }

  /** Reserves `count` consecutive sequence numbers and returns the first. Never 0, never past 32 bits. */
  takeSequences(count: number): number {
    if (this.#sequence + count >= 0xffffffff) this.#sequence = 0;
    const first = this.#sequence + 1;
    this.#sequence += count;
    return first;
  }

  /** Sends one request with an acknowledgement; `onMessage` sees what comes before it. Throws NetlinkError. */
  request(request: NetlinkRequest, onMessage?: (message: NetlinkMessage) => void): void {
    const sequence = this.#transmit(request, NLM_F_REQUEST | NLM_F_ACK);
    const steps = this.#collect(request.operation, sequence, (message) => {
      if (message.type === NLMSG_ERROR) return true;
      onMessage?.(message);
      return false;
    });
    try {
      finish(steps);
    } catch (error) {
      // A refusal is the last answer; after anything else there may be more, which must not be taken for the next
      // one's.
      if (!(error instanceof NetlinkError) || error.resultUnknown) this.drain();
      throw error;
    }
  }

  /**
   * Sends a dump request; `decode` puts what it finds in each message into the result. A dump that the kernel marks as
   * interrupted is thrown away and started again, up to 8 times; then, or when the kernel refuses, throws NetlinkError.
   */
  dump<Item>(request: NetlinkRequest, decode: Decode<Item[]>): Item[] {
    return finish(this.#dumpSteps<Item[]>(request, decode, () => []));
  }

  /**
   * As `dump`, calling `pause` after each datagram, so that a long one does not hold up the event loop. Nothing else
   * may use this connection meanwhile. Each attempt begins with what `fresh` makes.
   */
  async dumpPaced<Found>(
    request: NetlinkRequest,
    decode: Decode<Found>,
    fresh: () => Found,
    pause: () => Promise<void> | undefined,
  ): Promise<Found> {
    const steps = this.#dumpSteps(request, decode, fresh);
    for (;;) {
      const step = steps.next();
      if (step.done === true) return step.value;
      await pause();
    }
  }

  /**
   * As `dumpPaced`, over a socket of its own, so that this connection can be used meanwhile: by changes that do not
   * wait until a whole table has been read. Throws what opening a socket throws, too.
   */
  async dumpApart<Found>(...dump: Parameters<typeof this.dumpPaced<Found>>): Promise<Found> {
    const connection = this.#idle.pop() ?? new NetlinkConnection(this.#open, this.counters);
    let isWhole = false;
    try {
      const found = await connection.dumpPaced(...dump);
      isWhole = true;
      return found;
    } finally {
      // The rest of a dump that was broken off would be taken for the next one's answer.
      if (isWhole && !this.#isClosed) this.#idle.push(connection);
      else connection.close();
    }
  }

  /** Sends a finished datagram of `count` messages; throws NetlinkError, `resultUnknown` after a short send. */
  sendDatagram(operation: string, buffer: Buffer, length: number, count: number): void {
    for (;;) {
      try {
        this.counters.datagramsSent++;
        const sent = this.#socket.send(buffer, length);
        this.counters.messagesSent += count;
        if (sent === length) return;
        throw new NetlinkError({ operation, errno: errnoNumber('EMSGSIZE'), resultUnknown: true });
      } catch (error) {
        if (error instanceof NetlinkError) throw error;
        const code = socketErrorCode(error);
        if (code === undefined) throw error;
        if (code === 'EINTR') continue;
        throw new NetlinkError({ operation, errno: errnoNumber(code), cause: error });
      }
    }
  }

  /**
   * Reads one datagram and hands over its messages until `visit` returns true; returns whether it did. EINTR is
   * retried; other socket errors are thrown as they are, a datagram that cannot be taken apart as NetlinkProtocolError.
   */
  receiveMessages(visit: (message: NetlinkMessage) => boolean): boolean {
    const length = this.#receive();
    if (length === this.#receiveBuffer.length)
      throw new NetlinkProtocolError('netlink datagram truncated by the buffer');
    let offset = 0;
    while (offset < length) {
      offset = readMessage(this.#message, this.#receiveBuffer, offset, length);
      if (visit(this.#message)) return true;
    }
    return false;
  }

  /** Throws away whatever is queued, so that a later exchange starts clean. */
  drain(): void {
    for (let i = 0; i < DRAIN_LIMIT; i++) {
      try {
        this.#receive();
      } catch (error) {
        if (socketErrorCode(error) !== 'ENOBUFS') return;
      }
    }
  }

  close(): void {
    this.#isClosed = true;
    for (const connection of this.#idle.splice(0)) connection.close();
    this.#socket.close();
  }

  #receive(): number {
    for (;;) {
      try {
        const length = this.#socket.receive(this.#receiveBuffer);
        this.counters.datagramsReceived++;
        return length;
      } catch (error) {
        if (socketErrorCode(error) !== 'EINTR') throw error;
      }
    }
  }

  #transmit(request: NetlinkRequest, flags: number): number {
    const sequence = this.takeSequences(1);
    this.#writer.offset = 0;
    const start = this.#writer.beginMessage(request.type, flags | (request.flags ?? 0), sequence);
    request.write?.(this.#writer);
    this.#writer.endMessage(start);
    this.sendDatagram(request.operation, this.#writer.buffer, this.#writer.offset, 1);
    return sequence;
  }

  *#dumpSteps<Found>(request: NetlinkRequest, decode: Decode<Found>, fresh: () => Found): Generator<void, Found> {
    for (let attempt = 1; ; attempt++) {
      const found = fresh();
      if ((yield* this.#dumpOnce(request, decode, found)) === 'done') return found;
      this.counters.dumpRetries++;
      if (attempt === DUMP_ATTEMPTS) {
        throw new NetlinkError({ operation: `${request.operation} (dump interrupted)`, errno: errnoNumber('EINTR') });
      }
    }
  }

  *#dumpOnce<Found>(request: NetlinkRequest, decode: Decode<Found>, found: Found): Generator<void, Outcome> {
    const sequence = this.#transmit(request, NLM_F_REQUEST | NLM_F_DUMP);
    let interrupted = false;
    try {
      yield* this.#collect(request.operation, sequence, (message) => {
        if ((message.flags & NLM_F_DUMP_INTR) !== 0) interrupted = true;
        if (message.type === NLMSG_DONE || message.type === NLMSG_ERROR) return true;
        if (!interrupted) decode(message, found);
        // A single answer without NLM_F_MULTI has no NLMSG_DONE after it.
        return (message.flags & NLM_F_MULTI) === 0;
      });
    } catch (error) {
      // The rest of this dump would make the next one fail with EBUSY, or be taken for its answer.
      this.drain();
      if (!(error instanceof NetlinkError) || error.code !== 'ENOBUFS') throw error;
      interrupted = true;
    }
    return interrupted ? 'interrupted' : 'done';
  }

  /**
   * Reads answers to `sequence`, a datagram a step, until `visit` says that it was the last; throws when that one
   * carries an errno.
   */
  *#collect(operation: string, sequence: number, visit: (message: NetlinkMessage) => boolean): Generator<void, void> {
    const check = (message: NetlinkMessage): boolean => {
      if (message.sequence !== sequence) return false;
      const last = visit(message);
      if (last && (message.type === NLMSG_ERROR || message.type === NLMSG_DONE)) {
        const errno = answerErrno(message);
        if (errno !== 0) throw new NetlinkError({ operation, errno, extAck: answerText(message), sequence });
      }
      return last;
    };
    try {
      while (!this.receiveMessages(check)) yield;
    } catch (error) {
      const code = error instanceof NetlinkError ? undefined : socketErrorCode(error);
      if (code === undefined) throw error;
      throw new NetlinkError({ operation, errno: errnoNumber(code), sequence, resultUnknown: true, cause: error });
    }
  }
}

/** Runs all steps at once. */
function finish<Result>(steps: Generator<void, Result>): Result {
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
  }
}
