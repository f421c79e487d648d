/** Client for the kernel's IPVS table: queued changes in acknowledged-once batches, and dumps. */
import { AttributeReader } from '../../netlink/attribute-reader.js';
import { type MessageWriter } from '../../netlink/attribute-writer.js';
import { type BatchOptions, NetlinkBatch } from '../../netlink/batch.js';
import { NetlinkConnection, type NetlinkCounters, type NetlinkRequest } from '../../netlink/connection.js';
import { NetlinkError } from '../../netlink/errors.js';
import { genericAttributes, resolveFamily, writeGenericHeader } from '../../netlink/genetlink.js';
import { type NetlinkMessage } from '../../netlink/message.js';
import { NETLINK_GENERIC, type OpenNetlinkSocket } from '../../netlink/socket.js';
import {
  type RealServerKey,
  type RealServerList,
  type VirtualServerKey,
  type VirtualServerSettings,
  formatRealServer,
  formatVirtualServer,
  virtualServerFamily,
} from '../../values/virtual-server.js';
import {
  IPVS_FAMILY,
  IPVS_VERSION,
  IpvsAttribute,
  IpvsCommand,
  IpvsInfoAttribute,
  type DumpedRealServer,
  type DumpedVirtualServer,
  readDestination,
  readService,
  writeService,
} from './message.js';
import { COMMAND_AT, IpvsTemplates, MAX_MESSAGE, nameVirtualServer } from './template.js';

export type IpvsOperation =
  | 'add-virtual-server'
  | 'set-virtual-server'
  | 'delete-virtual-server'
  | 'add-real-server'
  | 'set-real-server'
  | 'delete-real-server';

interface IpvsChange {
  readonly operation: IpvsOperation;
  readonly virtualServer: VirtualServerKey;
  readonly realServer?: RealServerKey | undefined;
}

/** One change that the kernel refused, or whose answer was lost (`error.resultUnknown`). */
export interface IpvsFailure extends IpvsChange {
  readonly error: NetlinkError;
}

/** Connection timeouts in seconds; in `setTimeouts` 0 leaves a value as it is. */
export interface IpvsTimeouts {
  readonly tcp: number;
  readonly tcpFin: number;
  readonly udp: number;
}

export interface IpvsInfo {
  /** As the kernel prints it: `1.2.1`. */
  readonly version: string;
}

export interface VirtualServerListing {
  readonly servers: DumpedVirtualServer[];
  /** Virtual servers of protocols or families that this program has no name for. */
  readonly foreign: number;
}

/** The kernel has no IPVS: the module ip_vs is neither loaded nor built in. */
export class IpvsUnavailableError extends Error {
  override readonly name = 'IpvsUnavailableError';

  constructor(options?: ErrorOptions) {
    super('the kernel has no IPVS: module ip_vs is not loaded (fix: modprobe ip_vs on the node)', options);
  }
}

interface DumpOf {
  readonly operation: string;
  readonly command: number;
  readonly attribute: number;
  readonly write?: (writer: MessageWriter) => void;
}

const LIST: DumpOf = {
  operation: 'list virtual servers',
  command: IpvsCommand.getService,
  attribute: IpvsAttribute.service,
};

const OPERATIONS: Readonly<Record<number, IpvsOperation>> = {
  [IpvsCommand.newService]: 'add-virtual-server',
  [IpvsCommand.setService]: 'set-virtual-server',
  [IpvsCommand.deleteService]: 'delete-virtual-server',
  [IpvsCommand.newDestination]: 'add-real-server',
  [IpvsCommand.setDestination]: 'set-real-server',
  [IpvsCommand.deleteDestination]: 'delete-real-server',
};

export class IpvsClient {
  readonly #connection: NetlinkConnection;
  readonly #family: number;
  readonly #batch: NetlinkBatch<VirtualServerKey>;
  readonly #reader = new AttributeReader();
  readonly #nested = new AttributeReader();
  readonly #templates: IpvsTemplates;

