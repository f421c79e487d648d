/** An object of which a part, or all, is left out because it is malformed. */
export interface SkippedObject {
  /** Plural: `services`. */
  readonly resource: string;
  /** `namespace/name`. */
  readonly key: string;
  /** The first problem found. */
  readonly problem: string;
}

/** Objects remembered; a cluster with more broken ones than this has one problem and not that many. */
const LARGEST = 1000;

/** Which objects of one resource are malformed at present: an object that was mended or deleted is not among them. */
export class SkippedObjects {
  readonly #problems = new Map<string, { readonly problem: string; list: number }>();

  constructor(readonly resource: string) {}

  get size(): number {
    return this.#problems.size;
  }

  *[Symbol.iterator](): Generator<SkippedObject> {
    for (const [key, { problem }] of this.#problems) yield { resource: this.resource, key, problem };
  }

  /** The object is read (again), or gone: what was wrong with it is of no interest. */
  forget(key: string): void {
    this.#problems.delete(key);
  }

  /** Something is wrong with the object, found while reading list number `list` or the watch after it. */
  add(key: string, problem: string, list: number): void {
    if (!this.#problems.has(key) && this.#problems.size < LARGEST) this.#problems.set(key, { problem, list });
  }

  /** The object is in list number `list`, unchanged. */
  keep(key: string, list: number): void {
    const found = this.#problems.get(key);
    if (found !== undefined) found.list = list;
  }

  /** The list is complete: what it did not hold is gone. */
  endList(list: number): void {
    for (const [key, found] of this.#problems) if (found.list !== list) this.#problems.delete(key);
  }
}
