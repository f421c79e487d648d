/** The chaos test waits for what goes little by little, and never for what does not go. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Convergence } from '../../kernel/chaos-convergence.js';

const PERIOD_MS = 10_000;

/** Looks, one after each verification, until no more is waited for; how many there were. */
function looks(found: (look: number) => { leaving: number; others: number }): number {
  const convergence = new Convergence();
  for (let look = 0; ; look++) {
    const { leaving, others } = found(look);
    const differences = Array.from({ length: leaving + others }, (_, i) => `+ ${i}`);
    if (!convergence.isWorthWaiting({ differences, leaving }, look, look * PERIOD_MS)) return look;
    assert.ok(look < 1000, 'for ever');
  }
}

test('what is right is right at once', () => {
  assert.equal(
    looks(() => ({ leaving: 0, others: 0 })),
    0,
  );
});

test('anything but a leaving server has three verifications, whatever else leaves meanwhile', () => {
  assert.equal(
    looks(() => ({ leaving: 0, others: 1 })),
    3,
  );
  assert.equal(
    looks((look) => ({ leaving: 500 - look, others: 1 })),
    3,
  );
});

test('leaving servers are waited for as long as they become fewer', () => {
  assert.equal(
    looks((look) => ({ leaving: Math.max(0, 200 - 2 * look), others: 0 })),
    100,
  );
  const slow = looks((look) => ({ leaving: Math.max(0, 20 - Math.floor(look / 18)), others: look < 2 ? 5 : 0 }));
  assert.equal(slow, 360, 'three minutes without one that goes, as after many deletions that could not wait');
});

test('one that never goes is not waited for, alone or when the others have gone', () => {
  assert.equal(
    looks(() => ({ leaving: 1, others: 0 })),
    20,
  );
  assert.equal(
    looks((look) => ({ leaving: Math.max(1, 11 - look), others: 0 })),
    30,
  );
});
