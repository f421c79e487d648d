/** Removes connection tracking entries that would go on sending packets to a backend that is gone. */
import { type MessageWriter } from '../../netlink/attribute-writer.js';
import { NetlinkBatch } from '../../netlink/batch.js';
import { NetlinkConnection, type NetlinkCounters } from '../../netlink/connection.js';
import { NetlinkError } from '../../netlink/errors.js';
import { type NetlinkMessage } from '../../netlink/message.js';
import {
  NFNL_SUBSYS_CTNETLINK,
  netfilterType,
  openNetfilterSocket,
  writeNetfilterHeader,
} from '../../netlink/nfnetlink.js';
import { type OpenNetlinkSocket } from '../../netlink/socket.js';
import { type Family, familyOf } from '../../values/address.js';
import { type Protocol, protocolNumber } from '../../values/protocol.js';
import {
  type RealServerKey,
  type VirtualServerKey,
  realServerAddress,
  realServerKey,
  virtualServerFamily,
} from '../../values/virtual-server.js';
import { ConntrackCommand, type Flow, FlowReader, netfilterFamily, writeDumpRequest } from './message.js';

/** The kernel cannot list conntrack entries: the module nf_conntrack_netlink is neither loaded nor built in. */
export class ConntrackUnavailableError extends Error {
  override readonly name = 'ConntrackUnavailableError';

  constructor(options?: ErrorOptions) {
    super(
      'the kernel cannot list conntrack entries: module nf_conntrack_netlink is not loaded (fix: modprobe nf_conntrack_netlink on the node)',
      options,
    );
  }
}

/** Which entries are stale. One set serves both families and any number of virtual servers. */
export class StaleFlows {
  readonly #keys = new Set<string>();
  /** Family and protocol number of each dump that is needed. */
  readonly #scopes = new Map<string, { family: Family; protocol: number }>();

  get size(): number {
    return this.#keys.size;
  }

  /** Traffic that went to `virtualServer` (keyed by address) and is answered by `realServer`. */
  addPair(virtualServer: VirtualServerKey, realServer: RealServerKey): void {
    this.#addScope(virtualServerFamily(virtualServer), virtualServer.charCodeAt(0));
    this.#keys.add(virtualServer + realServer);
  }

  /** Traffic to `virtualServer` that no backend was chosen for: it went on untranslated while there was none. */
  addUnanswered(virtualServer: VirtualServerKey): void {
    this.addPair(virtualServer, (virtualServer.slice(1, 3) + virtualServer.slice(3)) as RealServerKey);
  }

  /**
   * Traffic that went to any other address and is answered by `realServer`: by NodePort, hairpin, or a host port in
   * front.
   */
  addBackend(protocol: Protocol, realServer: RealServerKey): void {
    const number = protocolNumber(protocol);
    this.#addScope(familyOf(realServerAddress(realServer)), number);
    this.#keys.add(String.fromCharCode(number) + realServer);
  }

  dumps(): Iterable<{ readonly family: Family; readonly protocol: number }> {
    return this.#scopes.values();
  }

  matches(flow: Flow): boolean {
    const { original, reply } = flow;
    const protocol = String.fromCharCode(original.protocol);
    const answeredBy = realServerKey(reply.source, reply.sourcePort);
    const askedFor = realServerKey(original.destination, original.destinationPort);
    if (this.#keys.has(protocol + askedFor + answeredBy)) return true;
    return answeredBy !== askedFor && this.#keys.has(protocol + answeredBy);
  }

  #addScope(family: Family, protocol: number): void {
    this.#scopes.set(`${family} ${protocol}`, { family, protocol });
  }
}

export interface ConntrackResult {
  /** Entries that matched in the dumps. */
  readonly found: number;
  /** Entries that were deleted here; the others were gone already. */
  readonly deleted: number;
  readonly failures: readonly NetlinkError[];
}

const NOTHING: ConntrackResult = { found: 0, deleted: 0, failures: [] };
/** Tuple, id and zone of an IPv6 entry make about 110 bytes. */
const MAX_MESSAGE = 512;

