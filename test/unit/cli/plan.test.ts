/** What `plan` prints. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { formatDifference, formatPlan } from '../../../src/cli/plan-text.js';
import { type Change } from '../../../src/reconcile/change.js';

const server = { protocol: 'TCP', address: '10.96.0.1', port: 80 };
const settings = { scheduler: 'rr', flags: 0, persistenceTimeout: 0 };
const sticky = { scheduler: 'wrr', flags: 1, persistenceTimeout: 600 };
const CHANGES: Change[] = [
  { action: 'delete', object: 'address', address: 'fd00::9', link: 'kube-ipvs0' },
  {
    action: 'change',
    object: 'virtual_server',
    service: 'shop/web',
    virtualServer: server,
    before: settings,
    after: sticky,
  },
  {
    action: 'change',
    object: 'real_server',
    service: 'shop/web',
    virtualServer: server,
    realServer: { address: '10.0.0.1', port: 8080 },
    weight: 0,
  },
  {
    action: 'add',
    object: 'real_server',
    service: 'shop/web',
    virtualServer: server,
    realServer: { address: 'fd00::1', port: 8080 },
    weight: 1,
  },
  { action: 'change', object: 'sysctl', name: 'net.ipv4.ip_forward', before: 0, after: 1 },
  {
    action: 'change',
    object: 'rule',
    family: 4,
    table: 'nat',
    chain: 'KUBE-SERVICES',
    what: 'chain',
    before: ['-a', '-j b'],
    after: ['-j b', '-c'],
  },
  {
    action: 'add',
    object: 'rule',
    family: 6,
    table: 'filter',
    chain: 'INPUT',
    what: 'jump',
    before: [],
    after: ['-j KUBE-X'],
  },
];

describe('a plan in words', () => {
  it('goes by Service, the node first and what belongs to nobody last, with a summary', () => {
    assert.equal(
      formatPlan(CHANGES, false),
      `node:
  change sysctl net.ipv4.ip_forward from 0 to 1
  change chain nat KUBE-SERVICES (IPv4), 2 rules
  add rule of filter INPUT (IPv6): -j KUBE-X
shop/web:
  change virtual server TCP 10.96.0.1:80 wrr persistent 600
  change real server TCP 10.96.0.1:80 -> 10.0.0.1:8080 weight 0 (drain)
  add real server TCP 10.96.0.1:80 -> [fd00::1]:8080
no Service:
  delete address fd00::9 on kube-ipvs0
plan: 2 to add, 4 to change, 1 to delete; Services concerned: 1
`,
    );
    assert.equal(formatPlan([], true), 'nothing to change\n');
  });

  it('shows before and after', () => {
    assert.deepEqual(CHANGES.flatMap(formatDifference), [
      '- TCP 10.96.0.1:80 rr',
      '+ TCP 10.96.0.1:80 wrr persistent 600',
      '- net.ipv4.ip_forward = 0',
      '+ net.ipv4.ip_forward = 1',
      '- -A KUBE-SERVICES -a',
      '+ -A KUBE-SERVICES -c',
      '+ -A INPUT -j KUBE-X',
    ]);
    assert.match(formatPlan(CHANGES, true), /rules\n {4}- -A KUBE-SERVICES -a\n {4}\+ -A KUBE-SERVICES -c\n/);
  });
});
