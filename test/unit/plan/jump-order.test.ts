/** Jumps of one chain: those that come first before everybody's rules, those that come last behind them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type RuleSet } from '../../../src/desired/iptables-rule-set.js';
import { planRules } from '../../../src/plan/iptables-rule-diff.js';
import { parseSavedRules } from '../../../src/plan/iptables-save.js';

const chains = ['KUBE-A', 'KUBE-B', 'KUBE-C'].map((name) => ({ name, rules: ['-j RETURN'] }));

function jump(name: string, position: 'first' | 'last'): { chain: string; rule: string; position: 'first' | 'last' } {
  return { chain: 'INPUT', rule: `-j ${name}`, position };
}

function saved(...rules: string[]): ReturnType<typeof parseSavedRules> {
  const declared = chains.map(({ name }) => `:${name} - [0:0]`);
  const own = chains.map(({ name }) => `-A ${name} -j RETURN`);
  const lines = ['*filter', ':INPUT ACCEPT [0:0]', ...declared, ...rules.map((rule) => `-A INPUT ${rule}`), ...own];
  return parseSavedRules(`${lines.join('\n')}\nCOMMIT\n`);
}

test('the order in which jumps are declared does not matter between first and last', () => {
  for (const jumps of [
    [jump('KUBE-A', 'first'), jump('KUBE-B', 'first'), jump('KUBE-C', 'last')],
    [jump('KUBE-C', 'last'), jump('KUBE-A', 'first'), jump('KUBE-B', 'first')],
    [jump('KUBE-A', 'first'), jump('KUBE-C', 'last'), jump('KUBE-B', 'first')],
  ]) {
    const wanted: RuleSet = { family: 4, tables: [{ name: 'filter', chains, jumps }] };
    const right = saved('-j KUBE-A', '-j KUBE-B', '-i lo -j ACCEPT', '-j KUBE-C');
    assert.deepEqual(planRules(wanted, right), { differences: [], text: '' });
    const wrong = saved('-j KUBE-C', '-j KUBE-A', '-j KUBE-B', '-i lo -j ACCEPT');
    assert.notDeepEqual(planRules(wanted, wrong).differences, []);
  }
});
