import { type SetDefinition, type SetEntry } from '../values/ip-set.js';
import { type DesiredState, type Touched } from '../desired/desired-state.js';
import { type SetName } from '../desired/set-definitions.js';
import { Pacer } from './pacer.js';

/** One entry that the kernel refused. */
export interface SetFailure {
  readonly set: string;
  readonly entry: SetEntry;
  readonly error: Error & { readonly code: string };
}

/** What this layer needs of the kernel's ipsets; every call is one or few messages whatever the number of entries. */
export interface SetStore {
  /** Adds entries; one that is there already counts as success. */
  addEntries(set: SetDefinition, entries: readonly SetEntry[]): readonly SetFailure[];
  /** Deletes entries; one that is gone already counts as success. */
  deleteEntries(set: SetDefinition, entries: readonly SetEntry[]): readonly SetFailure[];
}

/** Entries handed over in one go: the kernel takes about 1.5 us for each, and the event loop waits. */
const SLICE = 500;

/** Keeps the entries of the KUBE-* sets. */
export class SetApplier {
  #failures: SetFailure[] = [];
  #changes = 0;

  constructor(
    readonly store: SetStore,
    readonly definitions: ReadonlyMap<string, SetDefinition>,
  ) {}

  /** Adds (before virtual servers appear) or deletes (after they are gone) the touched entries, as desired. */
  async apply(entries: Touched['entries'], desired: DesiredState, pass: 'add' | 'delete'): Promise<void> {
    for (const [set, touched] of entries) await this.#applySet(set, touched, desired, pass);
  }

  takeFailures(): SetFailure[] {
    const taken = this.#failures;
    this.#failures = [];
    return taken;
  }

  takeChanges(): number {
    const taken = this.#changes;
    this.#changes = 0;
    return taken;
  }

  async #applySet(
    set: SetName,
    touched: Iterable<SetEntry>,
    desired: DesiredState,
    pass: 'add' | 'delete',
  ): Promise<void> {
    const definition = this.definitions.get(set);
    if (definition === undefined) return; // a set of a family that this node does not serve
    const wanted = desired.entries(set);
    const entries = [...touched].filter((entry) => wanted.has(entry) === (pass === 'add'));
    const pacer = new Pacer(undefined, undefined, 1);
    this.#changes += entries.length;
    for (let from = 0; from < entries.length; from += SLICE) {
      const slice = entries.slice(from, from + SLICE);
      const { store } = this;
      const failed = pass === 'add' ? store.addEntries(definition, slice) : store.deleteEntries(definition, slice);
      this.#failures.push(...failed);
      await pacer.breathe();
    }
  }
}
