/**
 * Netlink bytes written and read a second time, on purpose without src/netlink: slow, plain, and a mistake there cannot
 * cancel itself out here.
 */
import assert from 'node:assert/strict';

export const NESTED = 0x8000;
export const NET_BYTEORDER = 0x4000;

export function u8(value: number): Buffer {
  return Buffer.from([value]);
}

export function u16(value: number): Buffer {
  const buffer = Buffer.alloc(2);
  buffer.writeUInt16LE(value);
  return buffer;
}

export function u16be(value: number): Buffer {
  return Buffer.from([value >> 8, value & 255]);
}

export function u32(value: number): Buffer {
  const buffer = Buffer.alloc(4);
  buffer.writeUInt32LE(value >>> 0);
  return buffer;
}

export function u32be(value: number): Buffer {
  const buffer = Buffer.alloc(4);
  buffer.writeUInt32BE(value >>> 0);
  return buffer;
}

export function i32(value: number): Buffer {
  const buffer = Buffer.alloc(4);
  buffer.writeInt32LE(value);
  return buffer;
}

export function text(value: string): Buffer {
  return Buffer.from(`${value}\0`);
}

/** A packed Latin-1 string, padded with zeros to `length`. */
export function packed(value: string, length = value.length): Buffer {
  return Buffer.concat([Buffer.from(value, 'latin1'), Buffer.alloc(length - value.length)]);
}

export function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc((4 - (bytes.length % 4)) % 4)]);
}

/** struct nlattr with its payload, padded. */
export function attribute(type: number, ...payload: Buffer[]): Buffer {
  const body = Buffer.concat(payload);
  return padded(Buffer.concat([u16(body.length + 4), u16(type), body]));
}

export function nested(type: number, ...attributes: Buffer[]): Buffer {
  return attribute(type | NESTED, ...attributes);
}

/** A number in network byte order, as nfnetlink has it. */
export function networkNumber(type: number, value: number): Buffer {
  return attribute(type | NET_BYTEORDER, u32be(value));
}

/** struct nlmsghdr with its payload, padded; the length field does not count the padding. */
export function netlinkMessage(
  type: number,
  flags: number,
  sequence: number,
  portId: number,
  ...payload: Buffer[]
): Buffer {
  const body = Buffer.concat(payload);
  return padded(Buffer.concat([u32(body.length + 16), u16(type), u16(flags), u32(sequence), u32(portId), body]));
}

export interface WireMessage {
  readonly type: number;
  readonly flags: number;
  readonly sequence: number;
  /** What follows struct nlmsghdr. */
  readonly body: Buffer;
  readonly bytes: Buffer;
}

/** The messages of a datagram, up to one that does not fit in it: there the kernel stops without a word. */
export function* messagesIn(datagram: Buffer): Generator<WireMessage> {
  for (let at = 0; at + 16 <= datagram.length;) {
    const length = datagram.readUInt32LE(at);
    if (length < 16 || at + length > datagram.length) return;
    const bytes = datagram.subarray(at, at + length);
    const [type, flags, sequence] = [bytes.readUInt16LE(4), bytes.readUInt16LE(6), bytes.readUInt32LE(8)];
    yield { type, flags, sequence, body: bytes.subarray(16), bytes };
    at += (length + 3) & ~3;
  }
}

/** The same, all of which have to fit. */
export function splitMessages(datagram: Buffer): WireMessage[] {
  const messages = [...messagesIn(datagram)];
  const length = messages.reduce((sum, { bytes }) => sum + ((bytes.length + 3) & ~3), 0);
  assert.ok(length >= datagram.length, `${datagram.length} bytes, of which ${length} are messages`);
  return messages;
}

/** Attributes in order; `type` without the flag bits, `rawType` with them. */
export interface WireAttribute {
  readonly type: number;
  readonly rawType: number;
  readonly value: Buffer;
}

export function splitAttributes(bytes: Buffer): WireAttribute[] {
  const attributes: WireAttribute[] = [];
  for (let at = 0; at < bytes.length;) {
    const length = bytes.readUInt16LE(at);
    const rawType = bytes.readUInt16LE(at + 2);
    assert.ok(length >= 4 && at + length <= bytes.length, `attribute ${rawType} of ${length} bytes at ${at}`);
    attributes.push({ type: rawType & 0x3fff, rawType, value: bytes.subarray(at + 4, at + length) });
    at += (length + 3) & ~3;
  }
  return attributes;
}

export function valueOf(attributes: readonly WireAttribute[], type: number): Buffer | undefined {
  return attributes.find((attribute) => attribute.type === type)?.value;
}

export function textOf(attributes: readonly WireAttribute[], type: number): string {
  const value = valueOf(attributes, type);
  return value === undefined ? '' : value.subarray(0, value.length - 1).toString();
}

/** Payloads by type, flag bits left out. */
export function attributeMap(bytes: Buffer): Map<number, Buffer> {
  return new Map(splitAttributes(bytes).map(({ type, value }) => [type, value]));
}
