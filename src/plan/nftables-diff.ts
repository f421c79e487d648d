import {
  type NftChain,
  type NftExpression,
  type NftOperation,
  type NftRule,
  type NftTable,
} from '../values/nftables.js';
import { type RuleDifference } from './iptables-rule-diff.js';

export interface NftPlan {
  readonly differences: readonly RuleDifference[];
  /** One transaction; empty when nothing that it could mend differs. The table and its sets have to be there. */
  readonly operations: readonly NftOperation[];
  /** Another, behind it. */
  readonly wakes: readonly NftOperation[];
}

/**
 * What must be written so that the kernel holds `desired`, given what it holds. The table is ours alone: a chain that
 * is not desired goes, and one whose rules differ is written anew, all in one transaction. `maps` are those of the
 * table: none is ours, and they go where one could hold a chain that has to go.
 */
export function planNftables(
  desired: NftTable,
  observed: NftTable | undefined,
  maps: () => readonly string[] = () => [],
): NftPlan {
  const present = new Map(observed?.chains.map((chain) => [chain.name, chain]));
  const wanted = new Set(desired.chains.map(({ name }) => name));
  const differences: RuleDifference[] = [];
  const note = (kind: RuleDifference['kind'], chain: string, what: RuleDifference['what']): void =>
    void differences.push({ kind, table: desired.name, chain, what });
  const made: NftOperation[] = [];
  const emptied: NftOperation[] = [];
  const filled: NftOperation[] = [];
  const removed: NftOperation[] = [];
  for (const chain of desired.chains) {
    const found = present.get(chain.name);
    if (found !== undefined && isSameChain(chain, found)) continue;
    note(found === undefined ? 'missing' : 'changed', chain.name, found === undefined ? 'chain' : 'rules');
    const { name, hook } = chain;
    if (found !== undefined) emptied.push({ verb: 'flush-chain', name });
    // A hook cannot be changed. Nothing leads to a chain that has one, or should have one.
    if (found !== undefined && !isSameHook(chain, found)) emptied.push({ verb: 'delete-chain', name });
    if (found === undefined || !isSameHook(chain, found))
      (found === undefined ? made : emptied).push({
        verb: 'add-chain',
        chain: hook === undefined ? { name } : { name, hook },
      });
    for (const rule of chain.rules) filled.push({ verb: 'add-rule', chain: name, rule });
  }
  for (const { name } of present.values()) {
    if (wanted.has(name)) continue;
    note('extra', name, 'chain');
    emptied.push({ verb: 'flush-chain', name });
    removed.push({ verb: 'delete-chain', name });
  }
  if (removed.length > 0) removed.unshift(...maps().map((name): NftOperation => ({ verb: 'delete-set', name })));
  const operations = [...made, ...emptied, ...filled, ...removed];
  if (observed?.isDormant !== true) return { differences, operations, wakes: [] };
  note('changed', 'flags', 'dormant');
  return { differences, operations, wakes: [{ verb: 'wake-table' }] };
}

function isSameChain(desired: NftChain, present: NftChain): boolean {
  if (!isSameHook(desired, present) || desired.rules.length !== present.rules.length) return false;
  return desired.rules.every((rule, i) => nftRuleText(rule) === nftRuleText(present.rules[i]!));
}

function isSameHook({ hook: desired }: NftChain, { hook: present }: NftChain): boolean {
  if (desired === undefined || present === undefined) return desired === present;
  return desired.type === present.type && desired.hook === present.hook && desired.priority === present.priority;
}

/** A rule in a form to compare and to show: `[payload base=1 length=4 offset=16 register=0] [lookup set=... ]`. */
export function nftRuleText(rule: NftRule): string {
  return rule.map(expressionText).join(' ');
}

function expressionText({ name, ...fields }: NftExpression): string {
  const words = Object.entries(fields as Record<string, number | string>)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([field, value]) => ` ${field}=${isBytes(field) ? hex(String(value)) : value}`);
  return `[${name}${words.join('')}]`;
}

function isBytes(field: string): boolean {
  return field === 'data' || field === 'mask' || field === 'xor';
}

function hex(bytes: string): string {
  return [...bytes].map((byte) => byte.charCodeAt(0).toString(16).padStart(2, '0')).join('');
}
