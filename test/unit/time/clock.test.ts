/** The clock of the program. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { oncePerTurn, systemClock } from '../../../src/time/clock.js';

test('the system clock calls back once, and not after it was cancelled', async () => {
  let called = 0;
  const before = systemClock.now();
  systemClock.after(1, () => assert.fail('cancelled'))();
  await new Promise<void>((resolve) => systemClock.after(5, () => resolve(void called++)));
  assert.equal(called, 1);
  assert.ok(systemClock.now() - before >= 4);
});

test('what waits for no time waits for no timer, whose millisecond is longer than all the work of a change', async (t) => {
  const timers = t.mock.method(globalThis, 'setTimeout');
  const order: string[] = [];
  systemClock.after(0, () => assert.fail('cancelled'))();
  const done = new Promise<void>((resolve) => systemClock.after(0, () => resolve(void order.push('after'))));
  order.push('now');
  await done;
  assert.deepEqual(order, ['now', 'after'], 'never at once: what asked goes on first');
  assert.equal(timers.mock.callCount(), 0);
});

test('one piece of work sees one time, the next one another', async () => {
  let looks = 0;
  const now = oncePerTurn(() => ++looks);
  assert.deepEqual([now(), now(), now()], [1, 1, 1]);
  await Promise.resolve();
  assert.deepEqual([now(), now()], [2, 2]);
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(now(), 3);
});
