export type DriftKind = 'missing' | 'extra' | 'changed';
export type DriftObject =
  'virtual_server' | 'real_server' | 'address' | 'link' | 'set' | 'set_entry' | 'rule' | 'sysctl';

/** Names kept for the log line; the counts go on. */
const MAX_NAMES = 20;

/** What a verification found different from what this program had left in the kernel. */
export class Drift {
  readonly counts = new Map<string, { object: DriftObject; kind: DriftKind; count: number }>();
  readonly names: string[] = [];
  #last: { object: DriftObject; kind: DriftKind; count: number } | undefined;

  get total(): number {
    let total = 0;
    for (const { count } of this.counts.values()) total += count;
    return total;
  }

  /** `name` is only called when there is still room for it. */
  add(object: DriftObject, kind: DriftKind, name: () => string): void {
    // Differences come in rows of one sort: 10,000 of them at a start.
    if (this.#last?.object !== object || this.#last.kind !== kind) {
      const key = `${object} ${kind}`;
      this.#last = this.counts.get(key) ?? { object, kind, count: 0 };
      this.counts.set(key, this.#last);
    }
    this.#last.count++;
    if (this.names.length < MAX_NAMES) this.names.push(`${kind} ${object} ${name()}`);
  }
}
