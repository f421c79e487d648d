/** What `cleanup` prints, and its exit code; what it removes is in reconcile/cleanup.test.ts. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type FullCleanupReport, showCleanup } from '../../../src/cli/cleanup-text.js';

const NOTHING: FullCleanupReport = {
  ...{ virtualServers: [], addresses: [], chains: [], sets: [], kept: [], failures: [], remarks: [], nftables: [] },
};
const MUCH: FullCleanupReport = {
  ...NOTHING,
  ...{ virtualServers: ['TCP 10.96.0.1:80', 'TCP 10.96.0.2:80'], addresses: ['10.96.0.1'] },
  ...{ sets: ['KUBE-CLUSTER-IP'], chains: ['IPv4 nat KUBE-SERVICES (nft)'], nftables: ['kube-proxy (IPv4)'] },
};

function shown(report: FullCleanupReport, dryRun = false, json = false): [code: number, out: string, err: string] {
  let [out, err] = ['', ''];
  const write = { out: (text: string) => void (out += text), err: (text: string) => void (err += text) };
  const code = showCleanup(report, { dryRun, json }, write);
  return [code, out, err];
}

test('one line of counts; a dry run names each', () => {
  const counts = '2 virtual servers, 1 addresses, 1 sets, 1 chains, 1 nftables tables\n';
  assert.deepEqual(shown(MUCH), [0, `removed ${counts}`, '']);
  const names = [
    ...['virtual server TCP 10.96.0.1:80', 'virtual server TCP 10.96.0.2:80', 'address 10.96.0.1'],
    ...['set KUBE-CLUSTER-IP', 'chain IPv4 nat KUBE-SERVICES (nft)', 'table kube-proxy (IPv4)'],
  ];
  assert.deepEqual(shown(MUCH, true), [0, `would remove ${counts}${names.map((name) => `  ${name}\n`).join('')}`, '']);
  assert.deepEqual(shown(NOTHING), [0, 'removed 0 virtual servers, 0 addresses, 0 sets, no rules\n', '']);
});

test('what stays and what hinders is said, and what failed makes it 1', () => {
  const report = { ...NOTHING, kept: ['a, used by b'], failures: ['c: EBUSY'], remarks: ['run it again'] };
  const [code, out, err] = shown(report);
  assert.equal(code, 1);
  assert.match(out, /\nkept because a rule of somebody else leads to it: a, used by b\n$/);
  assert.equal(err, 'not removed: c: EBUSY\nrun it again\n');
});

test('as JSON all of it, with the same exit code', () => {
  const [code, out, err] = shown(MUCH, true, true);
  assert.deepEqual([code, JSON.parse(out), err], [0, { dryRun: true, ...MUCH }, '']);
  assert.equal(shown({ ...NOTHING, failures: ['x'] }, false, true)[0], 1);
});
