import { type DriftKind, type DriftObject } from '../../values/drift.js';
import { type DriftEntry } from '../../reconcile/drift.js';

const MINUTE_MS = 60_000;
const MINUTES = 60;

/** What was repaired last; of several things the first. */
export interface LastRepair {
  /** Unix milliseconds. */
  readonly at: number;
  readonly object: DriftObject;
  readonly kind: DriftKind;
  /** `TCP 10.96.0.1:80 -> 10.1.2.3:8080` */
  readonly name: string;
  /** Differences repaired at once. */
  readonly total: number;
}

/**
 * How much was repaired in the last hour, by object: one counter per minute and sort, and no more than sixty minutes.
 */
export class RepairLog {
  readonly #minutes = new Map<number, Map<DriftObject, number>>();
  #last: LastRepair | undefined;

  get last(): LastRepair | undefined {
    return this.#last;
  }

  /** Everything that one verification repaired. */
  note(repairs: readonly DriftEntry[], now: number): void {
    const [first] = repairs;
    if (first === undefined) return;
    for (const repair of repairs) this.add(repair, now);
    const total = repairs.reduce((sum, { count }) => sum + count, 0);
    this.#last = { at: now, object: first.object, kind: first.kind, name: first.names[0] ?? '', total };
  }

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

  /** Repairs in each of the last sixty minutes, from the oldest to the one that runs. */
  perMinute(now: number): number[] {
    const minute = Math.floor(now / MINUTE_MS);
    return Array.from({ length: MINUTES }, (_, i) => {
      const counts = this.#minutes.get(minute - MINUTES + 1 + i);
      return [...(counts?.values() ?? [])].reduce((sum, count) => sum + count, 0);
    });
  }

  /** Also what seems to lie in the future: the clock was set back. */
  #forget(now: number): void {
    for (const minute of this.#minutes.keys())
      if (minute <= now - MINUTES || minute > now) this.#minutes.delete(minute);
  }
}
