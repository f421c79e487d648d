/**
 * nfnetlink: message types are subsystem << 8 | command, and struct nfgenmsg (u8 family, u8 version, be16 resource)
 * precedes attributes.
 */
import { type AttributeReader } from './attribute-reader.js';
import { type MessageWriter } from './attribute-writer.js';
import { NetlinkError, NetlinkProtocolError } from './errors.js';
import { type NetlinkMessage } from './message.js';
import { NETLINK_NETFILTER, type NetlinkSocket, type OpenNetlinkSocket } from './socket.js';

// include/uapi/linux/netfilter/nfnetlink.h
export const NFNL_SUBSYS_CTNETLINK = 1;
export const NFNL_SUBSYS_IPSET = 6;
export const NFNL_SUBSYS_NFTABLES = 10;
export const NETFILTER_HEADER_LENGTH = 4;

export const NFPROTO_UNSPEC = 0;
export const NFPROTO_IPV4 = 2;
export const NFPROTO_IPV6 = 10;

export function netfilterType(subsystem: number, command: number): number {
  return (subsystem << 8) | command;
}

export function writeNetfilterHeader(writer: MessageWriter, family: number): void {
  const start = writer.reserve(NETFILTER_HEADER_LENGTH);
  writer.buffer[start] = family;
  writer.buffer[start + 1] = writer.buffer[start + 2] = writer.buffer[start + 3] = 0;
}

/**
 * Points `reader` at the attributes of an nfnetlink message; throws NetlinkProtocolError when its header is not there.
 */
export function netfilterAttributes(message: NetlinkMessage, reader: AttributeReader): AttributeReader {
  if (message.end - message.start < NETFILTER_HEADER_LENGTH) {
    throw new NetlinkProtocolError('truncated nfnetlink header');
  }
  return reader.reset(message.buffer, message.start + NETFILTER_HEADER_LENGTH, message.end);
}

/**
 * Opens a socket for nfnetlink; throws what `unavailable` makes of the error when the kernel has no nfnetlink, else
 * NetlinkError.
 */
export function openNetfilterSocket(
  open: OpenNetlinkSocket,
  unavailable: new (options: ErrorOptions) => Error,
): NetlinkSocket {
  try {
    return open(NETLINK_NETFILTER);
  } catch (error) {
    // without the module nfnetlink there is no such socket family
    if (error instanceof NetlinkError && error.code === 'EPROTONOSUPPORT') throw new unavailable({ cause: error });
    throw error;
  }
}
