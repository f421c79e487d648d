/** NLMSG_ERROR (struct nlmsgerr) and NLMSG_DONE: an errno, and with NETLINK_EXT_ACK the kernel's text. */
import { align } from './align.js';
import { AttributeReader } from './attribute-reader.js';
import { NetlinkProtocolError } from './errors.js';
import { HEADER_LENGTH, type NetlinkMessage, NLMSG_DONE, NLM_F_ACK_TLVS, NLM_F_CAPPED } from './message.js';

const NLMSGERR_ATTR_MSG = 1;

/** The positive errno in an NLMSG_ERROR or NLMSG_DONE; 0 is success (an acknowledgement). */
export function answerErrno(message: NetlinkMessage): number {
  if (message.end - message.start < 4) {
    // NLMSG_DONE without a payload is what old kernels end a dump with.
    if (message.type === NLMSG_DONE) return 0;
    throw new NetlinkProtocolError(`netlink error message of ${message.end - message.start} bytes`);
  }
  return -message.buffer.readInt32LE(message.start) | 0;
}

/** The kernel's extended text in an NLMSG_ERROR or NLMSG_DONE. */
export function answerText(message: NetlinkMessage): string | undefined {
  if ((message.flags & NLM_F_ACK_TLVS) === 0) return undefined;
  let start = message.start + 4;
  if (message.type !== NLMSG_DONE) {
    // The failed request follows the errno: its header only (capped), or all of it.
    if (message.end - start < HEADER_LENGTH) return undefined;
    const capped = (message.flags & NLM_F_CAPPED) !== 0;
    start += capped ? HEADER_LENGTH : align(message.buffer.readUInt32LE(start));
  }
  if (start > message.end) throw new NetlinkProtocolError('netlink error message lies about its request');
  const reader = new AttributeReader().reset(message.buffer, start, message.end);
  while (reader.next()) if (reader.type === NLMSGERR_ATTR_MSG) return reader.string();
  return undefined;
}
