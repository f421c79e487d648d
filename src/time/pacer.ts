import { setImmediate as nextTurn } from 'node:timers/promises';

/** How often to look at the clock, ms; without a vDSO (virtual machines, sandboxes) a look is a system call. */
const LOOK_MS = 1;
/** A short slice is looked at so often at least: it is not to be overrun by as long again. */
const LOOKS_PER_SLICE = 3;
const MOST_CALLS_BETWEEN_LOOKS = 256;
/** So few calls, all that one changed EndpointSlice makes, need no clock at all. */
const FIRST_CALLS = 4;
/** For reading the kernel back, which goes on for long: with what is between two looks, a change waits for 1 ms. */
export const READING_SLICE_MS = 0.7;
const ALREADY: Promise<void> = Promise.resolve();

/** The work breaks off, because the process is to end. */
export class WorkStopped extends Error {
  override readonly name = 'WorkStopped';

  constructor() {
    super('stopped');
  }
}

/** Set once: from then on long work breaks off where it lets the event loop turn. */
export class StopFlag {
  #isStopped = false;

  stop(): void {
    this.#isStopped = true;
  }

  /** Throws WorkStopped. */
  throwIfStopped(): void {
    if (this.#isStopped) throw new WorkStopped();
  }

  /** A pacer whose work breaks off then; `firstCalls` and `sliceMs` as there. */
  pacer(firstCalls?: number, sliceMs?: number): Pacer {
    return new Pacer(sliceMs, undefined, firstCalls, this);
  }
}

const NEVER = new StopFlag();

/** Lets the event loop turn during long work: health endpoints must answer during a 10,000-Service sync. */
export class Pacer {
  #since: number | undefined;
  /** In this slice, until the last look. */
  #calls = 0;
  #stride = 1;
  #left: number;
  #isDue = false;
  readonly #lookMs: number;

  constructor(
    readonly sliceMs = 4,
    readonly now: () => number = () => performance.now(),
    /** The clock starts at this call; 1 for steps of which each is expensive. */
    firstCalls = FIRST_CALLS,
    readonly stop: StopFlag = NEVER,
  ) {
    this.#left = firstCalls;
    this.#lookMs = Math.min(LOOK_MS, sliceMs / LOOKS_PER_SLICE);
  }

  /** True when the current slice of work has used up its time; looks at the clock about once a millisecond. */
  get isDue(): boolean {
    if (this.#isDue) return true;
    if (--this.#left > 0) return false;
    const now = this.now();
    if (this.#since === undefined) return this.#start(now);
    this.#calls += this.#stride;
    // Of the whole slice: one call in twenty sends a batch to the kernel, and says nothing about the next ones.
    const perCall = (now - this.#since) / this.#calls;
    // At most twice as far as before: the next calls may be more expensive than the last ones.
    this.#stride = Math.max(1, Math.min(this.#lookMs / perCall, this.#stride * 2, MOST_CALLS_BETWEEN_LOOKS) | 0);
    this.#left = this.#stride;
    this.#isDue = now - this.#since >= this.sliceMs;
    return this.#isDue;
  }

  #start(now: number): false {
    this.#since = now;
    this.#calls = 0;
    this.#stride = Math.max(1, this.#stride >> 2);
    this.#left = this.#stride;
    return false;
  }

  /**
   * Yields to the event loop if this slice is used up, and to whatever else `turn` lets in; costs next to nothing
   * otherwise.
   */
  yieldIfDue(turn: () => Promise<void> = nextTurn): Promise<void> {
    return this.isDue ? this.#yield(turn) : ALREADY;
  }

  async #yield(turn: () => Promise<void>): Promise<void> {
    await turn();
    this.stop.throwIfStopped();
    this.#isDue = false;
    this.#start(this.now());
  }
}
