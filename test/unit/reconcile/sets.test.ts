/** Sets read back: those that are there, of either backend, until two readings of one that moves are the same. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { allIpsetDefinitions, type IpsetName } from '../../../src/desired/ipset-definitions.js';
import { type PresentSet, type SetBackend } from '../../../src/kernel/set-backend.js';
import { joinSets, readPresentSets, readSets } from '../../../src/reconcile/ipset-keeper.js';
import { type IpsetEntry } from '../../../src/values/ipset.js';

const [A, B, C] = ['KUBE-CLUSTER-IP', 'KUBE-IPVS-IPS', 'KUBE-EXTERNAL-IP'] as IpsetName[];
const entry = (text: string): IpsetEntry => text as IpsetEntry;

/** Readings of sets, one after the other; the last one stays. */
function backendOf(
  readings: Readonly<Record<string, readonly (readonly string[])[]>>,
  more: { present?: Readonly<Record<string, PresentSet>>; isListExact?: boolean } = {},
): SetBackend & { readonly counts: Record<string, number> } {
  const counts: Record<string, number> = {};
  return {
    counts,
    isListExact: more.isListExact ?? true,
    present: () => new Map(Object.entries(more.present ?? {})),
    listEntriesPaced: async (definition, fresh, add) => {
      const reading = (counts[definition.name] ??= 0);
      counts[definition.name]!++;
      const all = readings[definition.name] ?? [[]];
      const found = fresh();
      for (const text of all[Math.min(reading, all.length - 1)]!) add(found, entry(text));
      return Promise.resolve(found);
    },
  } as Partial<SetBackend> as SetBackend & { readonly counts: Record<string, number> };
}

test('sets that fit, and those whose entries expire, are read; others are not', async () => {
  const backend = backendOf(
    { [A!]: [['a']], [B!]: [['b']] },
    { present: { [A!]: 'fits', [B!]: 'readable', [C!]: 'other' } },
  );
  const found = await readPresentSets(backend);
  assert.deepEqual(
    [...found].map(([name, entries]) => [name, [...entries.keys()]]),
    [
      [A, ['a']],
      [B, ['b']],
    ],
  );
});

test('of two backends what either has', () => {
  const of = (sets: Record<string, string[]>) =>
    new Map(Object.entries(sets).map(([name, texts]) => [name as IpsetName, new Set(texts.map(entry))]));
  const one = of({ [A!]: ['a', 'b'], [B!]: ['x'] });
  const joined = joinSets(one, of({ [A!]: ['b', 'c'], [C!]: ['y'] }));
  assert.deepEqual(Object.fromEntries([...joined].map(([name, entries]) => [name, [...entries.keys()].sort()])), {
    [A!]: ['a', 'b', 'c'],
    [B!]: ['x'],
    [C!]: ['y'],
  });
  assert.deepEqual([...one.get(A!)!], ['a', 'b'], 'none of them is changed');
});

test('where a list may lack something, it is read until two are the same; eight times at most', async () => {
  const definitions = new Map([...allIpsetDefinitions()].filter(([name]) => name === A));
  const read = async (readings: readonly (readonly string[])[], isListExact: boolean): Promise<[number, string[]]> => {
    const backend = backendOf({ [A!]: readings }, { isListExact });
    const sets = await readSets(backend, definitions);
    return [backend.counts[A!]!, [...sets.get(A!)!.keys()].sort()];
  };
  // The first reading of all only counts what differs from what is desired: here nothing is.
  assert.deepEqual(await read([['a'], ['a']], true), [2, ['a']]);
  assert.deepEqual(await read([['a'], ['a'], ['a', 'b'], ['a', 'c'], ['a', 'c']], false), [5, ['a', 'c']]);
  assert.deepEqual(await read([['a'], ['b'], ['b']], false), [3, ['b']]);
  const restless = Array.from({ length: 20 }, (_, i) => [`${i}`]);
  assert.deepEqual(await read(restless, false), [9, ['8']]);
});

test('a set that holds just what is desired is that very object', async () => {
  const definitions = new Map([...allIpsetDefinitions()].filter(([name]) => name === A));
  const desired = new Set([entry('a'), entry('b')]);
  const same = async (...texts: string[]): Promise<boolean> => {
    const sets = await readSets(backendOf({ [A!]: [texts] }), definitions, () => desired);
    return sets.get(A!) === desired;
  };
  assert.deepEqual(
    [await same('a', 'b'), await same('b', 'a'), await same('a'), await same('a', 'c'), await same('a', 'b', 'c')],
    [true, true, false, false, false],
  );
});
