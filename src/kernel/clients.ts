import { ConntrackClient } from './conntrack/client.js';
import { IpsetBackend } from './ipset/backend.js';
import { IpsetClient } from './ipset/client.js';
import { IpvsClient } from './ipvs/client.js';
import { NftClient } from './nftables/client.js';
import { NftSets } from './nftables/sets.js';
import { LinkClient } from './rtnetlink/client.js';
import { type SetBackend } from './set-backend.js';
import { type NetlinkCounters } from '../netlink/connection.js';
import { type OpenNetlinkSocket } from '../netlink/socket.js';

/** One client per kernel subsystem, each with its own socket. */
export interface KernelClients {
  readonly ipvs: IpvsClient;
  readonly links: LinkClient;
  readonly conntrack: ConntrackClient;
  /** By where the rules are: one of both. */
  readonly ipset?: IpsetClient;
  readonly nftables?: NftClient;
}

/** Throws IpvsUnavailableError, IpsetUnavailableError or NetlinkError, whose messages name the fix. */
export function openKernelClients(open: OpenNetlinkSocket, nftablesTable?: string): KernelClients {
  return {
    ipvs: new IpvsClient(open),
    links: new LinkClient(open),
    ...(nftablesTable === undefined
      ? { ipset: new IpsetClient(open) }
      : { nftables: new NftClient(open, nftablesTable) }),
    conntrack: new ConntrackClient(open),
  };
}

/** The sets that the rules look into. */
export function setBackendOf({ ipset, nftables }: KernelClients): SetBackend {
  return ipset === undefined ? new NftSets(nftables!) : new IpsetBackend(ipset);
}

export function closeKernelClients(clients: KernelClients): void {
  for (const client of Object.values(clients) as { close(): void }[]) client.close();
}

/** Messages sent so far, by subsystem: the metric, and what tests count. */
export function messagesSent(clients: KernelClients): Record<string, number> {
  const counted = Object.entries(clients) as [string, { readonly counters: Readonly<NetlinkCounters> }][];
  return Object.fromEntries(counted.map(([name, { counters }]) => [name, counters.messagesSent]));
}