  /** Throws IpvsUnavailableError without the kernel module, NetlinkError for anything else. */
  constructor(open: OpenNetlinkSocket, options: BatchOptions = {}) {
    this.#connection = new NetlinkConnection(() => open(NETLINK_GENERIC));
    try {
      this.#family = resolveFamily(this.#connection, IPVS_FAMILY);
    } catch (error) {
      this.#connection.close();
      if (error instanceof NetlinkError && error.code === 'ENOENT') throw new IpvsUnavailableError({ cause: error });
      throw error;
    }
    this.#templates = new IpvsTemplates(this.#family);
    this.#batch = new NetlinkBatch(this.#connection, (server, start) => describe(this.#changeAt(server, start)), {
      maxMessageSize: MAX_MESSAGE,
      ...options,
    });
  }

  get counters(): Readonly<NetlinkCounters> {
    return this.#connection.counters;
  }

  /** Changes that wait for `flush`. */
  get pending(): number {
    return this.#batch.pending;
  }

  /** True when `flush` is due before the next change. */
  get isFull(): boolean {
    return this.#batch.full;
  }

  // Each of these queues one change and returns true when the batch is full: `flush` is then due.

  addVirtualServer(key: VirtualServerKey, settings: VirtualServerSettings): boolean {
    return this.#queueVirtualServer(IpvsCommand.newService, key, settings);
  }

  setVirtualServer(key: VirtualServerKey, settings: VirtualServerSettings): boolean {
    return this.#queueVirtualServer(IpvsCommand.setService, key, settings);
  }

  deleteVirtualServer(key: VirtualServerKey): boolean {
    return this.#queueVirtualServer(IpvsCommand.deleteService, key);
  }

  addRealServer(virtualServer: VirtualServerKey, realServer: RealServerKey, weight: number): boolean {
    this.addRealServers(virtualServer, realServer as string as RealServerList, weight);
    return this.#batch.full;
  }

  setRealServer(virtualServer: VirtualServerKey, realServer: RealServerKey, weight: number): boolean {
    this.#queueRealServers(IpvsCommand.setDestination, virtualServer, realServer, weight, 0, realServer.length);
    return this.#batch.full;
  }

  deleteRealServer(virtualServer: VirtualServerKey, realServer: RealServerKey): boolean {
    this.#queueRealServers(IpvsCommand.deleteDestination, virtualServer, realServer, 0, 0, realServer.length);
    return this.#batch.full;
  }

  /**
   * Queues the real servers from offset `from` to `to` of `realServers`, which are of the virtual server's family,
   * until the batch is full; returns the offset behind the last one queued.
   */
  addRealServers(
    virtualServer: VirtualServerKey,
    realServers: RealServerList,
    weight: number,
    from = 0,
    to = realServers.length,
  ): number {
    return this.#queueRealServers(IpvsCommand.newDestination, virtualServer, realServers, weight, from, to);
  }

  /**
   * Sends what is queued in one datagram; returns the changes that failed. Does not throw for the kernel's refusals.
   */
  flush(): IpvsFailure[] {
    return this.#batch.flush().map(({ tag, start, error }) => ({ ...this.#changeAt(tag, start), error }));
  }

  /** Every virtual server, by one dump; throws NetlinkError. */
  listVirtualServers(): VirtualServerListing {
    return listing(this.#connection.dump(...this.#dumpOf(LIST, readService)));
  }

  /** As `listVirtualServers`, with a `pause` after each datagram, when other things may be asked of this client. */
  async listVirtualServersPaced(pause: () => Promise<void>): Promise<VirtualServerListing> {
    const [request, decode] = this.#dumpOf(LIST, readService);
    return listing(await this.#connection.dumpApart(request, decode, () => [], pause));
  }

  /** One virtual server; undefined when there is none. Throws NetlinkError. */
  getVirtualServer(virtualServer: VirtualServerKey): DumpedVirtualServer | undefined {
    let found: DumpedVirtualServer | undefined;
    try {
      this.#get(
        `get virtual server ${formatVirtualServer(virtualServer)}`,
        IpvsCommand.getService,
        (reader) => {
          if (reader.type === IpvsAttribute.service) found = readService(this.#nested.enter(reader));
        },
        (writer) => writeService(writer, virtualServer),
      );
    } catch (error) {
      if (error instanceof NetlinkError && error.code === 'ESRCH' && !error.resultUnknown) return undefined;
      throw error;
    }
    return found;
  }

  /** The real servers of one virtual server; empty, too, when there is no such virtual server. Throws NetlinkError. */
  listRealServers(virtualServer: VirtualServerKey): DumpedRealServer[] {
    const family = virtualServerFamily(virtualServer);
    const what = {
      operation: `list real servers of ${formatVirtualServer(virtualServer)}`,
      command: IpvsCommand.getDestination,
      attribute: IpvsAttribute.destination,
      write: (writer: MessageWriter) => writeService(writer, virtualServer),
    };
    const listed = this.#connection.dump(...this.#dumpOf(what, (reader) => readDestination(reader, family)));
    return listed.filter((server) => server !== undefined);
  }

  getTimeouts(): IpvsTimeouts {
    const timeouts = { tcp: 0, tcpFin: 0, udp: 0 };
    this.#get('get IPVS timeouts', IpvsCommand.getConfig, (reader) => {
      if (reader.type === IpvsAttribute.timeoutTcp) timeouts.tcp = reader.u32();
      else if (reader.type === IpvsAttribute.timeoutTcpFin) timeouts.tcpFin = reader.u32();
      else if (reader.type === IpvsAttribute.timeoutUdp) timeouts.udp = reader.u32();
    });
    return timeouts;
  }

  /** Sets the timeouts that are not 0, at once (not queued); throws NetlinkError. */
  setTimeouts(timeouts: IpvsTimeouts): void {
    const write = (writer: MessageWriter): void => {
      writeGenericHeader(writer, IpvsCommand.setConfig, IPVS_VERSION);
      if (timeouts.tcp !== 0) writer.u32(IpvsAttribute.timeoutTcp, timeouts.tcp);
      if (timeouts.tcpFin !== 0) writer.u32(IpvsAttribute.timeoutTcpFin, timeouts.tcpFin);
      if (timeouts.udp !== 0) writer.u32(IpvsAttribute.timeoutUdp, timeouts.udp);
    };
    this.#connection.request({ operation: 'set IPVS timeouts', type: this.#family, write });
  }

  getInfo(): IpvsInfo {
    let code = 0;
    this.#get('get IPVS info', IpvsCommand.getInfo, (reader) => {
      if (reader.type === IpvsInfoAttribute.version) code = reader.u32();
    });
    return { version: `${(code >> 16) & 255}.${(code >> 8) & 255}.${code & 255}` };
  }

  close(): void {
    this.#connection.close();
  }

  #queueVirtualServer(command: number, key: VirtualServerKey, settings?: VirtualServerSettings): boolean {
    const batch = this.#batch;
    const template = this.#templates.virtualServer(key, settings);
    const start = batch.append(template.bytes, key);
    batch.buffer[start + COMMAND_AT] = command;
    nameVirtualServer(batch.buffer, start, template, key);
    return batch.full;
  }

  /** A delete carries forwarding method and weight too; the kernel reads neither. */
  #queueRealServers(
    command: number,
    virtualServer: VirtualServerKey,
    realServers: string,
    weight: number,
    from: number,
    to: number,
  ): number {
    const template = this.#templates.realServer(virtualServer);
    const { bytes, destination, addressLength } = template;
    bytes[COMMAND_AT] = command;
    bytes.writeInt32LE(weight, destination.weight);
    nameVirtualServer(bytes, 0, template, virtualServer);
    const batch = this.#batch;
    const { buffer } = batch;
    let at = from;
    while (at < to) {
      const start = batch.append(bytes, virtualServer);
      const port = start + destination.port;
      buffer[port] = realServers.charCodeAt(at++);
      buffer[port + 1] = realServers.charCodeAt(at++);
      const address = start + destination.address;
      for (let i = 0; i < addressLength; i++) buffer[address + i] = realServers.charCodeAt(at++);
      if (batch.full) break;
    }
    return at;
  }

  /** What the message at `start` of the batch's buffer was to do. */
  #changeAt(virtualServer: VirtualServerKey, start: number): IpvsChange {
    const { buffer } = this.#batch;
    const command = buffer[start + COMMAND_AT]!;
    const operation = OPERATIONS[command]!;
    if (command < IpvsCommand.newDestination) return { operation, virtualServer };
    const { destination, addressLength } = this.#templates.realServer(virtualServer);
    const bytes = (at: number, length: number): string => buffer.toString('latin1', start + at, start + at + length);
    const realServer = (bytes(destination.port, 2) + bytes(destination.address, addressLength)) as RealServerKey;
    return { operation, virtualServer, realServer };
  }

  #dumpOf<Item>(
    what: DumpOf,
    read: (reader: AttributeReader) => Item,
  ): [NetlinkRequest, (message: NetlinkMessage, items: Item[]) => void] {
    const write = (writer: MessageWriter): void => {
      writeGenericHeader(writer, what.command, IPVS_VERSION);
      what.write?.(writer);
    };
    const decode = (message: NetlinkMessage, items: Item[]): void => {
      if (message.type !== this.#family) return;
      const reader = genericAttributes(message, this.#reader);
      while (reader.next()) if (reader.type === what.attribute) items.push(read(this.#nested.enter(reader)));
    };
    return [{ operation: what.operation, type: this.#family, write }, decode];
  }

  #get(
    operation: string,
    command: number,
    visit: (reader: AttributeReader) => void,
    writeWhat: (writer: MessageWriter) => void = () => undefined,
  ): void {
    const write = (writer: MessageWriter): void => {
      writeGenericHeader(writer, command, IPVS_VERSION);
      writeWhat(writer);
    };
    this.#connection.request({ operation, type: this.#family, write }, (message) => {
      if (message.type !== this.#family) return;
      const reader = genericAttributes(message, this.#reader);
      while (reader.next()) visit(reader);
    });
  }
}

function listing(listed: readonly (DumpedVirtualServer | undefined)[]): VirtualServerListing {
  const servers = listed.filter((server) => server !== undefined);
  return { servers, foreign: listed.length - servers.length };
}

function describe(change: IpvsChange): string {
  const server = formatVirtualServer(change.virtualServer);
  if (change.realServer === undefined) return `${change.operation} ${server}`;
  return `${change.operation} ${server} -> ${formatRealServer(change.realServer)}`;
}
