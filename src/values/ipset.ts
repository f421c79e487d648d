/**
 * ipset elements as packed Latin-1 strings, by the type of their set:
 *
 *   hash:ip            address
 *   hash:ip,port       VirtualServerKey (protocol port address)
 *   hash:ip,port,ip    VirtualServerKey + address
 *   hash:ip,port,net   VirtualServerKey + prefix length(1) + address
 *   bitmap:port        port(2)
 */
import { type Address, type Family, addressLength, formatAddress } from './address.js';
import { type Prefix } from './prefix.js';
import { protocolName } from './protocol.js';
import { type VirtualServerKey } from './virtual-server.js';

export type IpsetType = 'hash:ip' | 'hash:ip,port' | 'hash:ip,port,ip' | 'hash:ip,port,net' | 'bitmap:port';

declare const ipsetEntryBrand: unique symbol;
export type IpsetEntry = string & { readonly [ipsetEntryBrand]: true };

/** Name, type and family of one set. `bitmap:port` sets have a family only in their name. */
export interface IpsetDefinition {
  readonly name: string;
  readonly type: IpsetType;
  readonly family: Family;
}

export function addressEntry(address: Address): IpsetEntry {
  return address as string as IpsetEntry;
}

export function addressPortEntry(server: VirtualServerKey): IpsetEntry {
  return server as string as IpsetEntry;
}

export function addressPortAddressEntry(server: VirtualServerKey, source: Address): IpsetEntry {
  return (server + source) as IpsetEntry;
}

export function addressPortNetEntry(server: VirtualServerKey, source: Prefix): IpsetEntry {
  return (server + String.fromCharCode(source.bits) + source.address) as IpsetEntry;
}

export function portEntry(port: number): IpsetEntry {
  return String.fromCharCode(port >> 8, port & 255) as IpsetEntry;
}

/** The element as `ipset save` prints it: `10.96.0.1,tcp:443`, `30100`, `192.0.2.22,tcp:80,203.0.113.0/24`. */
export function formatIpsetEntry(type: IpsetType, entry: IpsetEntry): string {
  if (type === 'bitmap:port') return String((entry.charCodeAt(0) << 8) | entry.charCodeAt(1));
  if (type === 'hash:ip') return formatAddress(entry as string as Address);
  const server = entry.length === 7 || entry.length === 11 || entry.length === 12 ? 7 : 19;
  const base = formatAddressPort(entry.slice(0, server) as VirtualServerKey);
  if (type === 'hash:ip,port') return base;
  if (type === 'hash:ip,port,ip') return `${base},${formatAddress(entry.slice(server) as Address)}`;
  const bits = entry.charCodeAt(server);
  const address = entry.slice(server + 1) as Address;
  const isHost = bits === addressLength(address.length === 4 ? 4 : 6) * 8;
  return `${base},${formatAddress(address)}${isHost ? '' : `/${bits}`}`;
}

/** Others may put any protocol into a set: it is then shown by its number. */
function formatAddressPort(server: VirtualServerKey): string {
  const number = server.charCodeAt(0);
  const port = (server.charCodeAt(1) << 8) | server.charCodeAt(2);
  const protocol = protocolName(number)?.toLowerCase() ?? String(number);
  return `${formatAddress(server.slice(3) as Address)},${protocol}:${port}`;
}
