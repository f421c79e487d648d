import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { type RuleSet } from '../../../src/desired/rule-set.js';
import { KUBE_PROXY_IPVS_CHAINS, planRules, removeChains } from '../../../src/plan/rule-diff.js';
import { normalRule } from '../../../src/plan/rule-normal.js';
import {
  type SavedChain,
  type SavedRules,
  parseSavedRules,
  ruleTarget,
  ruleWords,
} from '../../../src/plan/rule-save.js';
import { type Family } from '../../../src/values/address.js';

/** Does what iptables-restore --noflush would, so that plans are judged by what they lead to. */
function restore(saved: SavedRules, text: string): SavedRules {
  const tables = structuredClone(saved);
  let table = new Map<string, SavedChain>();
  for (const line of text.split('\n')) {
    const [verb = '', name = ''] = line.split(' ');
    const rest = line.slice(verb.length + name.length + 2);
    const chain = table.get(name);
    if (line.startsWith('*'))
      tables.set(line.slice(1), (table = tables.get(line.slice(1)) ?? new Map<string, SavedChain>()));
    else if (line.startsWith(':')) table.set(verb.slice(1), { policy: '-', rules: [] });
    else if (verb === '-A') chain!.rules.push(rest);
    else if (verb === '-I') {
      const position = Number(rest.split(' ')[0]);
      assert.ok(position >= 1 && position <= chain!.rules.length + 1, line);
      chain!.rules.splice(position - 1, 0, rest.slice(rest.indexOf(' ') + 1));
    } else if (verb === '-D') {
      const index = chain!.rules.indexOf(rest);
      assert.ok(index >= 0, `${line}: no such rule`);
      chain!.rules.splice(index, 1);
    } else if (verb === '-X') {
      assert.deepEqual(chain!.rules, [], `${name} is not empty`);
      for (const other of table.values())
        assert.ok(!other.rules.some((rule) => ruleTarget(rule) === name), `${name} is in use`);
      table.delete(name);
    }
  }
  return tables;
}

function golden(family: Family): SavedRules {
  const name = family === 4 ? 'iptables' : 'ip6tables';
  return parseSavedRules(readFileSync(`test/fixtures/kube-proxy-1.36/${name}.txt`, 'utf8'));
}

/** The rules that a save holds, as ours. */
function asDesired(saved: SavedRules, family: Family): RuleSet {
  const tables = [...saved].map(([name, chains]) => ({
    name,
    chains: [...chains]
      .filter(([chain]) => chain.startsWith('KUBE-'))
      .map(([chain, { rules }]) => ({ name: chain, rules })),
    jumps: [...chains]
      .filter(([chain]) => !chain.startsWith('KUBE-'))
      .flatMap(([chain, { rules }]) => rules.map((rule) => ({ chain, rule, position: 'first' as const }))),
  }));
  return { family, tables };
}

const WANTED: RuleSet = {
  family: 4,
  tables: [
    {
      name: 'filter',
      chains: [
        { name: 'KUBE-ONE', rules: ['-s 10.0.0.1 -p tcp --dport 80 -j KUBE-TWO', '-j DROP'] },
        { name: 'KUBE-TWO', rules: ['-j RETURN'] },
      ],
      jumps: [
        { chain: 'INPUT', rule: '-m comment --comment "one" -j KUBE-ONE', position: 'first' },
        { chain: 'INPUT', rule: '-j KUBE-TWO', position: 'first' },
        { chain: 'FORWARD', rule: '-j KUBE-TWO', position: 'last' },
      ],
    },
  ],
};
const BASE =
  '*filter\n:INPUT DROP [1:2]\n:FORWARD ACCEPT [0:0]\n-A INPUT -i lo -j ACCEPT\n-A FORWARD -j DOCKER\nCOMMIT\n';

function inputRules(saved: SavedRules, chain = 'INPUT'): string[] {
  return saved.get('filter')!.get(chain)!.rules;
}

