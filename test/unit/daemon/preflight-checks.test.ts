import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import {
  PreflightError,
  familySupport,
  missingModules,
  requireCapabilities,
  unloadedIptables,
} from '../../../src/daemon/preflight-checks.js';
import { hasScheduler } from '../../../src/kernel/ipvs/probe-scheduler.js';
import { IpvsClient } from '../../../src/kernel/ipvs/client.js';
import { FakeIpvs } from '../../fakes/fake-kernel-ipvs.js';
import { FakeKernel } from '../../fakes/fake-kernel.js';

test('a process without CAP_NET_ADMIN or CAP_NET_RAW is told so, one with both is not', (context) => {
  const directory = mkdtempSync(join(tmpdir(), 'caps-'));
  context.after(() => rmSync(directory, { recursive: true }));
  const status = (effective: string): string => {
    const path = join(directory, effective);
    writeFileSync(path, `Name:\tnode\nCapPrm:\t${effective}\nCapEff:\t${effective}\n`);
    return path;
  };
  requireCapabilities(status('000001ffffffffff'));
  requireCapabilities(status('0000000000003000'));
  assert.throws(() => requireCapabilities(status('0000000000000000')), PreflightError);
  const noAdmin =
    /^no permission: CAP_NET_ADMIN is missing \(to change the network\): run as root, or add NET_ADMIN to/;
  assert.throws(() => requireCapabilities(status('000001ffffffefff')), { message: noAdmin });
  const noRaw = /CAP_NET_RAW is missing \(for iptables\): run as root, or add NET_RAW to the container$/;
  assert.throws(() => requireCapabilities(status('0000000000001000')), { message: noRaw });
});

test('a family is left out, with the reason, where its iptables or its addresses cannot work', (context) => {
  const root = mkdtempSync(join(tmpdir(), 'families-'));
  context.after(() => rmSync(root, { recursive: true }));
  const write = (path: string, text: string): void => {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  };
  const both = { families: [4, 6], failures: {} } as const;
  assert.deepEqual(familySupport(both, root).leftOut, ['IPv6 is not served on this node: the kernel has no IPv6']);
  write('net/if_inet6', '');
  assert.deepEqual(familySupport(both, root).families, [4], 'no settings of it');
  for (const link of ['all', 'default']) write(`sys/net/ipv6/conf/${link}/disable_ipv6`, '0\n');
  assert.deepEqual(familySupport(both, root), { families: [4, 6], leftOut: [] });
  for (const link of ['all', 'default', 'kube-ipvs0']) {
    write(`sys/net/ipv6/conf/${link}/disable_ipv6`, '1\n');
    const { families, leftOut } = familySupport(both, root);
    assert.deepEqual([families, leftOut.length], [[4], 1], link);
    assert.match(leftOut[0]!, new RegExp(`net\\.ipv6\\.conf\\.${link}\\.disable_ipv6 is 1$`));
    write(`sys/net/ipv6/conf/${link}/disable_ipv6`, '0\n');
  }
  write('sys/net/ipv6/conf/default/disable_ipv6', '1\n');
  assert.deepEqual(familySupport(both, root).families, [4, 6], 'the link is there, and has its own');
  write('sys/net/ipv6/conf/lo/disable_ipv6', '1\n');
  assert.deepEqual(familySupport(both, root, 'addresses').families, [4, 6]);
  assert.match(familySupport(both, root, 'routes').leftOut[0]!, /net\.ipv6\.conf\.lo\.disable_ipv6 is 1$/);
  const no4 = familySupport({ families: [6], failures: { 4: 'no table nat' } }, root);
  assert.deepEqual(no4, {
    families: [6],
    leftOut: ['IPv4 is not served on this node: its iptables do not work: no table nat'],
  });
  const none = { families: [], failures: { 4: 'no nat', 6: 'no filter' } };
  assert.throws(() => familySupport(none, root), /^PreflightError: no IP family can be served: IPv4 .* no nat; IPv6 /);
});

test('iptables that are not loaded are told, per family and backend', () => {
  const present =
    (...names: string[]) =>
    (name: string) =>
      names.includes(name);
  assert.deepEqual(unloadedIptables('legacy', present('ip_tables')), { 6: 'ip6_tables' });
  assert.deepEqual(unloadedIptables('nft', present('nf_tables')), {});
  assert.deepEqual(unloadedIptables('nft', present('ip_tables', 'ip6_tables')), { 4: 'nf_tables', 6: 'nf_tables' });
});

test('missing modules are one line with one hint, however many', () => {
  const fix = (name: string): string =>
    `run "modprobe ${name}" on the node: modprobe: FATAL: Module ${name} not found in directory /lib/modules/6.1.0`;
  const names = ['ip_vs', 'ip_set', 'xt_set', 'dummy'];
  const line = missingModules([
    { name: 'nf_conntrack', state: 'loaded' },
    ...names.map((name) => ({ name, state: 'missing' as const, fix: fix(name) })),
  ])!;
  assert.match(line, /^run "modprobe -a ip_vs ip_set xt_set dummy" on the node \(modprobe: FATAL/);
  assert.equal(line.match(/FATAL/g)!.length, 1);
  assert.ok(line.length < 200, line);
  assert.equal(missingModules([{ name: 'ip_vs', state: 'builtin' }]), undefined);
});

test('a scheduler is probed by use, and nothing is left behind', () => {
  const kernel = new FakeKernel();
  new FakeIpvs(kernel);
  const ipvs = new IpvsClient(kernel.open);
  assert.equal(hasScheduler(ipvs, 'rr'), true);
  assert.equal(hasScheduler(ipvs, 'no-such'), false);
  assert.deepEqual(ipvs.listVirtualServers().servers, []);
});
