/**
 * IPVS' table of connections as /proc/net/ip_vs_conn shows it (ip_vs_conn_seq_show in
 * net/netfilter/ipvs/ip_vs_conn.c).
 */
import { createReadStream } from 'node:fs';
import { createInterface } from 'node:readline';
import { type Address, addressFromBytes, parseAddress } from '../../values/address.js';
import { isProtocol } from '../../values/protocol.js';
import { type VirtualServerKey, addressServerKey } from '../../values/virtual-server.js';

export const CONNECTION_TABLE = '/proc/net/ip_vs_conn';

export interface IpvsConnection {
  readonly virtualServer: VirtualServerKey;
  readonly client: Address;
  /** 0: no connection but the memory of where a client with affinity goes. */
  readonly clientPort: number;
  readonly backend: Address;
  readonly backendPort: number;
  /** `ESTABLISHED`, `FIN_WAIT`, `UDP`, ...: the kernel's word. */
  readonly state: string;
  /** Until the kernel forgets it, unless a packet comes. */
  readonly expiresSeconds: number;
}

/** One line of the table; undefined for its heading and for what no Service has (another protocol, a firewall mark). */
export function parseConnection(line: string): IpvsConnection | undefined {
  const [protocol, from, fromPort, to, toPort, dest, destPort, state, expires] = line.trim().split(/ +/);
  if (expires === undefined || !isProtocol(protocol)) return undefined;
  const [client, vip, backend] = [address(from!), address(to!), address(dest!)];
  const [clientPort, port, backendPort] = [fromPort!, toPort!, destPort!].map((text) => parseInt(text, 16));
  const expiresSeconds = Number(expires);
  if (client === undefined || vip === undefined || backend === undefined) return undefined;
  if (![clientPort, port, backendPort, expiresSeconds].every(Number.isInteger)) return undefined;
  return {
    virtualServer: addressServerKey(protocol, vip, port!),
    client,
    clientPort: clientPort!,
    backend,
    backendPort: backendPort!,
    state: state!,
    expiresSeconds,
  };
}

/** Eight hexadecimal digits for IPv4, eight groups for IPv6. */
function address(text: string): Address | undefined {
  if (text.includes(':')) return parseAddress(text);
  return /^[0-9A-F]{8}$/i.test(text) ? addressFromBytes(Buffer.from(text, 'hex'), 0, 4) : undefined;
}

/**
 * Calls `visit` for every connection, reading as it goes: the table may have a million lines. Rejects with the error of
 * the file system, ENOENT where the kernel has no IPVS.
 */
export async function readConnections(
  visit: (connection: IpvsConnection) => void,
  path: string = CONNECTION_TABLE,
): Promise<void> {
  const input = createReadStream(path, { encoding: 'latin1' });
  let failure: Error | undefined;
  input.on('error', (error) => (failure = error));
  for await (const line of createInterface({ input, crlfDelay: Infinity })) {
    const connection = parseConnection(line);
    if (connection !== undefined) visit(connection);
  }
  if (failure !== undefined) throw failure;
}
