export type DriftKind = 'missing' | 'extra' | 'changed';
export type DriftObject =
  'virtual_server' | 'real_server' | 'address' | 'link' | 'set' | 'set_entry' | 'rule' | 'sysctl';

/** Names kept for the log line; the counts go on. */
const MAX_NAMES = 20;

/** What was found different from what this program had left in the kernel. */
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
    const last = this.#last;
    const entry = last?.object === object && last.kind === kind ? last : this.#entry(object, kind);
    entry.count++;
    if (this.names.length < MAX_NAMES) this.names.push(`${kind} ${object} ${name()}`);
  }
  /** Adds all of `other`. */
  merge(other: Drift): void {
    for (const { object, kind, count } of other.counts.values()) this.#entry(object, kind).count += count;
    for (const name of other.names) if (this.names.length < MAX_NAMES) this.names.push(name);
  }

  #entry(object: DriftObject, kind: DriftKind): { count: number } {
    const key = `${object} ${kind}`;
    const found = this.counts.get(key) ?? { object, kind, count: 0 };
    this.counts.set(key, found);
    return (this.#last = found);
  }
}
