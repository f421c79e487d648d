/**
 * Fixed conversations with the kernel. test/kernel/netfilter.test.ts holds them with a real kernel, and records the
 * bytes when RECORD_DIR is set; the unit tests replay the recordings, so that what is written and what is read are both
 * checked against real bytes.
 */
import { ConntrackClient, type ConntrackResult, StaleFlows } from '../../src/kernel/conntrack/client.js';
import { IpsetClient, type IpsetFailure } from '../../src/kernel/ipset/client.js';
import { type ObservedSet } from '../../src/kernel/ipset/message.js';
import { type OpenNetlinkSocket } from '../../src/netlink/socket.js';
import { type Address, parseAddress } from '../../src/values/address.js';
import {
  type IpsetDefinition,
  type IpsetEntry,
  type IpsetType,
  addressEntry,
  addressPortAddressEntry,
  addressPortEntry,
  addressPortNetEntry,
  formatIpsetEntry,
  portEntry,
} from '../../src/values/ipset.js';
import { hostPrefix, parsePrefix } from '../../src/values/prefix.js';
import { type Protocol } from '../../src/values/protocol.js';
import {
  type RealServerKey,
  type VirtualServerKey,
  addressServerKey,
  realServerKey,
} from '../../src/values/virtual-server.js';

export const SETS = {
  port: { name: 'KUBE-NODE-PORT-TCP', type: 'bitmap:port', family: 4 },
  ip: { name: 'KUBE-IPVS-IPS', type: 'hash:ip', family: 4 },
  ip6: { name: 'KUBE-6-IPVS-IPS', type: 'hash:ip', family: 6 },
  server: { name: 'KUBE-CLUSTER-IP', type: 'hash:ip,port', family: 4 },
  server6: { name: 'KUBE-6-CLUSTER-IP', type: 'hash:ip,port', family: 6 },
  loopBack: { name: 'KUBE-LOOP-BACK', type: 'hash:ip,port,ip', family: 4 },
  loopBack6: { name: 'KUBE-6-LOOP-BACK', type: 'hash:ip,port,ip', family: 6 },
  source: { name: 'KUBE-LOAD-BALANCER-SOURCE-CIDR', type: 'hash:ip,port,net', family: 4 },
  source6: { name: 'KUBE-6-LOAD-BALANCER-SOURCE-CID', type: 'hash:ip,port,net', family: 6 },
} as const satisfies Record<string, IpsetDefinition>;

export const ELEMENTS: Readonly<Record<keyof typeof SETS, readonly string[]>> = {
  port: ['30100', '65535', '0'],
  ip: ['10.96.0.1', '10.96.0.10'],
  ip6: ['fd00:96::27', '2001:db8::1'],
  server: ['10.96.0.1,tcp:443', '10.96.0.11,udp:53', '10.96.0.12,sctp:3868'],
  server6: ['fd00:96::27,tcp:80', 'fd00:96::28,udp:53'],
  loopBack: ['10.128.0.46,tcp:8080,10.128.0.46'],
  loopBack6: ['fd00:10:128::46,tcp:8080,fd00:10:128::46'],
  source: ['192.0.2.22,tcp:80,203.0.113.0/24', '192.0.2.22,tcp:80,198.51.100.7'],
  source6: ['2001:db8::22,tcp:80,2001:db8:1::/48', '2001:db8::22,sctp:80,2001:db8:2::7'],
};

/** An address that the test is sure of. */
export function address(text: string): Address {
  const parsed = parseAddress(text);
  if (parsed === undefined) throw new Error(`not an address: ${text}`);
  return parsed;
}

/** The inverse of formatIpsetEntry. */
export function parseEntry(type: IpsetType, text: string): IpsetEntry {
  if (type === 'bitmap:port') return portEntry(Number(text));
  const [ip = '', server = '', last = ''] = text.split(',');
  if (type === 'hash:ip') return addressEntry(address(ip));
  const [protocol = '', port = ''] = server.split(':');
  const key = addressServerKey(protocol.toUpperCase() as Protocol, address(ip), Number(port));
  if (type === 'hash:ip,port') return addressPortEntry(key);
  if (type === 'hash:ip,port,ip') return addressPortAddressEntry(key, address(last));
  return addressPortNetEntry(key, parsePrefix(last) ?? hostPrefix(address(last)));
}

export interface IpsetSession {
  readonly protocol: number;
  readonly failures: readonly IpsetFailure[];
  /** As `ipset save` prints them, sorted. */
  readonly elements: readonly string[];
  readonly sets: readonly ObservedSet[];
}

