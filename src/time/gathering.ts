/** What is asked for sooner than this after the last work, ms, belongs to a burst of changes: more are on their way. */
const CALM_MS = 10;
/**
 * Waiting for them makes a few large pieces of work of many small ones: a millisecond after the first of a burst, and
 * twice as long after each further one, up to this, ms. (10,000 changes at once: 31 runs instead of 637, and half the
 * CPU.)
 */
const MOST_GATHER_MS = 50;

/** When to begin with what was asked for. Times are a clock's milliseconds. */
export class Gathering {
  #endedAt = -Infinity;
  /** Pieces of work of this burst so far, after its first one. */
  #count = 0;

  /** Work asked for at `askedAt` may begin then, the earliest. */
  earliest(askedAt: number): number {
    return this.#isBurst(askedAt) ? this.#endedAt + Math.min(MOST_GATHER_MS, 2 ** this.#count) : askedAt;
  }

  /** Work asked for at `askedAt` has come to an end at `endedAt`. */
  ended(askedAt: number, endedAt: number): void {
    this.#count = this.#isBurst(askedAt) ? this.#count + 1 : 0;
    this.#endedAt = endedAt;
  }

  #isBurst(askedAt: number): boolean {
    return askedAt - this.#endedAt < CALM_MS;
  }
}
