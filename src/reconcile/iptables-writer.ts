import { type Family } from '../values/address.js';
import { type RuleSet } from '../desired/iptables-rule-set.js';
import { type Iptables } from '../kernel/iptables/iptables.js';
import { takeoverTable } from '../desired/iptables-takeover.js';
import { type RuleDifference, planRules, planTakeover } from '../plan/iptables-rule-diff.js';
import { servesByIptables } from '../plan/iptables-rule-leftovers.js';
import { parseSavedRules } from '../plan/iptables-save.js';
import { type RuleWork, type RulesWriter } from './rules-keeper.js';

export interface IptablesWriterOptions {
  readonly iptables: Iptables;
  readonly onLockWait: (ms: number) => void;
  /** Tells whether any rule may have changed, without a process; undefined: read them. */
  readonly fingerprint: (family: Family) => string | undefined;
  /** kube-proxy's nftables mode serves here: its tables are removed when all else is in place. */
  readonly hasForeignTables?: () => boolean;
}

/** Rules by iptables-save and iptables-restore. */
export class IptablesWriter implements RulesWriter<RuleSet> {
  readonly backend = 'iptables';
  readonly #ahead = new Map<Family, { readonly fingerprint: string | undefined; readonly text: string }>();
  /** Per family, what was observed to be as desired, and the fingerprint of the rules then. */
  readonly #right = new Map<Family, { readonly desiredText: string; readonly fingerprint: string }>();

  constructor(readonly options: IptablesWriterOptions) {}

  async readAhead(desired: readonly RuleSet[], signal: AbortSignal): Promise<void> {
    for (const { family } of desired) {
      const fingerprint = this.options.fingerprint(family);
      if (fingerprint === undefined) return;
      this.#ahead.set(family, { fingerprint, text: await this.options.iptables.save(family, signal) });
    }
  }

  async prepareTakeover(desired: readonly RuleSet[], signal: AbortSignal): Promise<readonly Family[]> {
    const { iptables, hasForeignTables } = this.options;
    const served: Family[] = [];
    for (const one of desired) {
      const { family } = one;
      const fingerprint = this.options.fingerprint(family);
      const ahead = this.#ahead.get(family);
      const isStill = ahead !== undefined && ahead.fingerprint === fingerprint;
      const text = isStill ? ahead.text : await iptables.save(family, signal);
      const saved = parseSavedRules(text);
      const serves = servesByIptables(saved);
      if (serves) served.push(family);
      if (!serves && hasForeignTables?.() !== true) {
        this.#ahead.set(family, { fingerprint, text });
        continue;
      }
      const plan = planTakeover(one, saved, serves);
      this.#ahead.delete(family);
      if (plan !== '') await iptables.restore(family, plan, { signal });
    }
    return served;
  }

  /** With what is needed while kube-proxy's nftables mode serves, too. */
  #wanted(desired: RuleSet): RuleSet {
    if (this.options.hasForeignTables?.() !== true) return desired;
    const { jumps, chains } = takeoverTable(desired.family);
    const tables = desired.tables.map((table) =>
      table.name === 'nat'
        ? { ...table, chains: [...table.chains, ...chains], jumps: [...jumps, ...table.jumps] }
        : table,
    );
    return { ...desired, tables };
  }

  async ensure(wanted: RuleSet, { signal, onWaiting, onWritten }: RuleWork): Promise<readonly RuleDifference[]> {
    const { iptables, onLockWait } = this.options;
    const desired = this.#wanted(wanted);
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
    const saved = parseSavedRules(isStill ? ahead.text : await iptables.save(family, signal));
    const plan = planRules(desired, saved);
    if (plan.text === '') {
      if (fingerprint !== undefined) this.#right.set(family, { desiredText, fingerprint });
      return plan.differences;
    }
    onWaiting();
    await iptables.restore(family, plan.text, { signal, onWait: onLockWait });
    onWritten();
    return plan.differences;
  }
}
