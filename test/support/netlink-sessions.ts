/**
 * What a client says to the kernel in one go: run against the real one it is recorded, against the recording replayed.
 */
import { type OpenOptionSocket } from '../../src/kernel/option-socket.js';
import { IpvsClient, type IpvsInfo, type IpvsTimeouts } from '../../src/kernel/ipvs/client.js';
import { type DumpedRealServer } from '../../src/kernel/ipvs/message.js';
import { IpvsSockopt, SockoptView } from '../../src/kernel/ipvs/sockopt.js';
import { type ObservedVirtualServer } from '../../src/kernel/ipvs/observed-table.js';
import { LinkClient } from '../../src/kernel/rtnetlink/client.js';
import { type OpenNetlinkSocket } from '../../src/netlink/socket.js';
import { type Address, formatAddress, parseAddress } from '../../src/values/address.js';
import {
  type RealServerKey,
  type VirtualServerKey,
  type VirtualServerSettings,
  addressServerKey,
  formatHostPort,
  formatRealServer,
  formatVirtualServer,
  fwmarkServerKey,
  realServerKey,
  virtualServerIdentity,
} from '../../src/values/virtual-server.js';

export const DUMMY = 'session-dummy';

export function address(text: string): Address {
  const parsed = parseAddress(text);
  if (parsed === undefined) throw new Error(`not an address: ${text}`);
  return parsed;
}

export function real(text: string, port: number): RealServerKey {
  return realServerKey(address(text), port);
}

export const RR: VirtualServerSettings = { scheduler: 'rr', flags: 0, timeout: 0 };
export const SERVERS = {
  tcp: addressServerKey('TCP', address('10.96.0.1'), 443),
  udp6: addressServerKey('UDP', address('fd00::10'), 53),
  sctp: addressServerKey('SCTP', address('10.96.0.2'), 3868),
  mark4: fwmarkServerKey(4, 0x10203),
  mark6: fwmarkServerKey(6, 17),
} as const;

export interface IpvsSession {
  readonly info: IpvsInfo;
  readonly timeouts: readonly IpvsTimeouts[];
  /** `operation virtual-server [-> real-server]: CODE`. */
  readonly failures: readonly string[];
  /** As `ipvsadm -Sn` prints them, sorted. */
  readonly lines: readonly string[];
}

/** Every operation, some of which fail in the middle of their batch. Leaves the table as it made it. */
export function ipvsSession(open: OpenNetlinkSocket): IpvsSession {
  const client = new IpvsClient(open);
  const timeouts = [client.getTimeouts()];
  client.setTimeouts({ tcp: 800, tcpFin: 0, udp: 200 });
  timeouts.push(client.getTimeouts());
  const { tcp, udp6, sctp, mark4, mark6 } = SERVERS;
  for (const key of Object.values(SERVERS)) client.addVirtualServer(key, RR);
  client.addVirtualServer(tcp, RR);
  client.setVirtualServer(sctp, { scheduler: 'mh', flags: 0x1 | 0x8 | 0x10, timeout: 10_800 });
  client.addVirtualServer(addressServerKey('TCP', address('10.96.0.9'), 80), { ...RR, scheduler: 'nosuch' });
  client.addRealServer(tcp, real('10.0.0.1', 6443), 1);
  client.addRealServer(tcp, real('10.0.0.2', 6443), 0);
  client.addRealServer(tcp, real('10.0.0.2', 6443), 0);
  client.addRealServer(tcp, real('10.0.0.3', 6443), 1);
  client.addRealServer(udp6, real('fd00::5', 5353), 100);
  client.addRealServer(mark4, real('10.0.0.3', 80), 1);
  client.addRealServer(mark6, real('fd00::7', 80), 65_535);
  client.setRealServer(tcp, real('10.0.0.1', 6443), 7);
  client.setRealServer(tcp, real('10.0.0.8', 6443), 7);
  client.deleteRealServer(tcp, real('10.0.0.3', 6443));
  client.deleteRealServer(tcp, real('10.0.0.9', 6443));
  client.addVirtualServer(addressServerKey('UDP', address('10.96.0.3'), 53), RR);
  client.deleteVirtualServer(addressServerKey('UDP', address('10.96.0.3'), 53));
  client.deleteVirtualServer(addressServerKey('UDP', address('10.96.0.4'), 53));
  const failures = client.flush().map(({ operation, virtualServer, realServer, error }) => {
    const to = realServer === undefined ? '' : ` -> ${formatRealServer(realServer)}`;
    return `${operation} ${formatVirtualServer(virtualServer)}${to}: ${error.code}`;
  });
  const lines = tableLines(client);
  const info = client.getInfo();
  client.close();
  return { info, timeouts, failures, lines };
}

/** What the session's failures must be. */
export const IPVS_FAILURES: readonly string[] = [
  'add-virtual-server TCP 10.96.0.1:443: EEXIST',
  'add-virtual-server TCP 10.96.0.9:80: ENOENT',
  'add-real-server TCP 10.96.0.1:443 -> 10.0.0.2:6443: EEXIST',
  'set-real-server TCP 10.96.0.1:443 -> 10.0.0.8:6443: ENOENT',
  'delete-real-server TCP 10.96.0.1:443 -> 10.0.0.9:6443: ENOENT',
  'delete-virtual-server UDP 10.96.0.4:53: ESRCH',
];

