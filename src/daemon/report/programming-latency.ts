import { type Family } from '../../values/address.js';

/** Measured are so many changes of one sync at most: a histogram needs no more. */
const MOST = 10_000;

/** A change of an EndpointSlice, made at this Unix millisecond. */
interface Trigger {
  readonly family: Family;
  readonly triggeredAt: number;
}

/** Changes that no sync has taken yet, and those that the last sync took. */
class Waiting<T> {
  #pending: T[] = [];
  #taken: T[] = [];

  add(change: T): void {
    if (this.#pending.length < MOST) this.#pending.push(change);
  }

  taken(): void {
    // A sync that broke off leaves some: they are counted with the next one that comes to its end.
    const room = MOST - this.#taken.length;
    if (this.#taken.length === 0) this.#taken = this.#pending;
    else for (const change of this.#pending.slice(0, room)) this.#taken.push(change);
    this.#pending = [];
  }

  /** What was taken, once. */
  finish(): readonly T[] {
    const finished = this.#taken;
    if (finished.length > 0) this.#taken = [];
    return finished;
  }
}

/** Notified of each change that is in the kernel, with its latency in seconds. */
export interface Measured {
  /** Since an EndpointSlice's change was triggered. */
  readonly sinceTrigger: (family: Family, seconds: number) => void;
  /** Since the bytes of a change came from the API server. */
  readonly sinceArrival: (seconds: number) => void;
}

/** How long changes take into the kernel. */
export class ProgrammingLatency {
  readonly #triggers = new Waiting<Trigger>();
  readonly #arrivals = new Waiting<number>();

  constructor(readonly measured: Measured) {}

  triggered(family: Family, triggeredAt: number): void {
    this.#triggers.add({ family, triggeredAt });
  }

  /** A change whose bytes came at this time, in performance.now() milliseconds. */
  arrived(at: number): void {
    this.#arrivals.add(at);
  }

  /** A sync has begun with all changes that there were. */
  taken(): void {
    this.#triggers.taken();
    this.#arrivals.taken();
  }

  /** All that was taken is in the kernel. */
  programmed(): void {
    const triggers = this.#triggers.finish();
    const arrivals = this.#arrivals.finish();
    if (triggers.length > 0) {
      const now = Date.now();
      for (const { family, triggeredAt } of triggers) this.measured.sinceTrigger(family, (now - triggeredAt) / 1000);
    }
    if (arrivals.length === 0) return;
    const now = performance.now();
    for (const at of arrivals) this.measured.sinceArrival((now - at) / 1000);
  }
}
