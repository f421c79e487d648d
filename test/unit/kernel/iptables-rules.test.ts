import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { iptablesRules } from '../../../src/desired/iptables-rules.js';
import { type RuleSet } from '../../../src/desired/iptables-rule-set.js';
import { KNOWN_RULES, type KnownRules } from '../../../src/plan/iptables-known-rules.js';
import { planRules, removeChains } from '../../../src/plan/iptables-rule-diff.js';
import {
  type SavedChain,
  type SavedRules,
  parseSavedRules,
  ruleTarget,
  ruleWords,
} from '../../../src/plan/iptables-save.js';
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

const NONE: KnownRules = { chains: [], jumps: [] };
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
const EMPTY_KERNEL = [
  '*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT',
  '*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\nCOMMIT',
  '*mangle\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n',
].join('\n');
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
  const plan = planRules(WANTED, saved, NONE);
  const after = restore(saved, plan.text);
  assert.deepEqual(inputRules(after), ['-m comment --comment "one" -j KUBE-ONE', '-j KUBE-TWO', '-i lo -j ACCEPT']);
  assert.deepEqual(inputRules(after, 'FORWARD'), ['-j DOCKER', '-j KUBE-TWO']);
  assert.deepEqual(planRules(WANTED, after, NONE), { differences: [], text: '' });
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
    planRules(WANTED, new Map(), NONE).text,
  );
  assert.deepEqual(planRules(WANTED, after, NONE).differences, []);
});

test('just what differs is written: one changed chain, one missing jump', () => {
  const clean = restore(parseSavedRules(BASE), planRules(WANTED, parseSavedRules(BASE), NONE).text);
  const changed = structuredClone(clean);
  changed.get('filter')!.get('KUBE-TWO')!.rules.push('-j ACCEPT');
  const plan = planRules(WANTED, changed, NONE);
  assert.equal(plan.text, '*filter\n:KUBE-TWO - [0:0]\n-A KUBE-TWO -j RETURN\nCOMMIT\n');
  assert.deepEqual(plan.differences, [{ kind: 'changed', table: 'filter', chain: 'KUBE-TWO', what: 'rules' }]);
  const without = structuredClone(clean);
  inputRules(without).splice(1, 1);
  assert.equal(planRules(WANTED, without, NONE).text, '*filter\n-I INPUT 2 -j KUBE-TWO\nCOMMIT\n');
});

test('jumps twice or in the wrong order are put right; rules of others stay, wherever they lead', () => {
  const clean = restore(parseSavedRules(BASE), planRules(WANTED, parseSavedRules(BASE), NONE).text);
  const one = '-m comment --comment "one" -j KUBE-ONE';
  const shuffles: string[][] = [
    ['-j KUBE-TWO', one, '-i lo -j ACCEPT'],
    [one, one, '-i lo -j ACCEPT', '-j KUBE-TWO', '-j KUBE-TWO'],
    ['-s 10.0.0.0/8 -j KUBE-ONE', '-i lo -j ACCEPT', '-p tcp -g KUBE-TWO'],
    ['-i lo -j ACCEPT', '-j KUBE-TWO', '-s 1.1.1.1/32 -j DROP', '-j KUBE-TWO', one],
    ['-m comment --comment "mine" -j KUBE-ONE', '-i lo -j ACCEPT', one, '-j KUBE-TWO'],
    [],
  ];
  const isOurs = (rule: string): boolean => rule === one || rule === '-j KUBE-TWO';
  for (const rules of shuffles) {
    const saved = structuredClone(clean);
    inputRules(saved).splice(0, Infinity, ...rules);
    const after = restore(saved, planRules(WANTED, saved, NONE).text);
    assert.deepEqual(planRules(WANTED, after, NONE), { differences: [], text: '' });
    const others = (list: string[]): string[] => list.filter((rule) => !isOurs(rule));
    assert.deepEqual(others(inputRules(after)), others(rules));
    assert.deepEqual(inputRules(after).filter(isOurs), [one, '-j KUBE-TWO']);
  }
  // a jump that does the same as ours, whatever it says about itself, will do
  const adopted = structuredClone(clean);
  inputRules(adopted)[0] = '-m comment --comment "of an older version" -j KUBE-ONE';
  assert.equal(planRules(WANTED, adopted, NONE).text, '');
  // a rule that somebody put before ours is no reason to move
  const moved = structuredClone(clean);
  inputRules(moved).unshift('-s 1.1.1.1/32 -j DROP');
  assert.equal(planRules(WANTED, moved, NONE).text, '');
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
  const after = restore(saved, planRules(WANTED, saved).text);
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
    const { text, busy } = removeChains(saved, family, isOurs);
    const after = restore(saved, text);
    assert.deepEqual(busy, []);
    assert.equal(
      [...after.values()].some((table) => [...table.keys()].some((name) => name.startsWith('KUBE-'))),
      false,
    );
    assert.deepEqual(inputRules(after), ['-s 192.0.2.1/32 -m comment --comment "not -j KUBE-FORWARD" -j ACCEPT']);
    assert.deepEqual(removeChains(after, family, isOurs), { text: '', busy: [] });
  }
});

/**
 * As `iptables-save` of either backend prints what others had written: CNI portmap, dockershim's heirs, an
 * administrator.
 */
