import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, test } from 'node:test';
import { Sysctl, SysctlError } from '../../../src/kernel/node/sysctl.js';
import { machineCores } from '../../../src/kernel/node/cores.js';
import {
  connReuseMode,
  isAtLeast,
  parseKernelRelease,
  readKernelReleaseText,
} from '../../../src/kernel/node/kernel-release.js';

const root = mkdtempSync(join(tmpdir(), 'sysctl-'));
after(() => rmSync(root, { recursive: true }));

function put(path: string, value: string): string {
  const file = join(root, path);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, value);
  return file;
}

test('writes only what differs', () => {
  const file = put('net/ipv4/vs/conntrack', '0\n');
  const sysctl = new Sysctl(root);
  assert.equal(sysctl.ensure('net.ipv4.vs.conntrack', 1), true);
  assert.match(readFileSync(file, 'utf8'), /^1/);
  utimesSync(file, 1, 1);
  assert.equal(sysctl.ensure('net.ipv4.vs.conntrack', 1), false);
  assert.equal(statSync(file).mtimeMs, 1000, 'not written');
  put('net/ipv4/ip_local_port_range', '32768\t60999\n');
  assert.equal(sysctl.ensure('net.ipv4.ip_local_port_range', '32768 60999'), false);
});

test("a module's parameter is a file of /sys, and nothing else is", () => {
  const file = put('module/nf_conntrack/parameters/hashsize', '65536\n');
  const sysctl = new Sysctl(join(root, 'none'), root);
  const name = '/sys/module/nf_conntrack/parameters/hashsize';
  assert.equal(sysctl.readNumber(name), 65_536);
  assert.equal(sysctl.ensure(name, 262_144), true);
  assert.match(readFileSync(file, 'utf8'), /^262144/);
  assert.throws(() => sysctl.read('/sys/../etc/passwd'), /not a sysctl name/);
});

test('the cores of a machine are those that are online, whatever this process may use', () => {
  const count = (text: string): number | undefined => {
    put('devices/system/cpu/online', text);
    return machineCores(root);
  };
  const cases = { '0\n': 1, '0-63\n': 64, '0-3,8,10-11\n': 7, '\n': undefined, 'x\n': undefined };
  for (const [text, cores] of Object.entries(cases)) assert.equal(count(text), cores, text);
  assert.equal(machineCores(join(root, 'nowhere')), undefined);
});

test('an absent parameter reads as undefined and its write names the module', () => {
  const sysctl = new Sysctl(root);
  assert.equal(sysctl.read('net.ipv4.vs.absent'), undefined);
  assert.throws(
    () => sysctl.ensure('net.ipv4.vs.absent', 1),
    (error) => error instanceof SysctlError && error.code === 'ENOENT' && /modprobe ip_vs/.test(error.message),
  );
  assert.throws(() => sysctl.ensure('net.netfilter.nf_conntrack_absent', 1), /modprobe nf_conntrack/);
  assert.equal(sysctl.readNumber('net.ipv4.ip_local_port_range'), undefined);
});

test('interface names with dots, and nothing outside of the root', () => {
  const file = put('net/ipv4/conf/eth0.100/arp_ignore', '0\n');
  const sysctl = new Sysctl(root);
  assert.equal(sysctl.ensure('net.ipv4.conf.eth0/100.arp_ignore', 2), true);
  assert.match(readFileSync(file, 'utf8'), /^2/);
  for (const name of ['', 'net..ip_forward', '//.x', '.', 'net.//.x']) {
    assert.throws(() => sysctl.read(name), SysctlError, name);
  }
});

test('kernel releases: parsed, compared, and what they mean for conn_reuse_mode', () => {
  assert.deepEqual(parseKernelRelease('6.1.0-18-amd64\n'), { major: 6, minor: 1 });
  assert.deepEqual(parseKernelRelease('5.4'), { major: 5, minor: 4 });
  assert.equal(parseKernelRelease('rolling'), undefined);
  assert.equal(isAtLeast({ major: 5, minor: 10 }, 5, 9), true);
  assert.equal(isAtLeast({ major: 4, minor: 19 }, 5, 1), false);
  const modes = ['3.10.0-1160', '4.1.2', '4.19.0', '5.8.18', '5.9.0', '6.12.3', 'x'].map((text) =>
    connReuseMode(parseKernelRelease(text)),
  );
  assert.deepEqual(modes, [undefined, 0, 0, 0, undefined, undefined, undefined]);
  assert.ok(parseKernelRelease(readKernelReleaseText()) !== undefined, 'of this machine');
});
