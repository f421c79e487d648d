/** Builds netlink bytes by concatenation: slow, plain, and independent of the writer under test. */

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
