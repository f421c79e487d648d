import { type Address } from '../values/address.js';
import { type VirtualServerKey } from '../values/virtual-server.js';

/** Two Services that claim the same, however many addresses and ports that are. */
export interface Conflict {
  /** Serves what both claim. */
  readonly winner: string;
  readonly loser: string;
  /** One of the things that both claim: a virtual server, or the winner's cluster IP, which no other may serve. */
  readonly example: { readonly server: VirtualServerKey } | { readonly clusterIP: Address };
}

/** Counts what each pair of Services has in conflict, and forgets the pair with the last of it. */
export class ConflictPairs {
  readonly #pairs = new Map<string, { readonly conflict: Conflict; count: number }>();
  #new: Conflict[] = [];

  get size(): number {
    return this.#pairs.size;
  }

  *[Symbol.iterator](): Iterator<Conflict> {
    for (const { conflict } of this.#pairs.values()) yield conflict;
  }

  add(conflict: Conflict): void {
    const known = this.#pairs.get(keyOf(conflict));
    if (known !== undefined) {
      known.count++;
      return;
    }
    this.#pairs.set(keyOf(conflict), { conflict, count: 1 });
    this.#new.push(conflict);
  }

  remove(conflict: Conflict): void {
    const known = this.#pairs.get(keyOf(conflict));
    if (known !== undefined && --known.count === 0) this.#pairs.delete(keyOf(conflict));
  }

  /** The pairs that came since the last call and are still there. */
  takeNew(): readonly Conflict[] {
    if (this.#new.length === 0) return this.#new;
    const taken = this.#new.filter((conflict) => this.#pairs.get(keyOf(conflict))?.conflict === conflict);
    this.#new = [];
    return taken;
  }
}

function keyOf({ winner, loser }: Conflict): string {
  return `${winner} ${loser}`;
}
