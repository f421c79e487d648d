import { doubledWait } from '../time/backoff.js';
import { type Clock } from '../time/clock.js';
import { Gathering } from '../time/gathering.js';

export interface RunnerOptions {
  /** At least this long between the end of one run and the start of the next (minSyncPeriod), ms. */
  readonly minInterval: number;
  /** Wait after the first failed run, ms; doubles with each further failure. */
  readonly retryInterval: number;
  /** Where doubling ends, ms. */
  readonly maxRetryInterval: number;
  /** Notified of what a run threw. */
  readonly onError: (error: unknown) => void;
}

/** The longest that setTimeout can wait (2^31-1 ms); more than that it takes for 1 ms. */
const MAX_DELAY = 2_147_483_647;

/**
 * Runs one async function when asked to, never twice at a time and no more often than allowed, with a doubling retry. A
 * run that returns false or throws has failed.
 */
export class BoundedFrequencyRunner {
  #lastEnd: number | undefined;
  #dueAt: number;
  #cancelTimer: (() => void) | undefined;
  #running: Promise<void> | undefined;
  #failures = 0;
  readonly #gathering = new Gathering();
  /** When the next run, or the one in flight, was due. */
  #askedAt = -Infinity;
  #stopped = false;

  constructor(
    readonly run: () => Promise<boolean>,
    readonly options: RunnerOptions,
    readonly clock: Clock,
  ) {
    this.#dueAt = Infinity;
  }

  /** Asks for a run as soon as minInterval allows. */
  request(): void {
    this.requestWithin(0);
  }

  /** Asks for a run in at most `ms`; an earlier one serves too. */
  requestWithin(ms: number): void {
    const dueAt = this.clock.now() + ms;
    if (this.#dueAt <= dueAt) return;
    this.#dueAt = dueAt;
    this.#schedule();
  }

  /** No further run starts; resolves when the one in flight has ended. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#cancelTimer?.();
    await this.#running;
  }

  #schedule(): void {
    if (this.#stopped || this.#running !== undefined) return;
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    const now = this.clock.now();
    const earliest = this.#lastEnd === undefined ? now : this.#lastEnd + this.options.minInterval;
    this.#askedAt = Math.max(this.#dueAt, now);
    const gathered = this.#gathering.earliest(this.#askedAt);
    const delay = Math.max(0, Math.max(earliest, gathered, this.#dueAt) - now);
    if (delay === Infinity) return;
    this.#cancelTimer =
      delay > MAX_DELAY
        ? this.clock.after(MAX_DELAY, () => this.#schedule())
        : this.clock.after(delay, () => this.#start());
  }

  #start(): void {
    this.#dueAt = Infinity;
    this.#running = this.run()
      .catch((error: unknown) => {
        this.options.onError(error);
        return false;
      })
      .then((ok) => this.#finish(ok));
  }

  #finish(ok: boolean): void {
    this.#running = undefined;
    this.#lastEnd = this.clock.now();
    this.#gathering.ended(this.#askedAt, this.#lastEnd);
    this.#failures = ok ? 0 : this.#failures + 1;
    if (!ok) this.#dueAt = Math.min(this.#dueAt, this.#lastEnd + this.#retryDelay());
    this.#schedule();
  }

  #retryDelay(): number {
    const { retryInterval, maxRetryInterval } = this.options;
    return doubledWait(retryInterval, maxRetryInterval, this.#failures);
  }
}