const FOREIGN: readonly [table: string, chain: string, rule: string][] = [
  ['nat', 'CNI-DN-0123456789abcdef01234', '-s 10.128.0.0/24 -p tcp -m tcp --dport 8080 -j KUBE-MARK-MASQ'],
  ['nat', 'CNI-DN-0123456789abcdef01234', '-s 127.0.0.1/32 -p tcp -m tcp --dport 8080 -j KUBE-MARK-MASQ'],
  [
    'nat',
    'KUBE-HP-ABCDEFGHIJKLMNOP',
    '-s 10.128.0.9/32 -m comment --comment "web_default hostport 80" -j KUBE-MARK-MASQ',
  ],
  ['nat', 'PREROUTING', '-s 10.5.0.0/16 -j KUBE-MARK-MASQ'],
  ['nat', 'POSTROUTING', '-m comment --comment "mine" -j KUBE-POSTROUTING'],
  ['filter', 'INPUT', '-s 10.5.0.0/16 -g KUBE-PROXY-FIREWALL'],
  ['filter', 'site-rules', '-m comment --comment "also for routed traffic" -j KUBE-PROXY-FIREWALL'],
];

/** A node that kube-proxy has run on. */
function kubeProxyNode(family: Family): SavedRules {
  return golden(family).set('mangle', new Map([['OUTPUT', { policy: 'ACCEPT', rules: [] }]]));
}

function withForeign(saved: SavedRules): SavedRules {
  const tables = structuredClone(saved);
  for (const [table, chain, rule] of FOREIGN) {
    const chains = tables.get(table)!;
    if (!chains.has(chain)) chains.set(chain, { policy: '-', rules: [] });
    chains.get(chain)!.rules.push(rule);
  }
  return tables;
}

function foreignIn(saved: SavedRules): [string, string, string][] {
  return [...saved].flatMap(([table, chains]) =>
    [...chains].flatMap(([chain, { rules }]) =>
      rules
        .filter((rule) => FOREIGN.some((one) => one.join(' ') === [table, chain, rule].join(' ')))
        .map((rule) => [table, chain, rule] as [string, string, string]),
    ),
  );
}

for (const family of [4, 6] as const) {
  const desired = iptablesRules({
    ...{ family, masqueradeMark: 0x4000, masqueradeAll: false, randomFully: true },
    detectLocal: { mode: 'BridgeInterface', name: 'cni0' },
  });

  test(`IPv${family}: rules of others that lead to our chains stay, at takeover from kube-proxy, at repair and at verification`, () => {
    const before = withForeign(kubeProxyNode(family));
    const after = restore(before, planRules(desired, before).text);
    const sorted = (list: readonly (readonly string[])[]): string[] => list.map((one) => one.join(' ')).sort();
    assert.deepEqual(sorted(foreignIn(after)), sorted(FOREIGN));
    assert.deepEqual(planRules(desired, after), { differences: [], text: '' });
    const damaged = structuredClone(after);
    damaged.get('nat')!.get('KUBE-MARK-MASQ')!.rules.length = 0;
    damaged.get('nat')!.get('PREROUTING')!.rules.shift();
    const plan = planRules(desired, damaged);
    assert.deepEqual(
      plan.differences.map(({ kind, chain }) => `${kind} ${chain}`),
      ['changed KUBE-MARK-MASQ', 'missing PREROUTING'],
    );
    assert.deepEqual(sorted(foreignIn(restore(damaged, plan.text))), sorted(FOREIGN));
  });

  test(`IPv${family}: clean-up keeps the chains that rules of others lead to, says so, and is done the second time`, () => {
    for (const from of [
      kubeProxyNode(family),
      restore(kubeProxyNode(family), planRules(desired, golden(family)).text),
    ]) {
      const before = withForeign(from);
      const isOurs = ({ table, chain }: { table: string; chain: string }): boolean =>
        KNOWN_RULES.chains.some((one) => one.table === table && one.chain === chain);
      const { text, busy } = removeChains(before, family, isOurs);
      const after = restore(before, text);
      assert.equal(foreignIn(after).length, FOREIGN.length);
      const left = [...after].flatMap(([table, chains]) =>
        [...chains]
          .filter(([chain]) => isOurs({ table, chain }))
          .map(([chain, { rules }]) => `${table} ${chain} ${rules.join('; ')}`),
      );
      assert.deepEqual(left.sort(), [
        'filter KUBE-PROXY-FIREWALL ',
        'nat KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000',
        'nat KUBE-POSTROUTING ',
      ]);
      assert.deepEqual(busy.map(({ table, chain, usedBy }) => `${table} ${chain} ${usedBy.length}`).sort(), [
        'filter KUBE-PROXY-FIREWALL 2',
        'nat KUBE-MARK-MASQ 4',
        'nat KUBE-POSTROUTING 1',
      ]);
      assert.deepEqual(removeChains(after, family, isOurs), { text: '', busy });
    }
  });
}

test('a chain that an option no longer wants goes with its jump, or is emptied where somebody else’s rule leads to it', () => {
  const config = {
    ...{ family: 4 as const, masqueradeMark: 0x4000, masqueradeAll: false, randomFully: true },
    detectLocal: { mode: 'none' as const },
  };
  const accepting = iptablesRules({ ...config, acceptServiceTraffic: { nodePortPrefixes: [] } });
  const saved = restore(parseSavedRules(EMPTY_KERNEL), planRules(accepting, new Map()).text);
  assert.ok(saved.get('filter')!.has('KUBE-IPVS-ACCEPT'));
  const after = restore(saved, planRules(iptablesRules(config), saved).text);
  assert.equal(after.get('filter')!.has('KUBE-IPVS-ACCEPT'), false);
  const used = structuredClone(saved);
  inputRules(used).push('-i vpn0 -j KUBE-IPVS-ACCEPT');
  const emptied = restore(used, planRules(iptablesRules(config), used).text);
  assert.deepEqual(emptied.get('filter')!.get('KUBE-IPVS-ACCEPT')!.rules, []);
  assert.deepEqual(inputRules(emptied).at(-1), '-i vpn0 -j KUBE-IPVS-ACCEPT');
  assert.deepEqual(planRules(iptablesRules(config), emptied), { differences: [], text: '' });
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
