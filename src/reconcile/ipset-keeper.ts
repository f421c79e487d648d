import { type IpsetDefinition, type IpsetEntry } from '../values/ipset.js';
import { type IpsetClient } from '../kernel/ipset/client.js';
import { IpsetError } from '../kernel/ipset/error.js';
import { type IpsetName } from '../desired/ipset-definitions.js';
import { READING_SLICE_MS, StopFlag } from './pacer.js';

export interface EnsuredSets {
  readonly created: readonly string[];
  /** There was one of another type under this name, or one whose entries expire. */
  readonly replaced: readonly string[];
  /** Could not be made as they should be: somebody's rules hold on to one of another type, say. */
  readonly failed: readonly { readonly name: string; readonly error: IpsetError }[];
}

/**
 * Makes sure that every set exists, so that the rules can refer to them. Throws IpsetError when the sets cannot be
 * listed; what cannot be made right is in `failed`, and the others are made.
 */
export async function ensureSets(
  ipset: IpsetClient,
  definitions: ReadonlyMap<string, IpsetDefinition>,
  stop = new StopFlag(),
): Promise<EnsuredSets> {
  const pacer = stop.pacer();
  const present = new Map(ipset.listSets().map((set) => [set.name, set]));
  const created: string[] = [];
  const replaced: string[] = [];
  const failed: EnsuredSets['failed'][number][] = [];
  for (const definition of definitions.values()) {
    const { name } = definition;
    try {
      const outcome = ipset.ensureSet(definition, present.get(name));
      if (outcome === 'created') created.push(name);
      if (outcome === 'replaced') replaced.push(name);
    } catch (error) {
      if (!(error instanceof IpsetError)) throw error;
      failed.push({ name, error });
    }
    await pacer.yieldIfDue();
  }
  return { created, replaced, failed };
}

/** The entries of one set; the keys of a Map will do. */
export type SetEntries = Pick<ReadonlySet<IpsetEntry>, 'has' | 'size' | 'keys'>;

const NONE: SetEntries = new Set();

/**
 * The entries of every set. Those of a set that holds just what is desired are that very object. Throws IpsetError.
 */
export async function readSets(
  ipset: IpsetClient,
  definitions: ReadonlyMap<string, IpsetDefinition>,
  desired: (set: IpsetName) => SetEntries = () => NONE,
  betweenSets: () => Promise<void> = () => Promise.resolve(),
  stop = new StopFlag(),
): Promise<Map<IpsetName, SetEntries>> {
  const pacer = stop.pacer(1, READING_SLICE_MS);
  const sets = new Map<IpsetName, SetEntries>();
  for (const definition of definitions.values()) {
    const name = definition.name as IpsetName;
    const desiredEntries = desired(name);
    const pause = (): Promise<void> => pacer.yieldIfDue();
    // Nearly always the set is as desired: then nothing is made that the garbage collector would have to move.
    const count = (counted: { desired: number; others: number }, entry: IpsetEntry): void =>
      void (desiredEntries.has(entry) ? counted.desired++ : counted.others++);
    const counts = await ipset.listEntriesPaced(definition, () => ({ desired: 0, others: 0 }), count, pause);
    const isAsDesired = counts.desired === desiredEntries.size && counts.others === 0;
    const keep = (observed: Set<IpsetEntry>, entry: IpsetEntry): void => void observed.add(entry);
    sets.set(
      name,
      isAsDesired ? desiredEntries : await ipset.listEntriesPaced(definition, () => new Set(), keep, pause),
    );
    await betweenSets();
  }
  return sets;
}
