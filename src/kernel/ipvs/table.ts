/** Reads the IPVS table by the cheapest interface that the kernel offers. */
import { type OpenOptionSocket } from '../option-socket.js';
import { Pacer, READING_SLICE_MS } from '../../time/pacer.js';
import { type RealServerKey, type VirtualServerKey, virtualServerFamily } from '../../values/virtual-server.js';
import { type IpvsClient } from './client.js';
import { type DumpedVirtualServer } from './message.js';
import { IpvsSockopt, SockoptView } from './sockopt.js';
import {
  type IpvsTableSource,
  type ObservedVirtualServer,
  type ReadOptions,
  type ReadServers,
} from './observed-table.js';
import { DumpView } from './dump-view.js';

export interface IpvsTableOptions {
  /** Without it, or when the kernel refuses, everything is read through netlink. */
  readonly openOptionSocket?: OpenOptionSocket | undefined;
  /** How long to read before other work gets its turn, in milliseconds; 0: a turn after every virtual server. */
  readonly turnMs?: number | undefined;
}

export interface TableCounts {
  readonly realServers: number;
  /** Active and inactive ones. */
  readonly connections: number;
}

const NONE: TableCounts = { realServers: 0, connections: 0 };

/** One in so many reads looks for IPv6 virtual servers that nobody expects. */
const IPV6_INTERVAL = 10;

/**
 * IPv4 virtual servers come through getsockopt: one system call for all of them and one for each one's real servers.
 * What that cannot show (IPv6, real servers of the other family, persistence engines) comes through netlink: a dump of
 * all virtual servers, and three system calls for each one's real servers.
 */
export class IpvsTable implements IpvsTableSource {
  #sockopt: IpvsSockopt | undefined;
  /** Why getsockopt is not in use; undefined while it is. */
  readonly refusal: unknown;
  #reads = 0;
  #sawIPv6 = false;
  #counts: TableCounts = NONE;
  #counting = { realServers: 0, connections: 0 };
  readonly #view = new SockoptView();
  readonly #dumped = new DumpView();
  #pacer = new Pacer();
  #turn: ReadOptions['turn'];

  constructor(
    readonly ipvs: IpvsClient,
    readonly options: IpvsTableOptions = {},
  ) {
    try {
      if (options.openOptionSocket !== undefined) this.#sockopt = new IpvsSockopt(options.openOptionSocket);
    } catch (error) {
      this.refusal = error;
    }
  }

  async read(visit: (server: ObservedVirtualServer) => void, options: ReadOptions): Promise<ReadServers> {
    this.#turn = options.turn;
    this.#pacer = new Pacer(this.options.turnMs ?? READING_SLICE_MS, undefined, 1);
    this.#counting = { realServers: 0, connections: 0 };
    const read = await this.#read(visit, options);
    this.#counts = this.#counting;
    return read;
  }

  has(server: VirtualServerKey): boolean {
    return this.ipvs.getVirtualServer(server) !== undefined;
  }

  /** What the table held when it was read last, other people's virtual servers included. */
  get counts(): TableCounts {
    return this.#counts;
  }

  async #read(visit: (server: ObservedVirtualServer) => void, options: ReadOptions): Promise<ReadServers> {
    const sockopt = this.#sockopt;
    if (sockopt === undefined) {
      const all = await this.#list();
      await this.#readDumps(all, visit);
      return () => new Set(all.map(({ key }) => key));
    }
    const isDumped = this.#reads++ % IPV6_INTERVAL === 0 || this.#sawIPv6 || options.mayHaveIPv6;
    const dumped = isDumped ? await this.#list() : [];
    const ipv6 = dumped.filter(({ key }) => virtualServerFamily(key) === 6);
    this.#sawIPv6 = ipv6.length > 0;
    const modified = new Set(dumped.filter((server) => server.modified).map(({ key }) => key));
    const ipv4 = await this.#readSockopt(sockopt, modified, visit);
    await this.#readDumps(ipv6, visit);
    return () => new Set([...ipv4(), ...ipv6.map(({ key }) => key)]);
  }

  /**
   * Active and inactive connections, added up, of each real server of one virtual server that is thought to have
   * `expected` of them; empty when there is no such virtual server. Throws NetlinkError or IpvsSockoptError.
   */
  connections(server: VirtualServerKey, expected: number): Map<RealServerKey, number> {
    const view = this.#view;
    const found = new Map<RealServerKey, number>();
    const isHere = this.#sockopt !== undefined && virtualServerFamily(server) === 4;
    const outcome = isHere ? this.#sockopt!.readRealServersOf(server, expected, view) : 'partial';
    if (outcome === 'read') for (let i = 0; i < view.count; i++) found.set(view.realServer(i), view.connections(i));
    if (outcome === 'partial') {
      for (const { key, activeConnections, inactiveConnections } of this.ipvs.listRealServers(server))
        found.set(key, activeConnections + inactiveConnections);
    }
    return found;
  }

  close(): void {
    this.#sockopt?.close();
    this.#sockopt = undefined;
  }

  async #list(): Promise<DumpedVirtualServer[]> {
    const { servers } = await this.ipvs.listVirtualServersPaced(() => this.#pacer.yieldIfDue(this.#turn));
    return servers;
  }

  async #readSockopt(
    sockopt: IpvsSockopt,
    modified: ReadonlySet<VirtualServerKey>,
    visit: (server: ObservedVirtualServer) => void,
  ): Promise<ReadServers> {
    const view = this.#view;
    const gone = new Set<VirtualServerKey>();
    const count = sockopt.readVirtualServers();
    for (let i = 0; i < count; i++) {
      const key = sockopt.keyOf(i);
      if (key === undefined) continue;
      view.key = key;
      view.settings = sockopt.settingsOf(i);
      view.modified = sockopt.isModified(i) || modified.has(key);
      const outcome = sockopt.readRealServers(i, view);
      if (outcome === 'read') {
        this.#counting.realServers += view.count;
        for (let real = 0; real < view.count; real++) this.#counting.connections += view.connections(real);
        visit(view);
      } else if (outcome === 'partial') this.#visitDump(view, visit);
      else gone.add(key);
      if (this.#pacer.isDue) await this.#pacer.yieldIfDue(this.#turn);
    }
    return () => {
      const keys = Array.from({ length: count }, (_, i) => sockopt.keyOf(i)).filter((key) => key !== undefined);
      return new Set(keys.filter((key) => !gone.has(key)));
    };
  }

  async #readDumps(
    servers: readonly DumpedVirtualServer[],
    visit: (server: ObservedVirtualServer) => void,
  ): Promise<void> {
    for (const server of servers) {
      this.#visitDump(server, visit);
      if (this.#pacer.isDue) await this.#pacer.yieldIfDue(this.#turn);
    }
  }

  #visitDump(server: DumpedVirtualServer, visit: (server: ObservedVirtualServer) => void): void {
    this.#dumped.begin(server);
    for (const real of this.ipvs.listRealServers(server.key)) {
      this.#dumped.add(real.key, real.weight, real.forwarding);
      this.#counting.realServers++;
      this.#counting.connections += real.activeConnections + real.inactiveConnections;
    }
    visit(this.#dumped);
  }
}
