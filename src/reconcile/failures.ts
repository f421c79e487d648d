import { type Address, formatAddress } from '../values/address.js';
import { type IpsetEntry, formatIpsetEntry } from '../values/ipset.js';
import { VIP_LINKS } from '../values/vip-form.js';
import { type VirtualServerKey } from '../values/virtual-server.js';
import { type AddressFailure } from '../kernel/rtnetlink/address-change.js';
import { NetlinkError } from '../netlink/errors.js';
import { type IpvsFailure } from '../kernel/ipvs/client.js';
import { type SetFailure } from '../kernel/set-backend.js';
import { type Touched, touchEntry } from '../desired/desired-state.js';
import { type IpsetName, allIpsetDefinitions } from '../desired/ipset-definitions.js';

/** One refused change, in words for the log and labels for the metric. */
export interface Failure {
  readonly operation: string;
  /** errno name, or `unknown` */
  readonly code: string;
  readonly message: string;
  /** Another try or two will tell whether it is the object that is at fault: nothing to alarm anybody with yet. */
  readonly isOnTrial?: boolean;
}

export type RefusedObject = 'virtual_server' | 'real_server' | 'address' | 'set_entry';

/** What has to be touched for the change to be tried again. */
export type Retouch =
  | { readonly server: VirtualServerKey }
  | { readonly address: Address }
  | { readonly set: IpsetName; readonly entry: IpsetEntry };

/** One refused change with what identifies it. */
export interface RefusedChange extends Failure {
  readonly object: RefusedObject;
  /** Equal for refusals of the same object. */
  readonly id: string;
  /** The kernel's own verdict on this very object, and of a sort that does not pass by itself. */
  readonly isVerdict: boolean;
  readonly retouch: Retouch;
}

/** These are about the kernel's state, or the caller's rights, or pass by themselves. */
const PASSING = new Set([
  ...['ENOMEM', 'ENOBUFS', 'EINTR', 'EAGAIN', 'EBUSY', 'EPERM', 'ENODEV', 'ENETDOWN', 'EIO', 'ETIMEDOUT', 'ENFILE'],
  'EMFILE',
  // The kernel is not as applied: it is read back.
  ...['ESRCH', 'ENOENT', 'EEXIST', 'IPSET_ERR_EXIST', 'IPSET_ERR_BUSY'],
]);

/** Changes after whose refusal the kernel's state is known. */
const ADDITIONS: ReadonlySet<string> = new Set(['add-virtual-server', 'set-virtual-server', 'add-real-server']);

/** True when the kernel looked at this very IPVS change and will say the same next time. */
export function isIpvsVerdict({ operation, error }: IpvsFailure): boolean {
  return ADDITIONS.has(operation) && isVerdict(error);
}

function isVerdict(error: Error & { readonly code: string }): boolean {
  if ('resultUnknown' in error && error.resultUnknown === true) return false;
  if (PASSING.has(error.code)) return false;
  // The kernel's answer to one message is a NetlinkError by itself; when the datagram was refused it has the socket's
  // error as its cause.
  const answer = error instanceof NetlinkError ? error : error.cause;
  return answer instanceof NetlinkError && answer.cause === undefined;
}

/** What the kernel refused of one round of changes. */
export class RefusedChanges {
  readonly ipvs: IpvsFailure[] = [];
  readonly addresses: AddressFailure[] = [];
  readonly sets: SetFailure[] = [];

  /** All of them in one form. */
  *[Symbol.iterator](): Generator<RefusedChange> {
    for (const failure of this.ipvs) yield refusedIpvs(failure);
    for (const failure of this.addresses) yield refusedAddress(failure);
    for (const failure of this.sets) yield refusedEntry(failure);
  }
}

export function touchAgain(touched: Touched, retouch: Retouch): void {
  if ('server' in retouch) touched.servers.add(retouch.server);
  else if ('address' in retouch) touched.addresses.add(retouch.address);
  else touchEntry(touched, retouch.set, retouch.entry);
}

function refusedIpvs(failure: IpvsFailure): RefusedChange {
  const { operation, virtualServer: server, realServer, error } = failure;
  return {
    object: realServer === undefined ? 'virtual_server' : 'real_server',
    id: realServer === undefined ? server : `${server} ${realServer}`,
    operation,
    code: error.code,
    message: error.message,
    isVerdict: isIpvsVerdict(failure),
    retouch: { server },
  };
}

function refusedAddress({ operation, address, error }: AddressFailure): RefusedChange {
  const message = `${formatAddress(address)}: ${error.message}${addressHint(address, operation, error.code)}`;
  const isFinal = isVerdict(error);
  return {
    object: 'address',
    id: address,
    operation,
    code: error.code,
    message,
    isVerdict: isFinal,
    retouch: { address },
  };
}

function addressHint(address: Address, operation: AddressFailure['operation'], code: string): string {
  if (address.length !== 16 || code !== 'EACCES') return '';
  const link = VIP_LINKS[operation.endsWith('route') ? 'routes' : 'addresses'];
  return ` (net.ipv6.conf.${link}.disable_ipv6 is 1: set it to 0)`;
}

function refusedEntry({ set, entry, error }: SetFailure): RefusedChange {
  const { type } = allIpsetDefinitions().get(set as IpsetName)!;
  return {
    object: 'set_entry',
    id: `${set} ${entry}`,
    operation: 'set-entry',
    code: error.code,
    message: `${set} ${formatIpsetEntry(type, entry)}: ${error.message}`,
    isVerdict: isVerdict(error),
    retouch: { set: set as IpsetName, entry },
  };
}