/** The whole table through the client, in the words of ipvsadm(8). */
export function tableLines(client: IpvsClient): string[] {
  return client
    .listVirtualServers()
    .servers.flatMap(({ key, settings }) => serverLines(key, settings, client.listRealServers(key)))
    .sort();
}

const METHODS = { masquerade: '-m', route: '-g', tunnel: '-i', local: 'local', bypass: 'bypass' } as const;

/** One virtual server in the words of ipvsadm(8). */
export function serverLines(
  key: VirtualServerKey,
  settings: VirtualServerSettings,
  realServers: readonly Pick<DumpedRealServer, 'key' | 'weight' | 'forwarding'>[],
): string[] {
  const server = ipvsadmServer(key);
  const persistent = (settings.flags & 1) === 0 ? '' : ` -p ${settings.timeout}`;
  const scheduler = settings.scheduler === 'sh' ? 'sh' : 'mh';
  const names = [
    (settings.flags & 8) !== 0 ? `${scheduler}-fallback` : '',
    (settings.flags & 16) !== 0 ? `${scheduler}-port` : '',
  ];
  const flags = names.filter((name) => name !== '').join(',');
  return [
    `-A ${server} -s ${settings.scheduler}${persistent}${flags === '' ? '' : ` -b ${flags}`}`,
    ...realServers.map(
      ({ key: real, weight, forwarding }) =>
        `-a ${server} -r ${formatRealServer(real)} ${METHODS[forwarding]} -w ${weight}`,
    ),
  ];
}

/** A virtual server of a whole table, in the words of ipvsadm(8). */
export function seenLines(server: ObservedVirtualServer): string[] {
  const reals = Array.from({ length: server.count }, (_, i) => ({
    key: server.realServer(i),
    weight: server.weight(i),
    forwarding: server.forwarding(i),
  }));
  return serverLines(server.key, server.settings, reals);
}

/** The IPv4 part of the table by getsockopt alone, read twice; sorted. */
export function sockoptSession(open: OpenOptionSocket): string[] {
  const sockopt = new IpvsSockopt(open);
  const view = new SockoptView();
  const read = (): string[] =>
    Array.from({ length: sockopt.readVirtualServers() }, (_, i) => {
      view.key = sockopt.keyOf(i)!;
      view.settings = sockopt.settingsOf(i);
      if (sockopt.readRealServers(i, view) !== 'read') throw new Error(`not read: ${formatVirtualServer(view.key)}`);
      return seenLines(view);
    })
      .flat()
      .sort();
  const [first, second] = [read(), read()];
  if (first.join() !== second.join()) throw new Error('read twice, the table differs');
  sockopt.close();
  return first;
}

function ipvsadmServer(key: VirtualServerKey): string {
  const server = virtualServerIdentity(key);
  if (server.kind === 'fwmark') return `-f ${server.mark}${server.family === 6 ? ' -6' : ''}`;
  const option = { TCP: '-t', UDP: '-u', SCTP: '--sctp-service' }[server.protocol];
  return `${option} ${formatHostPort(server.address, server.port)}`;
}

export interface LinksSession {
  readonly made: readonly boolean[];
  readonly failures: readonly string[];
  /** Of the dummy, sorted, IPv4 first. */
  readonly addresses: readonly string[];
  readonly kind: string | undefined;
  readonly deleted: readonly boolean[];
}

/** Makes a dummy, changes its addresses, lists them; `before` is called before the dummy is deleted. */
export function linksSession(open: OpenNetlinkSocket, before: () => void = () => undefined): LinksSession {
  const client = new LinkClient(open);
  const first = client.ensureDummy(DUMMY);
  const second = client.ensureDummy(DUMMY);
  const { index } = first;
  for (const text of ['10.96.0.1', '10.96.0.2', '10.96.0.1', 'fd00::1', 'fd00::2', 'fd00::1']) {
    client.addAddress(index, address(text));
  }
  client.addAddress(9999, address('10.96.0.3'));
  for (const text of ['10.96.0.2', '10.96.0.7', 'fd00::2', 'fd00::77']) client.deleteAddress(index, address(text));
  client.addAddress(index, address('10.96.0.4'));
  const failures = client.flush().map(({ operation, address: of, error }) => {
    return `${operation} ${formatAddress(of)}: ${error.code}`;
  });
  // IPv6 gives an interface a link-local address of its own.
  const listed = client.listAddresses(index).filter((entry) => entry.scope === 0);
  const addresses = listed.map((entry) => `${formatAddress(entry.address)}/${entry.prefixLength}`);
  const kind = client.findLink(DUMMY)?.kind;
  before();
  const deleted = [client.deleteLink(DUMMY), client.deleteLink(DUMMY)];
  client.close();
  return {
    made: [first.created, second.created],
    failures,
    addresses: addresses.sort(),
    kind,
    deleted,
  };
}
