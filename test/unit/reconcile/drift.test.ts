import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { driftJson, formatDrift } from '../../../src/cli/verify.js';
import { Drift } from '../../../src/reconcile/drift.js';

function drifted(maxNames?: number): Drift {
  const drift = new Drift(maxNames);
  for (let i = 0; i < 300; i++) drift.add('virtual_server', 'missing', () => `TCP 10.96.0.${i}:80`);
  for (let i = 0; i < 200; i++) drift.add('set_entry', 'extra', () => `KUBE-CLUSTER-IP ${i}`);
  drift.add('rule', 'changed', () => 'IPv4 nat KUBE-SERVICES rules');
  drift.add('sysctl', 'missing', () => 'net.ipv4.vs.conntrack=none');
  return drift;
}

describe('drift', () => {
  it('names some of every kind in a log line, however many one kind has', () => {
    const { names, total } = drifted();
    assert.equal(total, 502);
    assert.equal(names.length, 20);
    assert.ok(names.includes('changed rule IPv4 nat KUBE-SERVICES rules'));
    assert.ok(names.includes('missing sysctl net.ipv4.vs.conntrack=none'));
    assert.equal(names.filter((name) => name.startsWith('extra set_entry ')).length, 9);
  });

  it('makes no names that nobody keeps', () => {
    const drift = new Drift(1);
    let made = 0;
    for (let i = 0; i < 10_000; i++) drift.add('address', 'missing', () => String(made++));
    assert.deepEqual([made, drift.names], [1, ['missing address 0']]);
  });

  it('is printed with ten names of each kind and how many more there are, or with all', () => {
    const drift = drifted(Infinity);
    const few = formatDrift(drift, false).split('\n');
    assert.ok(few.includes('300 missing virtual_server'));
    assert.ok(few.includes('  and 290 more (--all names them)'));
    assert.ok(few.includes('  and 190 more (--all names them)'));
    assert.ok(few.includes('  net.ipv4.vs.conntrack=none'));
    const all = formatDrift(drift, true).split('\n');
    assert.equal(all.filter((line) => line.startsWith('  ')).length, 502);
    assert.equal(formatDrift(new Drift(), true), 'the kernel is as desired\n');
  });

  it('is complete as JSON', () => {
    const { total, differences } = JSON.parse(JSON.stringify(driftJson(drifted(Infinity)))) as {
      total: number;
      differences: { object: string; kind: string; name: string }[];
    };
    assert.deepEqual([total, differences.length], [502, 502]);
    assert.deepEqual(differences.at(-1), { object: 'sysctl', kind: 'missing', name: 'net.ipv4.vs.conntrack=none' });
  });
});
