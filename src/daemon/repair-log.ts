import { type DriftObject } from '../values/drift.js';
import { type DriftEntry } from '../reconcile/drift.js';

const MINUTE_MS = 60_000;
const MINUTES = 60;

/**
 * How much was repaired in the last hour, by object: one counter per minute and sort, and no more than sixty minutes.
 */
export class RepairLog {
  readonly #minutes = new Map<number, Map<DriftObject, number>>();

  /** `now` in Unix milliseconds. */
  add({ object, count }: Pick<DriftEntry, 'object' | 'count'>, now: number): void {
    const minute = Math.floor(now / MINUTE_MS);
    this.#forget(minute);
    const counts = this.#minutes.get(minute) ?? new Map<DriftObject, number>();
    this.#minutes.set(minute, counts);
    counts.set(object, (counts.get(object) ?? 0) + count);
  }

  lastHour(now: number): Record<string, number> {
    this.#forget(Math.floor(now / MINUTE_MS));
    const total: Record<string, number> = {};
    for (const counts of this.#minutes.values())
      for (const [object, count] of counts) total[object] = (total[object] ?? 0) + count;
    return total;
  }

  /** Also what seems to lie in the future: the clock was set back. */
  #forget(now: number): void {
    for (const minute of this.#minutes.keys())
      if (minute <= now - MINUTES || minute > now) this.#minutes.delete(minute);
  }
}
