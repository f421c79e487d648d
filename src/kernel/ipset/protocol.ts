/** Requests and dumps of the ipset subsystem: version, set types, and errors as IpsetError. */
import { AttributeReader } from '../../netlink/attribute-reader.js';
import { type MessageWriter } from '../../netlink/attribute-writer.js';
import { NetlinkConnection, type NetlinkRequest } from '../../netlink/connection.js';
import { NetlinkError } from '../../netlink/errors.js';
import { type NetlinkMessage } from '../../netlink/message.js';
import {
  NFNL_SUBSYS_IPSET,
  NFPROTO_IPV4,
  netfilterAttributes,
  netfilterType,
  openNetfilterSocket,
  writeNetfilterHeader,
} from '../../netlink/nfnetlink.js';
import { type OpenNetlinkSocket } from '../../netlink/socket.js';
import { type IpsetDefinition } from '../../values/ipset.js';
import { IpsetError, IpsetUnavailableError } from './error.js';
import { IpsetAttribute, IpsetCommand, setFamilyNumber } from './message.js';

const NEWEST_PROTOCOL = 7;

export class IpsetProtocol {
  readonly connection: NetlinkConnection;
  /** Version of the ipset protocol that both sides speak: 7, or 6 before Linux 4.20. */
  readonly version: number;
  readonly #attributes = new AttributeReader();
  readonly #revisions = new Map<string, number>();

  /** Throws IpsetUnavailableError without the kernel module, IpsetError for anything else. */
  constructor(open: OpenNetlinkSocket) {
    this.connection = new NetlinkConnection(() => openNetfilterSocket(open, IpsetUnavailableError));
    try {
      this.version = this.#negotiate();
    } catch (error) {
      this.connection.close();
      throw error;
    }
  }

  /** The newest revision of a set type that the kernel has. None of them changes the attributes used here. */
  revisionOf(definition: IpsetDefinition): number {
    const family = setFamilyNumber(definition.type, definition.family);
    const key = `${definition.type} ${family}`;
    const known = this.#revisions.get(key);
    if (known !== undefined) return known;
    let revision = 0;
    const write = (writer: MessageWriter): void => {
      writeNetfilterHeader(writer, NFPROTO_IPV4);
      writer.u8(IpsetAttribute.protocol, this.version);
      writer.string(IpsetAttribute.typeName, definition.type);
      writer.u8(IpsetAttribute.family, family);
    };
    const type = netfilterType(NFNL_SUBSYS_IPSET, IpsetCommand.type);
    this.#guard('type', definition.name, () =>
      this.connection.request({ operation: `ipset type ${definition.type}`, type, write }, (message) => {
        const attributes = netfilterAttributes(message, this.#attributes);
        while (attributes.next()) if (attributes.type === IpsetAttribute.revision) revision = attributes.u8();
      }),
    );
    this.#revisions.set(key, revision);
    return revision;
  }

  /** One request about a set; `write` adds to its name. Throws IpsetError. */
  request(operation: string, command: number, set: string, flags = 0, write?: (writer: MessageWriter) => void): void {
    const type = netfilterType(NFNL_SUBSYS_IPSET, command);
    const writeAll = (writer: MessageWriter): void => {
      this.#writePrefix(writer, set);
      write?.(writer);
    };
    this.#guard(operation, set, () =>
      this.connection.request({ operation: `ipset ${operation}`, type, flags, write: writeAll }),
    );
  }

  /** Lists one set, or all when `set` is empty. Throws IpsetError. */
  dump<Item>(
    operation: string,
    set: string,
    write: ((writer: MessageWriter) => void) | undefined,
    decode: (message: NetlinkMessage, items: Item[]) => void,
  ): Item[] {
    return this.#guard(operation, set, () => this.connection.dump(this.#listRequest(operation, set, write), decode));
  }

  /** Lists one set, with a `pause` after each datagram. Rejects with IpsetError. */
  async dumpPaced<Found>(
    set: string,
    decode: (message: NetlinkMessage, found: Found) => void,
    fresh: () => Found,
    pause: () => Promise<void>,
  ): Promise<Found> {
    try {
      return await this.connection.dumpApart(this.#listRequest('list', set), decode, fresh, pause);
    } catch (error) {
      throw error instanceof NetlinkError ? new IpsetError('list', set, error) : error;
    }
  }

  #listRequest(operation: string, set: string, write?: (writer: MessageWriter) => void): NetlinkRequest {
    const type = netfilterType(NFNL_SUBSYS_IPSET, IpsetCommand.list);
    const writeAll = (writer: MessageWriter): void => {
      this.#writePrefix(writer, set);
      write?.(writer);
    };
    return { operation: `ipset ${operation}`, type, write: writeAll };
  }

  #negotiate(): number {
    let version = 0;
    const write = (writer: MessageWriter): void => {
      writeNetfilterHeader(writer, NFPROTO_IPV4);
      writer.u8(IpsetAttribute.protocol, NEWEST_PROTOCOL);
    };
    const type = netfilterType(NFNL_SUBSYS_IPSET, IpsetCommand.protocol);
    try {
      this.connection.request({ operation: 'ipset protocol', type, write }, (message) => {
        const attributes = netfilterAttributes(message, this.#attributes);
        while (attributes.next()) if (attributes.type === IpsetAttribute.protocol) version = attributes.u8();
      });
    } catch (error) {
      if (!(error instanceof NetlinkError)) throw error;
      // nfnetlink_rcv_msg answers EINVAL for a subsystem that nobody registered
      if (error.code === 'EINVAL' || error.code === 'EOPNOTSUPP') throw new IpsetUnavailableError({ cause: error });
      throw new IpsetError('protocol', '', error);
    }
    return Math.min(version, NEWEST_PROTOCOL);
  }

  #writePrefix(writer: MessageWriter, set: string): void {
    writeNetfilterHeader(writer, NFPROTO_IPV4);
    writer.u8(IpsetAttribute.protocol, this.version);
    if (set !== '') writer.string(IpsetAttribute.setName, set);
  }

  #guard<Result>(operation: string, set: string, action: () => Result): Result {
    try {
      return action();
    } catch (error) {
      if (error instanceof NetlinkError) throw new IpsetError(operation, set, error);
      throw error;
    }
  }
}
