import { type Clock } from './clock.js';

export interface RunnerOptions {
  /** At least this long between the end of one run and the start of the next (minSyncPeriod), ms. */
  readonly minInterval: number;
  /** At most this long between the end of one run and the start of the next (syncPeriod), ms. */
  readonly maxInterval: number;
  /** Wait after the first failed run, ms; doubles with each further failure. */
  readonly retryInterval: number;
  /** Where doubling ends, ms. */
  readonly maxRetryInterval: number;
}

/**
 * Runs one async function, never twice at a time, with bounded frequency: what k8s.io/kubernetes pkg/util/async
 * promises, plus a doubling retry. A run that returns false or throws has failed.
 */
export class BoundedFrequencyRunner {
  #lastEnd: number | undefined;
  #wantedAt: number;
  #cancelTimer: (() => void) | undefined;
  #running: Promise<void> | undefined;
  #failures = 0;
  #stopped = false;

  constructor(
    readonly run: () => Promise<boolean>,
    readonly options: RunnerOptions,
    readonly clock: Clock,
  ) {
    this.#wantedAt = Infinity;
  }

  get consecutiveFailures(): number {
    return this.#failures;
  }

  /** Asks for a run as soon as minInterval allows. */
  request(): void {
    this.requestWithin(0);
  }

  /** Asks for a run in at most `ms`; an earlier one serves too. */
  requestWithin(ms: number): void {
    this.#wantedAt = Math.min(this.#wantedAt, this.clock.now() + ms);
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
    const latest = this.#lastEnd === undefined ? Infinity : this.#lastEnd + this.options.maxInterval;
    const due = Math.max(earliest, Math.min(this.#wantedAt, latest));
    if (due === Infinity) return;
    this.#cancelTimer = this.clock.after(Math.max(0, due - now), () => this.#start());
  }

  #start(): void {
    this.#wantedAt = Infinity;
    this.#running = this.run()
      .catch(() => false)
      .then((ok) => this.#finish(ok));
  }

  #finish(ok: boolean): void {
    this.#running = undefined;
    this.#lastEnd = this.clock.now();
    this.#failures = ok ? 0 : this.#failures + 1;
    if (!ok) this.#wantedAt = Math.min(this.#wantedAt, this.#lastEnd + this.#retryDelay());
    this.#schedule();
  }

  #retryDelay(): number {
    const delay = this.options.retryInterval * 2 ** Math.min(this.#failures - 1, 20);
    return Math.min(delay, this.options.maxRetryInterval, this.options.maxInterval);
  }
}
