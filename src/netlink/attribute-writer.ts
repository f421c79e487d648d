/**
 * Writes messages and attributes into a preallocated buffer (struct nlattr: u16 length with header, u16 type, padded to
 * 4). Every write is bounds-checked; what does not fit throws NetlinkProtocolError.
 */
import { align } from './align.js';
import { NetlinkProtocolError } from './errors.js';
import { HEADER_LENGTH } from './message.js';

export const NLA_F_NESTED = 0x8000;
export const NLA_F_NET_BYTEORDER = 0x4000;
const ATTRIBUTE_HEADER = 4;

export class MessageWriter {
  /** Where the next byte goes. */
  offset = 0;

  constructor(readonly buffer: Buffer) {}

  /** Writes a message header with length 0 (see `endMessage`); returns its offset. */
  beginMessage(type: number, flags: number, sequence: number): number {
    const start = this.reserve(HEADER_LENGTH);
    this.buffer.writeUInt32LE(0, start);
    this.buffer.writeUInt16LE(type, start + 4);
    this.buffer.writeUInt16LE(flags, start + 6);
    this.buffer.writeUInt32LE(sequence, start + 8);
    this.buffer.writeUInt32LE(0, start + 12);
    return start;
  }

  /** Fills in the length of the message that began at `start`. */
  endMessage(start: number): void {
    this.buffer.writeUInt32LE(this.offset - start, start);
  }

  /**
   * Opens a nested attribute; returns what `endNested` needs. The NLA_F_NESTED flag is the caller's to add to `type`.
   */
  beginNested(type: number): number {
    const start = this.reserve(ATTRIBUTE_HEADER);
    this.buffer.writeUInt16LE(type, start + 2);
    return start;
  }

  endNested(start: number): void {
    if (this.offset - start > 0xffff) throw new NetlinkProtocolError('nested attribute over 65535 bytes');
    this.buffer.writeUInt16LE(this.offset - start, start);
  }

  /** An attribute of `length` zero bytes; returns the offset of its payload, for the caller to fill. */
  raw(type: number, length: number): number {
    if (length > 0xffff - ATTRIBUTE_HEADER) throw new NetlinkProtocolError(`attribute of ${length} bytes`);
    const start = this.reserve(align(ATTRIBUTE_HEADER + length));
    this.buffer.fill(0, start + ATTRIBUTE_HEADER, this.offset);
    this.buffer.writeUInt16LE(ATTRIBUTE_HEADER + length, start);
    this.buffer.writeUInt16LE(type, start + 2);
    return start + ATTRIBUTE_HEADER;
  }

  u8(type: number, value: number): void {
    this.buffer[this.raw(type, 1)] = value;
  }

  u16(type: number, value: number): void {
    this.buffer.writeUInt16LE(value, this.raw(type, 2));
  }

  u32(type: number, value: number): void {
    this.buffer.writeUInt32LE(value >>> 0, this.raw(type, 4));
  }

  u16be(type: number, value: number): void {
    this.buffer.writeUInt16BE(value, this.raw(type, 2));
  }

  u32be(type: number, value: number): void {
    this.buffer.writeUInt32BE(value >>> 0, this.raw(type, 4));
  }

  /** A string with its terminating NUL (NLA_STRING, NLA_NUL_STRING). */
  string(type: number, value: string): void {
    const start = this.raw(type, Buffer.byteLength(value) + 1);
    this.buffer.write(value, start);
  }

  /** A packed Latin-1 string (such as an Address), zero-padded to `length` bytes. */
  packed(type: number, value: string, length: number = value.length): void {
    const start = this.raw(type, Math.max(length, value.length));
    for (let i = 0; i < value.length; i++) this.buffer[start + i] = value.charCodeAt(i);
  }

  bytes(type: number, value: Uint8Array): void {
    this.buffer.set(value, this.raw(type, value.length));
  }

  /**
   * Takes `length` bytes for the caller to fill (a family's fixed header); they are not cleared. Returns their offset.
   */
  reserve(length: number): number {
    const start = this.offset;
    if (length > this.buffer.length - start) {
      throw new NetlinkProtocolError(`${length} bytes do not fit into the ${this.buffer.length - start} left`);
    }
    this.offset = start + length;
    return start;
  }
}
