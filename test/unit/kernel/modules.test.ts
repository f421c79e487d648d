import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { CommandError, type RunCommand } from '../../../src/kernel/command.js';
import {
  REQUIRED_MODULES,
  findModules,
  isModulePresent,
  loadModules,
  probeModules,
  schedulerModule,
} from '../../../src/kernel/node/modules.js';

const root = mkdtempSync(join(tmpdir(), 'modules-'));
after(() => rmSync(root, { recursive: true }));

const PATHS = { procRoot: join(root, 'proc'), sysRoot: join(root, 'sys'), moduleDirectory: join(root, 'lib') };
for (const path of ['proc', 'lib', 'sys/module/ip_vs_mh', 'sys/module/dummy', 'sys/module/ip_vs_sh']) {
  mkdirSync(join(root, path), { recursive: true });
}
writeFileSync(
  join(root, 'proc/modules'),
  'ip_vs 200000 2 ip_vs_rr, Live 0x0000000000000000\nip_vs_lc 16384 0 - Unloading 0x0000000000000000\n',
);
writeFileSync(
  join(root, 'lib/modules.builtin'),
  'kernel/net/netfilter/xt-set.ko\nkernel/net/netfilter/nf_conntrack.ko\n',
);
writeFileSync(join(root, 'sys/module/dummy/initstate'), 'live\n');
writeFileSync(join(root, 'sys/module/ip_vs_sh/initstate'), 'going\n');

function modprobe(known: readonly string[]): { run: RunCommand; calls: string[] } {
  const calls: string[] = [];
  const run: RunCommand = async (command, args) => {
    calls.push([command, ...args].join(' '));
    const wanted = args.slice(args.indexOf('--') + 1);
    if (wanted.every((name) => known.includes(name))) return { stdout: '', stderr: '' };
    throw new CommandError(
      command,
      args,
      1,
      `modprobe: FATAL: Module ${wanted.find((name) => !known.includes(name))} not found in directory /lib/modules/6.1.0\n`,
    );
  };
  return { run, calls };
}

test('loaded, built in, loadable and missing modules are told apart; modprobe runs only where it must', async () => {
  const { run, calls } = modprobe(['ip_vs_rr', 'ip_vs_lc', 'ip_vs_sh']);
  const names = [
    'ip_vs',
    'xt_set',
    'nf-conntrack',
    'dummy',
    'ip_vs_mh',
    'ip_vs_rr',
    'ip_vs_lc',
    'ip_vs_sh',
    'ip_vs_fo',
  ];
  const statuses = await probeModules(names, { run, ...PATHS });
  assert.deepEqual(
    statuses.map(({ name, state }) => `${name} ${state}`),
    [
      'ip_vs loaded',
      'xt_set builtin',
      'nf-conntrack builtin',
      'dummy loaded',
      'ip_vs_mh builtin',
      'ip_vs_rr modprobe-ok',
      'ip_vs_lc modprobe-ok',
      'ip_vs_sh modprobe-ok',
      'ip_vs_fo missing',
    ],
  );
  assert.deepEqual(
    calls,
    ['--all -- ip_vs_rr ip_vs_lc ip_vs_sh ip_vs_fo', '-- ip_vs_rr', '-- ip_vs_lc', '-- ip_vs_sh', '-- ip_vs_fo'].map(
      (rest) => `modprobe ${rest}`,
    ),
    'one process for all, and one each only because that failed',
  );
  assert.match(
    statuses.at(-1)!.fix!,
    /^run "modprobe ip_vs_fo" on the node: modprobe: FATAL: Module ip_vs_fo not found[^\n]*$/,
  );
});

