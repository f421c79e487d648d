import { type IpsetDefinition, type IpsetEntry } from '../values/ipset.js';
import { type CodedError, type PresentSet, type SetBackend } from '../kernel/set-backend.js';
import { type IpsetName, allIpsetDefinitions } from '../desired/ipset-definitions.js';
import { UNINTERRUPTED, calmOf, turnWhile } from './interruption.js';
import { READING_SLICE_MS, StopFlag } from '../time/pacer.js';

export interface EnsuredSets {
  readonly created: readonly string[];
  /** There was one of another type under this name, or one whose entries expire. */
  readonly replaced: readonly string[];
  /** Could not be made as they should be: somebody's rules hold on to one of another type, say. */
  readonly failed: readonly { readonly name: string; readonly error: CodedError }[];
}

/**
 * Makes sure that every set exists, so that the rules can refer to them. Throws IpsetError or NetlinkError when the
 * sets cannot be listed; what cannot be made right is in `failed`, and the others are made.
 */
export async function ensureSets(
  sets: SetBackend,
  definitions: ReadonlyMap<string, IpsetDefinition>,
  stop = new StopFlag(),
): Promise<EnsuredSets> {
  const pacer = stop.pacer();
  const created: string[] = [];
  const replaced: string[] = [];
  const failed: EnsuredSets['failed'][number][] = [];
  for (const set of sets.ensure(definitions.values())) {
    if (set.outcome === 'created') created.push(set.name);
    else if (set.outcome === 'replaced') replaced.push(set.name);
    else if (set.outcome === 'failed') failed.push(set);
    await pacer.yieldIfDue();
  }
  return { created, replaced, failed };
}

/** The entries of one set; the keys of a Map will do. */
export type SetEntries = Pick<ReadonlySet<IpsetEntry>, 'has' | 'size' | 'keys'>;

const NONE: SetEntries = new Set();

/**
 * The entries of every set. Those of a set that holds just what is desired are that very object. Changes are let in by
 * `interruption` between two sets, and in the middle of one until an entry is changed. Throws IpsetError.
 */
export async function readSets(
  backend: SetBackend,
  definitions: ReadonlyMap<string, IpsetDefinition>,
  desired: (set: IpsetName) => SetEntries = () => NONE,
  interruption = UNINTERRUPTED,
  stop = new StopFlag(),
): Promise<Map<IpsetName, SetEntries>> {
  const pacer = stop.pacer(1, READING_SLICE_MS);
  const sets = new Map<IpsetName, SetEntries>();
  for (const definition of definitions.values()) {
    const name = definition.name as IpsetName;
    const desiredEntries = desired(name);
    const isCalm = calmOf(interruption, ({ entries }) => entries);
    const turn = turnWhile(isCalm, interruption);
    const pause = (): Promise<void> => pacer.yieldIfDue(turn);
    // Nearly always the set is as desired: then nothing is made that the garbage collector would have to move.
    const count = (counted: { desired: number; others: number }, entry: IpsetEntry): void =>
      void (desiredEntries.has(entry) ? counted.desired++ : counted.others++);
    const counts = await backend.listEntriesPaced(definition, () => ({ desired: 0, others: 0 }), count, pause);
    const isAsDesired = counts.desired === desiredEntries.size && counts.others === 0 && isCalm();
    sets.set(name, isAsDesired ? desiredEntries : await readEntries(backend, definition, pause));
    await interruption.turn();
  }
  return sets;
}

/** So often at most: the kernel moves a set's elements for milliseconds. */
const MOST_READINGS = 8;

/** What is in a set, read until two readings are the same where one may lack something. */
async function readEntries(
  backend: SetBackend,
  definition: IpsetDefinition,
  pause: () => Promise<void>,
): Promise<Set<IpsetEntry>> {
  const keep = (observed: Set<IpsetEntry>, entry: IpsetEntry): void => void observed.add(entry);
  const read = (): Promise<Set<IpsetEntry>> => backend.listEntriesPaced(definition, () => new Set(), keep, pause);
  let last = await read();
  for (let i = 1; i < MOST_READINGS && !backend.isListExact; i++) {
    const again = await read();
    if (isSameSet(last, again)) break;
    last = again;
  }
  return last;
}

function isSameSet(a: ReadonlySet<IpsetEntry>, b: ReadonlySet<IpsetEntry>): boolean {
  if (a.size !== b.size) return false;
  for (const entry of a) if (!b.has(entry)) return false;
  return true;
}

/** The entries of those of our sets, of both families, that are there. Rejects with IpsetError or NetlinkError. */
export function readPresentSets(backend: SetBackend): Promise<Map<IpsetName, SetEntries>> {
  const all = allIpsetDefinitions();
  const present = backend.present(all.values());
  return readSets(backend, new Map([...all].filter(([name]) => isReadable(present.get(name)))));
}

function isReadable(present: PresentSet | undefined): boolean {
  return present === 'fits' || present === 'readable';
}

/** All entries that either has. */
export function joinSets(
  a: ReadonlyMap<IpsetName, SetEntries>,
  b: ReadonlyMap<IpsetName, SetEntries>,
): Map<IpsetName, SetEntries> {
  const joined = new Map(a);
  for (const [name, entries] of b) {
    const others = joined.get(name);
    joined.set(name, others === undefined ? entries : new Set([...others.keys(), ...entries.keys()]));
  }
  return joined;
}
