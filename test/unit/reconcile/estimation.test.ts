/** kubeProxyIpvs.estimation on kernels that can do more and less. */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Sysctl } from '../../../src/kernel/node/sysctl.js';
import { countRealServers, readTableFill } from '../../../src/kernel/node/table-fill.js';
import { describeConnectionTable } from '../../../src/daemon/answer/connection-table.js';
import { EstimationKeeper, type EstimationMode } from '../../../src/reconcile/estimation.js';

interface Node {
  readonly root: string;
  keeper(mode: EstimationMode): EstimationKeeper;
  /** What the files hold: `run nice`. */
  values(): string;
}

/** A /proc/sys with these files of net/ipv4/vs; undefined: IPVS is not loaded. */
function nodeWith(t: TestContext, files: Readonly<Record<string, string>> | undefined): Node {
  const root = mkdtempSync(join(tmpdir(), 'estimation-'));
  t.after(() => rmSync(root, { recursive: true }));
  const directory = join(root, 'net/ipv4/vs');
  if (files !== undefined) mkdirSync(directory, { recursive: true });
  for (const [name, text] of Object.entries(files ?? {})) writeFileSync(join(directory, name), `${text}\n`);
  const value = (name: string): string =>
    existsSync(join(directory, name)) ? readFileSync(join(directory, name), 'latin1').trim() : '-';
  return {
    root,
    keeper: (mode) => new EstimationKeeper(new Sysctl(root), mode),
    values: () => `${value('run_estimation')} ${value('est_nice')}`,
  };
}

test('auto before Linux 6.2: off above 20,000 real servers, on again below 16,000', (t) => {
  const node = nodeWith(t, { run_estimation: '1' });
  const keeper = node.keeper('auto');
  const after = (realServers: number): unknown[] => [keeper.ensure(realServers).isRunning, node.values()];
  assert.deepEqual(after(20_000), [true, '1 -']);
  assert.deepEqual(after(20_001), [false, '0 -']);
  assert.deepEqual(after(16_000), [false, '0 -'], 'a table about as large does not switch to and fro');
  assert.deepEqual(after(15_999), [true, '1 -']);
  assert.deepEqual(after(50_000), [false, '0 -']);
  assert.match(keeper.ensure(50_000).note!, /is off .*auto, more than 20000 real servers.*stand still/);
});

test('auto leaves what somebody else switched off, also after a restart', (t) => {
  const node = nodeWith(t, { run_estimation: '0' });
  const keeper = node.keeper('auto');
  for (const realServers of [30_000, 10]) {
    const { isRunning, note } = keeper.ensure(realServers);
    assert.deepEqual([isRunning, node.values()], [false, '0 -']);
    assert.match(note!, /stand still/);
  }
});

test('auto since Linux 6.2: goes on at the lowest priority, unless somebody chose one', (t) => {
  const node = nodeWith(t, { run_estimation: '1', est_nice: '0' });
  assert.deepEqual(node.keeper('auto').ensure(100_000), { isRunning: true, note: undefined });
  assert.equal(node.values(), '1 19');
  const chosen = nodeWith(t, { run_estimation: '1', est_nice: '-5' });
  chosen.keeper('auto').ensure(100_000);
  assert.equal(chosen.values(), '1 -5');
});

test('on and off are what they say, whatever the number', (t) => {
  const node = nodeWith(t, { run_estimation: '1', est_nice: '0' });
  assert.equal(node.keeper('off').ensure(1).isRunning, false);
  assert.equal(node.values(), '0 0');
  assert.deepEqual(node.keeper('on').ensure(100_000), { isRunning: true, note: undefined });
  assert.equal(node.values(), '1 0');
});

test('kernels without the switch, and without IPVS', (t) => {
  const old = nodeWith(t, { conntrack: '1' });
  assert.deepEqual(old.keeper('auto').ensure(10), { isRunning: true, note: undefined });
  assert.match(old.keeper('auto').ensure(30_000).note!, /before 5\.16.*all real servers/);
  assert.match(old.keeper('off').ensure(10).note!, /cannot be switched off/);
  assert.deepEqual(nodeWith(t, undefined).keeper('off').ensure(10), { isRunning: undefined, note: undefined });
});

test('a /proc/sys that cannot be written: the note names the parameter and the fix, nothing is thrown', (t) => {
  const node = nodeWith(t, { run_estimation: '1' });
  const readOnly = (root: string): Sysctl => {
    const sysctl = new Sysctl(root);
    sysctl.ensure = (name, value) => {
      throw new Error(`cannot set sysctl ${name}=${value}: /proc/sys is mounted read-only`);
    };
    return sysctl;
  };
  const keeper = new EstimationKeeper(readOnly(node.root), 'auto');
  const { isRunning, note } = keeper.ensure(30_000);
  assert.equal(isRunning, true);
  assert.match(note!, /run_estimation=0: .*read-only.*restart of the pod/);
  assert.equal(keeper.ensure(30_001).note, note, 'tried again, and said in the same words: no new line in the log');
  const threads = nodeWith(t, { run_estimation: '1', est_nice: '0' });
  const auto = new EstimationKeeper(readOnly(threads.root), 'auto');
  assert.equal(auto.ensure(20_000).note, undefined, 'a priority that cannot be lowered is nothing in a small table');
  assert.match(auto.ensure(20_001).note!, /est_nice=19: .*read-only/);
});

test('how full the tables are, as /proc says it', (t) => {
  const proc = mkdtempSync(join(tmpdir(), 'proc-'));
  t.after(() => rmSync(proc, { recursive: true }));
  const none = { conntrackEntries: undefined, conntrackLimit: undefined, connectionBuckets: undefined };
  assert.deepEqual(readTableFill(proc), none);
  assert.equal(countRealServers(proc), 0);
  mkdirSync(join(proc, 'sys/net/netfilter'), { recursive: true });
  mkdirSync(join(proc, 'net'));
  writeFileSync(join(proc, 'sys/net/netfilter/nf_conntrack_count'), '1234\n');
  writeFileSync(join(proc, 'sys/net/netfilter/nf_conntrack_max'), '262144\n');
  const table = (size: number): void =>
    writeFileSync(
      join(proc, 'net/ip_vs'),
      [
        `IP Virtual Server version 1.2.1 (size=${size})`,
        'Prot LocalAddress:Port Scheduler Flags',
        '  -> RemoteAddress:Port Forward Weight ActiveConn InActConn',
        'TCP  0A600001:01BB rr ',
        '  -> 0AC80002:192B      Masq    1      0          0         ',
        '  -> 0AC80003:192B      Masq    1      0          0         ',
        '',
      ].join('\n'),
    );
  table(4096);
  assert.deepEqual(readTableFill(proc), { conntrackEntries: 1234, conntrackLimit: 262_144, connectionBuckets: 4096 });
  assert.equal(countRealServers(proc), 2);
  assert.match(describeConnectionTable(readTableFill(proc)), /4096 buckets \(conn_tab_bits 12\).*conn_tab_bits=18/);
  table(262_144);
  assert.equal(describeConnectionTable(readTableFill(proc)), '262144 buckets (conn_tab_bits 18)');
  table(0);
  assert.equal(describeConnectionTable(readTableFill(proc)), 'this kernel sizes it by itself');
  assert.match(describeConnectionTable(none), /not loaded/);
});
