/** When syncs run, to the millisecond, by a clock that the test moves. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { BoundedFrequencyRunner, type RunnerOptions } from '../../../src/reconcile/runner.js';
import { HandClock } from '../../fakes/hand-clock.js';

const OPTIONS: RunnerOptions = {
  minInterval: 1000,
  retryInterval: 500,
  maxRetryInterval: 4000,
  onError: () => undefined,
};

class Rig {
  readonly clock = new HandClock();
  /** When each run started. */
  readonly starts: number[] = [];
  /** How long a run takes, and how it ends. */
  takes = 0;
  outcome: () => boolean = () => true;
  readonly runner: BoundedFrequencyRunner;
  running = 0;

  constructor(options: Partial<RunnerOptions> = {}) {
    this.runner = new BoundedFrequencyRunner(() => this.#run(), { ...OPTIONS, ...options }, this.clock);
  }

  async #run(): Promise<boolean> {
    assert.equal(++this.running, 1, 'two runs at a time');
    this.starts.push(this.clock.now());
    if (this.takes > 0) await new Promise<void>((resolve) => this.clock.after(this.takes, resolve));
    this.running--;
    return this.outcome();
  }
}

describe('a run starts', () => {
  test('never without being asked for the first', async () => {
    const { clock, starts } = new Rig();
    await clock.advance(100_000);
    assert.deepEqual(starts, []);
  });

  test('at once when asked, and not before minInterval after the last one ended', async () => {
    const rig = new Rig();
    rig.takes = 300;
    rig.runner.request();
    await rig.clock.advance(100);
    rig.runner.request(); // while it runs
    await rig.clock.advance(1199);
    assert.deepEqual(rig.starts, [0]);
    await rig.clock.advance(1);
    assert.deepEqual(rig.starts, [0, 1300]);
  });

  test('at once when asked after minInterval has passed', async () => {
    const rig = new Rig();
    rig.runner.request();
    await rig.clock.advance(5000);
    rig.runner.request();
    await rig.clock.advance(0);
    assert.deepEqual(rig.starts, [0, 5000]);
  });

  test('at once always, when minInterval is 0 and changes come one by one', async () => {
    const rig = new Rig({ minInterval: 0 });
    for (let i = 0; i < 3; i++) {
      rig.runner.request();
      await rig.clock.advance(10);
    }
    assert.deepEqual(rig.starts, [0, 10, 20]);
  });

  test('of a burst after twice the wait of the one before, up to 50 ms, so that few of them do much', async () => {
    const rig = new Rig({ minInterval: 0 });
    for (let ms = 0; ms < 240; ms++) {
      rig.runner.request();
      await rig.clock.advance(1);
    }
    assert.deepEqual(rig.starts, [0, 1, 3, 7, 15, 31, 63, 113, 163, 213]);
    await rig.clock.advance(100); // the last request had its run at 263
    rig.runner.request();
    await rig.clock.advance(0);
    rig.runner.request();
    await rig.clock.advance(1);
    assert.deepEqual(
      rig.starts.slice(10),
      [263, 340, 341],
      'at once again, and the next burst begins with short waits',
    );
  });

  test('once for many requests', async () => {
    const rig = new Rig();
    for (let i = 0; i < 100; i++) rig.runner.request();
    await rig.clock.advance(10);
    for (let i = 0; i < 100; i++) rig.runner.request();
    await rig.clock.advance(5000);
    assert.deepEqual(rig.starts, [0, 1000]);
  });

  test('unasked never: who wants one later says when', async () => {
    const rig = new Rig();
    rig.runner.request();
    await rig.clock.advance(100_000);
    assert.deepEqual([rig.starts, rig.clock.pending], [[0], 0]);
  });

  test('after weeks, though no timer can wait that long, and not before', async () => {
    const day = 86_400_000;
    const rig = new Rig();
    rig.runner.requestWithin(60 * day);
    const waits: number[] = [];
    const after = rig.clock.after.bind(rig.clock);
    rig.clock.after = (ms, action) => {
      waits.push(ms);
      return after(ms, action);
    };
    await rig.clock.advance(60 * day - 1);
    assert.deepEqual(rig.starts, []);
    await rig.clock.advance(1);
    assert.deepEqual(rig.starts, [60 * day]);
    assert.ok(Math.max(...waits) < 2 ** 31, 'setTimeout takes more for 1 ms');
  });

  test('by the earlier of two wishes', async () => {
    const rig = new Rig({ minInterval: 0 });
    rig.runner.requestWithin(5000);
    rig.runner.requestWithin(2000);
    rig.runner.requestWithin(9000);
    await rig.clock.advance(20_000);
    assert.deepEqual(rig.starts, [2000]);
  });

  test('again when asked during a run, since that run may have looked already', async () => {
    const rig = new Rig({ minInterval: 0 });
    rig.takes = 100;
    rig.runner.request();
    await rig.clock.advance(50);
    rig.runner.request();
    await rig.clock.advance(51);
    assert.deepEqual(rig.starts, [0, 101]);
  });
});

describe('after a failure', () => {
  test('it is tried again after a time that doubles up to its bound', async () => {
    const rig = new Rig({ minInterval: 0 });
    rig.outcome = () => false;
    rig.runner.request();
    await rig.clock.advance(500 + 1000 + 2000 + 4000 + 4000);
    assert.deepEqual(rig.starts, [0, 500, 1500, 3500, 7500, 11_500]);
  });

  test('it is tried again no sooner than minInterval allows', async () => {
    const rig = new Rig({ minInterval: 3000 });
    rig.outcome = () => false;
    rig.runner.request();
    await rig.clock.advance(7000);
    assert.deepEqual(rig.starts, [0, 3000, 6000]);
  });

  test('a success starts the doubling anew', async () => {
    const rig = new Rig({ minInterval: 0 });
    rig.outcome = () => rig.starts.length === 3;
    rig.runner.request();
    await rig.clock.advance(1500);
    assert.deepEqual(rig.starts, [0, 500, 1500]);
    await rig.clock.advance(100);
    rig.runner.request();
    await rig.clock.advance(500);
    assert.deepEqual(rig.starts, [0, 500, 1500, 1600, 2100]);
  });

  test('a run that throws has failed', async () => {
    const rig = new Rig({ minInterval: 0 });
    rig.outcome = () => {
      throw new Error('no kernel');
    };
    rig.runner.request();
    await rig.clock.advance(500);
    assert.deepEqual(rig.starts, [0, 500]);
  });

  test('a new wish does not wait for the retry', async () => {
    const rig = new Rig({ minInterval: 0 });
    rig.outcome = () => false;
    rig.runner.request();
    await rig.clock.advance(100);
    rig.runner.request();
    await rig.clock.advance(1);
    assert.deepEqual(rig.starts, [0, 100]);
  });
});

describe('stop', () => {
  test('waits for the run in flight and lets none follow', async () => {
    const rig = new Rig({ minInterval: 0 });
    rig.takes = 100;
    rig.runner.request();
    await rig.clock.advance(50);
    rig.runner.request();
    let stopped = false;
    const stopping = rig.runner.stop().then(() => (stopped = true));
    await rig.clock.advance(49);
    assert.equal(stopped, false);
    await rig.clock.advance(100_000);
    await stopping;
    rig.runner.request();
    await rig.clock.advance(100_000);
    assert.deepEqual([rig.starts, rig.clock.pending], [[0], 0]);
  });
});
