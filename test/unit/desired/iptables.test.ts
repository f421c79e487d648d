import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readFileSync } from 'node:fs';
import { iptablesRules } from '../../../src/desired/iptables-rules.js';
import { type LocalDetection, type RuleConfig } from '../../../src/desired/rule-config.js';
import { type RuleSet } from '../../../src/desired/iptables-rule-set.js';
import { ipsetDefinitions } from '../../../src/desired/ipset-definitions.js';
import { normalRule } from '../../../src/plan/iptables-rule-normal.js';
import { parseSavedRules } from '../../../src/plan/iptables-save.js';
import { FAMILIES, type Family } from '../../../src/values/address.js';
import { parsePrefix } from '../../../src/values/prefix.js';

const CIDR = { 4: '10.128.0.0/9', 6: 'fd00:10:128::/48' };
const BUILT_IN = new Set(['ACCEPT', 'DROP', 'RETURN', 'REJECT', 'MARK', 'MASQUERADE', 'DNAT']);

function clusterCIDR(...texts: string[]): LocalDetection {
  return { mode: 'ClusterCIDR', cidrs: texts.map((text) => parsePrefix(text)!) };
}

function rulesOf(family: Family, change: Partial<RuleConfig> = {}): RuleSet {
  const detectLocal = clusterCIDR(CIDR[family]);
  return iptablesRules({
    family,
    masqueradeMark: 0x4000,
    masqueradeAll: false,
    randomFully: true,
    detectLocal,
    acceptServiceTraffic: { nodePortPrefixes: [parsePrefix(family === 4 ? '0.0.0.0/0' : '::/0')!] },
    ...change,
  });
}

function chainOf(set: RuleSet, table: string, name: string): readonly string[] {
  const chain = set.tables.find((one) => one.name === table)?.chains.find((one) => one.name === name);
  assert.ok(chain !== undefined, `${table} ${name}`);
  return chain.rules;
}

function allRules(set: RuleSet): string[] {
  return set.tables.flatMap((table) => [
    ...table.chains.flatMap((chain) => chain.rules),
    ...table.jumps.map((jump) => jump.rule),
  ]);
}

for (const family of FAMILIES) {
  test(`IPv${family}: rules look only into sets that are defined, and every set is looked into`, () => {
    const used = new Set(
      allRules(rulesOf(family)).flatMap((rule) => [...rule.matchAll(/--match-set (\S+)/g)].map((m) => m[1]!)),
    );
    assert.deepEqual(
      [...used].sort(),
      ipsetDefinitions(family)
        .map((one) => one.name)
        .sort(),
    );
  });

  test(`IPv${family}: every chain that a rule goes to exists in its table, is reached, and no rule is there twice`, () => {
    for (const table of rulesOf(family).tables) {
      const names = table.chains.map((chain) => chain.name);
      const rules = [...table.chains.flatMap((chain) => chain.rules), ...table.jumps.map((jump) => jump.rule)];
      const targets = rules.map((rule) => / ?-j (\S+)/.exec(rule)?.[1] ?? '');
      for (const target of targets)
        assert.ok(BUILT_IN.has(target) || names.includes(target), `${table.name} ${target}`);
      for (const name of names) assert.ok(targets.includes(name), `${table.name} ${name} is not reached`);
      for (const chain of table.chains) assert.equal(new Set(chain.rules).size, chain.rules.length, chain.name);
      assert.equal(new Set(names).size, names.length);
    }
  });
}

