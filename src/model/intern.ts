/**
 * One shared copy of values that repeat in every object (port lists, zones): thousands of slices, a few dozen distinct
 * values. Bounded by what the values cost, whatever comes from the cluster: when full it forgets all, which costs a
 * second copy of what is in use and nothing else.
 */
export class SharedValues<T> {
  readonly #known = new Map<string, T>();
  #cost = 0;

  /** `limit`: the most that is kept, in the unit of the costs given to `get`. */
  constructor(readonly limit: number) {}

  get size(): number {
    return this.#known.size;
  }

  /** The value known by `identity`, or `make()`, kept from now on at this cost (a rough number of bytes). */
  get(identity: string, cost: number, make: () => T): T {
    const known = this.#known.get(identity);
    if (known !== undefined) return known;
    const made = make();
    if (cost > this.limit) return made;
    if (this.#cost + cost > this.limit) this.clear();
    this.#known.set(identity, made);
    this.#cost += cost;
    return made;
  }

  clear(): void {
    this.#known.clear();
    this.#cost = 0;
  }
}

/** Shares equal strings: names of Services, ports and zones. */
export class Interner {
  readonly #strings: SharedValues<string>;

  /** `limit`: characters kept; 4 million hold the names of 50,000 Services and more. */
  constructor(limit = 4_000_000) {
    this.#strings = new SharedValues(limit);
  }

  get size(): number {
    return this.#strings.size;
  }

  /** The first equal string seen. */
  intern(text: string): string {
    return this.#strings.get(text, text.length + 1, () => text);
  }
}

/** Shared by all that is parsed: a Service and its EndpointSlices name each other. */
export const names = new Interner();
