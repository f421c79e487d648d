/** When two iptables rules are the same, however they are written. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { normalRule } from '../../../src/plan/iptables-rule-normal.js';
import { type Family } from '../../../src/values/address.js';

function areSame(one: string, other: string, family: Family = 4): boolean {
  return normalRule(one, family) === normalRule(other, family);
}

const SET = '-m set --match-set KUBE-CLUSTER-IP dst,dst';
const MARK = '-m mark --mark 0x4000/0x4000';

describe('rules are the same', () => {
  test('whatever the order of their matches', () => {
    assert.ok(areSame(`${SET} ${MARK} -j RETURN`, `${MARK} ${SET} -j RETURN`));
    assert.ok(areSame(`-s 10.0.0.0/8 ${SET} -p tcp -j RETURN`, `-p tcp ${SET} -s 10.0.0.0/8 -j RETURN`));
  });

  test('with and without a comment, wherever it stands', () => {
    const comment = '-m comment --comment "kubernetes service portals"';
    for (const rule of [`${comment} ${SET} ${MARK} -j RETURN`, `${SET} ${comment} ${MARK} -j RETURN`]) {
      assert.ok(areSame(rule, `${SET} ${MARK} -j RETURN`), rule);
    }
  });

  test('with a mask in place of a prefix length, host bits, and prefixes that match everything', () => {
    assert.ok(areSame('-s 10.0.0.0/255.128.0.0 -j RETURN', '-s 10.0.0.0/9 -j RETURN'));
    assert.ok(areSame('-s 192.0.2.7 -j RETURN', '-s 192.0.2.7/32 -j RETURN'));
    assert.ok(areSame('-s 0.0.0.0/0 -j RETURN', '-j RETURN'));
    assert.ok(areSame('-d 2001:DB8:0::1 -j RETURN', '-d 2001:db8::1/128 -j RETURN', 6));
    assert.ok(areSame('-p all -j RETURN', '-j RETURN'));
    assert.ok(areSame('-p 6 -m tcp --dport 80 -j RETURN', '-p tcp --dport 80 -j RETURN'));
  });
});

test('rules are the same with a full mask written out', () => {
  assert.ok(areSame('-m mark --mark 0x4000/0xffffffff -j RETURN', '-m mark --mark 0x4000 -j RETURN'));
  assert.ok(areSame('-m mark --mark 0xc0000000/0xffffffff -j RETURN', '-m mark --mark 3221225472 -j RETURN'));
});

describe('rules are not the same', () => {
  const rule = `-s 10.0.0.0/8 ${SET} ${MARK} -j RETURN`;
  for (const [what, other] of [
    ['one match is missing', `-s 10.0.0.0/8 ${SET} -j RETURN`],
    ['a match is turned round', `-s 10.0.0.0/8 -m set ! --match-set KUBE-CLUSTER-IP dst,dst ${MARK} -j RETURN`],
    ['a match has another set', `-s 10.0.0.0/8 ${SET.replace('CLUSTER', 'EXTERNAL')} ${MARK} -j RETURN`],
    [
      'the options of two matches are exchanged',
      `-s 10.0.0.0/8 -m set --mark 0x4000/0x4000 -m mark ${SET.slice(7)} -j RETURN`,
    ],
    ['the source is another', `-s 10.0.0.0/9 ${SET} ${MARK} -j RETURN`],
    ['the source is the destination', `-d 10.0.0.0/8 ${SET} ${MARK} -j RETURN`],
    ['the source is turned round', `! -s 10.0.0.0/8 ${SET} ${MARK} -j RETURN`],
    ['the target is another', `-s 10.0.0.0/8 ${SET} ${MARK} -j ACCEPT`],
    ['a jump is a goto', `-s 10.0.0.0/8 ${SET} ${MARK} -g RETURN`],
  ] as const) {
    test(`when ${what}`, () => assert.ok(!areSame(rule, other)));
  }

  test('when a mark is looked at through another mask', () => {
    const marks = ['0x4000', '0x4000/0x4000', '0x4000/0xc000', '0x4000/0xffff'];
    const rules = marks.map((mark) => `-m mark --mark ${mark} -j RETURN`);
    for (const one of rules) assert.equal(rules.filter((other) => areSame(one, other)).length, 1, one);
  });

  test('when they have different values of an option that nobody knows', () => {
    assert.ok(areSame('-j MARK --set-later 1', '-j MARK --set-later 1'));
    assert.ok(!areSame('-j MARK --set-later 1', '-j MARK --set-later 2'));
  });

  test('when one names an address that nobody can read, or one of the other family', () => {
    for (const source of ['somewhere.example', 'fd00::1', '10.0.0.0/33']) {
      assert.ok(!areSame(`-s ${source} -j RETURN`, '-j RETURN'), source);
    }
  });
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
    ['-p tcp --syn -j DROP', '-p tcp -m tcp --tcp-flags SYN,RST,ACK,FIN SYN -j DROP'],
    ['-m conntrack ! --ctstate ESTABLISHED,RELATED -j DROP', '-m conntrack ! --ctstate RELATED,ESTABLISHED -j DROP'],
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
    '-m conntrack ! --ctstate NEW -j ACCEPT',
    '-p tcp -m tcp --tcp-flags SYN SYN -j ACCEPT',
    '-p tcp -m tcp --syn -j ACCEPT',
    '-p tcp -m tcp ! --syn -j ACCEPT',
  ];
  assert.equal(new Set(rules.map((rule) => normalRule(rule, 4))).size, rules.length);
});
