import { setImmediate as nextTurn } from 'node:timers/promises';
import { type Family } from '../values/address.js';
import { type RuleSet } from '../desired/iptables-rule-set.js';
import { type Iptables } from '../kernel/iptables/iptables.js';
import { type RuleDifference, planRules } from '../plan/iptables-rule-diff.js';
import { parseSavedRules } from '../plan/iptables-save.js';
import { type Clock } from '../time/clock.js';
import { Drift } from './drift.js';

export interface IptablesKeeperOptions {
  readonly iptables: Iptables;
  /** The rules as they must be, of every family that is served. */
  readonly ruleSets: () => readonly RuleSet[];
  readonly clock: Clock;
  readonly onLockWait: (ms: number) => void;
  readonly onOutcome: (outcome: RulesOutcome) => void;
  /** Tells whether any rule may have changed, without a process; undefined: read them. */
  readonly fingerprint: (family: Family) => string | undefined;
}

export interface RulesOutcome {
  readonly differences: readonly (RuleDifference & { readonly family: Family })[];
  /** The differences again, unless they were there before this program's first rules were. */
  readonly drift: Drift;
  readonly error: Error | undefined;
  /** The family that was worked on last: the one that failed, if one did. */
  readonly family: Family;
}

/** The next try after one that failed. */
const RETRY_MS = 5000;

/**
 * Writes the KUBE-* chains once and again only when reading them back shows a difference. Runs beside the sync, never
 * inside it: another process may hold the xtables lock for a long time, and IPVS changes must not wait for it.
 */
export class IptablesKeeper {
  #running: Promise<RulesOutcome> | undefined;
  #prefetching: Promise<void> | undefined;
  readonly #ahead = new Map<Family, { readonly fingerprint: string; readonly text: string }>();
  #again = false;
  #lastError: Error | undefined;
  #waitingSince: number | undefined;
  #checkingSince: number | undefined;
  readonly #abort = new AbortController();
  /** Per family, what was observed to be as desired, and the fingerprint of the rules then. */
  readonly #right = new Map<Family, { readonly desiredText: string; readonly fingerprint: string }>();
  writes = 0;

  #cancelRetry: () => void = () => undefined;
  /** The rules were right once: what differs from then on was changed by somebody. */
  #wereRight = false;

  constructor(readonly options: IptablesKeeperOptions) {}

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
    this.#prefetching ??= this.#readAhead().catch(() => undefined); // the check will say what is wrong
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
    try {
      for (const desired of this.options.ruleSets()) {
        family = desired.family;
        for (const difference of await this.#ensure(desired)) differences.push({ ...difference, family });
      }
      const drift = this.#driftOf(differences);
      this.#wereRight = true;
      return { differences, drift, error: undefined, family };
    } catch (cause) {
      const error = cause instanceof Error ? cause : new Error(String(cause));
      return { differences, drift: this.#driftOf(differences), error, family };
    }
  }

  #driftOf(differences: RulesOutcome['differences']): Drift {
    const drift = new Drift();
    if (!this.#wereRight) return drift;
    for (const { family, table, chain, kind } of differences)
      drift.add('rule', kind, () => `IPv${family} ${table} ${chain}`);
    return drift;
  }

  async #readAhead(): Promise<void> {
    for (const { family } of this.options.ruleSets()) {
      const fingerprint = this.options.fingerprint(family);
      if (fingerprint === undefined) return;
      this.#ahead.set(family, { fingerprint, text: await this.options.iptables.save(family, this.#abort.signal) });
    }
  }

  async #ensure(desired: RuleSet): Promise<readonly RuleDifference[]> {
    const { family } = desired;
    const desiredText = JSON.stringify(desired);
    // Before the rules are read: what changes after this shows at the next check.
    const fingerprint = this.options.fingerprint(family);
    const right = this.#right.get(family);
    if (fingerprint !== undefined && right?.fingerprint === fingerprint && right.desiredText === desiredText) return [];
    this.#right.delete(family);
    const ahead = this.#ahead.get(family);
    this.#ahead.delete(family);
    const isStill = ahead !== undefined && ahead.fingerprint === fingerprint;
    const saved = parseSavedRules(isStill ? ahead.text : await this.options.iptables.save(family, this.#abort.signal));
    const plan = planRules(desired, saved);
    if (plan.text === '') {
      if (fingerprint !== undefined) this.#right.set(family, { desiredText, fingerprint });
      return plan.differences;
    }
    this.#waitingSince ??= performance.now();
    await this.options.iptables.restore(family, plan.text, {
      signal: this.#abort.signal,
      onWait: this.options.onLockWait,
    });
    this.writes++;
    this.#waitingSince = undefined;
    return plan.differences;
  }
}
