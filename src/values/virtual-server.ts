/**
 * Identities in the IPVS table as packed Latin-1 strings (see address.ts for why).
 *
 *   VirtualServerKey  protocol(1) port(2) address(4|16)          7 or 19 characters
 *                     0(1)        mark(4) family(1)              6 characters, keyed by a firewall mark
 *   RealServerKey     port(2) address(4|16)                      6 or 18 characters
 *   RealServerList    RealServerKeys of one family, sorted, without duplicates, concatenated
 *
 * A whole server pool is thus one string, and "did this pool change?" is one `===`.
 */
import { type Address, type Family, formatAddress } from './address.js';
import { type Protocol, protocolName, protocolNumber } from './protocol.js';

declare const virtualServerBrand: unique symbol;
declare const realServerBrand: unique symbol;
declare const realServerListBrand: unique symbol;
export type VirtualServerKey = string & { readonly [virtualServerBrand]: true };
export type RealServerKey = string & { readonly [realServerBrand]: true };
export type RealServerList = string & { readonly [realServerListBrand]: true };

/**
 * IP_VS_SVC_F_* of include/uapi/linux/ip_vs.h that this program sets. SCHED1 and SCHED2 mean fallback and port to `sh`
 * and `mh`.
 */
export const FLAG_PERSISTENT = 0x1;
export const FLAG_HASHED = 0x2;
export const FLAG_SCHED_FALLBACK = 0x8;
export const FLAG_SCHED_PORT = 0x10;

/** What `ipvsadm -A/-E` sets. `flags` never holds FLAG_HASHED, which is the kernel's own. */
export interface VirtualServerSettings {
  readonly scheduler: string;
  readonly flags: number;
  /** Persistence timeout in seconds; 0 without FLAG_PERSISTENT. */
  readonly timeout: number;
}

export function addressServerKey(protocol: Protocol, address: Address, port: number): VirtualServerKey {
  return (String.fromCharCode(protocolNumber(protocol), port >> 8, port & 255) + address) as VirtualServerKey;
}

export function fwmarkServerKey(family: Family, mark: number): VirtualServerKey {
  return String.fromCharCode(
    0,
    mark >>> 24,
    (mark >>> 16) & 255,
    (mark >>> 8) & 255,
    mark & 255,
    family,
  ) as VirtualServerKey;
}

/**
 * A VirtualServerKey taken apart. Address-keyed servers have mark 0, mark-keyed ones protocol, port and address
 * undefined.
 */
export type VirtualServerIdentity =
  | { readonly kind: 'address'; readonly protocol: Protocol; readonly address: Address; readonly port: number }
  | { readonly kind: 'fwmark'; readonly family: Family; readonly mark: number };

export function virtualServerIdentity(key: VirtualServerKey): VirtualServerIdentity {
  const first = key.charCodeAt(0);
  if (first === 0) {
    const mark =
      ((key.charCodeAt(1) << 24) | (key.charCodeAt(2) << 16) | (key.charCodeAt(3) << 8) | key.charCodeAt(4)) >>> 0;
    return { kind: 'fwmark', family: key.charCodeAt(5) as Family, mark };
  }
  return {
    kind: 'address',
    protocol: protocolName(first)!,
    address: key.slice(3) as Address,
    port: (key.charCodeAt(1) << 8) | key.charCodeAt(2),
  };
}

/** True for a virtual server keyed by a firewall mark: never one of ours. */
export function isFwmarkKey(key: VirtualServerKey): boolean {
  return key.charCodeAt(0) === 0;
}

export function virtualServerFamily(key: VirtualServerKey): Family {
  if (isFwmarkKey(key)) return key.charCodeAt(5) as Family;
  return key.length === 7 ? 4 : 6;
}

export function isTcp(key: VirtualServerKey): boolean {
  return key.charCodeAt(0) === 6;
}

export function isUdp(key: VirtualServerKey): boolean {
  return key.charCodeAt(0) === 17;
}

/** `TCP 10.96.0.1:443`, `UDP [fd00::1]:53`, `FWM 16 IPv4`: for logs and status pages. */
export function formatVirtualServer(key: VirtualServerKey): string {
  const identity = virtualServerIdentity(key);
  if (identity.kind === 'fwmark') return `FWM ${identity.mark} IPv${identity.family}`;
  return `${identity.protocol} ${formatHostPort(identity.address, identity.port)}`;
}

export function realServerKey(address: Address, port: number): RealServerKey {
  return (String.fromCharCode(port >> 8, port & 255) + address) as RealServerKey;
}

export function realServerAddress(key: RealServerKey): Address {
  return key.slice(2) as Address;
}

export function realServerPort(key: RealServerKey): number {
  return (key.charCodeAt(0) << 8) | key.charCodeAt(1);
}

export function formatRealServer(key: RealServerKey): string {
  return formatHostPort(realServerAddress(key), realServerPort(key));
}

/** Length in characters of one RealServerKey of this family. */
export function realServerKeyLength(family: Family): 6 | 18 {
  return family === 4 ? 6 : 18;
}

/** Sorts, drops duplicates and concatenates; all keys must be of one family. */
export function realServerList(keys: readonly RealServerKey[]): RealServerList {
  if (keys.length < 2) return (keys[0] ?? '') as string as RealServerList;
  const sorted = [...keys].sort();
  const distinct = sorted.filter((key, i) => key !== sorted[i - 1]);
  // One flat string; concatenating piece by piece would leave a tree of small strings on the heap.
  return distinct.join('') as RealServerList;
}

/** The keys of a list; `family` tells where to cut. */
export function realServerKeys(list: RealServerList, family: Family): RealServerKey[] {
  const length = realServerKeyLength(family);
  const keys: RealServerKey[] = [];
  for (let i = 0; i < list.length; i += length) keys.push(list.slice(i, i + length) as RealServerKey);
  return keys;
}

export function formatHostPort(address: Address, port: number): string {
  return address.length === 4 ? `${formatAddress(address)}:${port}` : `[${formatAddress(address)}]:${port}`;
}
