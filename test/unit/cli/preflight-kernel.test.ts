/** What `preflight` says of modules, rules and IPVS, over a kernel of fakes and module files of its own. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, describe, test } from 'node:test';
import { type KernelCheckOptions, lookAtKernel, tryKernelOut } from '../../../src/cli/preflight-kernel.js';
import { type Check } from '../../../src/cli/preflight-check.js';
import { requiredModules } from '../../../src/daemon/preflight-checks.js';
import { CommandError, type RunCommand } from '../../../src/kernel/command.js';
import { TestKernel } from '../../fakes/test-kernel.js';

const TABLES = ['filter', 'nat', 'mangle'].map((table) => `*${table}\nCOMMIT\n`).join('');

interface Files {
  readonly loaded?: readonly string[];
  readonly loadable?: readonly string[];
  /** No file in /lib/modules says anything. */
  readonly hasNoFiles?: boolean;
}

class Node {
  readonly kernel = new TestKernel();
  readonly programs: string[] = [];
  iptables = true;

  constructor(readonly t: TestContext) {}

  /** modprobe that has everything, and iptables-legacy. */
  run: RunCommand = (command, args) => {
    this.programs.push([command, ...args].join(' '));
    if (command === 'modprobe') return Promise.resolve({ stdout: '', stderr: '' });
    if (!this.iptables || command.includes('nft') || command === 'iptables')
      return Promise.reject(new CommandError(command, args, undefined, '', { missing: true }));
    const stdout = args.includes('--version') ? 'iptables v1.8.9 (legacy)\n' : command.endsWith('save') ? TABLES : '';
    return Promise.resolve({ stdout, stderr: '' });
  };

  options(files: Files, more: Partial<KernelCheckOptions> = {}): KernelCheckOptions {
    const root = mkdtempSync(join(tmpdir(), 'preflight-'));
    this.t.after(() => rmSync(root, { recursive: true }));
    for (const name of ['proc', 'sys', ...(files.hasNoFiles === true ? [] : ['lib'])]) mkdirSync(join(root, name));
    const lines = (files.loaded ?? []).map((name) => `${name} 16384 0 - Live 0x0000000000000000\n`);
    writeFileSync(join(root, 'proc/modules'), lines.join(''));
    const dep = (files.loadable ?? []).map((name) => `kernel/net/${name}.ko:\n`);
    if (files.hasNoFiles !== true) writeFileSync(join(root, 'lib/modules.dep'), dep.join(''));
    const paths = { procRoot: join(root, 'proc'), sysRoot: join(root, 'sys'), moduleDirectory: join(root, 'lib') };
    return { run: this.run, scheduler: 'rr', rules: 'auto', openNetlinkSocket: this.kernel.open, paths, ...more };
  }
}

/** With nf_tables: where they are not, what this machine has of iptables-nft would count. */
const ALL = [...requiredModules('rr', 'iptables'), 'ip_tables', 'ip6_tables', 'nf_tables'];
const said = (checks: readonly Check[], name: string): string => {
  const found = checks.filter((check) => check.name === name);
  assert.equal(found.length, 1, name);
  return `${found[0]!.state} ${found[0]!.detail}`;
};
const states = (checks: readonly Check[], kind: string): Record<string, number> => {
  const counts: Record<string, number> = {};
  for (const { name, state } of checks) if (name.startsWith(kind)) counts[state] = (counts[state] ?? 0) + 1;
  return counts;
};

