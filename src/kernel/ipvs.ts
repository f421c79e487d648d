/** Client for the kernel's IPVS table: queued changes in acknowledged-once batches, and dumps. */
import { AttributeReader } from '../netlink/attribute-reader.js';
import { MessageWriter } from '../netlink/attribute-writer.js';
import { type BatchOptions, NetlinkBatch } from '../netlink/batch.js';
import { NetlinkConnection, type NetlinkCounters, type NetlinkRequest } from '../netlink/connection.js';
import { NetlinkError } from '../netlink/errors.js';
import { genericAttributes, resolveFamily, writeGenericHeader } from '../netlink/genetlink.js';
import { HEADER_LENGTH, NLM_F_REQUEST, type NetlinkMessage } from '../netlink/message.js';
import { NETLINK_GENERIC, type OpenNetlinkSocket } from '../netlink/socket.js';
import {
  type RealServerKey,
  type VirtualServerKey,
  type VirtualServerSettings,
  formatRealServer,
  formatVirtualServer,
  virtualServerFamily,
} from '../values/virtual-server.js';
import {
  type DestinationOffsets,
  IPVS_FAMILY,
  IPVS_VERSION,
  IpvsAttribute,
  IpvsCommand,
  IpvsInfoAttribute,
  type ListedRealServer,
  type ListedVirtualServer,
  readDestination,
  readService,
  writeDestinationTemplate,
  writeService,
} from './ipvs-message.js';

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
  readonly connectionTableSize: number;
}

export interface VirtualServerListing {
  readonly servers: ListedVirtualServer[];
  /** Virtual servers of protocols or families that this program has no name for. */
  readonly foreign: number;
}

