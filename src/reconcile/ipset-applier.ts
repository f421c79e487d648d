import { type IpsetDefinition, type IpsetEntry } from '../values/ipset.js';
import { type DesiredState, type Touched } from '../desired/desired-state.js';
import { type SetBackend } from '../kernel/set-backend.js';
import { type Round } from './round.js';

/** What this layer needs of the kernel's sets; every call is one or few messages whatever the number of entries. */
export type SetStore = Pick<SetBackend, 'addEntries' | 'deleteEntries'>;

/** Entries handed over in one go: the kernel takes about 1.5 us for each, and the event loop waits. */
const SLICE = 500;

/** Keeps the entries of the KUBE-* sets. */
export class IpsetApplier {
  constructor(
    readonly store: SetStore,
    readonly definitions: ReadonlyMap<string, IpsetDefinition>,
  ) {}

  /** Adds (before virtual servers appear) or deletes (after they are gone) the touched entries, as desired. */
  async apply(entries: Touched['entries'], desired: DesiredState, pass: 'add' | 'delete', round: Round): Promise<void> {
    for (const [set, touched] of entries) {
      const definition = this.definitions.get(set);
      if (definition === undefined) continue; // a set of a family that this node does not serve
      const desiredEntries = desired.entries(set);
      const changed = [...touched].filter((entry) => desiredEntries.has(entry) === (pass === 'add'));
      round.record.setEntries += changed.length;
      await this.#applySet(definition, changed, pass, round);
    }
  }

  async #applySet(
    definition: IpsetDefinition,
    entries: readonly IpsetEntry[],
    pass: 'add' | 'delete',
    round: Round,
  ): Promise<void> {
    const { store } = this;
    const pacer = round.record.stop.pacer(1);
    for (let from = 0; from < entries.length; from += SLICE) {
      const slice = entries.slice(from, from + SLICE);
      const failed = pass === 'add' ? store.addEntries(definition, slice) : store.deleteEntries(definition, slice);
      for (const failure of failed) round.refused.sets.push(failure);
      await pacer.yieldIfDue();
    }
  }
}
