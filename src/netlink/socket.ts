/** Netlink families (include/uapi/linux/netlink.h). */
export const NETLINK_ROUTE = 0;
export const NETLINK_NETFILTER = 12;
export const NETLINK_GENERIC = 16;

/**
 * A bound AF_NETLINK socket: the seam under the codec. `native/libc.ts` opens real ones, `test/fakes` ones that answer
 * real bytes. `send` and `receive` throw errors with an errno name in `code`, as `node:fs` does.
 *
 * The kernel works inside `send` and has queued its answer when `send` returns. So `receive` never waits, and `EAGAIN`
 * in place of an answer means that the answer was lost.
 */
export interface NetlinkSocket {
  /** Sends the first `length` bytes as one datagram; returns how many the kernel took. */
  send(buffer: Uint8Array, length: number): number;
  /** Reads one datagram; returns its length. A longer datagram is cut to the buffer's length. Never waits. */
  receive(buffer: Uint8Array): number;
  /**
   * Resolves when there may be something to read, off the event loop. Now and then it resolves for nothing, so that a
   * process that forgot to close the socket can still exit.
   */
  waitReadable(): Promise<void>;
  /**
   * Replaces the filter (classic BPF, struct sock_filter[]) that decides which datagrams are queued; throws
   * NetlinkError.
   */
  attachFilter(program: Buffer): void;
  /** Idempotent. Must not be called while `waitReadable` is pending. */
  close(): void;
}

/** Opens a socket of a netlink family, a member of the given multicast groups; throws NetlinkError. */
export type OpenNetlinkSocket = (protocol: number, groups?: readonly number[]) => NetlinkSocket;
