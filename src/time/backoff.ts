import { type WallClock } from './clock.js';

/** How long to wait after so many failures in a row (1, 2, ...): `first`, doubled each time, at most `most`. */
export function doubledWait(first: number, most: number, failures: number): number {
  return Math.min(first * 2 ** Math.min(Math.max(failures, 1) - 1, 30), most);
}

/** Bounds of client-go's reflector: 800 ms doubling to 30 s, from the start again after two minutes without a wait. */
const FIRST_MS = 800;
const MAX_MS = 30_000;
const FORGET_MS = 120_000;

/**
 * Exponential back-off with full jitter (a random wait between 0 and the current ceiling), so that a thousand nodes
 * whose API server restarts do not come back in step. Only time makes it forget: a peer that answers and fails in turn
 * is not asked ever faster.
 */
export class Backoff {
  #failures = 0;
  /** When the last wait was over. */
  #waitedUntil = -Infinity;

  readonly #clock: Pick<WallClock, 'now' | 'random'>;

  constructor(clock: Pick<WallClock, 'now' | 'random'>) {
    this.#clock = clock;
  }

  /** How long to wait now, in milliseconds. */
  next(): number {
    const now = this.#clock.now();
    if (now - this.#waitedUntil >= FORGET_MS) this.#failures = 0;
    const wait = this.#clock.random() * doubledWait(FIRST_MS, MAX_MS, ++this.#failures);
    this.#waitedUntil = now + wait;
    return wait;
  }
}
