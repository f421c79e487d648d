import { setImmediate as nextTurn } from 'node:timers/promises';

/** How often the kernel was changed since the reading began, by what was changed. */
export interface Disturbances {
  /** Virtual servers that were created or deleted; what becomes of one alone is not counted. */
  membership: number;
  addresses: number;
  entries: number;
}

/** Lets changes in while the kernel is read. */
export interface Interruption {
  /** Called where the reading can be interrupted; may change what is being read. */
  readonly turn: () => Promise<void>;
  readonly disturbances: Readonly<Disturbances>;
}

export const NO_DISTURBANCES: Readonly<Disturbances> = { membership: 0, addresses: 0, entries: 0 };
export const UNINTERRUPTED: Interruption = { turn: () => nextTurn(), disturbances: NO_DISTURBANCES };

/** Says, from now on, whether nothing of the sort that `count` counts has been changed. */
export function calmOf(
  { disturbances }: Interruption,
  count: (disturbances: Readonly<Disturbances>) => number,
): () => boolean {
  const before = count(disturbances);
  return () => count(disturbances) === before;
}

/**
 * Lets changes in until one of them disturbs what is being read, and nothing but the event loop's other work from then
 * on: the kernel has a dump that was disturbed begin again, and that is not to go on for ever.
 */
export function turnWhile(isCalm: () => boolean, { turn }: Interruption): () => Promise<void> {
  return () => (isCalm() ? turn() : nextTurn());
}
