/** Client for rtnetlink: the dummy link that holds the virtual addresses, and the addresses of every link. */
import { AttributeReader } from '../../netlink/attribute-reader.js';
import { NLA_F_NESTED } from '../../netlink/attribute-writer.js';
import { NetlinkBatch } from '../../netlink/batch.js';
import { NetlinkConnection, type NetlinkCounters, type NetlinkRequest } from '../../netlink/connection.js';
import { NetlinkError, errnoNumber } from '../../netlink/errors.js';
import { type NetlinkMessage, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST } from '../../netlink/message.js';
import { MessageTemplate } from '../../netlink/message-template.js';
import { NETLINK_ROUTE, type OpenNetlinkSocket } from '../../netlink/socket.js';
import { type Address, formatAddress } from '../../values/address.js';
import { type AddressChange, type AddressFailure, type AddressOperation } from './address-change.js';
import {
  type Link,
  type LinkAddress,
  LINK_INFO_KIND,
  LinkAttribute,
  RTM_DELADDR,
  RTM_DELLINK,
  RTM_GETADDR,
  RTM_GETLINK,
  RTM_NEWADDR,
  RTM_NEWLINK,
  readAddress,
  readLink,
  writeAddressHeader,
  writeHostAddress,
  writeLinkHeader,
} from './message.js';
import { LocalRoutes } from './local-routes.js';

/** IFNAMSIZ without the NUL. */
const NAME_MAX = 15;
const MAX_MESSAGE = 96;
/** A datagram that fits into one page: the kernel has to map memory for a larger one. */
const BATCH = 32;

interface AddressTemplate {
  readonly operation: AddressOperation;
  readonly index: number;
  readonly template: MessageTemplate;
}

export class LinkClient {
  /** VIPs as routes, over the same socket. */
  readonly routes: LocalRoutes;
  readonly #connection: NetlinkConnection;
  readonly #batch: NetlinkBatch<AddressChange<AddressOperation>>;
  readonly #reader = new AttributeReader();
  /** Of the last change, by the address's length: those that come in a row are alike. */
  readonly #templates = new Map<number, AddressTemplate>();
  readonly #nested = new AttributeReader();

