import {
  type Address,
  type Family,
  addressLength,
  familyOf,
  formatAddress,
  isMapped,
  parseUnmapped,
} from './address.js';

/** A CIDR block; `address` is already masked to `bits`. */
export interface Prefix {
  readonly address: Address;
  readonly bits: number;
}

/**
 * Parses `10.0.0.0/8` or `fd00::/64` as kube-proxy does (netutils.ParseCIDRSloppy), masking host bits; leading zeros
 * are decimal, and `::ffff:10.0.0.0/104` is 10.0.0.0/8. undefined when malformed.
 */
export function parsePrefix(text: string): Prefix | undefined {
  const slash = text.indexOf('/');
  if (slash < 0) return undefined;
  const address = parseUnmapped(text.slice(0, slash));
  const bitsText = text.slice(slash + 1);
  if (address === undefined || !/^[0-9]+$/.test(bitsText)) return undefined;
  const bits = Number(bitsText);
  if (bits > address.length * 8) return undefined;
  const masked = maskAddress(address, bits);
  // Go masks all 16 bytes, and takes for IPv4 what is still IPv4-mapped then.
  if (isMapped(masked)) return { address: masked.slice(12) as Address, bits: bits - 96 };
  return { address: masked, bits };
}

export function formatPrefix(prefix: Prefix): string {
  return `${formatAddress(prefix.address)}/${prefix.bits}`;
}

export function prefixFamily(prefix: Prefix): Family {
  return familyOf(prefix.address);
}

/** The /32 or /128 that holds just this address. */
export function hostPrefix(address: Address): Prefix {
  return { address, bits: addressLength(familyOf(address)) * 8 };
}

/** The block of `bits` that holds this address. */
export function prefixOf(address: Address, bits: number): Prefix {
  return { address: maskAddress(address, bits), bits };
}

/** True when `address` is of the prefix's family and inside it. */
export function prefixContains(prefix: Prefix, address: Address): boolean {
  return address.length === prefix.address.length && maskAddress(address, prefix.bits) === prefix.address;
}

function maskAddress(address: Address, bits: number): Address {
  const whole = bits >> 3;
  if (whole === address.length) return address;
  const mask = 0xff & (0xff << (8 - (bits & 7)));
  const partial = String.fromCharCode(address.charCodeAt(whole) & mask);
  return (address.slice(0, whole) + partial + '\0'.repeat(address.length - whole - 1)) as Address;
}
