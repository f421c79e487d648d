/** What counts as a difference between the kernel's nf_tables table and the desired one, and what is written for it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type NftPlan, planNftables } from '../../../src/plan/nftables-diff.js';
import { type NftChain, type NftHook, type NftOperation, type NftRule } from '../../../src/values/nftables.js';

const HOOK: NftHook = { type: 'nat', hook: 0, priority: -101 };
const mark = (data: string): NftRule => [
  { name: 'meta', key: 3, register: 8 },
  { name: 'cmp', source: 8, operator: 0, data },
  { name: 'verdict', code: 1 },
];
const BASE: NftChain = { name: 'nat-PREROUTING', hook: HOOK, rules: [[{ name: 'verdict', code: -3, chain: 'nat-X' }]] };
const PLAIN: NftChain = { name: 'nat-X', rules: [mark('\0\0\x40\0'), mark('\0\0\x80\0')] };

function plan(desired: readonly NftChain[], observed: readonly NftChain[] | undefined): NftPlan {
  const table = { family: 4, name: 'ours' } as const;
  return planNftables({ ...table, chains: desired }, observed && { ...table, chains: observed });
}

const words = ({ differences, operations }: NftPlan): string[] => [
  ...differences.map(({ kind, table, chain, what }) => `${kind} ${table} ${chain} ${what}`),
  ...operations.map(operation),
];

function operation(one: NftOperation): string {
  if (one.verb === 'add-chain') return `add-chain ${one.chain.name} ${one.chain.hook?.priority ?? 'plain'}`;
  return [one.verb, 'chain' in one ? one.chain : 'name' in one ? one.name : ''].join(' ');
}

test('what is as desired is left alone', () => {
  assert.deepEqual(plan([BASE, PLAIN], structuredClone([PLAIN, BASE])), { differences: [], operations: [], wakes: [] });
});

test('without a table all is missing, and made before it is filled: rules lead from one chain to another', () => {
  assert.deepEqual(words(plan([BASE, PLAIN], undefined)), [
    'missing ours nat-PREROUTING chain',
    'missing ours nat-X chain',
    'add-chain nat-PREROUTING -101',
    'add-chain nat-X plain',
    'add-rule nat-PREROUTING',
    'add-rule nat-X',
    'add-rule nat-X',
  ]);
});

for (const [what, rules] of [
  ['another byte in one', [PLAIN.rules[0]!, mark('\0\0\x81\0')]],
  ['another order', [PLAIN.rules[1]!, PLAIN.rules[0]!]],
  ['one less', [PLAIN.rules[0]!]],
  ['one more', [...PLAIN.rules, mark('\0\0\0\0')]],
  ['one cut short', [PLAIN.rules[0]!, mark('\0\0\x80\0').slice(0, 2)]],
] as const)
  test(`a chain with other rules (${what}) is emptied and filled, and no other`, () => {
    assert.deepEqual(words(plan([BASE, PLAIN], [BASE, { ...PLAIN, rules }])), [
      'changed ours nat-X rules',
      'flush-chain nat-X',
      'add-rule nat-X',
      'add-rule nat-X',
    ]);
  });

for (const [what, hook] of [
  ['another type', { ...HOOK, type: 'filter' }],
  ['another hook', { ...HOOK, hook: 3 }],
  ['another priority', { ...HOOK, priority: -100 }],
  ['none', undefined],
] as const)
  test(`a chain that stands elsewhere (${what}) is made anew`, () => {
    const { hook: _, ...moved } = BASE;
    assert.deepEqual(words(plan([BASE, PLAIN], [hook === undefined ? moved : { ...moved, hook }, PLAIN])), [
      'changed ours nat-PREROUTING rules',
      'flush-chain nat-PREROUTING',
      'delete-chain nat-PREROUTING',
      'add-chain nat-PREROUTING -101',
      'add-rule nat-PREROUTING',
    ]);
  });

test('a chain that should have no hook is made anew without one', () => {
  assert.deepEqual(words(plan([PLAIN], [{ ...PLAIN, hook: HOOK }])), [
    'changed ours nat-X rules',
    'flush-chain nat-X',
    'delete-chain nat-X',
    'add-chain nat-X plain',
    'add-rule nat-X',
    'add-rule nat-X',
  ]);
});

test('maps, whose elements may hold chains, go before a chain too many, and else are no matter', () => {
  const asked: string[] = [];
  const maps = (): string[] => {
    asked.push('maps');
    return ['ways'];
  };
  const planned = (chains: readonly NftChain[]): NftPlan => {
    const table = { family: 4, name: 'ours' } as const;
    return planNftables({ ...table, chains: [PLAIN] }, { ...table, chains }, maps);
  };
  assert.deepEqual(words(planned([PLAIN, { name: 'old', rules: [] }])), [
    'extra ours old chain',
    'flush-chain old',
    'delete-set ways',
    'delete-chain old',
  ]);
  assert.deepEqual(words(planned([{ ...PLAIN, rules: [] }])).slice(0, 2), [
    'changed ours nat-X rules',
    'flush-chain nat-X',
  ]);
  assert.deepEqual(asked, ['maps']);
});

test('a dormant table is woken behind all that is mended in it', () => {
  const table = { family: 4, name: 'ours', chains: [BASE, PLAIN] } as const;
  const { differences, operations, wakes } = planNftables(table, { ...table, isDormant: true });
  assert.deepEqual(differences, [{ kind: 'changed', table: 'ours', chain: 'flags', what: 'dormant' }]);
  assert.deepEqual([operations, wakes], [[], [{ verb: 'wake-table' }]]);
});

test('a chain too many goes, when nothing leads to it any more', () => {
  const leading: NftChain = { ...BASE, rules: [[{ name: 'verdict', code: -3, chain: 'old' }]] };
  assert.deepEqual(words(plan([BASE, PLAIN], [leading, PLAIN, { name: 'old', rules: [] }])), [
    'changed ours nat-PREROUTING rules',
    'extra ours old chain',
    'flush-chain nat-PREROUTING',
    'flush-chain old',
    'add-rule nat-PREROUTING',
    'delete-chain old',
  ]);
});
