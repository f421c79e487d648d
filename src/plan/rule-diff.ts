import { type JumpRule, type RuleSet, type RuleTable } from '../desired/rule-set.js';
import { type Family } from '../values/address.js';
import { normalRule } from './rule-normal.js';
import { type SavedChain, type SavedRules, ruleTarget } from './rule-save.js';

/** One way in which the kernel's rules differ from the desired ones. */
export interface RuleDifference {
  readonly kind: 'missing' | 'extra' | 'changed';
  readonly table: string;
  readonly chain: string;
  /** What is wrong, for the log: `jump`, `chain`, or `rules`. */
  readonly what: 'jump' | 'chain' | 'rules';
}

export interface RulePlan {
  readonly differences: readonly RuleDifference[];
  /** Input for `iptables-restore --noflush`; empty when nothing differs. */
  readonly text: string;
}

/** A chain by table and name. */
export interface ChainName {
  readonly table: string;
  readonly chain: string;
}

/** Chains that kube-proxy 1.36 makes in IPVS mode; those that the desired rules lack are removed as retired. */
export const KUBE_PROXY_IPVS_CHAINS: readonly ChainName[] = [
  ...['KUBE-SERVICES', 'KUBE-POSTROUTING', 'KUBE-NODE-PORT', 'KUBE-LOAD-BALANCER', 'KUBE-MARK-MASQ'].map((chain) => ({
    table: 'nat',
    chain,
  })),
  ...[
    'KUBE-FORWARD',
    'KUBE-NODE-PORT',
    'KUBE-PROXY-FIREWALL',
    'KUBE-SOURCE-RANGES-FIREWALL',
    'KUBE-IPVS-FILTER',
    'KUBE-IPVS-OUT-FILTER',
  ].map((chain) => ({ table: 'filter', chain })),
];

/**
 * What must be written so that the kernel holds `desired`, given what iptables-save printed. Chains whose rules do the same as
 * the desired ones are left alone, whoever wrote them; other people's rules and chains are never touched. Of our jump rules only their
 * order among each other is kept, so that two programs that both want to be first do not fight. `retired` chains are removed when present.
 */
export function planRules(
  desired: RuleSet,
  saved: SavedRules,
  retired: readonly ChainName[] = KUBE_PROXY_IPVS_CHAINS,
): RulePlan {
  const differences: RuleDifference[] = [];
  let text = '';
  const names = new Set([...desired.tables.map((table) => table.name), ...retired.map((chain) => chain.table)]);
  for (const name of names) {
    const table = desired.tables.find((one) => one.name === name) ?? { name, chains: [], jumps: [] };
    const own = new Set(table.chains.map((chain) => chain.name));
    const gone = retired.filter((one) => one.table === name && !own.has(one.chain)).map((one) => one.chain);
    const plan = new TablePlan(table, saved.get(name) ?? new Map<string, SavedChain>(), desired.family, new Set(gone));
    text += plan.render();
    differences.push(...plan.differences);
  }
  return { differences, text };
}

/**
 * Input for `iptables-restore --noflush` that removes every chain for which `isOurs` holds and every rule elsewhere that leads to
 * one; empty when there is none.
 */
export function removeChains(saved: SavedRules, isOurs: (chain: ChainName) => boolean): string {
  let text = '';
  for (const [name, chains] of saved) {
    const gone = [...chains.keys()].filter((chain) => isOurs({ table: name, chain }));
    const plan = new TablePlan({ name, chains: [], jumps: [] }, chains, 4, new Set(gone));
    text += plan.render();
  }
  return text;
}

/** Works out one table. Lines come in the order declare, delete jumps, fill, insert jumps, delete chains. */
class TablePlan {
  readonly differences: RuleDifference[] = [];
  private readonly declared: string[] = [];
  private readonly lines: string[] = [];

  constructor(
    private readonly table: RuleTable,
    private readonly saved: ReadonlyMap<string, SavedChain>,
    private readonly family: Family,
    private readonly gone: ReadonlySet<string>,
  ) {}

