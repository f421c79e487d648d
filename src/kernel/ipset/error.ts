import { type NetlinkError, errnoName } from '../../netlink/errors.js';

/** enum ipset_errno of include/uapi/linux/netfilter/ipset/ip_set.h, from 4097 on. */
const COMMON_CODES = [
  'IPSET_ERR_PROTOCOL',
  'IPSET_ERR_FIND_TYPE',
  'IPSET_ERR_MAX_SETS',
  'IPSET_ERR_BUSY',
  'IPSET_ERR_EXIST_SETNAME2',
  'IPSET_ERR_TYPE_MISMATCH',
  'IPSET_ERR_EXIST',
  'IPSET_ERR_INVALID_CIDR',
  'IPSET_ERR_INVALID_NETMASK',
  'IPSET_ERR_INVALID_FAMILY',
  'IPSET_ERR_TIMEOUT',
  'IPSET_ERR_REFERENCED',
  'IPSET_ERR_IPADDR_IPV4',
  'IPSET_ERR_IPADDR_IPV6',
  'IPSET_ERR_COUNTER',
  'IPSET_ERR_COMMENT',
  'IPSET_ERR_INVALID_MARKMASK',
  'IPSET_ERR_SKBINFO',
];
/** Type-specific errors, from 4352 on: include/linux/netfilter/ipset/ip_set_hash.h and ip_set_bitmap.h. */
const HASH_CODES = [
  'IPSET_ERR_HASH_FULL',
  'IPSET_ERR_HASH_ELEM',
  'IPSET_ERR_INVALID_PROTO',
  'IPSET_ERR_MISSING_PROTO',
  'IPSET_ERR_HASH_RANGE_UNSUPPORTED',
  'IPSET_ERR_HASH_RANGE',
];
const BITMAP_CODES = ['IPSET_ERR_BITMAP_RANGE', 'IPSET_ERR_BITMAP_RANGE_SIZE'];

const FIXES: Readonly<Record<string, string>> = {
  IPSET_ERR_FIND_TYPE: 'the kernel lacks this set type (modprobe the ip_set module of the type on the node)',
  IPSET_ERR_BUSY: 'the set is in use by iptables rules or another set',
  IPSET_ERR_HASH_FULL: 'the set is full (maxelem)',
  EPERM: 'no permission (CAP_NET_ADMIN)',
};

/** The name of a positive error number that ipset answered with; `setType` distinguishes type-specific ones. */
export function ipsetErrorName(errno: number, setType?: string): string {
  if (errno >= 4352) {
    return (setType?.startsWith('bitmap:') ? BITMAP_CODES : HASH_CODES)[errno - 4352] ?? `IPSET_ERR_${errno}`;
  }
  return errno > 4096 ? (COMMON_CODES[errno - 4097] ?? `IPSET_ERR_${errno}`) : errnoName(errno);
}

/** The kernel refused an ipset operation, or its answer was lost (`resultUnknown`). */
export class IpsetError extends Error {
  override readonly name = 'IpsetError';
  readonly code: string;
  readonly errno: number;
  /** True when the kernel may or may not have done it. */
  readonly resultUnknown: boolean;

  constructor(
    readonly operation: string,
    readonly set: string,
    cause: NetlinkError,
    setType?: string,
  ) {
    const code = ipsetErrorName(cause.errno, setType);
    const fix = FIXES[code];
    const unknown = cause.resultUnknown ? ' (answer lost, result unknown)' : '';
    super(`ipset ${operation}${set && ` ${set}`}: ${code}${fix ? `: ${fix}` : ''}${unknown}`, { cause });
    this.code = code;
    this.errno = cause.errno;
    this.resultUnknown = cause.resultUnknown;
  }
}

/** The kernel has no ipset: the module ip_set is neither loaded nor built in. */
export class IpsetUnavailableError extends Error {
  override readonly name = 'IpsetUnavailableError';

  constructor(options?: ErrorOptions) {
    super('the kernel has no ipset: module ip_set is not loaded (fix: modprobe ip_set on the node)', options);
  }
}
