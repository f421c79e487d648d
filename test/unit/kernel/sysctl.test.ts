import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, test } from 'node:test';
import { Sysctl, SysctlError } from '../../../src/kernel/node/sysctl.js';
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

test('a limit is raised, never lowered', () => {
  put('net/netfilter/nf_conntrack_max', '262144\n');
  const sysctl = new Sysctl(root);
  assert.equal(sysctl.ensureAtLeast('net.netfilter.nf_conntrack_max', 1000), false);
  assert.equal(sysctl.readNumber('net.netfilter.nf_conntrack_max'), 262_144);
  assert.equal(sysctl.ensureAtLeast('net.netfilter.nf_conntrack_max', 524_288), true);
  assert.equal(sysctl.readNumber('net.netfilter.nf_conntrack_max'), 524_288);
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
