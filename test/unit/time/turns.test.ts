/** Sorting in pieces: the order is that of `sort`, wherever one piece ends and the next begins. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Turns, sortInTurns } from '../../../src/time/turns.js';
import { fuzzRuns, fuzzSeeds } from '../../support/fuzz-seed.js';

interface Item {
  readonly rank: number;
  readonly place: number;
}

const items = (ranks: readonly number[]): Item[] => ranks.map((rank, place) => ({ rank, place }));
const byRank = (a: Item, b: Item): number => a.rank - b.rank;

async function assertSorted(ranks: readonly number[]): Promise<void> {
  const sorted = await sortInTurns(items(ranks), byRank, new Turns(() => Promise.resolve()));
  assert.deepEqual(sorted, items(ranks).sort(byRank));
}

const upTo = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

test('what belongs just before the end of a piece, or at the same place, is put there', async () => {
  for (const late of [253.5, 254, 254.5, 255, 255.5, -1]) await assertSorted([...upTo(256), late]);
  for (const late of [510.5, 255.5, 0]) await assertSorted([...upTo(512), late, 600]);
});

for (const seed of fuzzSeeds('sorting in turns'))
  test(`nearly sorted lists of a few pieces come out in order, equal ones as they were (seed ${seed})`, async () => {
    const moves = fc.array(fc.tuple(fc.nat(900), fc.nat(40)), { maxLength: 6 });
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 0, max: 900 }), moves, async (count, moved) => {
        const ranks = upTo(count);
        for (const [at, by] of moved) if (at < count) ranks[at] = at - by;
        await assertSorted(ranks);
      }),
      { seed, numRuns: fuzzRuns(60) },
    );
  });
