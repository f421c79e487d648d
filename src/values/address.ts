/**
 * IP addresses as packed strings: one Latin-1 character per byte in network order, so 4 characters for IPv4 and 16 for
 * IPv6. Such a string is a Map key, compares with `===`, costs 16 + n bytes on the V8 heap, and is copied into a
 * netlink attribute byte by byte; 500,000 endpoints as objects would cost ten times as much.
 */
declare const addressBrand: unique symbol;
export type Address = string & { readonly [addressBrand]: true };

export type Family = 4 | 6;
export const FAMILIES: readonly Family[] = [4, 6];

/** The family of a packed address. */
export function familyOf(address: Address): Family {
  return address.length === 4 ? 4 : 6;
}

/** Length in bytes of an address of this family. */
export function addressLength(family: Family): 4 | 16 {
  return family === 4 ? 4 : 16;
}

/**
 * Parses an address as kube-proxy does (netutils.ParseIPSloppy, Go's net.ParseIP before 1.17): objects from before the
 * API's validation got strict are still in clusters. Leading zeros are decimal, `::ffff:192.0.2.1` is the IPv4 address.
 * undefined when malformed.
 */
export function parseAddress(text: string): Address | undefined {
  const packed = parseUnmapped(text);
  return packed !== undefined && isMapped(packed) ? (packed.slice(12) as Address) : packed;
}

/** True for ::ffff:0:0/96, IPv4 addresses in IPv6 form. */
export function isMapped(address: Address): boolean {
  return address.length === 16 && address.startsWith(MAPPED_PREFIX);
}

/** As parseAddress, but `::ffff:192.0.2.1` stays the 16 bytes that it is; for prefixes, whose length counts them. */
export function parseUnmapped(text: string): Address | undefined {
  return text.includes(':') ? parseIPv6(text) : parseIPv4(text);
}

/** The canonical textual form: dotted quad, or RFC 5952. */
export function formatAddress(address: Address): string {
  return address.length === 4 ? formatIPv4(address) : formatIPv6(address);
}

/** Packs `length` bytes of `bytes` from `offset`; the caller vouches for the range. */
export function addressFromBytes(bytes: Uint8Array, offset: number, family: Family): Address {
  if (family === 4) {
    return String.fromCharCode(bytes[offset]!, bytes[offset + 1]!, bytes[offset + 2]!, bytes[offset + 3]!) as Address;
  }
  let packed = '';
  for (let i = 0; i < 16; i++) packed += String.fromCharCode(bytes[offset + i]!);
  return packed as Address;
}

/** True for 127.0.0.0/8 and ::1. */
export function isLoopback(address: Address): boolean {
  if (address.length === 4) return address.charCodeAt(0) === 127;
  return address === LOOPBACK_6;
}

/** True for 169.254.0.0/16 and fe80::/10. */
export function isLinkLocal(address: Address): boolean {
  const [first, second] = [address.charCodeAt(0), address.charCodeAt(1)];
  return address.length === 4 ? first === 169 && second === 254 : first === 0xfe && (second & 0xc0) === 0x80;
}

/** True for fe80::/10: it means nothing without a zone, and each link that is up has one of its own. */
export function isIpv6LinkLocal(address: Address): boolean {
  return address.length === 16 && isLinkLocal(address);
}

/**
 * True for what may be a VIP or an endpoint: what the API's validation lets through (ValidateNonSpecialIP) and the
 * kernel takes. Left out are 0.0.0.0/8, loopback, multicast, 255.255.255.255, ::, and IPv6 link-local. 240.0.0.0/4
 * stays: the kernel routes it, and clouds give it to Pods.
 */
export function isServable(address: Address): boolean {
  if (address.length === 4 && (address.charCodeAt(0) === 0 || address === BROADCAST_4)) return false;
  return !isUnspecified(address) && !isLoopback(address) && !isMulticast(address) && !isIpv6LinkLocal(address);
}

/** True for 0.0.0.0 and ::. */
export function isUnspecified(address: Address): boolean {
  for (let i = 0; i < address.length; i++) if (address.charCodeAt(i) !== 0) return false;
  return true;
}

/** True for 224.0.0.0/4 and ff00::/8. */
export function isMulticast(address: Address): boolean {
  const first = address.charCodeAt(0);
  return address.length === 4 ? first >= 224 && first <= 239 : first === 0xff;
}

function parseIPv4(text: string): Address | undefined {
  let packed = '';
  let octet = -1;
  let octets = 0;
  for (let i = 0; i <= text.length; i++) {
    const code = i === text.length ? 46 : text.charCodeAt(i);
    if (code === 46) {
      if (octet < 0 || ++octets > 4) return undefined;
      packed += String.fromCharCode(octet);
      octet = -1;
    } else if (code >= 48 && code <= 57) {
      octet = (octet < 0 ? 0 : octet * 10) + code - 48;
      if (octet > 255) return undefined;
    } else return undefined;
  }
  return octets === 4 ? (packed as Address) : undefined;
}

function parseIPv6(text: string): Address | undefined {
  const halves = text.split('::');
  if (halves.length > 2) return undefined;
  const head = parseGroups(halves[0]!, halves.length === 1);
  if (head === undefined) return undefined;
  if (halves.length === 1) return head.length === 16 ? (head as Address) : undefined;
  const tail = parseGroups(halves[1]!, true);
  if (tail === undefined || head.length + tail.length > 14) return undefined;
  return (head + '\0'.repeat(16 - head.length - tail.length) + tail) as Address;
}

function parseGroups(text: string, isLast: boolean): string | undefined {
  if (text === '') return '';
  const groups = text.split(':');
  let packed = '';
  for (const [index, group] of groups.entries()) {
    if (isLast && index === groups.length - 1 && group.includes('.')) {
      const embedded = parseIPv4(group);
      if (embedded === undefined) return undefined;
      packed += embedded;
    } else {
      const value = /^[0-9a-fA-F]+$/.test(group) ? parseInt(group, 16) : NaN;
      if (!(value <= 0xffff)) return undefined;
      packed += String.fromCharCode(value >> 8, value & 255);
    }
  }
  return packed;
}

function formatIPv4(address: string): string {
  return `${address.charCodeAt(0)}.${address.charCodeAt(1)}.${address.charCodeAt(2)}.${address.charCodeAt(3)}`;
}

function formatIPv6(address: string): string {
  const groups: number[] = [];
  for (let i = 0; i < 16; i += 2) groups.push((address.charCodeAt(i) << 8) | address.charCodeAt(i + 1));
  const [start, length] = longestZeroRun(groups);
  const hex = (part: number[]): string => part.map((group) => group.toString(16)).join(':');
  if (length < 2) return hex(groups);
  return `${hex(groups.slice(0, start))}::${hex(groups.slice(start + length))}`;
}

function longestZeroRun(groups: number[]): [start: number, length: number] {
  let best: [number, number] = [0, 0];
  for (let i = 0; i < groups.length; i++) {
    let end = i;
    while (end < groups.length && groups[end] === 0) end++;
    if (end - i > best[1]) best = [i, end - i];
    if (end > i) i = end;
  }
  return best;
}

const BROADCAST_4 = '\xff'.repeat(4);
const LOOPBACK_6 = '\0'.repeat(15) + '\x01';
const MAPPED_PREFIX = '\0'.repeat(10) + '\xff\xff';
