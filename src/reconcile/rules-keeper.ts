import { setImmediate as nextTurn } from 'node:timers/promises';
import { type Family } from '../values/address.js';
import { type RuleDifference } from '../plan/iptables-rule-diff.js';
import { type Clock } from '../time/clock.js';
import { Drift } from './drift.js';

/** What the writer of rules tells, and by what it is told to give up. */
export interface RuleWork {
  readonly signal: AbortSignal;
  /** Rules that differ are about to be written. */
  readonly onWaiting: () => void;
  readonly onWritten: () => void;
}

/** Makes the rules in the kernel as desired: by iptables' programs, or in nf_tables. `Desired` is of one family. */
export interface RulesWriter<Desired> {
  readonly backend: RuleBackendName;
  /** Reads, compares and writes what differs; returns the differences. Rejects with CommandError or NetlinkError. */
  ensure(desired: Desired, work: RuleWork): Promise<readonly RuleDifference[]>;
  /** Reads what `ensure` will need, while there is time. */
  readAhead(desired: readonly Desired[], signal: AbortSignal): Promise<void>;
  /**
   * Writes what is needed while another mode of kube-proxy serves besides; returns the families whose rules have to
   * wait for its end.
   */
  prepareTakeover?(desired: readonly Desired[], signal: AbortSignal): Promise<readonly Family[]>;
}

export interface RulesKeeperOptions<Desired> {
  readonly writer: RulesWriter<Desired>;
  /** The rules as they must be, of every family that is served. */
  readonly desired: () => readonly Desired[];
  readonly clock: Clock;
  readonly onOutcome: (outcome: RulesOutcome) => void;
  /** Everything is in place: kernel state, and the rules besides. Called once. */
  readonly onInPlace?: () => void;
}

/** Where rules are. */
export type RuleBackendName = 'iptables' | 'nftables';

export interface RulesOutcome {
  readonly backend: RuleBackendName;
  readonly differences: readonly (RuleDifference & { readonly family: Family })[];
  /** The differences again, unless they were there before this program's first rules were. */
  readonly drift: Drift;
  readonly error: Error | undefined;
  /** The family that was worked on last: the one that failed, if one did. */
  readonly family: Family;
  /** Families of which kube-proxy's iptables mode still serves, until everything else is in place. */
  readonly heldBack: readonly Family[];
}

/** The next try after one that failed. */
const RETRY_MS = 5000;
/** What waits for the preparation of a takeover waits no longer than this, ms: the xtables lock may be held. */
const PREPARATION_MS = 5000;

/**
 * Writes our chains once and again only when reading them back shows a difference. Runs beside the sync, never
 * inside it: another process may hold the xtables lock for a long time, and IPVS changes must not wait for it.
 */
export class RulesKeeper<Desired extends { readonly family: Family } = { readonly family: Family }> {
  #running: Promise<RulesOutcome> | undefined;
  #prefetching: Promise<void> | undefined;
  #again = false;
  #lastError: Error | undefined;
  #waitingSince: number | undefined;
  #checkingSince: number | undefined;
  readonly #abort = new AbortController();
  writes = 0;

  readonly #work: RuleWork = {
    signal: this.#abort.signal,
    onWaiting: () => (this.#waitingSince ??= performance.now()),
    onWritten: () => {
      this.writes++;
      this.#waitingSince = undefined;
    },
  };
  #cancelRetry: () => void = () => undefined;
  /** The rules were right once: what differs from then on was changed by somebody. */
  #wereRight = false;
  /** Until `release`: what serves by kube-proxy's rules goes on doing so. */
  #isHeld = true;
  #isInPlace = false;
  #hasLooked = false;
  /** Families that kube-proxy's iptables mode serves. */
  #heldBack: readonly Family[] = [];
  #onLooked: () => void = () => undefined;
  readonly #looked = new Promise<void>((resolve) => (this.#onLooked = resolve));

  constructor(readonly options: RulesKeeperOptions<Desired>) {}

  /** What the last check failed with. */
  get lastError(): Error | undefined {
    return this.#lastError;
  }

  /** performance.now() since which rules that differ wait to be written; undefined when none do. */
  get waitingSince(): number | undefined {
    return this.#waitingSince;
  }

  /** performance.now() since which a check has been under way without an outcome; undefined when none is. */
  get checkingSince(): number | undefined {
    return this.#checkingSince;
  }

