/** Address and link changes as events, by a wait in libuv's thread pool: no polling. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { AttributeReader } from '../../netlink/attribute-reader.js';
import { MessageWriter } from '../../netlink/attribute-writer.js';
import { NetlinkProtocolError, socketErrorCode } from '../../netlink/errors.js';
import {
  NLMSG_NOOP,
  NLM_F_ACK,
  NLM_F_REPLACE,
  NLM_F_REQUEST,
  emptyMessage,
  readMessage,
} from '../../netlink/message.js';
import { NETLINK_ROUTE, type NetlinkSocket, type OpenNetlinkSocket } from '../../netlink/socket.js';
import {
  type Link,
  type LinkAddress,
  RTM_DELADDR,
  RTM_DELLINK,
  RTM_NEWADDR,
  RTM_NEWLINK,
  RTNLGRP_IPV4_IFADDR,
  RTNLGRP_IPV6_IFADDR,
  RTNLGRP_LINK,
  addedAddressFilter,
  readAddress,
  readLink,
} from './message.js';
import {
  type LocalRoute,
  RTM_DELROUTE,
  RTM_NEWROUTE,
  RTNLGRP_IPV4_ROUTE,
  RTNLGRP_IPV6_ROUTE,
  isVipRoute,
  readHostRoute,
  vipNewsFilter,
} from './route-message.js';

export type LinkEvent =
  | { readonly kind: 'address-added' | 'address-removed'; readonly address: LinkAddress }
  | { readonly kind: 'link-changed' | 'link-removed'; readonly link: Link }
  | { readonly kind: 'route-removed' | 'route-replaced'; readonly route: LocalRoute };

export interface LinkWatchHandlers {
  readonly onEvent: (event: LinkEvent) => void;
  /** Events were lost (ENOBUFS, or a message that cannot be read): everything has to be listed again. */
  readonly onOverrun: (reason: unknown) => void;
  /** The socket failed for good; no more events come. */
  readonly onError: (error: unknown) => void;
}

const RECEIVE_BUFFER = 64 * 1024;
const READS_PER_TURN = 128;

export class LinkWatch {
  readonly #socket: NetlinkSocket;
  readonly #buffer = Buffer.allocUnsafeSlow(RECEIVE_BUFFER);
  readonly #message = emptyMessage(this.#buffer);
  readonly #reader = new AttributeReader();
  readonly #nested = new AttributeReader();
  #closing = false;
  readonly #finished: Promise<void>;

  readonly #handlers: LinkWatchHandlers;

  readonly #hearsRoutes: boolean;

  /**
   * Opens the socket and begins to listen: what happens from here on is seen, to our routes, too, where `hearsRoutes`
   * says so. Throws NetlinkError.
   */
  constructor(open: OpenNetlinkSocket, handlers: LinkWatchHandlers, hearsRoutes = false) {
    this.#handlers = handlers;
    this.#hearsRoutes = hearsRoutes;
    const groups = [RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR];
    this.#socket = open(NETLINK_ROUTE, hearsRoutes ? [...groups, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE] : groups);
    this.#finished = this.#run();
  }

  /**
   * Lets the kernel drop the news of addresses added to this link (and removed, where VIPs are routes), before they
   * cost anything here: 10,000 virtual addresses being bound would otherwise come back as 10,000 events. Replaces what
   * was ignored before; 0 is nothing. Addresses removed from the link are still reported. Throws NetlinkError.
   */
  ignoreAddressesAddedTo(index: number): void {
    this.#socket.attachFilter(this.#hearsRoutes ? vipNewsFilter(index) : addedAddressFilter(index));
  }

  /** Ends the wait and closes the socket; resolves when both are done. No event comes after the call. Idempotent. */
  close(): Promise<void> {
    if (!this.#closing) {
      this.#closing = true;
      this.#wake();
    }
    return this.#finished;
  }

  async #run(): Promise<void> {
    try {
      while (!this.#closing) {
        await this.#socket.waitReadable();
        await this.#readQueued();
      }
    } catch (error) {
      if (!this.#closing) this.#handlers.onError(error);
    } finally {
      this.#closing = true;
      this.#socket.close();
    }
  }

  /** Reads what has queued up, without keeping the event loop to itself. */
  async #readQueued(): Promise<void> {
    while (!this.#closing) {
      for (let i = 0; i < READS_PER_TURN; i++) if (this.#closing || !this.#receive()) return;
      await nextTurn();
    }
  }

  /** Reads and reports one datagram; false when there was none. */
  #receive(): boolean {
    try {
      const length = this.#socket.receive(this.#buffer);
      if (length === this.#buffer.length) throw new NetlinkProtocolError('netlink event truncated by the buffer');
      this.#readDatagram(length);
    } catch (error) {
      const code = socketErrorCode(error);
      if (code === 'EAGAIN') return false;
      if (code === 'EINTR') return true;
      if (code !== 'ENOBUFS' && !(error instanceof NetlinkProtocolError)) throw error;
      this.#report(error);
    }
    return true;
  }

  #report(reason: unknown): void {
    if (!this.#closing) this.#handlers.onOverrun(reason);
  }

  #readDatagram(length: number): void {
    let offset = 0;
    while (offset < length && !this.#closing) {
      offset = readMessage(this.#message, this.#buffer, offset, length);
      const event = this.#readEvent();
      if (event !== undefined) this.#handlers.onEvent(event);
    }
  }

  #readEvent(): LinkEvent | undefined {
    const { type } = this.#message;
    if (type === RTM_NEWADDR || type === RTM_DELADDR) {
      const address = readAddress(this.#message, this.#reader);
      if (address === undefined) return undefined;
      return { kind: type === RTM_NEWADDR ? 'address-added' : 'address-removed', address };
    }
    if (type === RTM_NEWROUTE || type === RTM_DELROUTE) return this.#readRouteEvent(type === RTM_DELROUTE);
    if (type !== RTM_NEWLINK && type !== RTM_DELLINK) return undefined;
    const link = readLink(this.#message, this.#reader, this.#nested);
    return { kind: type === RTM_NEWLINK ? 'link-changed' : 'link-removed', link };
  }

  /** What the filter lets through, looked at again: the first messages come before it is there. */
  #readRouteEvent(isRemoval: boolean): LinkEvent | undefined {
    const route = readHostRoute(this.#message, this.#reader);
    if (route === undefined) return undefined;
    const isOurs = isVipRoute(this.#message, route);
    if (isRemoval) return isOurs ? { kind: 'route-removed', route } : undefined;
    const isReplacement = (this.#message.flags & NLM_F_REPLACE) !== 0;
    return isReplacement && !isOurs ? { kind: 'route-replaced', route } : undefined;
  }

  /**
   * A wait in the thread pool cannot be cancelled, and closing the descriptor under it does not end it. But the kernel
   * acknowledges an empty request to this same socket, and that answer makes it readable.
   */
  #wake(): void {
    const writer = new MessageWriter(Buffer.alloc(16));
    const start = writer.beginMessage(NLMSG_NOOP, NLM_F_REQUEST | NLM_F_ACK, 1);
    writer.endMessage(start);
    try {
      this.#socket.send(writer.buffer, writer.offset);
    } catch {
      // Then the wait ends by its own time limit.
    }
  }
}
