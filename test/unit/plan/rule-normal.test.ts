/** When two iptables rules are the same, however they are written. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { normalRule } from '../../../src/plan/rule-normal.js';
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
});
