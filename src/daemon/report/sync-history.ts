/** Kept of the syncs that changed something. */
const CAPACITY = 120;

export interface TimedSync {
  readonly at: Date;
  readonly seconds: number;
}

/** How long the last syncs took: a ring of numbers, whatever happens on the node. */
export class SyncHistory {
  readonly #at = new Float64Array(CAPACITY);
  readonly #seconds = new Float64Array(CAPACITY);
  #count = 0;

  /** `at` in Unix milliseconds. */
  add(at: number, seconds: number): void {
    const index = this.#count++ % CAPACITY;
    this.#at[index] = at;
    this.#seconds[index] = seconds;
  }

  /** From the oldest to the newest. */
  list(): TimedSync[] {
    const kept = Math.min(this.#count, CAPACITY);
    return Array.from({ length: kept }, (_, i) => {
      const index = (this.#count - kept + i) % CAPACITY;
      return { at: new Date(this.#at[index]!), seconds: this.#seconds[index]! };
    });
  }
}
