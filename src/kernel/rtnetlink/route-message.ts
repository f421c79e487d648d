/** rtnetlink routes, of which one sort is ours: include/uapi/linux/rtnetlink.h. */
import { type AttributeReader } from '../../netlink/attribute-reader.js';
import { type MessageWriter } from '../../netlink/attribute-writer.js';
import { NetlinkProtocolError } from '../../netlink/errors.js';
import { type NetlinkMessage } from '../../netlink/message.js';
import { type Address, type Family, addressFromBytes, familyOf } from '../../values/address.js';
import {
  BPF_JUMP_EQUAL,
  BPF_JUMP_SET,
  BPF_LOAD_BYTE,
  BPF_LOAD_HALF,
  BPF_LOAD_WORD,
  BPF_RETURN,
  RTM_DELADDR,
  RTM_NEWADDR,
  bpfProgram,
  swappedHalf,
  swappedWord,
} from './message.js';

export const RTM_NEWROUTE = 24;
export const RTM_DELROUTE = 25;
export const RTM_GETROUTE = 26;

export const RTNLGRP_IPV4_ROUTE = 7;
export const RTNLGRP_IPV6_ROUTE = 11;

/** struct rtmsg: u8 family, dst_len, src_len, tos, table, protocol, scope, type; u32 flags. */
export const ROUTE_HEADER = 12;
export const RouteAttribute = { destination: 1, outLink: 4, priority: 6 } as const;
const RT_TABLE_LOCAL = 255;
const RT_SCOPE_HOST = 254;
const RTN_LOCAL = 2;
const AF_INET = 2;
const AF_INET6 = 10;
/** NLM_F_REPLACE is a bit of the second byte of the flags. */
const REPLACE_IN_SECOND_BYTE = 0x01;

/**
 * rtm_protocol of our routes, and their metric: what is not this very sort is nobody's business here. No routing daemon
 * has the number (rt_protos of iproute2, FRR and BIRD). The metric is one that nobody chooses, so that another local
 * route for the same address, the kernel's own among them (metric 0), stays beside ours.
 */
export const VIP_ROUTE_PROTOCOL = 75;
export const VIP_ROUTE_METRIC = 75;

/** A route that makes one address local. */
export interface LocalRoute {
  readonly address: Address;
  /** Index of the link that it names. */
  readonly index: number;
  /** rtm_protocol: who made it. */
  readonly protocol: number;
}

/** `local ADDRESS dev LINK table local proto 75 scope host metric 75`. */
export function writeVipRoute(writer: MessageWriter, index: number, address: Address): void {
  const family = familyOf(address);
  const start = writeRouteHeader(writer, family, VIP_ROUTE_PROTOCOL);
  writer.buffer[start + 1] = address.length * 8;
  if (family === 4) writer.buffer[start + 6] = RT_SCOPE_HOST; // IPv6 routes have no scope
  writer.packed(RouteAttribute.destination, address);
  writer.u32(RouteAttribute.outLink, index);
  writer.u32(RouteAttribute.priority, VIP_ROUTE_METRIC);
}

/** What a dump is asked for: local routes in table local by our protocol; kernels before 4.20 answer with all. */
export function writeVipRouteFilter(writer: MessageWriter, family: Family): void {
  writeRouteHeader(writer, family, VIP_ROUTE_PROTOCOL);
}

function writeRouteHeader(writer: MessageWriter, family: Family, protocol: number): number {
  const start = writer.reserve(ROUTE_HEADER);
  const { buffer } = writer;
  buffer.fill(0, start, start + ROUTE_HEADER);
  buffer[start] = family === 4 ? AF_INET : AF_INET6;
  buffer[start + 4] = RT_TABLE_LOCAL;
  buffer[start + 5] = protocol;
  buffer[start + 7] = RTN_LOCAL;
  return start;
}

/**
 * Reads RTM_NEWROUTE or RTM_DELROUTE; undefined for what is no route of a single address in table local. Its type is
 * not looked at: one that took the place of ours may be of any.
 */
export function readHostRoute(message: NetlinkMessage, reader: AttributeReader): LocalRoute | undefined {
  const { buffer, start } = message;
  if (message.end - start < ROUTE_HEADER) throw new NetlinkProtocolError('truncated route message');
  const family: Family | undefined = buffer[start] === AF_INET ? 4 : buffer[start] === AF_INET6 ? 6 : undefined;
  if (family === undefined || buffer[start + 4] !== RT_TABLE_LOCAL) return undefined;
  if (buffer[start + 1] !== (family === 4 ? 32 : 128)) return undefined;
  let index = 0;
  let at = -1;
  reader.reset(buffer, start + ROUTE_HEADER, message.end);
  while (reader.next()) {
    if (reader.type === RouteAttribute.destination) {
      reader.need(family === 4 ? 4 : 16);
      at = reader.start;
    } else if (reader.type === RouteAttribute.outLink) index = reader.u32();
  }
  if (at < 0) return undefined;
  return { address: addressFromBytes(buffer, at, family), index, protocol: buffer[start + 5]! };
}

/** Whether it is one of ours, as they should be. */
export function isVipRoute(message: NetlinkMessage, route: LocalRoute): boolean {
  return route.protocol === VIP_ROUTE_PROTOCOL && message.buffer[message.start + 7] === RTN_LOCAL;
}

/**
 * A classic BPF program for a socket that hears of addresses, links and routes: it drops addresses that come and go on
 * the link of this index, which are no VIPs then, and of routes passes only what a VIP may have lost by: one of our
 * protocol removed from table local, or one of that table that took another's place. A routing daemon with a million
 * routes, and our own additions, end here and cost nothing.
 */
export function vipNewsFilter(index: number): Buffer {
  const [pass, drop] = [13, 14];
  // Jumps count the instructions that are left out.
  const to = (from: number, target: number): number => target - from - 1;
  return bpfProgram([
    [BPF_LOAD_HALF, 0, 0, 4], // nlmsghdr.type
    [BPF_JUMP_EQUAL, to(1, 3), 0, swappedHalf(RTM_NEWADDR)],
    [BPF_JUMP_EQUAL, 0, to(2, 5), swappedHalf(RTM_DELADDR)],
    [BPF_LOAD_WORD, 0, 0, 20], // ifaddrmsg.index
    [BPF_JUMP_EQUAL, to(4, drop), to(4, pass), swappedWord(index)],
    [BPF_JUMP_EQUAL, 0, to(5, 8), swappedHalf(RTM_NEWROUTE)],
    [BPF_LOAD_BYTE, 0, 0, 7], // the second byte of nlmsghdr.flags
    [BPF_JUMP_SET, to(7, 11), to(7, drop), REPLACE_IN_SECOND_BYTE],
    [BPF_JUMP_EQUAL, 0, to(8, pass), swappedHalf(RTM_DELROUTE)],
    [BPF_LOAD_BYTE, 0, 0, 21], // rtmsg.protocol
    [BPF_JUMP_EQUAL, 0, to(10, drop), VIP_ROUTE_PROTOCOL],
    [BPF_LOAD_BYTE, 0, 0, 20], // rtmsg.table
    [BPF_JUMP_EQUAL, 0, to(12, drop), RT_TABLE_LOCAL],
    [BPF_RETURN, 0, 0, 0xffffffff],
    [BPF_RETURN, 0, 0, 0],
  ]);
}
