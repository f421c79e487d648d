/**
 * Netlink bytes written and read a second time, on purpose without src/netlink: a mistake there must not cancel itself
 * out here.
 */
import assert from 'node:assert/strict';

export const NESTED = 0x8000;
export const NET_BYTEORDER = 0x4000;

export interface WireMessage {
  readonly type: number;
  readonly flags: number;
  readonly sequence: number;
  /** What follows struct nlmsghdr. */
  readonly body: Buffer;
  readonly bytes: Buffer;
}

/** Attributes in order; `type` without the flag bits, `rawType` with them. */
export interface WireAttribute {
  readonly type: number;
  readonly rawType: number;
  readonly value: Buffer;
}

export function splitMessages(datagram: Buffer): WireMessage[] {
  const messages: WireMessage[] = [];
  for (let at = 0; at < datagram.length;) {
    const length = datagram.readUInt32LE(at);
    assert.ok(length >= 16 && at + length <= datagram.length, `message of ${length} bytes at ${at}`);
    const bytes = datagram.subarray(at, at + length);
    messages.push({
      type: bytes.readUInt16LE(4),
      flags: bytes.readUInt16LE(6),
      sequence: bytes.readUInt32LE(8),
      body: bytes.subarray(16),
      bytes,
    });
    at += (length + 3) & ~3;
  }
  return messages;
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

export function attribute(rawType: number, value: Buffer): Buffer {
  const padding = Buffer.alloc((4 - (value.length & 3)) & 3);
  const header = Buffer.from([0, 0, rawType & 255, rawType >> 8]);
  header.writeUInt16LE(4 + value.length);
  return Buffer.concat([header, value, padding]);
}

export function nested(type: number, ...parts: Buffer[]): Buffer {
  return attribute(type | NESTED, Buffer.concat(parts));
}

export function text(type: number, value: string): Buffer {
  return attribute(type, Buffer.from(`${value}\0`));
}

export function byte(type: number, value: number): Buffer {
  return attribute(type, Buffer.from([value]));
}

export function number32(type: number, value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return attribute(type | NET_BYTEORDER, bytes);
}

/** A message with struct nfgenmsg of `family` before its attributes. */
export function netfilterMessage(
  type: number,
  flags: number,
  sequence: number,
  family: number,
  ...parts: Buffer[]
): Buffer {
  return message(type, flags, sequence, Buffer.from([family, 0, 0, 0]), ...parts);
}

export function message(type: number, flags: number, sequence: number, ...parts: Buffer[]): Buffer {
  const body = Buffer.concat(parts);
  const header = Buffer.alloc(16);
  header.writeUInt32LE(16 + body.length);
  header.writeUInt16LE(type, 4);
  header.writeUInt16LE(flags, 6);
  header.writeUInt32LE(sequence, 8);
  return Buffer.concat([header, body, Buffer.alloc((4 - (body.length & 3)) & 3)]);
}

/**
 * NLMSG_ERROR as with NETLINK_CAP_ACK: only the header of the request is repeated, and an acknowledgement when errno is
 * 0.
 */
export function errorMessage(request: WireMessage, errno: number): Buffer {
  const code = Buffer.alloc(4);
  code.writeInt32LE(-errno);
  return message(2, 0x100, request.sequence, code, request.bytes.subarray(0, 16));
}

/** NLMSG_DONE of a dump. */
export function doneMessage(sequence: number, errno = 0): Buffer {
  const code = Buffer.alloc(4);
  code.writeInt32LE(-errno);
  return message(3, 2, sequence, code);
}