  /**
   * Reads the rules while there is time; the first check need not, if their fingerprint says that none has changed
   * since. Without fingerprints it does nothing.
   */
  prefetch(): void {
    const { writer, desired } = this.options;
    this.#prefetching ??= writer.readAhead(desired(), this.#abort.signal).catch(() => undefined); // the check will tell
  }

  /** Starts a check unless one is under way; then another follows it. */
  check(): void {
    if (this.#running !== undefined) {
      this.#again = true;
      return;
    }
    this.#checkingSince = performance.now();
    this.#running = this.#run();
    void this.#running.then((outcome) => this.#finish(outcome));
  }

  /**
   * Resolves when VIPs may be bound: the first check has seen that no other mode of kube-proxy serves here, or has
   * written what is needed for the time in which both do. Waits for a few seconds at most.
   */
  async prepared(): Promise<void> {
    if (this.#hasLooked || this.#running === undefined) return;
    let cancel = (): void => undefined;
    const late = new Promise<void>((resolve) => (cancel = this.options.clock.after(PREPARATION_MS, resolve)));
    await Promise.race([this.#looked, this.settled(), late]);
    cancel();
  }

  /** What is desired has changed: that the kernel differs from it is nobody's doing. */
  desiredChanged(): void {
    this.#wereRight = false;
    this.check();
  }

  /** Everything else is in place: what another mode of kube-proxy left may go. */
  release(): void {
    if (!this.#isHeld) return;
    this.#isHeld = false;
    this.#heldBack = [];
    this.check();
  }

  /** Resolves when no check is under way. */
  async settled(): Promise<void> {
    while (this.#running !== undefined) await this.#running.then(() => undefined);
  }

  /** Gives up, killing what writes: the kernel takes each table as a whole or not at all. */
  async stop(): Promise<void> {
    this.#again = false;
    this.#abort.abort();
    this.#cancelRetry();
    await Promise.all([this.#running, this.#prefetching]);
  }

  #finish(outcome: RulesOutcome): void {
    this.#running = undefined;
    this.#checkingSince = undefined;
    this.#lastError = outcome.error;
    // What was written by somebody else, or is desired no more, does not wait either.
    if (outcome.error === undefined) this.#waitingSince = undefined;
    if (this.#abort.signal.aborted) return;
    this.options.onOutcome(outcome);
    this.#cancelRetry();
    // A check that began before the release is followed by another.
    if (outcome.error === undefined && !this.#isHeld && !this.#isInPlace && !this.#again) {
      this.#isInPlace = true;
      this.options.onInPlace?.();
    }
    if (this.#again) {
      this.#again = false;
      this.check();
    } else if (outcome.error !== undefined) {
      this.#cancelRetry = this.options.clock.after(RETRY_MS, () => this.check());
    }
  }

  async #run(): Promise<RulesOutcome> {
    await this.#prefetching;
    await nextTurn(); // reading and comparing the rules is a piece of work of its own
    const differences: (RuleDifference & { family: Family })[] = [];
    let family: Family = 4;
    const { backend } = this.options.writer;
    try {
      if (!this.#hasLooked) await this.#prepareTakeover();
      for (const desired of this.options.desired()) {
        family = desired.family;
        if (this.#heldBack.includes(family)) continue;
        const found = await this.options.writer.ensure(desired, this.#work);
        for (const difference of found) differences.push({ ...difference, family });
      }
      const drift = this.#driftOf(differences);
      this.#wereRight = this.#heldBack.length === 0;
      return { backend, differences, drift, error: undefined, family, heldBack: this.#heldBack };
    } catch (cause) {
      const error = cause instanceof Error ? cause : new Error(String(cause));
      return { backend, differences, drift: this.#driftOf(differences), error, family, heldBack: this.#heldBack };
    }
  }

  async #prepareTakeover(): Promise<void> {
    const { writer, desired } = this.options;
    try {
      const held = this.#isHeld ? await writer.prepareTakeover?.(desired(), this.#abort.signal) : undefined;
      if (this.#isHeld) this.#heldBack = held ?? [];
      this.#hasLooked = true;
    } finally {
      this.#onLooked();
    }
  }

  #driftOf(differences: RulesOutcome['differences']): Drift {
    const drift = new Drift();
    if (!this.#wereRight) return drift;
    for (const { family, table, chain, kind } of differences)
      drift.add('rule', kind, () => `IPv${family} ${table} ${chain}`);
    return drift;
  }
}