/** The kernel has no IPVS: the module ip_vs is neither loaded nor built in. */
export class IpvsUnavailableError extends Error {
  constructor(options?: ErrorOptions) {
    super('the kernel has no IPVS: module ip_vs is not loaded (fix: modprobe ip_vs on the node)', options);
    this.name = 'IpvsUnavailableError';
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

/** Longer than any message here: identity, settings and a real server make 132 bytes. */
const MAX_MESSAGE = 256;
const COMMAND_AT = HEADER_LENGTH;
const REAL_SERVER_COMMANDS = {
  'add-real-server': IpvsCommand.newDestination,
  'set-real-server': IpvsCommand.setDestination,
  'delete-real-server': IpvsCommand.deleteDestination,
} as const;

export class IpvsClient {
  private readonly connection: NetlinkConnection;
  private readonly family: number;
  private readonly batch: NetlinkBatch<IpvsChange>;
  private readonly reader = new AttributeReader();
  private readonly nested = new AttributeReader();
  private readonly templateWriter = new MessageWriter(Buffer.alloc(MAX_MESSAGE));
  private templateServer: VirtualServerKey | undefined;
  private template: Buffer = this.templateWriter.buffer;
  private offsets: DestinationOffsets = { address: 0, port: 0, weight: 0 };

  /** Throws IpvsUnavailableError without the kernel module, NetlinkError for anything else. */
  constructor(open: OpenNetlinkSocket, options: BatchOptions = {}) {
    this.connection = new NetlinkConnection(open(NETLINK_GENERIC));
    try {
      this.family = resolveFamily(this.connection, IPVS_FAMILY);
    } catch (error) {
      this.connection.close();
      if (error instanceof NetlinkError && error.code === 'ENOENT') throw new IpvsUnavailableError({ cause: error });
      throw error;
    }
    this.batch = new NetlinkBatch(this.connection, describe, { maxMessageSize: MAX_MESSAGE, ...options });
  }

  get counters(): Readonly<NetlinkCounters> {
    return this.connection.counters;
  }

  /** Changes that wait for `flush`. */
  get pending(): number {
    return this.batch.pending;
  }

  // Each of these queues one change and returns true when the batch is full: `flush` is then due.

  addVirtualServer(key: VirtualServerKey, settings: VirtualServerSettings): boolean {
    return this.queueVirtualServer(IpvsCommand.newService, 'add-virtual-server', key, settings);
  }

  setVirtualServer(key: VirtualServerKey, settings: VirtualServerSettings): boolean {
    return this.queueVirtualServer(IpvsCommand.setService, 'set-virtual-server', key, settings);
  }

  deleteVirtualServer(key: VirtualServerKey): boolean {
    return this.queueVirtualServer(IpvsCommand.deleteService, 'delete-virtual-server', key);
  }

  addRealServer(virtualServer: VirtualServerKey, realServer: RealServerKey, weight: number): boolean {
    return this.queueRealServer('add-real-server', virtualServer, realServer, weight);
  }

  setRealServer(virtualServer: VirtualServerKey, realServer: RealServerKey, weight: number): boolean {
    return this.queueRealServer('set-real-server', virtualServer, realServer, weight);
  }

  deleteRealServer(virtualServer: VirtualServerKey, realServer: RealServerKey): boolean {
    return this.queueRealServer('delete-real-server', virtualServer, realServer, 0);
  }

  /** Sends what is queued in one datagram; returns the changes that failed. Does not throw for the kernel's refusals. */
  flush(): IpvsFailure[] {
    return this.batch.flush().map(({ tag, error }) => ({ ...tag, error }));
  }

  /** Every virtual server, by one dump; throws NetlinkError. */
  listVirtualServers(): VirtualServerListing {
    return listing(this.connection.dump(...this.dumpOf(LIST, readService)));
  }

  /** As `listVirtualServers`, with a `pause` after each datagram. Nothing else may be asked of this client meanwhile. */
  async listVirtualServersPaced(pause: () => Promise<void>): Promise<VirtualServerListing> {
    const [request, decode] = this.dumpOf(LIST, readService);
    return listing(await this.connection.dumpPaced(request, decode, pause));
  }

  /** The real servers of one virtual server; empty, too, when there is no such virtual server. Throws NetlinkError. */
  listRealServers(virtualServer: VirtualServerKey): ListedRealServer[] {
    const family = virtualServerFamily(virtualServer);
    const what = {
      operation: `list real servers of ${formatVirtualServer(virtualServer)}`,
      command: IpvsCommand.getDestination,
      attribute: IpvsAttribute.destination,
      write: (writer: MessageWriter) => writeService(writer, virtualServer),
    };
    const listed = this.connection.dump(...this.dumpOf(what, (reader) => readDestination(reader, family)));
    return listed.filter((server) => server !== undefined);
  }

  getTimeouts(): IpvsTimeouts {
    const timeouts = { tcp: 0, tcpFin: 0, udp: 0 };
    this.get('get IPVS timeouts', IpvsCommand.getConfig, (reader) => {
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
    this.connection.request({ operation: 'set IPVS timeouts', type: this.family, write });
  }

  getInfo(): IpvsInfo {
    let code = 0;
    let connectionTableSize = 0;
    this.get('get IPVS info', IpvsCommand.getInfo, (reader) => {
      if (reader.type === IpvsInfoAttribute.version) code = reader.u32();
      else if (reader.type === IpvsInfoAttribute.connectionTableSize) connectionTableSize = reader.u32();
    });
    return { version: `${(code >> 16) & 255}.${(code >> 8) & 255}.${code & 255}`, connectionTableSize };
  }

  close(): void {
    this.connection.close();
  }

  private queueVirtualServer(
    command: number,
    operation: IpvsOperation,
    virtualServer: VirtualServerKey,
    settings?: VirtualServerSettings,
  ): boolean {
    const writer = this.batch.begin(this.family, 0);
    writeGenericHeader(writer, command, IPVS_VERSION);
    writeService(writer, virtualServer, settings);
    this.batch.end({ operation, virtualServer });
    return this.batch.full;
  }

  /**
   * Copies the template of the virtual server and patches the real server's bytes into the copy. A delete carries
   * forwarding method and weight too; the kernel reads neither.
   */
  private queueRealServer(
    operation: keyof typeof REAL_SERVER_COMMANDS,
    virtualServer: VirtualServerKey,
    realServer: RealServerKey,
    weight: number,
  ): boolean {
    if (virtualServer !== this.templateServer) this.prepareTemplate(virtualServer);
    const start = this.batch.append(this.template, { operation, virtualServer, realServer });
    const { buffer } = this.batch;
    buffer[start + COMMAND_AT] = REAL_SERVER_COMMANDS[operation];
    buffer[start + this.offsets.port] = realServer.charCodeAt(0);
    buffer[start + this.offsets.port + 1] = realServer.charCodeAt(1);
    const addressAt = start + this.offsets.address;
    for (let i = 2; i < realServer.length; i++) buffer[addressAt + i - 2] = realServer.charCodeAt(i);
    buffer.writeInt32LE(weight, start + this.offsets.weight);
    return this.batch.full;
  }

  private prepareTemplate(virtualServer: VirtualServerKey): void {
    const writer = this.templateWriter;
    writer.offset = 0;
    const start = writer.beginMessage(this.family, NLM_F_REQUEST, 0);
    writeGenericHeader(writer, 0, IPVS_VERSION);
    writeService(writer, virtualServer);
    this.offsets = writeDestinationTemplate(writer);
    writer.endMessage(start);
    this.template = writer.buffer.subarray(0, writer.offset);
    this.templateServer = virtualServer;
  }

  private dumpOf<Item>(
    what: DumpOf,
    read: (reader: AttributeReader) => Item,
  ): [NetlinkRequest, (message: NetlinkMessage, items: Item[]) => void] {
    const write = (writer: MessageWriter): void => {
      writeGenericHeader(writer, what.command, IPVS_VERSION);
      what.write?.(writer);
    };
    const decode = (message: NetlinkMessage, items: Item[]): void => {
      if (message.type !== this.family) return;
      const reader = genericAttributes(message, this.reader);
      while (reader.next()) if (reader.type === what.attribute) items.push(read(this.nested.enter(reader)));
    };
    return [{ operation: what.operation, type: this.family, write }, decode];
  }

  private get(operation: string, command: number, visit: (reader: AttributeReader) => void): void {
    const write = (writer: MessageWriter): void => writeGenericHeader(writer, command, IPVS_VERSION);
    this.connection.request({ operation, type: this.family, write }, (message) => {
      if (message.type !== this.family) return;
      const reader = genericAttributes(message, this.reader);
      while (reader.next()) visit(reader);
    });
  }
}

function listing(listed: readonly (ListedVirtualServer | undefined)[]): VirtualServerListing {
  const servers = listed.filter((server) => server !== undefined);
  return { servers, foreign: listed.length - servers.length };
}

function describe(change: IpvsChange): string {
  const server = formatVirtualServer(change.virtualServer);
  if (change.realServer === undefined) return `${change.operation} ${server}`;
  return `${change.operation} ${server} -> ${formatRealServer(change.realServer)}`;
}