test('the families differ in nothing but set names, prefixes and the names of ICMP', () => {
  const neutral = (set: RuleSet): string =>
    JSON.stringify(set.tables)
      .replaceAll('KUBE-6-', 'KUBE-')
      .replaceAll(/KUBE-LOAD-BALANCER-SOURCE-CID\b/g, 'KUBE-LOAD-BALANCER-SOURCE-CIDR')
      .replaceAll(/KUBE-NODE-PORT-LOCAL-SCTP-HAS\b/g, 'KUBE-NODE-PORT-LOCAL-SCTP-HASH')
      .replaceAll('icmp6-port-unreachable', 'icmp-port-unreachable')
      .replaceAll('-p ipv6-icmp -m icmp6 --icmpv6-type 128', '-p icmp -m icmp --icmp-type 8')
      .replaceAll(CIDR[6], CIDR[4])
      .replaceAll('::1/128', '127.0.0.0/8');
  assert.equal(neutral(rulesOf(6)), neutral(rulesOf(4)));
});

test('no rule of a family has an address of the other', () => {
  const rules = (family: 4 | 6): string =>
    rulesOf(family)
      .tables.flatMap((table) => table.chains.flatMap((chain) => chain.rules))
      .join('\n');
  assert.match(rules(4), /-s 127\.0\.0\.0\/8 /);
  assert.match(rules(6), /-s ::1\/128 /);
  assert.match(rules(4), /-p icmp -m icmp --icmp-type 8 .*-j ACCEPT/);
  assert.match(rules(6), /-p ipv6-icmp -m icmp6 --icmpv6-type 128 .*-j ACCEPT/);
  assert.doesNotMatch(rules(4), /icmpv6|ipv6-icmp/);
  assert.doesNotMatch(rules(6), /-p icmp/);
  const answers = (family: 4 | 6): string[] => {
    return [...new Set([...rules(family).matchAll(/--reject-with (\S+)/g)].map(([, answer]) => answer!))].sort();
  };
  assert.deepEqual(answers(4), ['icmp-port-unreachable', 'tcp-reset']);
  assert.deepEqual(answers(6), ['icmp6-port-unreachable', 'tcp-reset']);
  assert.doesNotMatch(rules(4), /(-s|-d) [0-9a-f]*:/);
  assert.doesNotMatch(rules(6), /\d\.\d+\.\d+\.\d/);
});

test('jump rules have the text of kube-proxy 1.36, so that neither doubles the other’s', () => {
  const jumps = rulesOf(4).tables.flatMap((table) =>
    table.jumps.map((jump) => `${table.name} ${jump.position} -A ${jump.chain} ${jump.rule}`),
  );
  assert.deepEqual(jumps, [
    'filter first -A INPUT -m comment --comment "kubernetes ipvs access filter" -j KUBE-IPVS-FILTER',
    'filter first -A INPUT -m comment --comment "kube-proxy firewall rules" -j KUBE-PROXY-FIREWALL',
    'filter first -A INPUT -m comment --comment "kubernetes health check rules" -j KUBE-NODE-PORT',
    'filter last -A INPUT -m comment --comment "kubernetes service accept" -j KUBE-IPVS-ACCEPT',
    'filter first -A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD',
    'nat first -A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
    'nat first -A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
    'nat first -A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING',
    'mangle first -A OUTPUT -m comment --comment "kubernetes ipvs access filter" -j KUBE-IPVS-OUT-FILTER',
  ]);
});

const UNMASQUERADED = '-m set ! --match-set KUBE-IPVS-IPS src -m set --match-set KUBE-CLUSTER-IP dst,dst -j ACCEPT';
const NO_LOCAL = '-m set --match-set KUBE-NO-LOCAL-ENDPOINTS dst,dst';

test('what refuses or drops for want of endpoints looks at what opens a connection alone', () => {
  for (const family of FAMILIES) {
    const ends = / -j (DROP|REJECT|DNAT)\b/;
    const wanting = allRules(rulesOf(family)).filter((rule) => /NO-(LOCAL-)?ENDPOINTS/.test(rule) && ends.test(rule));
    assert.equal(wanting.length, 6);
    for (const rule of wanting)
      assert.match(
        rule,
        /^(-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN|! -p tcp .*! --ctstate RELATED,ESTABLISHED) /,
      );
  }
});