test('the recorded rules of kube-proxy, read back, do not differ from themselves', () => {
  for (const family of [4, 6] as const) {
    const saved = golden(family);
    assert.deepEqual(planRules(asDesired(saved, family), saved), { differences: [], text: '' });
    assert.ok([...saved.values()].some((table) => table.size > 5));
  }
});

test('from nothing: chains and jumps in order, before other rules or behind them; then nothing differs', () => {
  const saved = parseSavedRules(BASE);
  const plan = planRules(WANTED, saved, []);
  const after = restore(saved, plan.text);
  assert.deepEqual(inputRules(after), ['-m comment --comment "one" -j KUBE-ONE', '-j KUBE-TWO', '-i lo -j ACCEPT']);
  assert.deepEqual(inputRules(after, 'FORWARD'), ['-j DOCKER', '-j KUBE-TWO']);
  assert.deepEqual(planRules(WANTED, after, []), { differences: [], text: '' });
  assert.deepEqual(
    plan.differences.map(({ kind, chain, what }) => `${kind} ${what} ${chain}`),
    [
      'missing chain KUBE-ONE',
      'missing chain KUBE-TWO',
      'missing jump INPUT',
      'missing jump INPUT',
      'missing jump FORWARD',
    ],
  );
});

test('an empty kernel, without even the table, gets the same', () => {
  const after = restore(
    new Map([
      [
        'filter',
        new Map([
          ['INPUT', { policy: 'ACCEPT', rules: [] }],
          ['FORWARD', { policy: 'ACCEPT', rules: [] }],
        ]),
      ],
    ]),
    planRules(WANTED, new Map(), []).text,
  );
  assert.deepEqual(planRules(WANTED, after, []).differences, []);
});

test('just what differs is written: one changed chain, one missing jump', () => {
  const clean = restore(parseSavedRules(BASE), planRules(WANTED, parseSavedRules(BASE), []).text);
  const changed = structuredClone(clean);
  changed.get('filter')!.get('KUBE-TWO')!.rules.push('-j ACCEPT');
  const plan = planRules(WANTED, changed, []);
  assert.equal(plan.text, '*filter\n:KUBE-TWO - [0:0]\n-A KUBE-TWO -j RETURN\nCOMMIT\n');
  assert.deepEqual(plan.differences, [{ kind: 'changed', table: 'filter', chain: 'KUBE-TWO', what: 'rules' }]);
  const without = structuredClone(clean);
  inputRules(without).splice(1, 1);
  assert.equal(planRules(WANTED, without, []).text, '*filter\n-I INPUT 2 -j KUBE-TWO\nCOMMIT\n');
});

test('jumps twice, in the wrong order, or of an older version are put right; rules of others stay where they are', () => {
  const clean = restore(parseSavedRules(BASE), planRules(WANTED, parseSavedRules(BASE), []).text);
  const shuffles: string[][] = [
    ['-j KUBE-TWO', '-j KUBE-ONE', '-i lo -j ACCEPT'],
    ['-j KUBE-ONE', '-j KUBE-ONE', '-i lo -j ACCEPT', '-j KUBE-TWO', '-j KUBE-TWO'],
    ['-s 10.0.0.0/8 -j KUBE-ONE', '-i lo -j ACCEPT', '-p tcp -g KUBE-TWO'],
    ['-i lo -j ACCEPT', '-j KUBE-TWO', '-s 1.1.1.1/32 -j DROP', '-j KUBE-TWO', '-j KUBE-ONE'],
    [],
  ];
  for (const rules of shuffles) {
    const saved = structuredClone(clean);
    inputRules(saved).splice(0, Infinity, ...rules);
    const after = restore(saved, planRules(WANTED, saved, []).text);
    assert.deepEqual(planRules(WANTED, after, []), { differences: [], text: '' });
    const others = (list: string[]): string[] => list.filter((rule) => !rule.includes('KUBE-'));
    assert.deepEqual(others(inputRules(after)), others(rules));
    const ours = inputRules(after)
      .filter((rule) => rule.includes('KUBE-'))
      .map((rule) => ruleTarget(rule));
    assert.deepEqual(ours, ['KUBE-ONE', 'KUBE-TWO']);
  }
  // a rule that somebody put before ours is no reason to move
  const moved = structuredClone(clean);
  inputRules(moved).unshift('-s 1.1.1.1/32 -j DROP');
  assert.equal(planRules(WANTED, moved, []).text, '');
});

