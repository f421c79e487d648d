/** Time as the API client sees it; tests bring their own. */
export interface KubeClock {
  /** Milliseconds on a clock that nobody sets: for intervals. */
  now(): number;
  /** Milliseconds since the epoch: for dates that others wrote, and for what is shown. */
  wall(): number;
  /** Calls back once after `ms` milliseconds; the returned function cancels. */
  timer(ms: number, callback: () => void): () => void;
  /** Uniform in [0, 1). */
  random(): number;
}

export const systemClock: KubeClock = {
  now: () => performance.now(),
  wall: () => Date.now(),
  timer: (ms, callback) => {
    const handle = setTimeout(callback, ms);
    return () => clearTimeout(handle);
  },
  random: () => Math.random(),
};

/** Resolves after `ms`, or at once when `signal` aborts (never rejects). */
export function sleep(clock: KubeClock, ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const done = (): void => {
      cancel();
      signal.removeEventListener('abort', done);
      resolve();
    };
    const cancel = clock.timer(ms, done);
    signal.addEventListener('abort', done);
  });
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
  #ceiling = FIRST_MS;
  /** When the last wait was over. */
  #waitedUntil = -Infinity;

  readonly #clock: KubeClock;

  constructor(clock: KubeClock) {
    this.#clock = clock;
  }

  /** How long to wait now, in milliseconds. */
  next(): number {
    const now = this.#clock.now();
    if (now - this.#waitedUntil >= FORGET_MS) this.#ceiling = FIRST_MS;
    const wait = this.#clock.random() * this.#ceiling;
    this.#ceiling = Math.min(this.#ceiling * 2, MAX_MS);
    this.#waitedUntil = now + wait;
    return wait;
  }
}
