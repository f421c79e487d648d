import { formatAddress } from '../../values/address.js';
import { errorMessage } from '../../values/errors.js';
import {
  type VirtualServerKey,
  realServerAddress,
  realServerPort,
  virtualServerIdentity,
} from '../../values/virtual-server.js';
import { IpvsClient } from '../../kernel/ipvs/client.js';
import { IpvsStatistics, NOTHING_COUNTED } from '../../kernel/ipvs/statistics.js';
import { type OpenNetlinkSocket } from '../../netlink/socket.js';
import { type KernelAnswer, type KernelServer } from '../../serve/inspection.js';
import { Turns } from '../../time/turns.js';

/** Virtual servers of one Service that are read. */
const MOST_SERVERS = 50;
/** Real servers of one Service that are read; the virtual server with the last of them is read whole. */
const MOST_REAL_SERVERS = 5000;
/** What the system calls for one virtual server cost. */
const STEPS_PER_SERVER = 50;

/**
 * Reads single virtual servers from the kernel for somebody who looks, through sockets of its own that are opened when
 * first needed: a dump that the sync has under way is not disturbed.
 */
export class KernelLook {
  readonly #open: OpenNetlinkSocket;
  #clients: { readonly ipvs: IpvsClient; readonly statistics: IpvsStatistics } | undefined;

  constructor(open: OpenNetlinkSocket) {
    this.#open = open;
  }

  async service(servers: readonly { readonly key: VirtualServerKey }[]): Promise<KernelAnswer> {
    const turns = new Turns();
    const found: KernelServer[] = [];
    let reals = 0;
    try {
      for (const { key } of servers.slice(0, MOST_SERVERS)) {
        if (reals > MOST_REAL_SERVERS) break;
        const server = this.#server(key);
        found.push(server);
        reals += server.realServers.length;
        if (turns.spend(STEPS_PER_SERVER + server.realServers.length)) await turns.next();
      }
      return { servers: found };
    } catch (error) {
      this.close(); // the next one who looks tries with new sockets
      return { failure: errorMessage(error) };
    }
  }

  close(): void {
    this.#clients?.ipvs.close();
    this.#clients?.statistics.close();
    this.#clients = undefined;
  }

  #server(key: VirtualServerKey): KernelServer {
    const { ipvs, statistics } = this.#opened();
    const counted = statistics.of(key);
    const identity = virtualServerIdentity(key);
    if (identity.kind !== 'address') throw new Error('a Service has no virtual servers by mark');
    const { protocol, address, port } = identity;
    const place = { protocol, address: formatAddress(address), port };
    if (counted === undefined) return { ...place, exists: false, ...NOTHING_COUNTED, realServers: [] };
    const realServers = ipvs
      .listRealServers(key)
      .map(({ key: real, weight, activeConnections, inactiveConnections }) => ({
        address: formatAddress(realServerAddress(real)),
        port: realServerPort(real),
        ...{ weight, activeConnections, inactiveConnections },
      }));
    return { ...place, exists: true, ...counted, realServers };
  }

  #opened(): { readonly ipvs: IpvsClient; readonly statistics: IpvsStatistics } {
    if (this.#clients !== undefined) return this.#clients;
    const statistics = new IpvsStatistics(this.#open);
    try {
      return (this.#clients = { ipvs: new IpvsClient(this.#open), statistics });
    } catch (error) {
      statistics.close();
      throw error;
    }
  }
}
