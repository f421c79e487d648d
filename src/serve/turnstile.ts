import { setTimeout as sleep } from 'node:timers/promises';

/** Too many wait already. */
export class BusyError extends Error {
  override readonly name = 'BusyError';
}

/** How many may wait; each holds a connection and nothing else. */
const LARGEST_QUEUE = 8;
/**
 * After a piece of work the next waits this many times as long as it took: at most a fifth of the event loop's time.
 */
const REST = 4;
/** Work in pieces takes long when there is other work: that was rest already. */
const LONGEST_REST_MS = 1000;

/** Lets expensive answers through one at a time, with the event loop's other work in between. */
export class Turnstile {
  #waiting = 0;
  #last: Promise<unknown> = Promise.resolve();

  /** Runs `work` when its turn comes; rejects with BusyError at once when too many wait, else as `work` does. */
  run<T>(work: () => T | Promise<T>): Promise<T> {
    if (this.#waiting >= LARGEST_QUEUE) return Promise.reject(new BusyError('too many wait for this answer'));
    this.#waiting++;
    let took = 0;
    const turn = this.#last.then(async () => {
      const start = performance.now();
      this.#waiting--;
      try {
        return await work();
      } finally {
        took = performance.now() - start;
      }
    });
    const rest = (): Promise<void> => sleep(Math.min(took * REST, LONGEST_REST_MS), undefined, { ref: false });
    this.#last = turn.then(rest, rest);
    return turn;
  }
}