  render(): string {
    this.planChains();
    this.planJumps();
    const removed = [...this.gone].filter((name) => this.saved.has(name));
    for (const name of removed) {
      this.note('extra', name, 'chain');
      this.declared.push(`:${name} - [0:0]`);
      this.lines.push(`-X ${name}`);
    }
    if (this.differences.length === 0) return '';
    return [`*${this.table.name}`, ...this.declared, ...this.lines, 'COMMIT', ''].join('\n');
  }

  private planChains(): void {
    for (const chain of this.table.chains) {
      const present = this.saved.get(chain.name);
      if (present !== undefined && this.sameRules(chain.rules, present.rules)) continue;
      this.note(present === undefined ? 'missing' : 'changed', chain.name, present === undefined ? 'chain' : 'rules');
      this.declared.push(`:${chain.name} - [0:0]`);
      for (const rule of chain.rules) this.lines.push(`-A ${chain.name} ${rule}`);
    }
  }

  private sameRules(desired: readonly string[], present: readonly string[]): boolean {
    return (
      desired.length === present.length &&
      desired.every((rule, i) => rule === present[i] || this.normal(rule) === this.normal(present[i]!))
    );
  }

  private planJumps(): void {
    const own = new Set(this.table.chains.map((chain) => chain.name));
    const chains = new Set([...this.saved.keys(), ...this.table.jumps.map((jump) => jump.chain)]);
    for (const chain of chains) {
      if (own.has(chain) || this.gone.has(chain)) continue;
      const wanted = this.table.jumps.filter((jump) => jump.chain === chain);
      const present = this.saved.get(chain)?.rules ?? [];
      this.planJumpsOf(chain, wanted, present, own);
    }
  }

  private planJumpsOf(chain: string, wanted: JumpRule[], present: readonly string[], own: ReadonlySet<string>): void {
    const ordered = [...wanted].sort((a, b) => Number(a.position === 'last') - Number(b.position === 'last'));
    const wantedNormals = ordered.map((jump) => this.normal(jump.rule));
    const kept = this.keptJumps(present, wantedNormals);
    const rest: (string | undefined)[] = []; // the chain after the deletions; undefined for a rule of others
    for (const [index, rule] of present.entries()) {
      const target = ruleTarget(rule);
      const isOurs = kept.has(index) || (target !== undefined && (own.has(target) || this.gone.has(target)));
      if (isOurs && !kept.has(index)) {
        this.note('extra', chain, 'jump');
        this.lines.push(`-D ${chain} ${rule}`);
      } else rest.push(isOurs ? this.normal(rule) : undefined);
    }
    this.insertJumps(chain, ordered, wantedNormals, rest);
  }

  /** Indexes of present rules that stay: each wanted jump once, and only as long as they stand in the wanted order. */
  private keptJumps(present: readonly string[], wanted: readonly string[]): Set<number> {
    if (wanted.length === 0) return new Set();
    const normals = present.map((rule) => (ruleTarget(rule) === undefined ? '' : this.normal(rule)));
    const kept = new Set<number>();
    let from = 0;
    for (const normal of wanted) {
      const index = normals.indexOf(normal, from);
      if (index < 0) continue;
      kept.add(index);
      from = index + 1;
    }
    return kept;
  }

  private insertJumps(chain: string, wanted: JumpRule[], normals: string[], rest: (string | undefined)[]): void {
    let next = 0;
    for (const [i, jump] of wanted.entries()) {
      const at = rest.indexOf(normals[i], next);
      if (at >= 0) {
        next = at + 1;
        continue;
      }
      this.note('missing', chain, 'jump');
      const position = jump.position === 'last' ? rest.length : next;
      this.lines.push(`-I ${chain} ${position + 1} ${jump.rule}`);
      rest.splice(position, 0, normals[i]);
      next = position + 1;
    }
  }

  private note(kind: RuleDifference['kind'], chain: string, what: RuleDifference['what']): void {
    this.differences.push({ kind, table: this.table.name, chain, what });
  }

  private normal(rule: string): string {
    return normalRule(rule, this.family);
  }
}