  constructor(open: OpenNetlinkSocket) {
    this.#connection = new NetlinkConnection(() => open(NETLINK_ROUTE));
    this.routes = new LocalRoutes(this.#connection);
    this.#batch = new NetlinkBatch(this.#connection, describe, {
      maxMessages: BATCH,
      maxMessageSize: MAX_MESSAGE,
      bufferSize: BATCH * 2 * MAX_MESSAGE,
    });
  }

  get counters(): Readonly<NetlinkCounters> {
    return this.#connection.counters;
  }

  /**
   * Makes sure that a link of this name exists: a dummy, left down, if it has to be made. Addresses of a link that is
   * down are local all the same, and no agent or routing daemon that looks at links that are up finds them. One that is
   * up is left so: taking it down would flush its IPv6 addresses. Throws NetlinkError.
   */
  ensureDummy(name: string): { readonly index: number; readonly created: boolean } {
    const existing = this.findLink(name);
    if (existing !== undefined) return { index: existing.index, created: false };
    const created = this.#createDummy(name);
    const link = this.findLink(name);
    if (link === undefined) throw new NetlinkError({ operation: `find link ${name}`, errno: errnoNumber('ENODEV') });
    return { index: link.index, created };
  }

  /** The link of this name; undefined when there is none. */
  findLink(name: string): Link | undefined {
    let found: Link | undefined;
    const request: NetlinkRequest = {
      operation: `find link ${name}`,
      type: RTM_GETLINK,
      write: (writer) => {
        writeLinkHeader(writer, 0, 0, 0);
        writer.string(LinkAttribute.name, name);
      },
    };
    const known = this.#unless('ENODEV', request, (message) => {
      if (message.type === RTM_NEWLINK) found = readLink(message, this.#reader, this.#nested);
    });
    return known ? found : undefined;
  }

  /** Addresses of both families, of one link or (0) of all. */
  listAddresses(index = 0): LinkAddress[] {
    const [request, decode] = this.#addressDump<LinkAddress[]>((address, found) => {
      // Kernels before 4.20 do not filter by link.
      if (index === 0 || address.index === index) found.push(address);
    }, index);
    return this.#connection.dump(request, decode);
  }

  /**
   * Puts the addresses of all links into what `fresh` makes (once for each attempt: a dump that was interrupted begins
   * again), with a `pause` after each datagram of the dump. `index` is the link's.
   */
  listAddressesPaced<Found>(
    fresh: () => Found,
    add: (found: Found, index: number, address: Address) => void,
    pause: () => Promise<void>,
  ): Promise<Found> {
    const [request, decode] = this.#addressDump<Found>(({ index, address }, found) => add(found, index, address));
    return this.#connection.dumpApart(request, decode, fresh, pause);
  }

  /** Queues a /32 or /128; returns true when the batch is full. That it is there already counts as success. */
  addAddress(index: number, address: Address): boolean {
    return this.#queue('add-address', index, address);
  }

  /**
   * Queues the removal of a /32 or /128; returns true when the batch is full. That it is gone already counts as
   * success.
   */
  deleteAddress(index: number, address: Address): boolean {
    return this.#queue('delete-address', index, address);
  }

  #queue(operation: AddressOperation, index: number, address: Address): boolean {
    const batch = this.#batch;
    const { template } = this.#templateOf(operation, index, address.length);
    const start = batch.append(template.bytes, { operation, index, address });
    template.patch(batch.buffer, start, address);
    return batch.full;
  }

  #templateOf(operation: AddressOperation, index: number, length: number): AddressTemplate {
    const last = this.#templates.get(length);
    if (last?.operation === operation && last.index === index) return last;
    const [type, flags] = operation === 'add-address' ? [RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL] : [RTM_DELADDR, 0];
    const template = new MessageTemplate(length, (writer, address) => {
      const start = writer.beginMessage(type, NLM_F_REQUEST | flags, 0);
      writeHostAddress(writer, index, address as Address);
      writer.endMessage(start);
    });
    const made = { operation, index, template };
    this.#templates.set(length, made);
    return made;
  }

  /** Sends what is queued in one datagram; returns the changes that failed. */
  flush(): AddressFailure[] {
    const failures = this.#batch.flush().map(({ tag, error }) => ({ ...tag, error }));
    return failures.filter(({ operation, error }) => error.code !== ALREADY[operation] || error.resultUnknown);
  }

  /** Deletes the link with its addresses; returns whether there was one. Throws NetlinkError. */
  deleteLink(name: string): boolean {
    const link = this.findLink(name);
    if (link === undefined) return false;
    return this.#unless('ENODEV', {
      operation: `delete link ${name}`,
      type: RTM_DELLINK,
      write: (writer) => writeLinkHeader(writer, link.index, 0, 0),
    });
  }

  close(): void {
    this.#connection.close();
  }

  #addressDump<Found>(
    add: (address: LinkAddress, found: Found) => void,
    index = 0,
  ): [NetlinkRequest, (message: NetlinkMessage, found: Found) => void] {
    const write: NetlinkRequest['write'] = (writer) => void writeAddressHeader(writer, index);
    const decode = (message: NetlinkMessage, found: Found): void => {
      if (message.type !== RTM_NEWADDR) return;
      const address = readAddress(message, this.#reader);
      if (address !== undefined) add(address, found);
    };
    return [{ operation: 'list addresses', type: RTM_GETADDR, write }, decode];
  }

  /** Returns false when somebody else made it in between. */
  #createDummy(name: string): boolean {
    if (Buffer.byteLength(name) > NAME_MAX) {
      throw new NetlinkError({ operation: `create link ${name}`, errno: errnoNumber('ENAMETOOLONG') });
    }
    return this.#unless('EEXIST', {
      operation: `create dummy link ${name}`,
      type: RTM_NEWLINK,
      flags: NLM_F_CREATE | NLM_F_EXCL,
      write: (writer) => {
        writeLinkHeader(writer, 0, 0, 0);
        writer.string(LinkAttribute.name, name);
        const info = writer.beginNested(LinkAttribute.info | NLA_F_NESTED);
        writer.string(LINK_INFO_KIND, 'dummy');
        writer.endNested(info);
      },
    });
  }

  /** Makes a request; false when the kernel answers with this errno. */
  #unless(code: string, ...request: Parameters<NetlinkConnection['request']>): boolean {
    try {
      this.#connection.request(...request);
      return true;
    } catch (error) {
      if (error instanceof NetlinkError && error.code === code && !error.resultUnknown) return false;
      throw error;
    }
  }
}

const ALREADY: Readonly<Record<AddressOperation, string>> = {
  'add-address': 'EEXIST',
  'delete-address': 'EADDRNOTAVAIL',
};

function describe(change: AddressChange<AddressOperation>): string {
  return `${change.operation} ${formatAddress(change.address)}`;
}
