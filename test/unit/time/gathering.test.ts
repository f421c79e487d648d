import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Gathering } from '../../../src/time/gathering.js';

test('what comes alone waits for nothing', () => {
  const gathering = new Gathering();
  assert.equal(gathering.earliest(5), 5);
  gathering.ended(5, 7);
  assert.equal(gathering.earliest(17), 17);
});

test('in a burst each piece of work waits twice as long as the last, up to 50 ms', () => {
  const gathering = new Gathering();
  gathering.ended(0, 0);
  const waits: number[] = [];
  for (let [i, endedAt] = [0, 0]; i < 8; i++) {
    const at = gathering.earliest(endedAt + 9);
    waits.push(at - endedAt);
    gathering.ended(endedAt + 9, (endedAt = at));
  }
  assert.deepEqual(waits, [1, 2, 4, 8, 16, 32, 50, 50]);
});

test('the next burst begins with short waits', () => {
  const gathering = new Gathering();
  for (const at of [0, 1, 2, 3]) gathering.ended(at, at);
  gathering.ended(20, 20);
  assert.equal(gathering.earliest(21), 21);
});
