/** When the chaos test may still hope that the kernel becomes what the oracle says. */
import { type Comparison } from './chaos-kernel.js';

/** So many verifications mend all that can be mended at once (chaos-run.ts, #converge, says why not one). */
const VERIFICATIONS = 3;
/**
 * Deletions have a budget (src/reconcile/deletion-budget.ts). At worst, after 10,000 that could not wait, it allows
 * none for three minutes; from then on some go every second.
 */
const LONGEST_PAUSE_MS = 200_000;

export class Convergence {
  #fewest = Infinity;
  #progressAt = 0;

  /**
   * Whether to look again, having found this after so many verifications, at `now` in milliseconds. What is anything
   * but a removed real server that waits for its deletion has to be right by then, and one that never goes is not
   * waited for.
   */
  isWorthWaiting(
    { differences, leaving }: Pick<Comparison, 'differences' | 'leaving'>,
    verifications: number,
    now: number,
  ): boolean {
    if (leaving < this.#fewest) {
      this.#fewest = leaving;
      this.#progressAt = now;
    }
    if (differences.length === 0) return false;
    if (verifications < VERIFICATIONS) return true;
    return differences.length === leaving && now - this.#progressAt < LONGEST_PAUSE_MS;
  }
}
