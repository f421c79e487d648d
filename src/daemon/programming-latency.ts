import { type Family } from '../values/address.js';

/** Measured are so many changes of one sync at most: a histogram needs no more. */
const MOST_TRIGGERS = 10_000;

/** A change of an EndpointSlice, made at this Unix millisecond. */
interface Trigger {
  readonly family: Family;
  readonly triggeredAt: number;
}

/** How long changes of EndpointSlices take from their trigger into the kernel. */
export class ProgrammingLatency {
  /** Triggers whose changes no sync has taken yet, and those that the last sync took. */
  #pending: Trigger[] = [];
  #taken: Trigger[] = [];

  /** `measured` is called for each change that is in the kernel, with its latency. */
  constructor(readonly measured: (family: Family, seconds: number) => void) {}

  triggered(family: Family, triggeredAt: number): void {
    if (this.#pending.length < MOST_TRIGGERS) this.#pending.push({ family, triggeredAt });
  }

  /** A sync has begun with all changes that there were. */
  taken(): void {
    // A sync that broke off leaves some: they are counted with the next one that comes to its end.
    const room = MOST_TRIGGERS - this.#taken.length;
    if (this.#taken.length === 0) this.#taken = this.#pending;
    else for (const trigger of this.#pending.slice(0, room)) this.#taken.push(trigger);
    this.#pending = [];
  }

  /** At this Unix millisecond all that was taken is in the kernel. */
  programmed(now: number): void {
    for (const { family, triggeredAt } of this.#taken) this.measured(family, (now - triggeredAt) / 1000);
    this.#taken = [];
  }
}
