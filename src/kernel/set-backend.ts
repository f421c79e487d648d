import { type IpsetDefinition, type IpsetEntry } from '../values/ipset.js';

/** An error with a symbolic code, `ENOENT` or `IPSET_ERR_BUSY`. */
export type CodedError = Error & { readonly code: string };

/** One element that the kernel refused (or whose fate is unknown). */
export interface SetFailure {
  readonly set: string;
  readonly entry: IpsetEntry;
  readonly error: CodedError;
}

/** What became of a set that must be there. */
export type EnsuredSet =
  | { readonly name: string; readonly outcome: 'created' | 'kept' | 'replaced' }
  | { readonly name: string; readonly outcome: 'failed'; readonly error: CodedError };

/**
 * A set that is there: `readable`: of the right kind, but to be made anew (its elements expire); `other`: not even
 * that.
 */
export type PresentSet = 'fits' | 'readable' | 'other';

/** The sets that the rules look into, in ipset or in nf_tables. Every call about elements is one or few messages. */
export interface SetBackend {
  /**
   * False: a list may have some elements twice and lack others, while the kernel makes more room for the set. What
   * differs from what is expected has to be read until two lists say the same.
   */
  readonly isListExact: boolean;
  /** Which of these sets are there. Throws IpsetError or NetlinkError. */
  present(definitions: Iterable<IpsetDefinition>): ReadonlyMap<string, PresentSet>;
  /** Makes sure of one set after the other, with each step. Throws when the sets cannot be listed. */
  ensure(definitions: Iterable<IpsetDefinition>): Iterable<EnsuredSet>;
  /** The elements of one set; none where there is no such set. Throws IpsetError or NetlinkError. */
  entriesOf(definition: IpsetDefinition): IpsetEntry[];
  /**
   * Puts all elements of one set into what `fresh` makes (once for each attempt), with a `pause` now and then. Rejects
   * with IpsetError or NetlinkError.
   */
  listEntriesPaced<Found>(
    definition: IpsetDefinition,
    fresh: () => Found,
    add: (found: Found, entry: IpsetEntry) => void,
    pause: () => Promise<void>,
  ): Promise<Found>;
  /** Adds entries; one that is there already counts as success. */
  addEntries(set: IpsetDefinition, entries: readonly IpsetEntry[]): readonly SetFailure[];
  /** Deletes entries; one that is gone already counts as success. */
  deleteEntries(set: IpsetDefinition, entries: readonly IpsetEntry[]): readonly SetFailure[];
}