describe('looking', () => {
  test('where everything is loaded: all is well, and nothing was tried or loaded', async (t) => {
    const node = new Node(t);
    const checks = await lookAtKernel(node.options({ loaded: ALL }));
    assert.deepEqual(states(checks, 'module'), { ok: requiredModules('rr', 'iptables').length });
    assert.equal(said(checks, 'module ip_vs_rr'), 'ok loaded');
    assert.match(said(checks, 'rules'), /^ok iptables: legacy 1\.8\.9: .* \(not tried\)$/);
    assert.equal(said(checks, 'netlink'), 'ok IPVS 1.2.1');
    assert.ok(!node.programs.some((line) => /modprobe|restore/.test(line)), node.programs.join());
  });

  test('what could be loaded is to be done, by preflight --fix; netlink is not tried, for that would load it', async (t) => {
    const loadable = ['ip_vs_rr', 'dummy'];
    const loaded = ALL.filter((name) => !loadable.includes(name));
    const checks = await lookAtKernel(new Node(t).options({ loaded, loadable }));
    assert.equal(said(checks, 'module ip_vs_rr'), 'todo not loaded; preflight --fix loads it');
    assert.equal(said(checks, 'netlink'), 'todo not tried: that would load dummy, ip_vs_rr');
  });

  test('iptables that are not loaded are to be tried', async (t) => {
    const loaded = ALL.filter((name) => name !== 'ip6_tables');
    const checks = await lookAtKernel(new Node(t).options({ loaded, loadable: ['ip6_tables'] }));
    assert.match(
      said(checks, 'rules'),
      /^todo iptables: .*\(not tried\); ip6_tables not loaded: preflight --fix loads/,
    );
  });

  test('a module that the kernel has nowhere fails; without module files it is taken as built in', async (t) => {
    const loaded = ALL.filter((name) => name !== 'dummy');
    const lost = await lookAtKernel(new Node(t).options({ loaded }));
    assert.match(said(lost, 'module dummy'), /^failed not loaded, and it has no such module$/);
    const { paths, ...rest } = new Node(t).options({ loaded, hasNoFiles: true });
    rmSync(join(paths!.procRoot!, 'modules'));
    const unknown = await lookAtKernel({ ...rest, paths: paths! });
    assert.match(said(unknown, 'module dummy'), /^ok cannot be told \(.*\), taken as built in$/);
  });

  test('without ipset rules go into nf_tables, and so they do where it is configured', async (t) => {
    const loaded = ALL.filter((name) => name !== 'xt_set');
    const auto = await lookAtKernel(new Node(t).options({ loaded }));
    assert.equal(said(auto, 'rules'), "ok nftables: kube-proxy's IPVS mode could not run here: no xt_set (not tried)");
    assert.equal(said(auto, 'module nf_tables'), 'ok loaded');
    const configured = await lookAtKernel(new Node(t).options({ loaded: ALL }, { rules: 'nftables' }));
    assert.equal(said(configured, 'rules'), 'ok nftables: configured (not tried)');
    const insisted = await lookAtKernel(new Node(t).options({ loaded }, { rules: 'iptables' }));
    assert.match(said(insisted, 'module xt_set'), /^failed /);
  });

  test('no iptables at all is a failure, and so is a kernel that does not answer', async (t) => {
    const node = new Node(t);
    node.iptables = false;
    const checks = await lookAtKernel(node.options({ loaded: ALL }));
    assert.match(said(checks, 'rules'), /^failed /);
    const silent = new Node(t);
    silent.kernel.permitted = false;
    assert.match(said(await lookAtKernel(silent.options({ loaded: ALL })), 'netlink'), /^failed .*EPERM/);
  });
});

describe('trying out', () => {
  test('loads what is absent, tries iptables, the scheduler and netlink', async (t) => {
    const node = new Node(t);
    const loadable = ['ip_vs_rr', 'dummy', 'xt_nat'];
    const loaded = ALL.filter((name) => !loadable.includes(name));
    const checks = await tryKernelOut(node.options({ loaded, loadable }));
    assert.ok(node.programs.some((line) => line.startsWith('modprobe ') && line.includes('ip_vs_rr')));
    assert.ok(node.programs.some((line) => line.startsWith('modprobe ') && line.includes('xt_nat')));
    assert.equal(said(checks, 'netlink'), 'ok IPVS 1.2.1, scheduler rr');
    assert.match(said(checks, 'rules'), /^ok iptables: legacy 1\.8\.9: /);
    assert.deepEqual(Object.keys(states(checks, '')), ['ok']);
    assert.equal(node.kernel.ipvs.table.size, 0, 'what was tried is gone again');
  });

  test('a module that cannot be had is no failure where what it is for works, and is one where it does not', async (t) => {
    const loaded = ALL.filter((name) => name !== 'ip_set_hash_ip' && name !== 'dummy');
    const refusing =
      (node: Node): RunCommand =>
      (command, args, options) =>
        command === 'modprobe'
          ? Promise.reject(new CommandError(command, args, 1, 'modprobe: FATAL: Module not found'))
          : node.run(command, args, options);
    const node = new Node(t);
    const works = await tryKernelOut(
      node.options({ loaded, hasNoFiles: true }, { run: refusing(node), rules: 'iptables' }),
    );
    assert.equal(said(works, 'module dummy'), 'ok no such module, but what it is for works');
    const broken = new Node(t);
    broken.iptables = false;
    const fails = await tryKernelOut(
      broken.options({ loaded, hasNoFiles: true }, { run: refusing(broken), rules: 'iptables' }),
    );
    assert.match(said(fails, 'module dummy'), /^failed run "modprobe dummy"/);
    assert.match(said(fails, 'rules'), /^failed /);
  });

  test('a scheduler that the kernel lacks fails, with its module', async (t) => {
    const checks = await tryKernelOut(
      new Node(t).options({ loaded: [...ALL, 'ip_vs_nosuch'] }, { scheduler: 'nosuch' }),
    );
    assert.equal(said(checks, 'netlink'), 'failed the kernel has no IPVS scheduler "nosuch": modprobe ip_vs_nosuch');
  });

  test('what is configured for nf_tables loads no module of iptables', async (t) => {
    const node = new Node(t);
    const checks = await tryKernelOut(node.options({ loaded: ALL, loadable: ['xt_nat'] }, { rules: 'nftables' }));
    assert.ok(!node.programs.some((line) => line.includes('xt_nat')), node.programs.join());
    assert.match(said(checks, 'rules'), /nftables: configured; IPv4 is not served|^failed /);
  });
});
