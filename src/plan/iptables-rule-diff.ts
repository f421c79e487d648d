import { takeoverTable } from '../desired/iptables-takeover.js';
import { type JumpRule, type RuleSet, type RuleTable } from '../desired/iptables-rule-set.js';
import { type Family } from '../values/address.js';
import { type ChainName, type KnownRules } from './iptables-known-rules.js';
import { knownRules } from './iptables-rule-leftovers.js';
import { normalRule } from './iptables-rule-normal.js';
import { type SavedChain, type SavedRules, ruleComment, ruleTarget } from './iptables-save.js';

/** One way in which the kernel's rules differ from the desired ones. */
export interface RuleDifference {
  readonly kind: 'missing' | 'extra' | 'changed';
  readonly table: string;
  readonly chain: string;
  /** What is wrong, for the log; `dormant` is a table of nf_tables, of which `chain` says `flags`. */
  readonly what: 'jump' | 'chain' | 'rules' | 'dormant';
}

export interface RulePlan {
  readonly differences: readonly RuleDifference[];
  /** Input for `iptables-restore --noflush`; empty when nothing differs. */
  readonly text: string;
}

/** One of our chains that is to go, but somebody else's rule leads to it. */
export interface BusyChain extends ChainName {
  /** The rules that do, as iptables-save prints them: `-A CNI-DN-1 -j KUBE-MARK-MASQ`. */
  readonly usedBy: readonly string[];
}

export interface RemovalPlan {
  /** Input for `iptables-restore --noflush`; empty when there is nothing to remove. */
  readonly text: string;
  /** Chains that must stay, emptied; KUBE-MARK-MASQ with its rule, which needs nothing else and is what others use. */
  readonly busy: readonly BusyChain[];
}

/**
 * What must be written so that the kernel holds `desired`, given what iptables-save printed. Chains whose rules do
 * the same as the desired ones are left alone, whoever wrote them. In chains that others share, only `known` jumps
 * are ours: any other rule stays, wherever it leads. Of our jumps only their order among each other is kept, so
 * that two programs that both want to be first do not fight. `known` chains that are not desired are removed, or
 * emptied where somebody else's rule leads to them.
 */
export function planRules(desired: RuleSet, saved: SavedRules, known: KnownRules = knownRules(saved)): RulePlan {
  const differences: RuleDifference[] = [];
  let text = '';
  const names = new Set([...desired.tables.map((table) => table.name), ...known.chains.map((chain) => chain.table)]);
  for (const name of names) {
    const table = desired.tables.find((one) => one.name === name) ?? { name, chains: [], jumps: [] };
    const own = new Set(table.chains.map((chain) => chain.name));
    const gone = known.chains.filter((one) => one.table === name && !own.has(one.chain)).map((one) => one.chain);
    const plan = new TablePlan(table, saved.get(name) ?? new Map<string, SavedChain>(), desired.family, gone, known);
    text += plan.render();
    for (const difference of plan.differences) differences.push(difference);
  }
  return { differences, text };
}

/**
 * What must be written for the time in which another mode of kube-proxy goes on serving: its nat table stays and gets
 * the rule of the takeover; `withoutNat` everything of other tables is as desired already. Host ports would else be
 * open through VIPs.
 */
export function planTakeover(desired: RuleSet, saved: SavedRules, withoutNat: boolean): string {
  const { family } = desired;
  const added = planRules({ family, tables: [takeoverTable(family)] }, saved, { chains: [], jumps: [] });
  if (!withoutNat) return added.text;
  const known = knownRules(saved);
  const isOther = ({ table }: { readonly table: string }): boolean => table !== 'nat';
  const others = planRules({ family, tables: desired.tables.filter(({ name }) => name !== 'nat') }, saved, {
    chains: known.chains.filter(isOther),
    jumps: known.jumps.filter(isOther),
  });
  return others.text + added.text;
}

