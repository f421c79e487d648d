import { type RealServerKey, type VirtualServerKey, type VirtualServerSettings } from '../../values/virtual-server.js';
import { type Forwarding } from './message.js';

/**
 * One virtual server as the kernel has it, its real servers in the kernel's order. It stands where the kernel wrote it:
 * valid only until the next one is read, so that a table of 500,000 real servers is looked through without making an
 * object of each.
 */
export interface ObservedVirtualServer {
  readonly key: VirtualServerKey;
  readonly settings: VirtualServerSettings;
  /** Set up in a way that this program never does (a persistence netmask or engine): equal settings are not enough. */
  readonly modified: boolean;
  /** Number of real servers; `index` below counts from 0. */
  readonly count: number;
  weight(index: number): number;
  forwarding(index: number): Forwarding;
  realServer(index: number): RealServerKey;
  /**
   * How a real server sorts against the RealServerKey that starts at `offset` of a packed list: negative, 0 (equal) or
   * positive.
   */
  compare(index: number, list: string, offset: number): number;
}

/** The IPVS table, read whole. */
export interface IpvsTableSource {
  /**
   * Calls `visit` for every virtual server of a protocol that a Service can have, letting other work in between. A
   * table that others change meanwhile may show an entry as it was or as it is. `mayHaveIPv6` false allows to leave
   * out, most of the time, to look for IPv6 virtual servers. Throws the error of the interface in use.
   */
  read(visit: (server: ObservedVirtualServer) => void, options: ReadOptions): Promise<ReadServers>;
  /** Whether there is such a virtual server now. Throws NetlinkError. */
  has(server: VirtualServerKey): boolean;
}

/**
 * All virtual servers that were read; made when it is asked for, which has to be before the next reading. Of IPv6 ones
 * it may lack some when others came or went meanwhile.
 */
export type ReadServers = () => ReadonlySet<VirtualServerKey>;

export interface ReadOptions {
  readonly mayHaveIPv6: boolean;
  /**
   * Lets other work in, between two virtual servers; it may change the table. By default one turn of the event loop.
   */
  readonly turn?: (() => Promise<void>) | undefined;
}
