/** Client for the routes that make VIPs local addresses of the node without an address on any link. */
import { AttributeReader } from '../../netlink/attribute-reader.js';
import { NetlinkBatch } from '../../netlink/batch.js';
import { type NetlinkConnection, type NetlinkRequest } from '../../netlink/connection.js';
import { NetlinkError } from '../../netlink/errors.js';
import { type NetlinkMessage, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST } from '../../netlink/message.js';
import { MessageTemplate } from '../../netlink/message-template.js';
import { type Address, FAMILIES, type Family, formatAddress } from '../../values/address.js';
import { type AddressChange, type AddressFailure, type RouteOperation } from './address-change.js';
import {
  RTM_DELROUTE,
  RTM_GETROUTE,
  RTM_NEWROUTE,
  isVipRoute,
  readHostRoute,
  writeVipRoute,
  writeVipRouteFilter,
} from './route-message.js';

const MAX_MESSAGE = 64;
/** A datagram that fits into one page. */
const BATCH = 56;

export class LocalRoutes {
  readonly #connection: NetlinkConnection;
  readonly #batch: NetlinkBatch<AddressChange<RouteOperation>>;
  readonly #reader = new AttributeReader();
  /** By operation, link and the address's length. */
  readonly #templates = new Map<string, MessageTemplate>();

  constructor(connection: NetlinkConnection) {
    this.#connection = connection;
    this.#batch = new NetlinkBatch(connection, describe, {
      maxMessages: BATCH,
      maxMessageSize: MAX_MESSAGE,
      bufferSize: BATCH * 2 * MAX_MESSAGE,
    });
  }

  /**
   * Queues the route of an address through the link of this index; returns true when the batch is full. What stands in
   * its place (the same address and metric) is replaced; that it is there already counts as success.
   */
  add(index: number, address: Address): boolean {
    return this.#queue('add-route', index, address);
  }

  /** Queues the removal; returns true when the batch is full. That it is gone already counts as success. */
  delete(index: number, address: Address): boolean {
    return this.#queue('delete-route', index, address);
  }

  /** Sends what is queued in one datagram; returns the changes that failed. */
  flush(): AddressFailure[] {
    const failures = this.#batch.flush().map(({ tag, error }) => ({ ...tag, error }));
    return failures.filter(
      ({ operation, error }) => operation !== 'delete-route' || error.code !== 'ESRCH' || error.resultUnknown,
    );
  }

  /** The addresses of all our routes, by the index of the link that each names. */
  list(): { readonly address: Address; readonly index: number }[] {
    return FAMILIES.flatMap((family) => {
      const [request, decode] = this.#dump<{ address: Address; index: number }[]>(family, (route, found) => {
        found.push(route);
      });
      try {
        return this.#connection.dump(request, decode);
      } catch (error) {
        return noneIn(error, []);
      }
    });
  }

  /**
   * Puts the addresses of all our routes into what `fresh` makes (once for each attempt of each family's dump, so `add`
   * must bear to see an address again), with a `pause` after each datagram.
   */
  async listPaced<Found>(
    family: Family,
    fresh: () => Found,
    add: (found: Found, index: number, address: Address) => void,
    pause: () => Promise<void>,
  ): Promise<Found> {
    const [request, decode] = this.#dump<Found>(family, ({ index, address }, found) => add(found, index, address));
    try {
      return await this.#connection.dumpApart(request, decode, fresh, pause);
    } catch (error) {
      return noneIn(error, fresh());
    }
  }

  #queue(operation: RouteOperation, index: number, address: Address): boolean {
    const batch = this.#batch;
    const template = this.#templateOf(operation, index, address.length);
    const start = batch.append(template.bytes, { operation, index, address });
    template.patch(batch.buffer, start, address);
    return batch.full;
  }

  #templateOf(operation: RouteOperation, index: number, length: number): MessageTemplate {
    const name = `${operation} ${index} ${length}`;
    const known = this.#templates.get(name);
    if (known !== undefined) return known;
    const [type, flags] = operation === 'add-route' ? [RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE] : [RTM_DELROUTE, 0];
    const template = new MessageTemplate(length, (writer, address) => {
      const start = writer.beginMessage(type, NLM_F_REQUEST | flags, 0);
      writeVipRoute(writer, index, address as Address);
      writer.endMessage(start);
    });
    this.#templates.set(name, template);
    return template;
  }

  #dump<Found>(
    family: Family,
    add: (route: { address: Address; index: number }, found: Found) => void,
  ): [NetlinkRequest, (message: NetlinkMessage, found: Found) => void] {
    const write: NetlinkRequest['write'] = (writer) => writeVipRouteFilter(writer, family);
    const decode = (message: NetlinkMessage, found: Found): void => {
      if (message.type !== RTM_NEWROUTE) return;
      const route = readHostRoute(message, this.#reader);
      // Where a family is not compiled in, the kernel answers with the others.
      if (route === undefined || !isVipRoute(message, route) || route.address.length !== (family === 4 ? 4 : 16))
        return;
      add({ address: route.address, index: route.index }, found);
    };
    return [{ operation: 'list routes', type: RTM_GETROUTE, write }, decode];
  }
}

/** The kernel makes table local when the first address comes: in a new network namespace there is none. */
function noneIn<Found>(error: unknown, nothing: Found): Found {
  if (error instanceof NetlinkError && error.code === 'ENOENT' && !error.resultUnknown) return nothing;
  throw error;
}

function describe(change: AddressChange<RouteOperation>): string {
  return `${change.operation} ${formatAddress(change.address)}`;
}