test('chains of kube-proxy that are not wanted any more go with their jumps; those of kubelet stay', () => {
  const saved = golden(4);
  const kubelet = [':KUBE-FIREWALL - [0:0]', '-A INPUT -j KUBE-FIREWALL', '-A KUBE-FIREWALL -j RETURN'];
  const text = `*filter\n${kubelet.join('\n')}\nCOMMIT\n`;
  for (const [name, chain] of parseSavedRules(text).get('filter')!) {
    const present = saved.get('filter')!.get(name);
    if (present === undefined) saved.get('filter')!.set(name, chain);
    else present.rules.push(...chain.rules);
  }
  const after = restore(saved, planRules(WANTED, saved, KUBE_PROXY_IPVS_CHAINS).text);
  const chains = [...after].flatMap(([, table]) => [...table.keys()]).filter((name) => name.startsWith('KUBE-'));
  assert.deepEqual(chains.sort(), ['KUBE-FIREWALL', 'KUBE-ONE', 'KUBE-TWO']);
  assert.deepEqual(planRules(WANTED, after), { differences: [], text: '' });
  assert.ok(inputRules(after).includes('-j KUBE-FIREWALL'));
});

test('removeChains leaves no trace and nothing else changed; a second time there is nothing to do', () => {
  for (const family of [4, 6] as const) {
    const saved = golden(family);
    saved
      .get('filter')!
      .get('INPUT')!
      .rules.push('-s 192.0.2.1/32 -m comment --comment "not -j KUBE-FORWARD" -j ACCEPT');
    const isOurs = ({ chain }: { chain: string }): boolean => chain.startsWith('KUBE-');
    const after = restore(saved, removeChains(saved, isOurs));
    assert.equal(
      [...after.values()].some((table) => [...table.keys()].some((name) => name.startsWith('KUBE-'))),
      false,
    );
    assert.deepEqual(inputRules(after), ['-s 192.0.2.1/32 -m comment --comment "not -j KUBE-FORWARD" -j ACCEPT']);
    assert.equal(removeChains(after, isOurs), '');
  }
});

test('rules are the same however they are written', () => {
  const same: [string, string, Family?][] = [
    ['-s 10.0.0.1 -j ACCEPT', '-s 10.0.0.1/32 -j ACCEPT'],
    ['-s 10.1.2.3/8 -j ACCEPT', '-s 10.0.0.0/255.0.0.0 -j ACCEPT'],
    ['-s 0.0.0.0/0 -j ACCEPT', '-j ACCEPT'],
    ['-s fd00::1 -j ACCEPT', '-s fd00:0::1/128 -j ACCEPT', 6],
    ['-p tcp --dport 80 -j ACCEPT', '-p tcp -m tcp --dport 80 -j ACCEPT'],
    ['-m comment --comment "a b" -i eth0 -p TCP -j ACCEPT', '-i eth0 -p tcp -m comment --comment other -j ACCEPT'],
    ['-i lo -d 10.0.0.0/8 -j ACCEPT', '-d 10.0.0.0/8 -i lo -j ACCEPT'],
    ['-p 132 -j ACCEPT', '-p sctp -j ACCEPT'],
    ['-p icmpv6 -j ACCEPT', '-p ipv6-icmp -j ACCEPT', 6],
    ['-j MARK --or-mark 0x4000', '-j MARK --set-xmark 0x4000/0x4000'],
    ['-j MARK --set-mark 0x4000/0x4000', '-j MARK --set-xmark 0x4000/0x4000'],
    ['-j MARK --xor-mark 16384', '-j MARK --set-xmark 0x4000/0x0'],
    ['-j MARK --and-mark 0xffffbfff', '-j MARK --set-xmark 0x0/0x4000'],
    ['-m mark --mark 16384/0x4000 -j RETURN', '-m mark --mark 0x4000/0x4000 -j RETURN'],
    ['-m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT', '-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT'],
    ['-j REJECT', '-j REJECT --reject-with icmp-port-unreachable'],
    ['-j REJECT', '-j REJECT --reject-with icmp6-port-unreachable', 6],
    ['-m ipvs --vproto 6 -j DROP', '-m ipvs --vproto tcp -j DROP'],
    ['--source 10.0.0.1 --jump ACCEPT', '-s 10.0.0.1/32 -j ACCEPT'],
  ];
  for (const [one, other, family = 4] of same) assert.equal(normalRule(one, family), normalRule(other, family), one);
});