test('looking tells what is there, what could be loaded and what is missing, and starts nothing', () => {
  writeFileSync(
    join(root, 'lib/modules.dep'),
    'kernel/net/netfilter/ipvs/ip_vs_wrr.ko.xz: kernel/net/netfilter/ipvs/ip_vs.ko.xz\nkernel/net/nf-tables.ko:\n',
  );
  const names = ['ip_vs', 'xt_set', 'ip_vs_wrr', 'nf_tables', 'ip_vs_fo'];
  assert.deepEqual(
    findModules(names, PATHS).map(({ name, state }) => `${name} ${state}`),
    ['ip_vs loaded', 'xt_set builtin', 'ip_vs_wrr loadable', 'nf_tables loadable', 'ip_vs_fo missing'],
  );
  const isPresent = isModulePresent(PATHS);
  assert.deepEqual(names.map(isPresent), [true, true, false, false, false]);
  const noFiles = isModulePresent({ ...PATHS, moduleDirectory: join(root, 'none') });
  assert.deepEqual(['ip_vs', 'ip_set', 'ip_tables'].map(noFiles), [true, true, false]);
  mkdirSync(join(root, 'proc/net'), { recursive: true });
  writeFileSync(join(root, 'proc/net/ip_tables_names'), '');
  assert.ok(isPresent('ip_tables'), 'it shows that it is there');
  const withoutModules = isModulePresent({ ...PATHS, procRoot: join(root, 'none') });
  assert.ok(withoutModules('ip_set'), 'a kernel without modules');
  assert.equal(withoutModules('ip_vs'), false, 'built in, it would show; not there, it cannot be loaded');
});

test('modules that can all be loaded cost one process', async () => {
  const { run, calls } = modprobe(['ip_vs_rr', 'ip_vs_lc']);
  const statuses = await probeModules(['ip_vs', 'ip_vs_rr', 'ip_vs_lc'], { run, ...PATHS });
  assert.deepEqual(
    statuses.map(({ state }) => state),
    ['loaded', 'modprobe-ok', 'modprobe-ok'],
  );
  assert.deepEqual(calls, ['modprobe --all -- ip_vs_rr ip_vs_lc']);
});

test('the fix tells apart a container without modprobe and one without the modules directory', async () => {
  const absent: RunCommand = async (command, args) => {
    throw new CommandError(command, args, undefined, '', { missing: true });
  };
  const [without] = await probeModules(['ip_vs_fo'], { run: absent, ...PATHS });
  assert.match(without!.fix!, /no modprobe: install kmod/);
  const [unmounted] = await probeModules(['ip_vs_fo'], {
    run: modprobe([]).run,
    ...PATHS,
    moduleDirectory: join(root, 'none'),
  });
  assert.match(unmounted!.fix!, /mount the host's \/lib\/modules into the container/);
});

test('nothing readable at all: every module is asked for, none is assumed', async () => {
  const { run, calls } = modprobe([]);
  const nowhere = { procRoot: join(root, 'x'), sysRoot: join(root, 'x'), moduleDirectory: join(root, 'x') };
  const statuses = await probeModules(REQUIRED_MODULES, { run, ...nowhere });
  assert.ok(statuses.every(({ state, fix }) => state === 'missing' && fix !== undefined));
  assert.equal(calls.length, REQUIRED_MODULES.length + 1);
  assert.equal(schedulerModule('mh'), 'ip_vs_mh');
});

test('what is to be loaded is what is absent and has a file, in one process; that it fails is no matter', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'modules-dep-'));
  after(() => rmSync(directory, { recursive: true }));
  const files = ['ip_vs_wrr', 'ip_vs_nq', 'ip_vs'].map((name) => `kernel/net/netfilter/ipvs/${name}.ko.xz:\n`);
  writeFileSync(join(directory, 'modules.dep'), files.join(''));
  const paths = { ...PATHS, moduleDirectory: directory };
  const asked = async (known: readonly string[], ...names: string[]): Promise<string[]> => {
    const { run, calls } = modprobe(known);
    await loadModules(names, { run, ...paths });
    return calls;
  };
  const names = ['ip_vs', 'ip_vs_wrr', 'ip_vs_of_nobody', 'ip_vs_nq'];
  assert.deepEqual(await asked(names, ...names), ['modprobe --all -- ip_vs_wrr ip_vs_nq']);
  assert.deepEqual(await asked([], 'ip_vs_nq'), ['modprobe --all -- ip_vs_nq']);
  assert.deepEqual(await asked([], 'ip_vs', 'ip_vs_of_nobody'), []);
});
