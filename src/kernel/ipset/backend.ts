import { type IpsetDefinition, type IpsetEntry } from '../../values/ipset.js';
import { type EnsuredSet, type PresentSet, type SetBackend, type SetFailure } from '../set-backend.js';
import { type IpsetClient, isSameKind } from './client.js';
import { IpsetError } from './error.js';

/** The sets as ipsets. */
export class IpsetBackend implements SetBackend {
  readonly isListExact = true;

  constructor(readonly client: IpsetClient) {}

  present(definitions: Iterable<IpsetDefinition>): ReadonlyMap<string, PresentSet> {
    const listed = new Map(this.client.listSets().map((set) => [set.name, set]));
    const found = new Map<string, PresentSet>();
    for (const definition of definitions) {
      const set = listed.get(definition.name);
      if (set === undefined) continue;
      const isReadable = isSameKind(definition, set);
      found.set(definition.name, !isReadable ? 'other' : set.hasTimeout ? 'readable' : 'fits');
    }
    return found;
  }

  *ensure(definitions: Iterable<IpsetDefinition>): Generator<EnsuredSet> {
    const listed = new Map(this.client.listSets().map((set) => [set.name, set]));
    for (const definition of definitions) {
      const { name } = definition;
      try {
        yield { name, outcome: this.client.ensureSet(definition, listed.get(name)) };
      } catch (error) {
        if (!(error instanceof IpsetError)) throw error;
        yield { name, outcome: 'failed', error };
      }
    }
  }

  entriesOf(definition: IpsetDefinition): IpsetEntry[] {
    const isThere = this.client.listSets().some((set) => set.name === definition.name);
    return isThere ? this.client.listEntries(definition) : [];
  }

  listEntriesPaced<Found>(
    definition: IpsetDefinition,
    fresh: () => Found,
    add: (found: Found, entry: IpsetEntry) => void,
    pause: () => Promise<void>,
  ): Promise<Found> {
    return this.client.listEntriesPaced(definition, fresh, add, pause);
  }

  addEntries(set: IpsetDefinition, entries: readonly IpsetEntry[]): readonly SetFailure[] {
    return this.client.addEntries(set, entries);
  }

  deleteEntries(set: IpsetDefinition, entries: readonly IpsetEntry[]): readonly SetFailure[] {
    return this.client.deleteEntries(set, entries);
  }
}
