import { setImmediate as nextTurn } from 'node:timers/promises';

/** A step is about a microsecond or two: one Service looked at, one comparison, one virtual server written as text. */
const STEPS_PER_TURN = 1000;
/** What it costs to read the real servers of one virtual server. */
export const STEPS_PER_READ = 16;

/**
 * Lets the event loop turn after a fixed number of steps, for work that goes over the whole cluster because somebody
 * looks. A count and no clock: it bounds the work between two turns on every machine alike.
 */
export class Turns {
  #left: number;

  constructor(
    readonly turn: () => Promise<unknown> = nextTurn,
    readonly stepsPerTurn = STEPS_PER_TURN,
  ) {
    this.#left = stepsPerTurn;
  }

  /** True when so much has been done that `next` is due. */
  spend(steps = 1): boolean {
    this.#left -= steps;
    return this.#left <= 0;
  }

  async next(): Promise<void> {
    await this.turn();
    this.#left = this.stepsPerTurn;
  }
}

/** Items sorted in one go. */
const RUN = 256;

/** The same order as `sort` gives, stable, in pieces. */
export async function sortInTurns<T>(
  items: readonly T[],
  compare: (a: T, b: T) => number,
  turns: Turns,
): Promise<readonly T[]> {
  let runs: (readonly T[])[] = [];
  for (let start = 0; start < items.length; start += RUN) {
    runs.push(items.slice(start, start + RUN).sort(compare));
    // A run that is in order already costs one comparison per item, another one eight.
    if (turns.spend(RUN)) await turns.next();
  }
  while (runs.length > 1) {
    const merged: (readonly T[])[] = [];
    for (let i = 0; i < runs.length; i += 2) merged.push(await merge(runs[i]!, runs[i + 1] ?? [], compare, turns));
    runs = merged;
  }
  return runs[0] ?? [];
}

async function merge<T>(
  a: readonly T[],
  b: readonly T[],
  compare: (a: T, b: T) => number,
  turns: Turns,
): Promise<readonly T[]> {
  // Lists come in order from the API server: then there is nothing to interleave.
  if (b.length === 0 || compare(a.at(-1)!, b[0]!) <= 0) return a.concat(b);
  const merged: T[] = [];
  for (let [i, j] = [0, 0]; i < a.length || j < b.length;) {
    const isFirst = j >= b.length || (i < a.length && compare(a[i]!, b[j]!) <= 0);
    merged.push(isFirst ? a[i++]! : b[j++]!);
    if (turns.spend()) await turns.next();
  }
  return merged;
}
