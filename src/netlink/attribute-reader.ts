/**
 * Walks attributes (struct nlattr) inside given bounds; anything that would lead outside throws NetlinkProtocolError.
 */
import { align } from './align.js';
import { NetlinkProtocolError } from './errors.js';

const ATTRIBUTE_HEADER = 4;
const TYPE_MASK = 0x3fff;

export class AttributeReader {
  /** Type without NLA_F_NESTED and NLA_F_NET_BYTEORDER. */
  type = 0;
  /** Bounds of the current attribute's payload. */
  start = 0;
  end = 0;
  #offset = 0;
  #limit = 0;
  #source: Buffer = EMPTY;

  get buffer(): Buffer {
    return this.#source;
  }

  /** Length of the current attribute's payload in bytes. */
  get length(): number {
    return this.end - this.start;
  }

  /** Starts over at the attributes between `start` and `end` of `buffer`. */
  reset(buffer: Buffer, start: number, end: number): this {
    if (start < 0 || start > end || end > buffer.length) {
      throw new NetlinkProtocolError(`attributes from ${start} to ${end} in a buffer of ${buffer.length} bytes`);
    }
    this.#source = buffer;
    this.#offset = start;
    this.#limit = end;
    this.type = this.start = this.end = 0;
    return this;
  }

  /** Starts over at the attributes nested in the current attribute of `outer`. */
  enter(outer: AttributeReader): this {
    return this.reset(outer.#source, outer.start, outer.end);
  }

  /** Moves to the next attribute; false when there is none. */
  next(): boolean {
    const left = this.#limit - this.#offset;
    if (left === 0) return false;
    if (left < ATTRIBUTE_HEADER) throw new NetlinkProtocolError(`truncated attribute header: ${left} bytes`);
    const length = this.#source.readUInt16LE(this.#offset);
    if (length < ATTRIBUTE_HEADER || length > left) {
      throw new NetlinkProtocolError(`attribute claims ${length} bytes, ${left} are there`);
    }
    this.type = this.#source.readUInt16LE(this.#offset + 2) & TYPE_MASK;
    this.start = this.#offset + ATTRIBUTE_HEADER;
    this.end = this.#offset + length;
    this.#offset = Math.min(this.#offset + align(length), this.#limit);
    return true;
  }

  u8(): number {
    this.need(1);
    return this.#source[this.start]!;
  }

  u16(): number {
    this.need(2);
    return this.#source.readUInt16LE(this.start);
  }

  u32(): number {
    this.need(4);
    return this.#source.readUInt32LE(this.start);
  }

  /** Exact up to 2^53. */
  u64(): number {
    this.need(8);
    return this.#source.readUInt32LE(this.start) + this.#source.readUInt32LE(this.start + 4) * 2 ** 32;
  }

  u16be(): number {
    this.need(2);
    return this.#source.readUInt16BE(this.start);
  }

  u32be(): number {
    this.need(4);
    return this.#source.readUInt32BE(this.start);
  }

  /** Text up to the first NUL or the end. */
  string(): string {
    let end = this.start;
    while (end < this.end && this.#source[end] !== 0) end++;
    return this.#source.toString('utf8', this.start, end);
  }

  /** Throws unless the payload has at least `length` bytes. */
  need(length: number): void {
    if (this.end - this.start < length) {
      throw new NetlinkProtocolError(`attribute ${this.type} has ${this.end - this.start} bytes, not ${length}`);
    }
  }
}

const EMPTY = Buffer.alloc(0);