test('rules that do something else are told apart', () => {
  const rules = [
    '-j ACCEPT',
    '-g ACCEPT',
    '-j DROP',
    '-s 10.0.0.0/8 -j ACCEPT',
    '! -s 10.0.0.0/8 -j ACCEPT',
    '-d 10.0.0.0/8 -j ACCEPT',
    '-s 10.0.0.0/9 -j ACCEPT',
    '-p tcp -j ACCEPT',
    '-p tcp -m tcp --dport 80 -j ACCEPT',
    '-p tcp -m tcp --dport 81 -j ACCEPT',
    '-p udp -m udp --dport 80 -j ACCEPT',
    '-p tcp -m tcp ! --dport 80 -j ACCEPT',
    '-m set --match-set A dst,dst -j ACCEPT',
    '-m set ! --match-set A dst,dst -j ACCEPT',
    '-m set --match-set A dst,src -j ACCEPT',
    '-m set --match-set B dst,dst -j ACCEPT',
    '-m set --match-set A dst,dst -m set --match-set B dst,dst -j ACCEPT',
    '-m mark --mark 0x4000/0x4000 -j ACCEPT',
    '-m mark --mark 0x4000 -j ACCEPT',
    '-m mark ! --mark 0x4000/0x4000 -j ACCEPT',
    '-j MARK --set-xmark 0x4000/0x4000',
    '-j MARK --set-xmark 0x4000/0x0',
    '-j MASQUERADE',
    '-j MASQUERADE --random-fully',
    '-j REJECT --reject-with icmp-host-unreachable',
    '-m addrtype --dst-type LOCAL -j ACCEPT',
    '-m addrtype ! --dst-type LOCAL -j ACCEPT',
    '-m conntrack --ctstate NEW -j ACCEPT',
  ];
  assert.equal(new Set(rules.map((rule) => normalRule(rule, 4))).size, rules.length);
});

test('quoting and hostile text', () => {
  assert.deepEqual(ruleWords('-m comment --comment "it\\\'s a \\"q\\" $x" -j A'), [
    '-m',
    'comment',
    '--comment',
    'it\'s a "q" $x',
    '-j',
    'A',
  ]);
  assert.equal(ruleTarget('-m comment --comment "-j KUBE-X" -j ACCEPT'), 'ACCEPT');
  assert.equal(ruleTarget('-m comment --comment -j -j ACCEPT'), 'ACCEPT');
  assert.equal(ruleTarget('-s 1.1.1.1/32'), undefined);
  for (const text of [
    '',
    '\n\n',
    'COMMIT',
    '-A X -j Y',
    '*',
    ':',
    '*t\n:\n-A\n-A \n-A X\n:X',
    '*t\r\n:X - [0:0]\r\n-A X -j Y\r\n',
    "# Table `x' is incompatible",
  ]) {
    assert.doesNotThrow(() => planRules(WANTED, parseSavedRules(text)));
  }
  const counted = parseSavedRules('*filter\n:INPUT ACCEPT [5:6]\n[12:34] -A INPUT -j X\nCOMMIT\n');
  assert.deepEqual(counted.get('filter')?.get('INPUT'), { policy: 'ACCEPT', rules: ['-j X'] });
});
