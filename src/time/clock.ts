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

/**
 * Looks once in a piece of work that goes on without a pause; who asks again in it gets the same. The work of one
 * change asks some forty times, and without a vDSO (virtual machines, sandboxes) each look is a system call.
 */
export function oncePerTurn(look: () => number): () => number {
  let known: number | undefined;
  const forget = (): void => void (known = undefined);
  return () => {
    if (known === undefined) {
      known = look();
      queueMicrotask(forget);
    }
    return known;
  };
}

/** Its times are those of the last `await`, at the latest: what takes long without one cannot be measured by it. */
export const systemClock: WallClock = {
  now: oncePerTurn(() => performance.now()),
  wall: oncePerTurn(() => Date.now()),
  after: (ms, action) => {
    if (ms <= 0) {
      // A timer waits for a millisecond at least, more than all the work of a change takes.
      const next = setImmediate(action);
      return () => clearImmediate(next);
    }
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
