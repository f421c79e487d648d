/** What `plan` prints. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type PlanOptions, type VerifyOptions } from '../../../src/cli/options.js';
import { runPlan } from '../../../src/cli/plan.js';
import { formatDifference, formatPlan } from '../../../src/cli/plan-text.js';
import { runVerify } from '../../../src/cli/verify.js';
import { type Environment } from '../../../src/daemon/environment.js';
import { type Change } from '../../../src/reconcile/change.js';
import { Drift } from '../../../src/reconcile/drift.js';
import { type Inspection } from '../../../src/reconcile/inspect.js';

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

describe('what is not a Service’s', () => {
  it('firewall marks, flags and headings have their form and place', () => {
    const fwmark: Change = { action: 'delete', object: 'virtual_server', virtualServer: { fwmark: 7, family: 6 } };
    const flagged: Change = {
      ...{ action: 'add', object: 'virtual_server', service: 'b/b', virtualServer: server },
      after: { scheduler: 'mh', flags: 0x1a, persistenceTimeout: 0 },
    };
    const link: Change = { action: 'add', object: 'link', link: 'kube-ipvs0' };
    const other: Change = { ...flagged, service: 'a/a', after: { ...settings, flags: 1 } };
    assert.equal(
      formatPlan([fwmark, flagged, other, link], false),
      `node:
  add link kube-ipvs0
a/a:
  add virtual server TCP 10.96.0.1:80 rr
b/b:
  add virtual server TCP 10.96.0.1:80 mh flags 0x1a
no Service:
  delete virtual server FWM 7 IPv6
plan: 3 to add, 0 to change, 1 to delete; Services concerned: 2
`,
    );
  });
});

describe('plan and verify', () => {
  /** As typed, where a look at the node finds so many of CHANGES, each of them drift. */
  async function typed(command: 'plan' | 'verify', count: number, more: object = {}) {
    const drift = new Drift();
    for (let i = 0; i < count; i++) drift.add('real_server', 'missing', () => `TCP 10.96.0.1:80 -> 10.0.0.${i}:80`);
    const found = { changes: CHANGES.slice(0, count), drift } as unknown as Inspection;
    let out = '';
    const environment = { out: (text: string) => void (out += text) } as unknown as Environment;
    const look = (): Promise<Inspection> => Promise.resolve(found);
    const options = { json: false, all: false, diff: false, exitCode: false, ...more };
    const code =
      command === 'plan'
        ? await runPlan(options as unknown as PlanOptions, environment, look)
        : await runVerify(options as unknown as VerifyOptions, environment, look);
    return { code, out };
  }

  it('plan ends with 2 where there is just one change, and --exit-code asks for it', async () => {
    const codes = async (exitCode: boolean): Promise<number[]> =>
      Promise.all([0, 1, 5].map(async (count) => (await typed('plan', count, { exitCode })).code));
    assert.deepEqual(await codes(true), [0, 2, 2]);
    assert.deepEqual(await codes(false), [0, 0, 0]);
    assert.deepEqual((await typed('plan', 0)).out, 'nothing to change\n');
    const { summary, changes } = JSON.parse((await typed('plan', 2, { json: true })).out) as Record<string, unknown>;
    assert.deepEqual(
      [summary, changes],
      [{ add: 0, change: 1, delete: 1 }, JSON.parse(JSON.stringify(CHANGES.slice(0, 2)))],
    );
    assert.match((await typed('plan', 2, { diff: true })).out, /\+ TCP 10\.96\.0\.1:80 wrr persistent 600/);
  });

  it('verify ends with 2 where anything differs, and names ten of a kind unless all are asked for', async () => {
    assert.deepEqual(await typed('verify', 0), { code: 0, out: 'the kernel is as desired\n' });
    const one = await typed('verify', 1);
    assert.deepEqual(one, { code: 2, out: '1 missing real_server\n  TCP 10.96.0.1:80 -> 10.0.0.0:80\n' });
    assert.equal((await typed('verify', 10)).out.split('\n').length, 12);
    const twelve = await typed('verify', 12);
    assert.match(twelve.out, /^12 missing real_server\n( {2}TCP [^\n]*\n){10} {2}and 2 more \(--all names them\)\n$/);
    assert.match((await typed('verify', 12, { all: true })).out, /^12 missing real_server\n( {2}TCP [^\n]*\n){12}$/);
    assert.deepEqual(JSON.parse((await typed('verify', 1, { json: true })).out), {
      total: 1,
      counts: [{ object: 'real_server', kind: 'missing', count: 1 }],
      differences: [{ object: 'real_server', kind: 'missing', name: 'TCP 10.96.0.1:80 -> 10.0.0.0:80' }],
    });
  });
});
