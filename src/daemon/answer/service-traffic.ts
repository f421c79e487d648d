import { type VirtualServerKey, virtualServerIdentity } from '../../values/virtual-server.js';
import { IpvsStatistics, type ServerStatistics } from '../../kernel/ipvs/statistics.js';
import { type OpenNetlinkSocket } from '../../netlink/socket.js';
import { type ServicePortTraffic } from '../../serve/service-metrics.js';
import { type DataPlane } from '../data-plane.js';
import { Turns, sortInTurns } from '../../time/turns.js';

/** What was read does for other scrapers that come within this time. */
const KEEP_MS = 5000;

export interface ServiceTraffic {
  /** Those with the most connections, the most first. */
  readonly ports: readonly ServicePortTraffic[];
  /** How many are left out. */
  readonly cut: number;
}

type Sum = { -readonly [Key in keyof ServicePortTraffic]: ServicePortTraffic[Key] };

/**
 * What IPVS counts, by Service and port: one dump of the table a scrape, in turns with other work, through a socket of
 * its own. The addresses of a Service that have the same port and protocol are one.
 */
export class ServiceTrafficReader {
  readonly #open: OpenNetlinkSocket;
  #statistics: IpvsStatistics | undefined;
  #last: { readonly at: number; readonly traffic: Promise<ServiceTraffic | undefined> } | undefined;

  /** `most`: so many service ports are told. */
  constructor(
    open: OpenNetlinkSocket,
    readonly dataPlane: Pick<DataPlane, 'updater'>,
    readonly most: number,
  ) {
    this.#open = open;
  }

  /** Undefined when the kernel cannot be read; never rejects. */
  read(now: number): Promise<ServiceTraffic | undefined> {
    if (this.#last !== undefined && now - this.#last.at < KEEP_MS) return this.#last.traffic;
    const traffic = this.#read().catch(() => {
      this.close();
      return undefined;
    });
    this.#last = { at: now, traffic };
    return traffic;
  }

  close(): void {
    this.#statistics?.close();
    this.#statistics = undefined;
  }

  async #read(): Promise<ServiceTraffic> {
    this.#statistics ??= new IpvsStatistics(this.#open);
    const sums = new Map<string, Sum>();
    await this.#statistics.read((server, statistics) => this.#add(sums, server, statistics));
    const sorted = await sortInTurns([...sums.values()], (a, b) => b.connections - a.connections, new Turns());
    return { ports: sorted.slice(0, this.most), cut: Math.max(0, sorted.length - this.most) };
  }

  #add(sums: Map<string, Sum>, server: VirtualServerKey, statistics: ServerStatistics): void {
    const owner = this.dataPlane.updater.desired.virtualServers.get(server)?.service;
    const identity = virtualServerIdentity(server);
    if (owner === undefined || identity.kind !== 'address') return; // somebody else's
    const { protocol, port } = identity;
    const key = `${owner} ${protocol} ${port}`;
    const sum = sums.get(key);
    if (sum === undefined) {
      const [namespace = '', service = ''] = owner.split('/');
      sums.set(key, { namespace, service, protocol, port, ...statistics });
      return;
    }
    sum.connections += statistics.connections;
    sum.inPackets += statistics.inPackets;
    sum.outPackets += statistics.outPackets;
    sum.inBytes += statistics.inBytes;
    sum.outBytes += statistics.outBytes;
  }
}
