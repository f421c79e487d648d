/** When the chaos test may still hope that the kernel becomes what the oracle says. */
import { type Comparison } from './chaos-kernel.js';

/** So many verifications mend all that can be mended at once (chaos-run.ts, #converge, says why not one). */
const VERIFICATIONS = 3;
/** As long as servers of weight 0 are deleted, by their budget (deletion-budget.ts), some go between two looks. */
const LOOKS_WITHOUT_PROGRESS = 3;

export class Convergence {
  #fewest = Infinity;
  #looksWithoutProgress = 0;

  /**
   * Whether to look again, having found this after so many verifications. What is anything but a removed real server
   * that waits for its deletion has to be right by then, and one that never goes is not waited for.
   */
  isWorthWaiting(
    { differences, leaving }: Pick<Comparison, 'differences' | 'leaving'>,
    verifications: number,
  ): boolean {
    this.#looksWithoutProgress = leaving < this.#fewest ? 0 : this.#looksWithoutProgress + 1;
    this.#fewest = Math.min(this.#fewest, leaving);
    if (differences.length === 0) return false;
    if (verifications < VERIFICATIONS) return true;
    return differences.length === leaving && this.#looksWithoutProgress < LOOKS_WITHOUT_PROGRESS;
  }
}
