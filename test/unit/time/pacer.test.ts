import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Pacer, READING_SLICE_MS } from '../../../src/time/pacer.js';

/** A clock that stands still unless told, and counts how often it is looked at. */
function handClock() {
  const clock = { ms: 0, looks: 0, now: (): number => (clock.looks++, clock.ms) };
  return clock;
}

/** How long each slice of work took before the pacer gave way, for steps of the given lengths. */
async function slices(
  steps: readonly number[],
  sliceMs?: number,
  firstCalls?: number,
): Promise<{ longest: number; turns: number; looks: number }> {
  const clock = handClock();
  const pacer = new Pacer(sliceMs, clock.now, firstCalls);
  let [longest, turns, since] = [0, 0, 0];
  for (const step of steps) {
    clock.ms += step;
    longest = Math.max(longest, clock.ms - since);
    const before = clock.looks;
    await pacer.yieldIfDue();
    if (clock.looks - before < 2) continue; // a second look is made after giving way
    turns++;
    since = clock.ms;
  }
  return { longest, turns, looks: clock.looks };
}

test('cheap steps: few looks at the clock, slices of the right length', async () => {
  const { looks, turns, longest } = await slices(Array.from({ length: 100_000 }, () => 0.002));
  assert.ok(looks < 2500, `${looks} looks`);
  assert.ok(turns >= 40 && turns <= 50, `${turns} turns in 200 ms`);
  assert.ok(longest < 4.6, `${longest} ms`);
});

test('short slices: a change waits for a millisecond at most while the kernel is read back', async () => {
  for (const step of [0.005, 0.025, 0.05, 0.2]) {
    const { longest } = await slices(
      Array.from({ length: 100 / step }, () => step),
      READING_SLICE_MS,
      1,
    );
    assert.ok(longest <= 1, `${longest} ms with steps of ${step} ms`);
  }
});

test('while it gives way it lets in what it is told to, and only then', async () => {
  const clock = handClock();
  const pacer = new Pacer(4, clock.now, 1);
  let turns = 0;
  const turn = (): Promise<void> => Promise.resolve(void turns++);
  await pacer.yieldIfDue(turn);
  assert.equal(turns, 0);
  clock.ms += 5;
  await pacer.yieldIfDue(turn);
  assert.equal(turns, 1);
  await pacer.yieldIfDue(turn);
  assert.equal(turns, 1);
});

test('dear steps: gives way after each, once the clock runs', async () => {
  const { turns } = await slices(Array.from({ length: 50 }, () => 5));
  assert.equal(turns, 46);
});

test('a few steps need no clock', async () => {
  const { looks } = await slices([0.1, 0.1, 0.1]);
  assert.equal(looks, 0);
});

test('due stays due until it gives way', async () => {
  const clock = handClock();
  const pacer = new Pacer(4, clock.now);
  for (let i = 0; i < 4; i++) assert.equal(pacer.isDue, false);
  clock.ms += 5;
  assert.equal(pacer.isDue, true);
  assert.equal(pacer.isDue, true);
  await pacer.yieldIfDue();
  assert.equal(pacer.isDue, false);
});

test('steps that get dearer are noticed within a few of them', async () => {
  const steps = [...Array.from({ length: 1000 }, () => 0.001), ...Array.from({ length: 200 }, () => 1)];
  const { turns, longest } = await slices(steps);
  assert.ok(longest <= 70, `${longest} ms`);
  assert.ok(turns >= 30, `${turns} turns`);
});

test('one dear step among many, as a batch that goes to the kernel, makes no look at each of them', async () => {
  const steps = Array.from({ length: 10_000 }, (_, i) => (i % 23 === 0 ? 0.7 : 0.012));
  const { looks, longest } = await slices(steps);
  assert.ok(looks < 700, `${looks} looks in 420 ms`);
  assert.ok(longest < 6, `${longest} ms`);
});