/** How to remove every chain for which `isOurs` holds, with the `known` jumps to them and no other rule. */
export function removeChains(
  saved: SavedRules,
  family: Family,
  isOurs: (chain: ChainName) => boolean,
  known: KnownRules = knownRules(saved),
): RemovalPlan {
  const busy: BusyChain[] = [];
  let text = '';
  for (const [name, chains] of saved) {
    const gone = [...chains.keys()].filter((chain) => isOurs({ table: name, chain }));
    const jumps = known.jumps.filter(({ table, rule }) => table === name && gone.includes(ruleTarget(rule) ?? ''));
    const plan = new TablePlan({ name, chains: [], jumps: [] }, chains, family, gone, { chains: [], jumps });
    text += plan.render();
    busy.push(...plan.busy);
  }
  return { text, busy };
}

/** What stays of a chain that is in use: it calls nothing and looks into no set. */
const KEPT_WITH_RULES: readonly ChainName[] = [{ table: 'nat', chain: 'KUBE-MARK-MASQ' }];

/** Works out one table. Lines come in the order declare, delete jumps, fill, insert jumps, delete chains. */
class TablePlan {
  readonly differences: RuleDifference[] = [];
  readonly busy: BusyChain[] = [];
  readonly #declared: string[] = [];
  readonly #lines: string[] = [];
  readonly #gone: ReadonlySet<string>;
  /** By built-in chain, the jumps that are ours whether or not they are desired. */
  readonly #known = new Map<string, Set<string>>();
  readonly #targets: ReadonlySet<string | undefined>;
  /** By chain to go, the rules of others that lead to it. */
  readonly #users = new Map<string, string[]>();

  constructor(
    readonly table: RuleTable,
    readonly saved: ReadonlyMap<string, SavedChain>,
    readonly family: Family,
    gone: readonly string[],
    known: KnownRules,
  ) {
    this.#gone = new Set(gone.filter((name) => saved.has(name)));
    const jumps = [...table.jumps, ...known.jumps.filter((jump) => jump.table === table.name)];
    this.#targets = new Set(jumps.map(({ rule }) => ruleTarget(rule)));
    for (const { chain, rule } of jumps) {
      const rules = this.#known.get(chain) ?? new Set<string>();
      this.#known.set(chain, rules.add(this.#exact(rule)));
    }
  }

