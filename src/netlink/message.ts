/**
 * struct nlmsghdr of include/uapi/linux/netlink.h:
 *   u32 length (header included), u16 type, u16 flags, u32 sequence, u32 port id.
 * Numbers are in the host's byte order; only little-endian hosts are supported (native/libc.ts checks).
 */
import { align } from './align.js';
import { NetlinkProtocolError } from './errors.js';

export const HEADER_LENGTH = 16;

export const NLMSG_NOOP = 1;
export const NLMSG_ERROR = 2;
export const NLMSG_DONE = 3;

export const NLM_F_REQUEST = 0x1;
export const NLM_F_MULTI = 0x2;
export const NLM_F_ACK = 0x4;
export const NLM_F_DUMP_INTR = 0x10;
export const NLM_F_DUMP = 0x300;
export const NLM_F_REPLACE = 0x100;
export const NLM_F_EXCL = 0x200;
export const NLM_F_CREATE = 0x400;
/** In answers: the error does not repeat the request (NETLINK_CAP_ACK). */
export const NLM_F_CAPPED = 0x100;
/** In answers: attributes with the extended text follow. */
export const NLM_F_ACK_TLVS = 0x200;

/**
 * One message of a received datagram; `start` and `end` bound its payload in `buffer`. Reused from message to message.
 */
export interface NetlinkMessage {
  buffer: Buffer;
  type: number;
  flags: number;
  sequence: number;
  start: number;
  end: number;
}

export function emptyMessage(buffer: Buffer): NetlinkMessage {
  return { buffer, type: 0, flags: 0, sequence: 0, start: 0, end: 0 };
}

/**
 * Reads the header at `offset` of a datagram of `length` bytes into `message`; returns the offset of the next message.
 * Throws NetlinkProtocolError when the header or the payload that it promises is not there.
 */
export function readMessage(message: NetlinkMessage, buffer: Buffer, offset: number, length: number): number {
  if (length > buffer.length || length - offset < HEADER_LENGTH) {
    throw new NetlinkProtocolError(`truncated netlink header: ${length - offset} bytes left`);
  }
  const messageLength = buffer.readUInt32LE(offset);
  if (messageLength < HEADER_LENGTH || messageLength > length - offset) {
    throw new NetlinkProtocolError(`netlink message claims ${messageLength} bytes, ${length - offset} are there`);
  }
  message.buffer = buffer;
  message.type = buffer.readUInt16LE(offset + 4);
  message.flags = buffer.readUInt16LE(offset + 6);
  message.sequence = buffer.readUInt32LE(offset + 8);
  message.start = offset + HEADER_LENGTH;
  message.end = offset + messageLength;
  return Math.min(offset + align(messageLength), length);
}
