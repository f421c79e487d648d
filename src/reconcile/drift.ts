import { type DriftKind, type DriftObject } from '../values/drift.js';

/** What differs in one way. */
export interface DriftEntry {
  readonly object: DriftObject;
  readonly kind: DriftKind;
  readonly count: number;
  /** The first of them, `TCP 10.96.0.1:80`. */
  readonly names: readonly string[];
}

type GrowingEntry = DriftEntry & { count: number; names: string[] };

/** Names kept of each kind, and in all for a log line; the counts go on. */
const MAX_NAMES = 20;

/** What was observed to differ from what this program had left in the kernel. */
export class Drift {
  readonly counts = new Map<string, GrowingEntry>();
  #last: GrowingEntry | undefined;

  /** `maxNames`: how many are kept of each kind. */
  constructor(readonly maxNames = MAX_NAMES) {}

  get total(): number {
    let total = 0;
    for (const { count } of this.counts.values()) total += count;
    return total;
  }

  /** Some for a log line, `missing address 10.96.0.1`: at most 20, and some of every kind however many one has. */
  get names(): string[] {
    const entries = [...this.counts.values()];
    const shown = entries.map(() => 0);
    for (let left = MAX_NAMES, before = -1; left > 0 && left !== before;) {
      before = left;
      for (const [i, { names }] of entries.entries()) {
        if (left === 0 || shown[i]! >= names.length) continue;
        shown[i]!++;
        left--;
      }
    }
    return entries.flatMap(({ object, kind, names }, i) =>
      names.slice(0, shown[i]).map((name) => `${kind} ${object} ${name}`),
    );
  }

  /** `name` is only called when there is still room for it. */
  add(object: DriftObject, kind: DriftKind, name: () => string): void {
    // Differences come in rows of one sort: 10,000 of them at a start.
    const last = this.#last;
    const entry = last?.object === object && last.kind === kind ? last : this.#entry(object, kind);
    entry.count++;
    if (entry.names.length < this.maxNames) entry.names.push(name());
  }

  /** Adds all of `other`. */
  merge(other: Drift): void {
    for (const { object, kind, count, names } of other.counts.values()) {
      const entry = this.#entry(object, kind);
      entry.count += count;
      for (const name of names) if (entry.names.length < this.maxNames) entry.names.push(name);
    }
  }

  #entry(object: DriftObject, kind: DriftKind): GrowingEntry {
    const key = `${object} ${kind}`;
    const found = this.counts.get(key) ?? { object, kind, count: 0, names: [] };
    this.counts.set(key, found);
    return (this.#last = found);
  }
}
