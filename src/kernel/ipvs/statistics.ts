/** What IPVS counts of each virtual server, read through a socket of its own: reading takes nothing from the sync. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { AttributeReader } from '../../netlink/attribute-reader.js';
import { type MessageWriter } from '../../netlink/attribute-writer.js';
import { NetlinkConnection } from '../../netlink/connection.js';
import { NetlinkError } from '../../netlink/errors.js';
import { genericAttributes, resolveFamily, writeGenericHeader } from '../../netlink/genetlink.js';
import { type NetlinkMessage } from '../../netlink/message.js';
import { NETLINK_GENERIC, type OpenNetlinkSocket } from '../../netlink/socket.js';
import { type VirtualServerKey, formatVirtualServer } from '../../values/virtual-server.js';
import { IPVS_FAMILY, IPVS_VERSION, IpvsAttribute, IpvsCommand, readService, writeService } from './message.js';

/** Since the virtual server was made. Above 2^53 they lose their last digits, which takes decades. */
export interface ServerStatistics {
  readonly connections: number;
  readonly inPackets: number;
  readonly outPackets: number;
  readonly inBytes: number;
  readonly outBytes: number;
}

/** IPVS_STATS_ATTR_*; the same in the nest of 32-bit numbers, of which the bytes alone have 64. */
const CONNECTIONS = 1;
const IN_PACKETS = 2;
const OUT_PACKETS = 3;
const IN_BYTES = 4;
const OUT_BYTES = 5;
/** IPVS_SVC_ATTR_STATS; IPVS_SVC_ATTR_STATS64 came with Linux 4.1. */
const STATS = 10;
const STATS64 = 12;

export const NOTHING_COUNTED: ServerStatistics = {
  connections: 0,
  inPackets: 0,
  outPackets: 0,
  inBytes: 0,
  outBytes: 0,
};

export class IpvsStatistics {
  readonly #connection: NetlinkConnection;
  readonly #family: number;
  readonly #reader = new AttributeReader();
  readonly #service = new AttributeReader();
  readonly #stats = new AttributeReader();

  /** Throws NetlinkError: without the kernel module, ENOENT. */
  constructor(open: OpenNetlinkSocket) {
    this.#connection = new NetlinkConnection(() => open(NETLINK_GENERIC));
    try {
      this.#family = resolveFamily(this.#connection, IPVS_FAMILY);
    } catch (error) {
      this.#connection.close();
      throw error;
    }
  }

  /** One virtual server's; undefined when there is none. Throws NetlinkError. */
  of(server: VirtualServerKey): ServerStatistics | undefined {
    let found: ServerStatistics | undefined;
    const write = (writer: MessageWriter): void => {
      writeGenericHeader(writer, IpvsCommand.getService, IPVS_VERSION);
      writeService(writer, server);
    };
    const operation = `get statistics of ${formatVirtualServer(server)}`;
    try {
      this.#connection.request({ operation, type: this.#family, write }, (message) =>
        this.#decode(message, (_key, statistics) => (found = statistics)),
      );
    } catch (error) {
      if (error instanceof NetlinkError && error.code === 'ESRCH') return undefined;
      throw error;
    }
    return found;
  }

  /**
   * Every virtual server's, by one dump with a turn of the event loop after each datagram (some hundred of them). One
   * that changes while it is read may be told twice; nothing else may be asked meanwhile. Throws NetlinkError.
   */
  async read(visit: (server: VirtualServerKey, statistics: ServerStatistics) => void): Promise<void> {
    const write = (writer: MessageWriter): void => writeGenericHeader(writer, IpvsCommand.getService, IPVS_VERSION);
    await this.#connection.dumpPaced(
      { operation: 'list statistics of virtual servers', type: this.#family, write },
      (message) => this.#decode(message, visit),
      () => undefined,
      () => nextTurn(),
    );
  }

  close(): void {
    this.#connection.close();
  }

  #decode(message: NetlinkMessage, visit: (server: VirtualServerKey, statistics: ServerStatistics) => void): void {
    if (message.type !== this.#family) return;
    const reader = genericAttributes(message, this.#reader);
    while (reader.next()) {
      if (reader.type !== IpvsAttribute.service) continue;
      const server = readService(this.#service.enter(reader))?.key;
      if (server !== undefined) visit(server, this.#statistics(this.#service.enter(reader)));
    }
  }

  #statistics(service: AttributeReader): ServerStatistics {
    let found = NOTHING_COUNTED;
    while (service.next()) {
      if (service.type === STATS64) return readStatistics(this.#stats.enter(service), true);
      if (service.type === STATS) found = readStatistics(this.#stats.enter(service), false);
    }
    return found;
  }
}

function readStatistics(reader: AttributeReader, isLong: boolean): ServerStatistics {
  const found = { ...NOTHING_COUNTED };
  const number = (): number => (isLong ? reader.u64() : reader.u32());
  while (reader.next()) {
    if (reader.type === CONNECTIONS) found.connections = number();
    else if (reader.type === IN_PACKETS) found.inPackets = number();
    else if (reader.type === OUT_PACKETS) found.outPackets = number();
    else if (reader.type === IN_BYTES) found.inBytes = reader.u64();
    else if (reader.type === OUT_BYTES) found.outBytes = reader.u64();
  }
  return found;
}
