import { type NetworkInterfaceInfo, networkInterfaces } from 'node:os';
import { type Address, parseAddress } from '../../values/address.js';

type Interfaces = () => NodeJS.Dict<readonly Pick<NetworkInterfaceInfo, 'address'>[]>;

/**
 * The interfaces by which packets of other machines come in: those that hold an address of the Node object. They are
 * looked for when these addresses change, and as long as none is found; what comes in elsewhere counts as a pod of this
 * node.
 */
export class Uplinks {
  #addresses = '';
  #names: readonly string[] = [];

  constructor(readonly interfaces: Interfaces = networkInterfaces) {}

  /** Their names, sorted. */
  of(addresses: readonly Address[]): readonly string[] {
    const key = addresses.join();
    if (key === this.#addresses && this.#names.length > 0) return this.#names;
    this.#addresses = key;
    const isNode = ({ address }: { address: string }): boolean => addresses.includes(parseAddress(address)!);
    this.#names =
      addresses.length === 0
        ? []
        : Object.entries(this.interfaces())
            .filter(([, infos]) => infos?.some(isNode))
            .map(([name]) => name)
            .sort();
    return this.#names;
  }
}
