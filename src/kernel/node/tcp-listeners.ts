/** Who listens on TCP on this node, as /proc/net/tcp has it: no packet is sent, and no port taken. */
import { readFileSync } from 'node:fs';
import { endianness } from 'node:os';
import { join } from 'node:path';
import { type Address, addressFromBytes, formatAddress } from '../../values/address.js';

/** include/net/tcp_states.h */
const LISTEN = '0A';

export interface TcpListener {
  readonly address: Address;
  readonly port: number;
}

/** Of this network namespace, both families; empty where /proc cannot be read. */
export function tcpListeners(procRoot = '/proc'): TcpListener[] {
  return ['net/tcp', 'net/tcp6'].flatMap((name) => {
    try {
      return parseTcpTable(readFileSync(join(procRoot, name), 'latin1'));
    } catch {
      return [];
    }
  });
}

/** `   0: 0100007F:2809 00000000:0000 0A ...`: address and port in hexadecimal, in 32-bit words of this machine. */
export function parseTcpTable(text: string): TcpListener[] {
  return [...text.matchAll(/^\s*\d+: ([0-9A-F]{8}|[0-9A-F]{32}):([0-9A-F]{4}) \S+ ([0-9A-F]{2}) /gm)].flatMap(
    ([, words = '', port = '', state]) => {
      if (state !== LISTEN) return [];
      const bytes = Buffer.from(words, 'hex');
      if (endianness() === 'LE') bytes.swap32();
      return [{ address: addressFromBytes(bytes, 0, bytes.length === 4 ? 4 : 6), port: Number.parseInt(port, 16) }];
    },
  );
}

/** Whether somebody who listens there keeps others from `host` (an IP address) and `port`. */
export function isTaken({ host, port }: { readonly host: string; readonly port: number }, by: TcpListener): boolean {
  if (by.port !== port) return false;
  const theirs = formatAddress(plain(by.address));
  // "::" takes IPv4 as well, unless it is told not to.
  const covers = (wild: string, other: string): boolean =>
    wild === '::' || (wild === '0.0.0.0' && !other.includes(':'));
  return host === theirs || covers(host, theirs) || covers(theirs, host);
}

const MAPPED = '\0'.repeat(10) + '\xff\xff';

/** `::ffff:127.0.0.1`, as a socket of both families has an address of IPv4. */
function plain(address: Address): Address {
  return address.startsWith(MAPPED) ? (address.slice(MAPPED.length) as Address) : address;
}
