import { type NftElement } from '../../values/nftables.js';

/** The elements of a set of ranges, by all of their key but the address whose range they are. */
export class Ranges {
  readonly #groups = new Map<string, Map<string, NftElement>>();

  constructor(elements: Iterable<NftElement>) {
    for (const element of elements) this.add(element);
  }

  add(element: NftElement): void {
    const group = this.#groups.get(groupOf(element)) ?? new Map<string, NftElement>();
    this.#groups.set(groupOf(element), group.set(identityOf(element), element));
  }

  delete(element: NftElement): void {
    this.#groups.get(groupOf(element))?.delete(identityOf(element));
  }

  has(element: NftElement): boolean {
    return this.#groups.get(groupOf(element))?.has(identityOf(element)) === true;
  }

  /** Those that `element` overlaps with and is not. */
  overlapping(element: NftElement): NftElement[] {
    const others = this.#groups.get(groupOf(element))?.values() ?? [];
    const [first, last] = [element.key, element.end ?? element.key];
    return [...others].filter((other) => {
      const end = other.end ?? other.key;
      return other.key <= last && first <= end && (other.key !== first || end !== last);
    });
  }
}

/** A key is an address, two words and an address. */
function groupOf({ key }: NftElement): string {
  return key.slice(0, key.length - (key.length - 8) / 2);
}

function identityOf({ key, end = key }: NftElement): string {
  return key + end;
}
