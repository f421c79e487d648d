import { formatAddress } from '../values/address.js';
import { type SetEntry, formatSetEntry } from '../values/ip-set.js';
import { type AddressFailure } from '../kernel/rtnetlink/client.js';
import { type IpvsFailure } from '../kernel/ipvs/client.js';
import { type Touched, touchEntry } from '../desired/desired-state.js';
import { type SetName, allSetDefinitions } from '../desired/set-definitions.js';

/** One refused change, in words for the log and labels for the metric. */
export interface Failure {
  readonly operation: string;
  /** errno name, or `unknown` */
  readonly code: string;
  readonly message: string;
}

/** One entry that the kernel refused. */
export interface SetFailure {
  readonly set: string;
  readonly entry: SetEntry;
  readonly error: Error & { readonly code: string };
}

/** What the kernel refused of one round of changes. */
export class RefusedChanges {
  readonly ipvs: IpvsFailure[] = [];
  readonly addresses: AddressFailure[] = [];
  readonly sets: SetFailure[] = [];

  /** Puts them back among what is to be done, so that the next sync tries them again. */
  retouch(touched: Touched): void {
    for (const { virtualServer } of this.ipvs) touched.servers.add(virtualServer);
    for (const { address } of this.addresses) touched.addresses.add(address);
    for (const { set, entry } of this.sets) touchEntry(touched, set as SetName, entry);
  }

  describe(): Failure[] {
    const definitions = allSetDefinitions();
    return [
      ...this.ipvs.map(({ operation, error }) => ({ operation, code: error.code, message: error.message })),
      ...this.addresses.map(({ operation, address, error }) => ({
        operation,
        code: error.code,
        message: `${formatAddress(address)}: ${error.message}`,
      })),
      ...this.sets.map(({ set, entry, error }) => ({
        operation: 'set-entry',
        code: error.code,
        message: `${set} ${formatSetEntry(definitions.get(set as SetName)!.type, entry)}: ${error.message}`,
      })),
    ];
  }
}