export class ConntrackClient {
  readonly #connection: NetlinkConnection;
  readonly #batch: NetlinkBatch<null>;
  readonly #reader = new FlowReader();
  #canFilter = true;

  /** Throws ConntrackUnavailableError without nfnetlink, NetlinkError when no socket can be had. */
  constructor(open: OpenNetlinkSocket) {
    this.#connection = new NetlinkConnection(() => openNetfilterSocket(open, ConntrackUnavailableError));
    this.#batch = new NetlinkBatch(this.#connection, () => 'conntrack delete', { maxMessageSize: MAX_MESSAGE });
  }

  get counters(): Readonly<NetlinkCounters> {
    return this.#connection.counters;
  }

  close(): void {
    this.#connection.close();
  }

  /**
   * Deletes the stale entries, with one dump for each family and protocol among them however many pairs there are.
   * Entries that vanish meanwhile are no error. `pause` is called after each datagram of a
   * dump; nothing else may be asked of this client meanwhile. Rejects with ConntrackUnavailableError, or NetlinkError
   * when a dump fails.
   */
  async deleteStale(stale: StaleFlows, pause = (): Promise<void> => Promise.resolve()): Promise<ConntrackResult> {
    let result = NOTHING;
    for (const { family, protocol } of stale.dumps()) {
      const identities = await this.#findStale(family, protocol, stale, pause);
      const part = this.#deleteAll(family, identities);
      result = {
        found: result.found + part.found,
        deleted: result.deleted + part.deleted,
        failures: [...result.failures, ...part.failures],
      };
    }
    return result;
  }

  async #findStale(family: Family, protocol: number, stale: StaleFlows, pause: () => Promise<void>): Promise<Buffer[]> {
    const decode = (message: NetlinkMessage, found: Buffer[]): void => {
      if (!this.#reader.read(message) || this.#reader.flow.original.protocol !== protocol) return;
      if (stale.matches(this.#reader.flow)) found.push(this.#reader.identityOf(message));
    };
    if (this.#canFilter) {
      try {
        return await this.#dump(family, protocol, decode, pause);
      } catch (error) {
        if (!isRefusal(error)) throw error;
        this.#canFilter = false;
      }
    }
    try {
      return await this.#dump(family, undefined, decode, pause);
    } catch (error) {
      // nfnetlink_rcv_msg answers EINVAL for a subsystem that nobody registered
      if (isRefusal(error)) {
        this.#canFilter = true;
        throw new ConntrackUnavailableError({ cause: error });
      }
      throw error;
    }
  }

  #dump<Item>(
    family: Family,
    protocol: number | undefined,
    decode: (message: NetlinkMessage, items: Item[]) => void,
    pause: () => Promise<void>,
  ): Promise<Item[]> {
    const type = netfilterType(NFNL_SUBSYS_CTNETLINK, ConntrackCommand.get);
    const write = (writer: MessageWriter): void => writeDumpRequest(writer, family, protocol);
    return this.#connection.dumpPaced({ operation: 'conntrack list', type, write }, decode, () => [], pause);
  }

  #deleteAll(family: Family, identities: readonly Buffer[]): ConntrackResult {
    const type = netfilterType(NFNL_SUBSYS_CTNETLINK, ConntrackCommand.delete);
    const failures: NetlinkError[] = [];
    let failed = 0;
    const flush = (): void => {
      for (const { error } of this.#batch.flush()) {
        failed++;
        if (error.code !== 'ENOENT') failures.push(error);
      }
    };
    for (const identity of identities) {
      const writer = this.#batch.begin(type, 0);
      writeNetfilterHeader(writer, netfilterFamily(family));
      writer.buffer.set(identity, writer.reserve(identity.length));
      this.#batch.end(null);
      if (this.#batch.full) flush();
    }
    flush();
    return { found: identities.length, deleted: identities.length - failed, failures };
  }
}

function isRefusal(error: unknown): boolean {
  return error instanceof NetlinkError && (error.code === 'EINVAL' || error.code === 'EOPNOTSUPP');
}