test('FORWARD accepts what kube-proxy 1.36 does, in its order: others that use KUBE-MARK-MASQ rely on it', () => {
  for (const family of FAMILIES) {
    const file = `test/fixtures/kube-proxy-1.36/${family === 4 ? 'iptables' : 'ip6tables'}.txt`;
    const recorded = parseSavedRules(readFileSync(file, 'utf8')).get('filter')!.get('KUBE-FORWARD')!.rules;
    const normal = (rules: readonly string[]): string[] => rules.map((rule) => normalRule(rule, family));
    assert.deepEqual(normal(chainOf(rulesOf(family), 'filter', 'KUBE-FORWARD')), normal(recorded));
  }
});

test('by default INPUT accepts as kube-proxy does: for health check node ports alone', () => {
  const chains = rulesOf(4, { acceptServiceTraffic: undefined }).tables[0]!.chains;
  const accepting = chains.filter((one) => one.name !== 'KUBE-FORWARD').flatMap(({ rules }) => rules);
  assert.deepEqual(
    accepting.filter((rule) => rule.endsWith('-j ACCEPT')),
    ['-p tcp -m set --match-set KUBE-HEALTH-CHECK-NODE-PORT dst -j ACCEPT'],
  );
  assert.ok(
    rulesOf(4, { acceptServiceTraffic: undefined }).tables[0]!.jumps.every(({ position }) => position === 'first'),
  );
});

test('acceptServiceTraffic opens NodePorts at the addresses that serve them', () => {
  const nodePortPrefixes = ['10.201.0.0/24', '10.200.0.2/32'].map((text) => parsePrefix(text)!);
  const rules = chainOf(rulesOf(4, { acceptServiceTraffic: { nodePortPrefixes } }), 'filter', 'KUBE-IPVS-ACCEPT');
  assert.deepEqual(
    rules.filter((rule) => rule.includes('NODE-PORT-TCP')),
    ['10.201.0.0/24', '10.200.0.2/32'].map(
      (prefix) =>
        `-d ${prefix} -p tcp -m addrtype --dst-type LOCAL -m set --match-set KUBE-NODE-PORT-TCP dst -j ACCEPT`,
    ),
  );
});

const unmasqueraded = (detectLocal: LocalDetection, masqueradeAll = false): string[] =>
  chainOf(rulesOf(4, { detectLocal, masqueradeAll }), 'nat', 'KUBE-SERVICES').filter((rule) =>
    rule.endsWith(UNMASQUERADED),
  );
const dropped = (detectLocal: LocalDetection): string[] =>
  chainOf(rulesOf(4, { detectLocal }), 'filter', 'KUBE-PROXY-FIREWALL').filter((rule) =>
    rule.includes('--match-set KUBE-NO-LOCAL-ENDPOINTS'),
  );

test('local pods are told by each detectLocalMode, for masquerading and for external policy Local', () => {
  const modes: [LocalDetection, string[]][] = [
    [clusterCIDR('10.128.0.0/9'), ['-s 10.128.0.0/9 ']],
    [clusterCIDR('10.128.0.0/9', '10.64.0.0/10'), ['-s 10.128.0.0/9 ', '-s 10.64.0.0/10 ']],
    [{ mode: 'NodeCIDR', cidrs: [parsePrefix('10.128.0.0/24')!] }, ['-s 10.128.0.0/24 ']],
    [{ mode: 'BridgeInterface', name: 'cbr0' }, ['-i cbr0 ']],
    [{ mode: 'InterfaceNamePrefix', prefix: 'veth' }, ['-i veth+ ']],
  ];
  for (const [detection, matches] of modes) {
    assert.deepEqual(
      unmasqueraded(detection),
      matches.map((match) => match + UNMASQUERADED),
    );
    assert.deepEqual(dropped(detection), [
      ...matches.map((match) => `${match}${NO_LOCAL} -j RETURN`),
      `-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN ${NO_LOCAL} -j DROP`,
      `! -p tcp -m conntrack ! --ctstate RELATED,ESTABLISHED ${NO_LOCAL} -j DROP`,
    ]);
  }
});

