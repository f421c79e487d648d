/** Time as the API client sees it; tests bring their own. */
export interface KubeClock {
  /** Milliseconds since the epoch. */
  now(): number;
  /** Calls back once after `ms` milliseconds; the returned function cancels. */
  timer(ms: number, callback: () => void): () => void;
  /** Uniform in [0, 1). */
  random(): number;
}

export const systemClock: KubeClock = {
  now: () => Date.now(),
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

/**
 * Exponential back-off with full jitter (a random wait between 0 and the current ceiling), so that a thousand nodes whose API
 * server restarts do not come back in step. Same bounds as client-go's reflector.
 */
export class Backoff {
  #ceiling: number;

  constructor(
    private readonly clock: KubeClock,
    private readonly firstMs = 800,
    private readonly maxMs = 30_000,
  ) {
    this.#ceiling = firstMs;
  }

  next(): number {
    const wait = this.clock.random() * this.#ceiling;
    this.#ceiling = Math.min(this.#ceiling * 2, this.maxMs);
    return wait;
  }

  reset(): void {
    this.#ceiling = this.firstMs;
  }
}
