import { type NetlinkError } from '../../netlink/errors.js';
import { type Address } from '../../values/address.js';

export type AddressOperation = 'add-address' | 'delete-address';
export type RouteOperation = 'add-route' | 'delete-route';

/** One address, or the route that stands for it, that is to come or go. */
export interface AddressChange<Operation extends string = AddressOperation | RouteOperation> {
  readonly operation: Operation;
  /** Index of the link. */
  readonly index: number;
  readonly address: Address;
}

/** One that the kernel refused, or whose answer was lost (`error.resultUnknown`). */
export interface AddressFailure extends AddressChange {
  readonly error: NetlinkError;
}