  render(): string {
    this.#planChains();
    for (const chain of this.#known.keys()) this.#planJumps(chain);
    this.#findUsers();
    for (const name of this.#gone) this.#planRemoval(name);
    if (this.differences.length === 0) return '';
    return [`*${this.table.name}`, ...this.#declared, ...this.#lines, 'COMMIT', ''].join('\n');
  }

  #planChains(): void {
    for (const chain of this.table.chains) {
      const present = this.saved.get(chain.name);
      if (present !== undefined && this.#sameRules(chain.rules, present.rules)) continue;
      this.#note(present === undefined ? 'missing' : 'changed', chain.name, present === undefined ? 'chain' : 'rules');
      this.#declared.push(`:${chain.name} - [0:0]`);
      for (const rule of chain.rules) this.#lines.push(`-A ${chain.name} ${rule}`);
    }
  }

  #sameRules(desired: readonly string[], present: readonly string[]): boolean {
    return (
      desired.length === present.length &&
      desired.every((rule, i) => rule === present[i] || this.#normal(rule) === this.#normal(present[i]!))
    );
  }

  #planJumps(chain: string): void {
    const desired = this.table.jumps
      .filter((jump) => jump.chain === chain)
      .sort((a, b) => Number(a.position === 'last') - Number(b.position === 'last'));
    const present = this.saved.get(chain)?.rules ?? [];
    const kept = this.#keptJumps(present, desired);
    const normals = desired.map(({ rule }) => this.#normal(rule));
    const rest: (string | undefined)[] = []; // the chain after the deletions; undefined for a rule of others
    for (const [index, rule] of present.entries()) {
      if (!kept.has(index) && this.#isOurs(chain, rule)) {
        this.#note('extra', chain, 'jump');
        this.#lines.push(`-D ${chain} ${rule}`);
      } else {
        rest.push(kept.has(index) ? this.#normal(rule) : undefined);
        if (!kept.has(index)) this.#noteUser(chain, rule);
      }
    }
    this.#insertJumps(chain, desired, normals, rest);
  }

  #leadsToOurs(rule: string): boolean {
    const target = ruleTarget(rule);
    return target !== undefined && this.#targets.has(target);
  }

  #isOurs(chain: string, rule: string): boolean {
    return this.#leadsToOurs(rule) && this.#known.get(chain)!.has(this.#exact(rule));
  }

  /**
   * Indexes of present rules that stay: each desired jump once, and only as long as they stand in the desired order.
   * One with our own text comes before one that somebody else made and that does the same.
   */
  #keptJumps(present: readonly string[], desired: readonly JumpRule[]): Set<number> {
    const kept = new Set<number>();
    if (desired.length === 0) return kept;
    const normals = present.map((rule) => (this.#leadsToOurs(rule) ? this.#normal(rule) : ''));
    const exact = present.map((rule, i) => (normals[i] === '' ? '' : this.#exact(rule)));
    let from = 0;
    for (const { rule } of desired) {
      const own = exact.indexOf(this.#exact(rule), from);
      const index = own >= 0 ? own : normals.indexOf(this.#normal(rule), from);
      if (index < 0) continue;
      kept.add(index);
      from = index + 1;
    }
    return kept;
  }

  #insertJumps(chain: string, desired: JumpRule[], normals: string[], rest: (string | undefined)[]): void {
    let next = 0;
    for (const [i, jump] of desired.entries()) {
      const at = rest.indexOf(normals[i], next);
      if (at >= 0) {
        next = at + 1;
        continue;
      }
      this.#note('missing', chain, 'jump');
      const position = jump.position === 'last' ? rest.length : next;
      this.#lines.push(`-I ${chain} ${position + 1} ${jump.rule}`);
      rest.splice(position, 0, normals[i]);
      next = position + 1;
    }
  }

  /** The rules of others in chains where no jump of ours is looked for. */
  #findUsers(): void {
    if (this.#gone.size === 0) return;
    const own = new Set(this.table.chains.map((chain) => chain.name));
    for (const [chain, { rules }] of this.saved) {
      if (own.has(chain) || this.#gone.has(chain) || this.#known.has(chain)) continue;
      for (const rule of rules) this.#noteUser(chain, rule);
    }
  }

  #noteUser(chain: string, rule: string): void {
    const target = ruleTarget(rule);
    if (target === undefined || !this.#gone.has(target)) return;
    const users = this.#users.get(target);
    const line = `-A ${chain} ${rule}`;
    if (users === undefined) this.#users.set(target, [line]);
    else users.push(line);
  }

  #planRemoval(name: string): void {
    const usedBy = this.#users.get(name);
    if (usedBy === undefined) {
      this.#note('extra', name, 'chain');
      this.#declared.push(`:${name} - [0:0]`);
      this.#lines.push(`-X ${name}`);
      return;
    }
    this.busy.push({ table: this.table.name, chain: name, usedBy });
    const { rules } = this.saved.get(name)!;
    const isSelfContained = rules.every((rule) => !this.saved.has(ruleTarget(rule) ?? ''));
    const keepsRules = KEPT_WITH_RULES.some(({ table, chain }) => table === this.table.name && chain === name);
    if ((keepsRules && isSelfContained) || rules.length === 0) return;
    this.#note('extra', name, 'rules');
    this.#declared.push(`:${name} - [0:0]`);
  }

  #note(kind: RuleDifference['kind'], chain: string, what: RuleDifference['what']): void {
    this.differences.push({ kind, table: this.table.name, chain, what });
  }

  #normal(rule: string): string {
    return normalRule(rule, this.family);
  }

  /** With the comment, which distinguishes our rule from one of somebody else's that does the same. */
  #exact(rule: string): string {
    return `${this.#normal(rule)} ${ruleComment(rule)}`;
  }
}
