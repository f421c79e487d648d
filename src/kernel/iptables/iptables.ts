import { doubledWait } from '../../time/backoff.js';
import { type Clock, sleep, systemClock } from '../../time/clock.js';
import { type Family } from '../../values/address.js';
import { type RunCommand } from '../command.js';
import { type IptablesTools } from './detect.js';
import { isLockHeld } from './xtables-lock.js';

/**
 * How long one iptables-restore waits for the xtables lock before it gives up and is started anew, in seconds: first
 * try, later tries.
 */
const WAIT_SECONDS = [1, 5] as const;
/** A program that neither gets the lock nor gives up is killed after this, in milliseconds. */
const TRY_TIMEOUT = 30_000;
/** So is one that reads for longer than this; 100,000 rules take it seconds. */
const SAVE_TIMEOUT = 60_000;
const BACKOFF = { first: 200, most: 5000 };

export interface RestoreOptions {
  /** Gives up when aborted, at once. */
  readonly signal?: AbortSignal;
  /**
   * Milliseconds spent waiting for another holder of the xtables lock since the last call: after each try in vain and
   * at the end. A wait of less than a second, within the first try, is not seen.
   */
  readonly onWait?: (milliseconds: number) => void;
  /**
   * Give up (with the last CommandError) after so many milliseconds of waiting; without it, wait as long as it takes.
   */
  readonly deadline?: number;
}

/** Reads and writes rules through the iptables programs: one process a read, one a write. Errors are CommandError. */
export class Iptables {
  readonly #run: RunCommand;
  readonly #clock: Clock;

  constructor(
    readonly tools: IptablesTools,
    run: RunCommand,
    clock: Clock = systemClock,
  ) {
    this.#run = run;
    this.#clock = clock;
  }

  /**
   * The text of iptables-save: all tables that exist. Takes no lock; given up after a minute, or at once when aborted.
   */
  async save(family: Family, signal?: AbortSignal): Promise<string> {
    const options = { timeout: SAVE_TIMEOUT, ...(signal && { signal }) };
    return (await this.#run(this.tools.commands[family].save, [], options)).stdout;
  }

  /**
   * Feeds `text` to `iptables-restore --noflush`, each table of which is applied as a whole or not at all. While
   * another process holds the xtables lock this waits its turn; the event loop goes on. Rejects with CommandError.
   */
  async restore(family: Family, text: string, options: RestoreOptions = {}): Promise<void> {
    const start = this.#clock.now();
    let reported = start;
    const report = (): void => {
      const now = this.#clock.now();
      options.onWait?.(now - reported);
      reported = now;
    };
    for (let attempt = 0; ; attempt++) {
      try {
        await this.#tryRestore(family, text, attempt, options.signal);
        if (attempt > 0) report();
        return;
      } catch (error) {
        if (!isLockHeld(error)) throw error;
        report();
        if (options.deadline !== undefined && reported - start >= options.deadline) throw error;
        await sleep(this.#clock, doubledWait(BACKOFF.first, BACKOFF.most, attempt + 1), options.signal);
        options.signal?.throwIfAborted();
      }
    }
  }

  async #tryRestore(family: Family, text: string, attempt: number, signal?: AbortSignal): Promise<void> {
    const seconds = attempt === 0 ? WAIT_SECONDS[0] : WAIT_SECONDS[1];
    const args = ['--noflush', ...(this.tools.restoreWaits ? ['-w', `${seconds}`] : [])];
    await this.#run(this.tools.commands[family].restore, args, {
      input: text,
      timeout: TRY_TIMEOUT,
      ...(signal && { signal }),
    });
  }
}
