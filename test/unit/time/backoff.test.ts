/** How long is waited after failures, and that a wait can be broken off. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Backoff, doubledWait } from '../../../src/time/backoff.js';
import { sleep } from '../../../src/time/clock.js';
import { TestClock } from '../../fakes/api-server-testing.js';
import { HandClock } from '../../fakes/hand-clock.js';

test('a wait is doubled with every failure up to its limit, also after more of them than a number can double', () => {
  const waits = [0, 1, 2, 3, 4, 5, 40, 10_000].map((failures) => doubledWait(200, 1000, failures));
  assert.deepEqual(waits, [200, 200, 400, 800, 1000, 1000, 1000, 1000]);
  assert.equal(doubledWait(500, 500, 7), 500);
});

test('the back-off grows until two minutes have passed without a failure', () => {
  const clock = new TestClock();
  const backoff = new Backoff(clock);
  const next = (passed: number): number => {
    clock.time += passed;
    return backoff.next();
  };
  assert.deepEqual([next(0), next(1000), next(2000), next(60_000)], [400, 800, 1600, 3200]);
  assert.equal(next(3200 + 119_999), 6400);
  assert.equal(next(6400 + 120_000), 400);
});

test('a sleep ends with its time, or at once when it is aborted; then its timer is gone', async () => {
  const clock = new HandClock();
  const ended: string[] = [];
  const abort = new AbortController();
  const plain = sleep(clock, 100).then(() => ended.push('plain'));
  const aborted = sleep(clock, 5000, abort.signal).then(() => ended.push('aborted'));
  await clock.advance(99);
  assert.deepEqual([ended, clock.pending], [[], 2]);
  await clock.advance(1);
  assert.deepEqual([ended, clock.pending], [['plain'], 1]);
  abort.abort();
  await Promise.all([plain, aborted]);
  assert.deepEqual([ended, clock.pending], [['plain', 'aborted'], 0]);
  await sleep(clock, 5000, abort.signal);
  assert.equal(clock.pending, 0, 'what is aborted already does not wait');
});
