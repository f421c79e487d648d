/** What `verify` and `plan` look at beside the tables of inspect.ts: rules and sysctls. Writes nothing. */
import { type RuleSet } from '../desired/rule-set.js';
import { type Iptables } from '../kernel/iptables/iptables.js';
import { planRules } from '../plan/rule-diff.js';
import { parseSavedRules } from '../plan/rule-save.js';
import { type Inspection } from './inspect.js';
import { type SysctlKeeper } from './sysctl-keeper.js';

/** Adds the chains and jumps that differ, one line each. Rejects with CommandError. */
export async function inspectRules(
  iptables: Iptables,
  ruleSets: readonly RuleSet[],
  { drift, changes }: Inspection,
): Promise<void> {
  for (const desired of ruleSets) {
    const saved = parseSavedRules(await iptables.save(desired.family));
    for (const { kind, table, chain, what } of planRules(desired, saved).differences) {
      const name = `IPv${desired.family} ${table} ${chain} ${what}`;
      drift.add('rule', kind, () => name);
      changes.push(`${kind === 'extra' ? 'delete' : 'write'} ${what} of ${table} ${chain} (IPv${desired.family})`);
    }
  }
}

/** Adds the sysctls that the daemon would set. Throws SysctlError when one cannot be read. */
export function inspectSysctls(
  { sysctl, wanted }: Pick<SysctlKeeper, 'sysctl' | 'wanted'>,
  { drift, changes }: Inspection,
): void {
  for (const { name, value, atLeast, required } of wanted) {
    const current = sysctl.readNumber(name);
    const isRight = current === value || (atLeast === true && current !== undefined && current > value);
    if (isRight || (current === undefined && !required)) continue;
    drift.add('sysctl', current === undefined ? 'missing' : 'changed', () => `${name}=${current ?? 'none'}`);
    changes.push(`set ${name}=${value}`);
  }
}
