import assert from 'node:assert/strict';
import { test } from 'node:test';
import { iptablesRules } from '../../../src/desired/iptables-rules.js';
import { planRules } from '../../../src/plan/iptables-rule-diff.js';
import { iptablesModeChains } from '../../../src/plan/iptables-rule-leftovers.js';
import { parseSavedRules } from '../../../src/plan/iptables-save.js';

const SAVED = `*nat
:PREROUTING ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-SVC-AAAAAAAAAAAAAAAA - [0:0]
:KUBE-SVL-AAAAAAAAAAAAAAAA - [0:0]
:KUBE-SEP-BBBBBBBBBBBBBBBB - [0:0]
:KUBE-EXT-AAAAAAAAAAAAAAAA - [0:0]
:KUBE-FW-AAAAAAAAAAAAAAAA - [0:0]
:KUBE-XLB-AAAAAAAAAAAAAAAA - [0:0]
:KUBE-MARK-DROP - [0:0]
:KUBE-HP-CCCCCCCCCCCCCCCC - [0:0]
:MINE - [0:0]
-A PREROUTING -j KUBE-SERVICES
-A KUBE-SERVICES -d 10.96.4.4/32 -j KUBE-SVC-AAAAAAAAAAAAAAAA
COMMIT
*filter
:FORWARD ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-FIREWALL - [0:0]
:KUBE-SVC-NOT-HERE - [0:0]
-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
COMMIT
`;

test("the chains of kube-proxy's iptables mode are told from kubelet's, other people's and our own", () => {
  const found = iptablesModeChains(parseSavedRules(SAVED)).map(({ table, chain }) => `${table} ${chain}`);
  const parts = ['SVC', 'SVL', 'EXT', 'FW', 'XLB'].map((kind) => `nat KUBE-${kind}-AAAAAAAAAAAAAAAA`);
  assert.deepEqual(
    found.sort(),
    [
      ...parts,
      'nat KUBE-SEP-BBBBBBBBBBBBBBBB',
      'nat KUBE-SERVICES',
      'nat KUBE-NODEPORTS',
      'filter KUBE-SERVICES',
    ].sort(),
  );
});

test('the plan deletes them with the jumps to them, and fills those that are ours as well', () => {
  const detectLocal = { mode: 'none' } as const;
  const desired = iptablesRules({
    family: 4,
    masqueradeMark: 0x4000,
    masqueradeAll: false,
    randomFully: true,
    detectLocal,
  });
  const { text } = planRules(desired, parseSavedRules(SAVED));
  for (const chain of ['KUBE-SVC-AAAAAAAAAAAAAAAA', 'KUBE-SEP-BBBBBBBBBBBBBBBB', 'KUBE-NODEPORTS'])
    assert.match(text, new RegExp(`^-X ${chain}$`, 'm'));
  assert.match(text, /^-D FORWARD .*-j KUBE-SERVICES$/m);
  const [nat = ''] = /^\*nat$[^]*?^COMMIT$/m.exec(text) ?? [];
  assert.doesNotMatch(nat, /^-X KUBE-SERVICES$/m, 'a chain of ours in nat');
  assert.doesNotMatch(text, /-X (KUBE-MARK-DROP|KUBE-HP-|KUBE-FIREWALL|MINE|KUBE-SVC-NOT-HERE)/);
});
