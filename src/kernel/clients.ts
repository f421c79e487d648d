import { ConntrackClient } from './conntrack/client.js';
import { IpsetClient } from './ipset/client.js';
import { IpvsClient } from './ipvs/client.js';
import { LinkClient } from './rtnetlink/client.js';
import { type NetlinkCounters } from '../netlink/connection.js';
import { type OpenNetlinkSocket } from '../netlink/socket.js';

/** One client per kernel subsystem, each with its own socket. */
export interface KernelClients {
  readonly ipvs: IpvsClient;
  readonly links: LinkClient;
  readonly ipset: IpsetClient;
  readonly conntrack: ConntrackClient;
}

/** Throws IpvsUnavailableError, IpsetUnavailableError or NetlinkError, whose messages name the fix. */
export function openKernelClients(open: OpenNetlinkSocket): KernelClients {
  return {
    ipvs: new IpvsClient(open),
    links: new LinkClient(open),
    ipset: new IpsetClient(open),
    conntrack: new ConntrackClient(open),
  };
}

export function closeKernelClients(clients: KernelClients): void {
  for (const client of Object.values(clients) as { close(): void }[]) client.close();
}

/** Messages sent so far, by subsystem: the metric, and what tests count. */
export function messagesSent(clients: KernelClients): Record<keyof KernelClients, number> {
  const sent = (client: { readonly counters: Readonly<NetlinkCounters> }): number => client.counters.messagesSent;
  return {
    ipvs: sent(clients.ipvs),
    links: sent(clients.links),
    ipset: sent(clients.ipset),
    conntrack: sent(clients.conntrack),
  };
}