test('with detection none only the node itself is masqueraded, and nobody is dropped', () => {
  assert.deepEqual(unmasqueraded({ mode: 'none' }), [UNMASQUERADED]);
  assert.deepEqual(dropped({ mode: 'none' }), []);
});

test('without local endpoints pods of other nodes, which come in by an uplink, are masqueraded; others keep their address', () => {
  const uplinks = ['bond0', 'eth0'];
  const marks = (detectLocal: LocalDetection, chain: string): string[] =>
    chainOf(rulesOf(4, { detectLocal, uplinks }), 'nat', chain).filter((rule) => rule.includes('NO-LOCAL-ENDPOINTS'));
  for (const chain of ['KUBE-LOAD-BALANCER', 'KUBE-NODE-PORT']) {
    assert.deepEqual(
      marks(clusterCIDR('10.128.0.0/9'), chain),
      uplinks.map((name) => `-s 10.128.0.0/9 -i ${name} ${NO_LOCAL} -j KUBE-MARK-MASQ`),
    );
    assert.deepEqual(marks({ mode: 'NodeCIDR', cidrs: [parsePrefix('10.128.0.0/24')!] }, chain), []);
    assert.deepEqual(marks({ mode: 'none' }, chain), []);
  }
});

test('masqueradeAll masquerades local pods too', () => {
  assert.deepEqual(unmasqueraded(clusterCIDR('10.128.0.0/9'), true), []);
});

test('the mark follows masqueradeBit and is taken off; --random-fully only where it is known', () => {
  const rules = rulesOf(4, { masqueradeMark: 1 << 20, randomFully: false });
  assert.equal(chainOf(rules, 'filter', 'KUBE-FORWARD')[0], '-m mark --mark 0x100000/0x100000 -j ACCEPT');
  assert.deepEqual(chainOf(rules, 'nat', 'KUBE-MARK-MASQ'), ['-j MARK --set-xmark 0x100000/0x100000']);
  assert.deepEqual(chainOf(rules, 'nat', 'KUBE-POSTROUTING'), [
    '-m set --match-set KUBE-LOOP-BACK dst,dst,src -j MASQUERADE',
    '-m mark ! --mark 0x100000/0x100000 -j RETURN',
    '-j MARK --set-xmark 0x100000/0x0',
    '-j MASQUERADE',
  ]);
  assert.equal(allRules(rules).filter((rule) => rule.includes('0x4000') || rule.includes('random')).length, 0);
  assert.equal(allRules(rulesOf(4)).filter((rule) => rule.endsWith('MASQUERADE --random-fully')).length, 2);
});

test('bit 31 makes an unsigned mark', () => {
  const rules = rulesOf(4, { masqueradeMark: 1 << 31 });
  assert.deepEqual(chainOf(rules, 'nat', 'KUBE-MARK-MASQ'), ['-j MARK --set-xmark 0x80000000/0x80000000']);
});

test('the node’s own connections to nothing are sent to a port where they, and only they, are reset', () => {
  for (const family of FAMILIES) {
    const set = rulesOf(family);
    const [sent] = chainOf(set, 'nat', 'KUBE-SERVICES').filter((rule) => rule.includes('-j DNAT'));
    const [, port] = /--match-set \S*NO-ENDPOINTS dst,dst .*-j DNAT --to-destination :(\d+)$/.exec(sent ?? '') ?? [];
    const reset = `-i lo -p tcp -m tcp --dport ${port} -m conntrack --ctstate DNAT -j REJECT --reject-with tcp-reset`;
    assert.ok(chainOf(set, 'filter', 'KUBE-PROXY-FIREWALL').includes(reset), `${sent} ... ${reset}`);
    for (const rule of allRules(set)) assert.doesNotMatch(rule, /undefined|NaN/);
  }
});
