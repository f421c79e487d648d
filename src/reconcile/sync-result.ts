import { formatAddress } from '../values/address.js';
import { formatSetEntry } from '../values/ip-set.js';
import { type AddressFailure } from '../kernel/rtnetlink/client.js';
import { type IpvsFailure } from '../kernel/ipvs/client.js';
import { type Touched, touchEntry } from '../desired/desired-state.js';
import { type SetName, allSetDefinitions } from '../desired/set-definitions.js';
import { type SetFailure } from './set-applier.js';

/** One refused change, in words for the log and labels for the metric. */
export interface Failure {
  readonly operation: string;
  /** errno name, or `unknown` */
  readonly code: string;
  readonly message: string;
}

export interface ApplyFailures {
  readonly ipvs: readonly IpvsFailure[];
  readonly addresses: readonly AddressFailure[];
  readonly sets: readonly SetFailure[];
}

/** Puts what failed back among what is to be done, so that the next sync tries it again. */
export function retouch(failures: ApplyFailures, touched: Touched): void {
  for (const { virtualServer } of failures.ipvs) touched.servers.add(virtualServer);
  for (const { address } of failures.addresses) touched.addresses.add(address);
  for (const { set, entry } of failures.sets) touchEntry(touched, set as SetName, entry);
}

export function describeFailures(failures: ApplyFailures): Failure[] {
  const definitions = allSetDefinitions();
  return [
    ...failures.ipvs.map(({ operation, error }) => ({ operation, code: error.code, message: error.message })),
    ...failures.addresses.map(({ operation, address, error }) => ({
      operation,
      code: error.code,
      message: `${formatAddress(address)}: ${error.message}`,
    })),
    ...failures.sets.map(({ set, entry, error }) => ({
      operation: 'set-entry',
      code: error.code,
      message: `${set} ${formatSetEntry(definitions.get(set as SetName)!.type, entry)}: ${error.message}`,
    })),
  ];
}