/**
 * Makes a set of every type and family, fills them (one element is refused in the middle of its list), deletes, swaps,
 * lists.
 */
export function ipsetSession(open: OpenNetlinkSocket): IpsetSession {
  const client = new IpsetClient(open);
  const failures: IpsetFailure[] = [];
  for (const [key, definition] of Object.entries(SETS)) {
    client.createSet(definition);
    const wanted = ELEMENTS[key as keyof typeof SETS].map((text) => parseEntry(definition.type, text));
    failures.push(...client.addEntries(definition, wanted));
  }
  const { source, server } = SETS;
  const mixed = ['192.0.2.23,tcp:80,10.0.0.0/8', '192.0.2.23,tcp:80,0.0.0.0/0', '192.0.2.23,tcp:80,172.16.0.0/12'];
  failures.push(
    ...client.addEntries(
      source,
      mixed.map((text) => parseEntry(source.type, text)),
    ),
  );
  const gone = ['10.96.0.11,udp:53', '9.9.9.9,tcp:9'].map((text) => parseEntry(server.type, text));
  failures.push(...client.deleteEntries(server, gone));
  client.replaceSet(SETS.ip, client.listEntries(SETS.ip), 1024);
  const elements = Object.values(SETS).flatMap((definition) =>
    client.listEntries(definition).map((entry) => `add ${definition.name} ${formatIpsetEntry(definition.type, entry)}`),
  );
  const sets = client.listSets();
  client.close();
  return { protocol: client.protocolVersion, failures, elements: elements.sort(), sets };
}

export function server(protocol: Protocol, ip: string, port: number): VirtualServerKey {
  return addressServerKey(protocol, address(ip), port);
}

export function backend(ip: string, port: number): RealServerKey {
  return realServerKey(address(ip), port);
}

/** Entries that conntrackSession finds, as arguments of `conntrack -I`; `stale` ones are deleted by it. */
export const FLOWS: readonly { readonly stale: boolean; readonly args: string }[] = [
  { stale: false, args: flow('udp', '10.0.0.1', 1000, '10.96.0.10', 53, '10.0.1.1', 5353) },
  { stale: true, args: flow('udp', '10.0.0.2', 1000, '10.96.0.10', 53, '10.0.1.2', 5353) },
  { stale: true, args: flow('udp', '10.0.0.3', 1000, '10.96.0.10', 53, '10.0.1.2', 5353) },
  { stale: true, args: flow('udp', '10.0.0.1', 1000, '10.96.0.11', 53, '10.96.0.11', 53) },
  { stale: false, args: flow('udp', '10.0.0.1', 1000, '10.96.0.12', 53, '10.96.0.12', 53) },
  { stale: true, args: flow('udp', '10.0.0.1', 1001, '10.200.0.2', 30053, '10.0.9.9', 99) },
  { stale: false, args: flow('udp', '10.0.0.1', 1000, '10.0.9.9', 99, '10.0.9.9', 99) },
  { stale: true, args: flow('udp', 'fd00::1', 1000, 'fd00:96::10', 53, 'fd00:1::2', 5353) },
  { stale: false, args: `${flow('tcp', '10.0.0.2', 1000, '10.96.0.10', 53, '10.0.1.2', 5353)} --state ESTABLISHED` },
];

function flow(
  protocol: string,
  from: string,
  port: number,
  to: string,
  toPort: number,
  by: string,
  byPort: number,
): string {
  const original = `-p ${protocol} -s ${from} -d ${to} --sport ${port} --dport ${toPort}`;
  return `${original} -r ${by} -q ${from} --reply-port-src ${byPort} --reply-port-dst ${port}`;
}

export function staleFlows(): StaleFlows {
  const stale = new StaleFlows();
  stale.addPair(server('UDP', '10.96.0.10', 53), backend('10.0.1.2', 5353));
  stale.addPair(server('UDP', 'fd00:96::10', 53), backend('fd00:1::2', 5353));
  stale.addUnanswered(server('UDP', '10.96.0.11', 53));
  stale.addBackend('UDP', backend('10.0.9.9', 99));
  return stale;
}

/** Deletes the stale entries twice: the second time there are none. */
export async function conntrackSession(open: OpenNetlinkSocket): Promise<readonly ConntrackResult[]> {
  const client = new ConntrackClient(open);
  const results = [await client.deleteStale(staleFlows()), await client.deleteStale(staleFlows())];
  client.close();
  return results;
}
