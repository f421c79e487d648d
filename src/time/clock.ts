/** Time as the program sees it; tests put a hand-driven one in its place. */
export interface Clock {
  /** Milliseconds on a clock that nobody sets: for intervals. */
  now(): number;
  /** Calls `action` once after `ms` milliseconds; the returned function cancels. */
  after(ms: number, action: () => void): () => void;
}

/** A clock with dates and chance. */
export interface WallClock extends Clock {
  /** Milliseconds since the epoch: for dates that others wrote, and for what is shown. */
  wall(): number;
  /** Uniform in [0, 1). */
  random(): number;
}

export const systemClock: WallClock = {
  now: () => performance.now(),
  wall: () => Date.now(),
  after: (ms, action) => {
    const timer = setTimeout(action, ms);
    return () => clearTimeout(timer);
  },
  random: () => Math.random(),
};

/** Resolves after `ms`, or at once when `signal` aborts (never rejects). */
export function sleep(clock: Pick<Clock, 'after'>, ms: number, signal?: AbortSignal): Promise<void> {
  if (signal?.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const done = (): void => {
      cancel();
      signal?.removeEventListener('abort', done);
      resolve();
    };
    const cancel = clock.after(ms, done);
    signal?.addEventListener('abort', done);
  });
}
