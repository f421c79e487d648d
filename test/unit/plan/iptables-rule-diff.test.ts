/** What counts as a difference between the kernel's iptables rules and the desired ones, one at a time. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type RuleSet } from '../../../src/desired/iptables-rule-set.js';
import { planRules, removeChains } from '../../../src/plan/iptables-rule-diff.js';
import { parseSavedRules } from '../../../src/plan/iptables-save.js';

const DESIRED: RuleSet = {
  family: 4,
  tables: [
    {
      name: 'nat',
      chains: [{ name: 'KUBE-SERVICES', rules: ['-s 10.0.0.0/8 -j RETURN', '-m mark --mark 0x4000/0x4000 -j ACCEPT'] }],
      jumps: [{ chain: 'PREROUTING', rule: '-j KUBE-SERVICES', position: 'first' }],
    },
  ],
};

const SAVED = `*nat
:PREROUTING ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
-A PREROUTING -j KUBE-SERVICES
-A KUBE-SERVICES -s 10.0.0.0/8 -j RETURN
-A KUBE-SERVICES -m mark --mark 0x4000/0x4000 -j ACCEPT
COMMIT
`;

function plan(from: string, to: string): ReturnType<typeof planRules> {
  assert.ok(SAVED.includes(from));
  return planRules(DESIRED, parseSavedRules(SAVED.replace(from, to)));
}

test('the same rules, in these words or in others that say the same, are no difference', () => {
  for (const mark of ['0x4000/0x4000', '0x00004000/0x00004000', '16384/16384'])
    assert.deepEqual(plan('0x4000/0x4000', mark), { differences: [], text: '' }, mark);
});

for (const [from, to] of [
  ['-s 10.0.0.0/8 -j RETURN', '-s 10.0.0.0/9 -j RETURN'],
  ['--mark 0x4000/0x4000', '--mark 0x8000/0x8000'],
  ['-m mark --mark 0x4000/0x4000 -j ACCEPT', '-j DROP'],
] as const)
  test(`a chain with as many rules, of which one is not as desired, is written anew: ${to}`, () => {
    const { differences, text } = plan(from, to);
    assert.deepEqual(differences, [{ kind: 'changed', table: 'nat', chain: 'KUBE-SERVICES', what: 'rules' }]);
    const rules = DESIRED.tables[0]!.chains[0]!.rules.map((rule) => `-A KUBE-SERVICES ${rule}`);
    assert.deepEqual(text.trim().split('\n'), ['*nat', ':KUBE-SERVICES - [0:0]', ...rules, 'COMMIT']);
  });

test('a chain that is left of kube-proxy is a difference by itself, and goes', () => {
  const { differences, text } = plan(':KUBE-SERVICES -', ':KUBE-SVC-AAAAAAAAAAAAAAAA - [0:0]\n:KUBE-SERVICES -');
  assert.deepEqual(differences, [{ kind: 'extra', table: 'nat', chain: 'KUBE-SVC-AAAAAAAAAAAAAAAA', what: 'chain' }]);
  assert.match(text, /^-X KUBE-SVC-AAAAAAAAAAAAAAAA$/m);
});

test('to remove one chain of several takes away the jumps that lead to it, and no other', () => {
  const jumps = {
    PREROUTING: '-m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
    POSTROUTING: '-m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING',
  };
  const saved = `*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-POSTROUTING - [0:0]
-A PREROUTING ${jumps.PREROUTING}
-A POSTROUTING ${jumps.POSTROUTING}
COMMIT
`;
  const { text, busy } = removeChains(parseSavedRules(saved), 4, ({ chain }) => chain === 'KUBE-POSTROUTING');
  assert.deepEqual(text.trim().split('\n'), [
    '*nat',
    ':KUBE-POSTROUTING - [0:0]',
    `-D POSTROUTING ${jumps.POSTROUTING}`,
    '-X KUBE-POSTROUTING',
    'COMMIT',
  ]);
  assert.deepEqual(busy, []);
});
