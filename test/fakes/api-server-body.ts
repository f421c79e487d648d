import { type ServerResponse } from 'node:http';

/** The ways in which a response body can go wrong on its way out. */
export interface BodyFault {
  /** Reset the connection once this many bytes are out. */
  readonly cutAfter?: number;
  /** Fall silent once this many bytes are out, connection open. */
  readonly freezeAfter?: number;
  /** Bytes per turn of the event loop. */
  readonly drip?: number;
}

/** A response body with back-pressure and faults. */
export class BodyWriter {
  #left: number;
  #isFrozen = false;
  #queue: Buffer[] = [];
  #isDripping = false;
  #isEnding = false;
  #isBlocked = false;

  readonly #fault: BodyFault;

  constructor(
    readonly response: ServerResponse,
    fault: BodyFault = {},
  ) {
    this.#fault = fault;
    this.#left = fault.cutAfter ?? fault.freezeAfter ?? Infinity;
    response.on('drain', () => (this.#isBlocked = false));
  }

  get isOpen(): boolean {
    return !this.response.destroyed && !this.response.writableEnded && !this.#isEnding;
  }

  /** True while the peer does not keep up (or the writer is frozen); wait with `ready`. */
  get isBlocked(): boolean {
    return this.#isBlocked || this.#isDripping;
  }

  /** Resolves once more may be written or the connection is gone. */
  async ready(): Promise<void> {
    if (!this.isBlocked || !this.isOpen) return;
    await new Promise<void>((resolve) => {
      const done = (): void => {
        this.response.off('drain', done);
        this.response.off('close', done);
        resolve();
      };
      this.response.once('drain', done);
      this.response.once('close', done);
    });
    if (this.isBlocked && this.isOpen) await this.ready();
  }

  write(text: string): void {
    if (this.#isFrozen || !this.isOpen) return;
    if (this.#left === Infinity && this.#fault.drip === undefined) {
      this.#isBlocked = !this.response.write(text);
      return;
    }
    const bytes = Buffer.from(text);
    if (this.#fault.drip !== undefined) this.#enqueue(bytes, this.#fault.drip);
    else this.#writeLimited(bytes);
  }

  /** Stops sending without closing: the peer sees a half-open connection. */
  freeze(): void {
    this.#isFrozen = true;
  }

  /** Sends what is queued, then closes the connection in the middle of the body. */
  finishAndClose(): void {
    this.#isFrozen = true;
    if (this.response.socket === null) this.response.destroy();
    else this.response.socket.destroySoon();
  }

  /** A TCP reset where the transport allows it: unsent and unread data is lost. */
  destroy(): void {
    const { socket } = this.response;
    if (socket === null || 'encrypted' in socket) this.response.destroy();
    else socket.resetAndDestroy();
  }

  end(): void {
    if (this.#isFrozen || !this.isOpen) return;
    if (this.#isDripping) this.#isEnding = true;
    else this.response.end();
  }

  #writeLimited(bytes: Buffer): void {
    const part = bytes.subarray(0, this.#left);
    this.#left -= part.length;
    this.#isBlocked = !this.response.write(part);
    if (this.#left > 0) return;
    this.#isFrozen = true;
    if (this.#fault.cutAfter !== undefined) this.finishAndClose();
  }

  #enqueue(bytes: Buffer, size: number): void {
    for (let at = 0; at < bytes.length; at += size) this.#queue.push(bytes.subarray(at, at + size));
    if (this.#isDripping) return;
    this.#isDripping = true;
    setImmediate(() => this.#drip());
  }

  #drip(): void {
    const piece = this.#queue.shift();
    if (piece !== undefined && !this.response.destroyed) {
      this.response.write(piece);
      setImmediate(() => this.#drip());
      return;
    }
    this.#isDripping = false;
    if (this.#isEnding) this.response.end();
    else this.response.emit('drain');
  }
}
