import { NetlinkError } from '../../netlink/errors.js';
import { type IpsetDefinition, type IpsetEntry } from '../../values/ipset.js';
import { ipsetEntry, nftElement, nftSet } from '../../values/nftables-elements.js';
import { type NftElement, type NftOperation } from '../../values/nftables.js';
import { type EnsuredSet, type PresentSet, type SetBackend, type SetFailure } from '../set-backend.js';
import { type NftClient, type ObservedNftSet } from './client.js';
import { Ranges } from './ranges.js';
import { setKeyLength, setKeyType } from './transaction.js';

/** Of one transaction: of IPv6 with ranges they are 200 KiB. */
const MOST_ELEMENTS = 2000;

type Verb = 'add-elements' | 'delete-elements';

/** The sets in our tables of nf_tables, under the names and with the entries that ipsets would have. */
export class NftSets implements SetBackend {
  /** nft_rhash_walk goes on by counting, whatever has moved meanwhile. */
  readonly isListExact = false;
  /** Of each set of ranges, the elements in the kernel as far as known; see `#ofRanges`. */
  readonly #ranges = new Map<string, Ranges>();

  constructor(readonly client: NftClient) {}

  present(definitions: Iterable<IpsetDefinition>): ReadonlyMap<string, PresentSet> {
    const wanted = [...definitions];
    const listed = this.#listed(wanted);
    const found = new Map<string, PresentSet>();
    for (const definition of wanted) {
      const set = listed.get(definition.name);
      if (set !== undefined) found.set(definition.name, fits(definition, set) ? 'fits' : 'other');
    }
    return found;
  }

  *ensure(definitions: Iterable<IpsetDefinition>): Generator<EnsuredSet> {
    const wanted = [...definitions];
    const listed = this.#listed(wanted);
    for (const definition of wanted) {
      const { name, family } = definition;
      const present = listed.get(name);
      if (present !== undefined && fits(definition, present)) {
        yield { name, outcome: 'kept' };
        continue;
      }
      this.#ranges.delete(name);
      const operations: NftOperation[] = [{ verb: 'add-table' }];
      // Rules look into it: they go with it, and are written anew by who keeps them.
      if (present !== undefined) operations.push({ verb: 'flush-rules' }, { verb: 'delete-set', name });
      operations.push({ verb: 'add-set', set: nftSet(definition) });
      try {
        this.client.commit(family, `make nftables set ${name}`, operations);
        yield { name, outcome: present === undefined ? 'created' : 'replaced' };
      } catch (error) {
        if (!(error instanceof NetlinkError)) throw error;
        yield { name, outcome: 'failed', error };
      }
    }
  }

  entriesOf(definition: IpsetDefinition): IpsetEntry[] {
    return this.client.elementsOf(definition.family, definition.name).map((element) => ipsetEntry(definition, element));
  }

  listEntriesPaced<Found>(
    definition: IpsetDefinition,
    fresh: () => Found,
    add: (found: Found, entry: IpsetEntry) => void,
    pause: () => Promise<void>,
  ): Promise<Found> {
    const { family, name } = definition;
    return this.client.listElements(
      family,
      name,
      fresh,
      (found, element) => add(found, ipsetEntry(definition, element)),
      pause,
    );
  }

  addEntries(set: IpsetDefinition, entries: readonly IpsetEntry[]): readonly SetFailure[] {
    return this.#change('add-elements', set, entries);
  }

  deleteEntries(set: IpsetDefinition, entries: readonly IpsetEntry[]): readonly SetFailure[] {
    return this.#change('delete-elements', set, entries);
  }

  #listed(definitions: readonly IpsetDefinition[]): Map<string, ObservedNftSet> {
    const families = new Set(definitions.map(({ family }) => family));
    return new Map([...families].flatMap((family) => this.client.listSets(family)).map((set) => [set.name, set]));
  }

  /** All at once; when the kernel refuses that, which is all or nothing, one after the other. */
  #change(verb: Verb, set: IpsetDefinition, entries: readonly IpsetEntry[]): SetFailure[] {
    if (entries.length === 0) return [];
    if (entries.length > MOST_ELEMENTS)
      return [
        ...this.#change(verb, set, entries.slice(0, MOST_ELEMENTS)),
        ...this.#change(verb, set, entries.slice(MOST_ELEMENTS)),
      ];
    // The second time with the ranges that are there, read anew.
    let failure = this.#try(verb, set, entries);
    if (failure !== undefined && isOfRanges(set)) failure = this.#try(verb, set, entries);
    if (failure === undefined) return [];
    if (entries.length === 1 || failure.resultUnknown) {
      if (isDone(verb, failure)) return [];
      return entries.map((entry) => ({ set: set.name, entry, error: failure }));
    }
    return entries.flatMap((entry) => this.#change(verb, set, [entry]));
  }

  #try(verb: Verb, set: IpsetDefinition, entries: readonly IpsetEntry[]): NetlinkError | undefined {
    const { name, family } = set;
    const operation = `${verb === 'add-elements' ? 'add to' : 'delete from'} nftables set ${name}`;
    try {
      const elements = entries.map((entry) => nftElement(set.type, entry));
      const operations = isOfRanges(set) ? this.#ofRanges(verb, set, elements) : [{ verb, set: name, elements }];
      this.client.commit(family, operation, operations);
      return undefined;
    } catch (error) {
      this.#ranges.delete(name);
      if (!(error instanceof NetlinkError)) throw error;
      return error;
    }
  }

  /**
   * Ranges of one set must not overlap (nft_set_pipapo would refuse one, or delete the wrong one). What is desired
   * never does; what is about to be desired no more may overlap with what takes its place: it goes in the same
   * transaction.
   */
  #ofRanges(verb: Verb, set: IpsetDefinition, elements: readonly NftElement[]): NftOperation[] {
    let ranges = this.#rangesOf(set);
    // Somebody else's, or gone already.
    if (verb === 'delete-elements' && !elements.every((one) => ranges.has(one))) {
      this.#ranges.delete(set.name);
      ranges = this.#rangesOf(set);
    }
    const gone =
      verb === 'delete-elements'
        ? elements.filter((one) => ranges.has(one))
        : elements.flatMap((one) => ranges.overlapping(one));
    const operations: NftOperation[] = [];
    if (gone.length > 0) operations.push({ verb: 'delete-elements', set: set.name, elements: gone });
    for (const one of gone) ranges.delete(one);
    if (verb === 'add-elements') {
      operations.push({ verb, set: set.name, elements });
      for (const one of elements) ranges.add(one);
    }
    return operations;
  }

  #rangesOf({ name, family }: IpsetDefinition): Ranges {
    let ranges = this.#ranges.get(name);
    if (ranges === undefined) {
      ranges = new Ranges(this.client.elementsOf(family, name));
      this.#ranges.set(name, ranges);
    }
    return ranges;
  }
}

function fits(definition: IpsetDefinition, present: ObservedNftSet): boolean {
  const { key, isInterval } = nftSet(definition);
  const { keyType, keyLength, isOdd } = present;
  return !isOdd && present.isInterval === isInterval && keyType === setKeyType(key) && keyLength === setKeyLength(key);
}

function isOfRanges({ type }: IpsetDefinition): boolean {
  return type === 'hash:ip,port,net';
}

/** An element that is gone cannot be deleted, which is what was wanted. */
function isDone(verb: Verb, { code, resultUnknown }: NetlinkError): boolean {
  return verb === 'delete-elements' && code === 'ENOENT' && !resultUnknown;
}
