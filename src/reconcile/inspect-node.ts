/** What `verify` and `plan` look at beside the tables of inspect.ts: rules and sysctls. Writes nothing. */
import { type RuleSet } from '../desired/iptables-rule-set.js';
import { type Iptables } from '../kernel/iptables/iptables.js';
import { type NftClient } from '../kernel/nftables/client.js';
import { planRules } from '../plan/iptables-rule-diff.js';
import { type SavedRules, parseSavedRules } from '../plan/iptables-save.js';
import { nftRuleText, planNftables } from '../plan/nftables-diff.js';
import { type Family } from '../values/address.js';
import { type NftTable } from '../values/nftables.js';
import { type RuleChange } from './change.js';
import { type Inspection } from './inspect.js';
import { type SysctlKeeper, isRight } from './sysctl-keeper.js';

/** Adds the chains and jumps that differ. Rejects with CommandError. */
export async function inspectRules(
  iptables: Iptables,
  ruleSets: readonly RuleSet[],
  { drift, changes }: Inspection,
): Promise<void> {
  for (const desired of ruleSets) {
    const saved = parseSavedRules(await iptables.save(desired.family));
    const { differences, text } = planRules(desired, saved);
    for (const { kind, table, chain, what } of differences)
      drift.add('rule', kind, () => `IPv${desired.family} ${table} ${chain} ${what}`);
    for (const change of ruleChanges(text, saved, desired.family)) changes.push(change);
  }
}

/** The same for our tables of nf_tables; rules as lists of expressions. Rejects with NetlinkError. */
export async function inspectNftables(
  client: Pick<NftClient, 'readTable'>,
  tables: readonly NftTable[],
  { drift, changes }: Inspection,
): Promise<void> {
  for (const desired of tables) {
    const { family } = desired;
    const observed = await client.readTable(family, () => Promise.resolve());
    const rulesOf = (table: NftTable | undefined, name: string): string[] =>
      (table?.chains.find((one) => one.name === name)?.rules ?? []).map(nftRuleText);
    for (const { kind, table, chain, what } of planNftables(desired, observed).differences) {
      drift.add('rule', kind, () => `IPv${family} ${table} ${chain} ${what}`);
      const action = kind === 'missing' ? 'add' : kind === 'extra' ? 'delete' : 'change';
      const [before, after] = [rulesOf(observed, chain), rulesOf(desired, chain)];
      changes.push({ action, object: 'rule', family, table, chain, what: 'chain', before, after });
    }
  }
}

/** What an input of iptables-restore would change: jumps by themselves, chains of ours as a whole. */
function ruleChanges(text: string, saved: SavedRules, family: Family): RuleChange[] {
  const jumps: RuleChange[] = [];
  const chains = new Map<string, RuleChange & { after: string[] }>();
  let table = '';
  for (const line of text.split('\n')) {
    const [, verb = '', chain = '', rest = ''] = /^(\*|:|-[ADIX] )(\S+) ?(.*)$/.exec(line) ?? [];
    const common = { object: 'rule', family, table, chain } as const;
    const present = saved.get(table)?.get(chain)?.rules;
    if (verb === '*') table = chain;
    else if (verb === ':') {
      const action = present === undefined ? 'add' : 'change';
      chains.set(`${table} ${chain}`, { ...common, action, what: 'chain', before: present ?? [], after: [] });
    } else if (verb === '-A ') chains.get(`${table} ${chain}`)?.after.push(rest);
    else if (verb === '-X ') {
      chains.delete(`${table} ${chain}`);
      chains.set(`-X ${table} ${chain}`, {
        ...common,
        action: 'delete',
        what: 'chain',
        before: present ?? [],
        after: [],
      });
    } else if (verb === '-D ') jumps.push({ ...common, action: 'delete', what: 'jump', before: [rest], after: [] });
    else if (verb === '-I ')
      jumps.push({ ...common, action: 'add', what: 'jump', before: [], after: [rest.replace(/^[0-9]+ /, '')] });
  }
  return [...chains.values(), ...jumps];
}

/** Adds the sysctls that the daemon would set. Throws SysctlError when one cannot be read. */
export function inspectSysctls(
  { sysctl, desired }: Pick<SysctlKeeper, 'sysctl' | 'desired'>,
  { drift, changes }: Inspection,
): void {
  for (const one of desired) {
    const { name, value, required } = one;
    const current = sysctl.readNumber(name);
    if (isRight(one, current, 'later') || (current === undefined && !required)) continue;
    drift.add('sysctl', current === undefined ? 'missing' : 'changed', () => `${name}=${current ?? 'none'}`);
    changes.push({ action: 'change', object: 'sysctl', name, before: current, after: value });
  }
}
