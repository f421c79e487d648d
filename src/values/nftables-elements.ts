/** The sets of ipset's types as sets of nf_tables, and their entries as elements. */
import { type Family, addressLength } from './address.js';
import { type IpsetDefinition, type IpsetEntry, type IpsetType } from './ipset.js';
import { type NftElement, type NftKeyField, type NftSet } from './nftables.js';

/** Datatypes as nftables numbers them, for `nft list` (include/datatype.h there). */
const PROTOCOL: NftKeyField = { datatype: 12, length: 1 };
const PORT: NftKeyField = { datatype: 13, length: 2 };
const ADDRESS: Readonly<Record<Family, NftKeyField>> = {
  4: { datatype: 7, length: addressLength(4) },
  6: { datatype: 8, length: addressLength(6) },
};

/** The set that holds what an ipset of this definition does. */
export function nftSet({ name, type, family }: IpsetDefinition): NftSet {
  return { name, key: keyOf(type, ADDRESS[family]), isInterval: type === 'hash:ip,port,net' };
}

function keyOf(type: IpsetType, address: NftKeyField): readonly NftKeyField[] {
  switch (type) {
    case 'bitmap:port':
      return [PORT];
    case 'hash:ip':
      return [address];
    case 'hash:ip,port':
      return [address, PROTOCOL, PORT];
    case 'hash:ip,port,ip':
    case 'hash:ip,port,net':
      return [address, PROTOCOL, PORT, address];
  }
}

/** protocol(1) port(2) address -> address, protocol and port, each in words of four bytes; and back. */
function packServer(entry: string, end: number): string {
  return `${entry.slice(3, end)}${entry[0]!}\0\0\0${entry.slice(1, 3)}\0\0`;
}

function unpackServer(key: string, addressEnd: number): string {
  return key[addressEnd]! + key.slice(addressEnd + 4, addressEnd + 6) + key.slice(0, addressEnd);
}

/** The element that stands for an entry of an ipset of this type. */
export function nftElement(type: IpsetType, entry: IpsetEntry): NftElement {
  if (type === 'bitmap:port' || type === 'hash:ip') return { key: entry };
  const end = entry.length < 19 ? 7 : 19;
  const server = packServer(entry, end);
  if (type === 'hash:ip,port') return { key: server };
  if (type === 'hash:ip,port,ip') return { key: server + entry.slice(end) };
  const first = entry.slice(end + 1);
  return { key: server + first, end: server + lastOf(first, entry.charCodeAt(end)) };
}

/** The entry that an element stands for; a range that is no prefix is taken for the longest that it is in. */
export function ipsetEntry({ type, family }: IpsetDefinition, { key, end = key }: NftElement): IpsetEntry {
  if (type === 'bitmap:port' || type === 'hash:ip') return key as IpsetEntry;
  const length = addressLength(family);
  const server = unpackServer(key, length);
  if (type === 'hash:ip,port') return server as IpsetEntry;
  const first = key.slice(length + 8);
  if (type === 'hash:ip,port,ip') return (server + first) as IpsetEntry;
  return (server + String.fromCharCode(commonBits(first, end.slice(length + 8))) + first) as IpsetEntry;
}

/** The last address of a prefix. */
function lastOf(first: string, bits: number): string {
  let last = '';
  for (let i = 0; i < first.length; i++) {
    const free = Math.max(0, Math.min(8, 8 * (i + 1) - bits));
    last += String.fromCharCode(first.charCodeAt(i) | ((1 << free) - 1));
  }
  return last;
}

function commonBits(a: string, b: string): number {
  let i = 0;
  while (i < a.length && a[i] === b[i]) i++;
  if (i === a.length) return 8 * i;
  return 8 * i + Math.clz32(a.charCodeAt(i) ^ b.charCodeAt(i)) - 24;
}
