import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { CommandError, type CommandOptions, CommandRunner, type RunCommand } from '../../../src/kernel/command.js';
import { allBackends } from '../../../src/kernel/iptables/all-backends.js';
import { Iptables } from '../../../src/kernel/iptables/iptables.js';
import { type Clock } from '../../../src/time/clock.js';
import { isLockHeld } from '../../../src/kernel/iptables/xtables-lock.js';
import { programPath } from '../../../src/kernel/program-path.js';
import { IptablesMissingError, type IptablesTools, detectIptables } from '../../../src/kernel/iptables/detect.js';

/**
 * Programs by their name with arguments: what they print, or an exit code with its message. Others are not installed.
 */
type Programs = Readonly<Record<string, string | { readonly exit: number; readonly stderr: string }>>;

function programs(known: Programs): { run: RunCommand; calls: string[] } {
  const calls: string[] = [];
  const run: RunCommand = async (command, args) => {
    const line = [command, ...args].join(' ');
    calls.push(line);
    const answer = known[line];
    if (answer === undefined) throw new CommandError(command, args, undefined, '', { missing: true });
    if (typeof answer === 'string') return { stdout: answer, stderr: '' };
    throw new CommandError(command, args, answer.exit, answer.stderr);
  };
  return { run, calls };
}

const RULES = '*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j ACCEPT\nCOMMIT\n';
const KUBELET = '*mangle\n:KUBE-KUBELET-CANARY - [0:0]\nCOMMIT\n';
const HINT = '*mangle\n:KUBE-IPTABLES-HINT - [0:0]\nCOMMIT\n';
const SERVICES = '*nat\n:KUBE-SERVICES - [0:0]\nCOMMIT\n';

function both(saved: { nft?: string; legacy?: string; nft6?: string }, more: Programs = {}): Programs {
  return {
    'iptables --version': 'iptables v1.8.9 (nf_tables)\n',
    'iptables-nft --version': 'iptables v1.8.9 (nf_tables)\n',
    'iptables-legacy --version': 'iptables v1.8.9 (legacy)\n',
    'iptables-nft-save': saved.nft ?? '',
    'ip6tables-nft-save': saved.nft6 ?? '',
    'iptables-legacy-save': saved.legacy ?? '',
    'ip6tables-legacy-save': '',
    ...more,
  };
}

test('the backend is the one that the node uses already', async () => {
  const cases: [string, Parameters<typeof both>[0], string, RegExp][] = [
    ['nothing anywhere', {}, 'nft', /default/],
    ['kubelet in nft', { nft: KUBELET, legacy: RULES + RULES }, 'nft', /kubelet/],
    ['kubelet in nft, IPv6 only', { nft6: HINT, legacy: RULES }, 'nft', /kubelet/],
    ['kubelet in legacy', { legacy: HINT, nft: RULES }, 'legacy', /kubelet/],
    ['kubelet in both', { legacy: HINT, nft: HINT }, 'nft', /kubelet/],
    ['a proxy in legacy', { legacy: SERVICES, nft: RULES }, 'legacy', /KUBE-/],
    ['more rules in legacy', { legacy: RULES }, 'legacy', /more rules/],
    ['more rules in nft', { legacy: RULES, nft: RULES + RULES }, 'nft', /more rules/],
  ];
  for (const [name, saved, backend, reason] of cases) {
    const { run, calls } = programs(both(saved));
    const tools = await detectIptables(run);
    assert.equal(tools.backend, backend, name);
    assert.match(tools.reason, reason, name);
    assert.equal(tools.commands[6].restore, `ip6tables-${backend}-restore`);
    assert.ok(calls.length <= 7, `${calls.length} processes`);
  }
});

test('a backend that the kernel lacks is passed over when asked to try', async () => {
  const failing = {
    exit: 4,
    stderr: 'iptables-nft-restore v1.8.9 (nf_tables): \nline 2: TABLE_ADD failed (Operation not supported)',
  };
  const known = both(
    {},
    {
      'iptables-nft-restore --noflush -w 1': failing,
      'ip6tables-nft-restore --noflush -w 1': failing,
      'iptables-legacy-restore --noflush -w 1': '',
      'ip6tables-legacy-restore --noflush -w 1': '',
    },
  );
  const tools = await detectIptables(programs(known).run, { probe: true });
  assert.equal(tools.backend, 'legacy');
  await assert.rejects(
    detectIptables(
      programs({
        ...known,
        'iptables-legacy-restore --noflush -w 1': failing,
        'ip6tables-legacy-restore --noflush -w 1': failing,
      }).run,
      { probe: true },
    ),
    (error) =>
      error instanceof IptablesMissingError &&
      /TABLE_ADD failed.*iptables-legacy/.test(error.message) &&
      !error.message.includes('\n'),
  );
  await assert.rejects(detectIptables(programs(known).run, { probe: true, backend: 'nft' }), IptablesMissingError);
  assert.equal((await detectIptables(programs(known).run, { backend: 'nft' })).backend, 'nft');
});

test('a refusal is told in one line, cut between words where it is long, and by the exit code where nothing was said', async () => {
  const refusing = async (stderr: string): Promise<string> => {
    const failing = { exit: 4, stderr };
    const known = both(
      {},
      {
        'iptables-nft-restore --noflush -w 1': '',
        'ip6tables-nft-restore --noflush -w 1': failing,
      },
    );
    const { families, failures } = await detectIptables(programs(known).run, { probe: true });
    assert.deepEqual(families, [4]);
    return failures[6]!;
  };
  assert.equal(await refusing('no such\n  table\nTry `ip6tables -h` for help.'), 'no such table');
  assert.match(await refusing(''), /^ip6tables-nft-restore --noflush -w 1: exited with 4$/);
  const long = await refusing('word '.repeat(100));
  assert.match(long, /^(word )+\.\.\.$/);
  assert.ok(long.length > 230 && long.length <= 244, `${long.length}`);
  assert.equal(await refusing('x'.repeat(240)), 'x'.repeat(240));
});

test('every backend that there is, whichever the node uses; nft only where the kernel has it', async () => {
  const names = async (known: Programs, hasNft: boolean): Promise<string[]> => {
    const { run } = programs(known);
    const found = await allBackends(run, (module) => hasNft || module !== 'nf_tables');
    return found.map(({ tools }) => tools.backend);
  };
  assert.deepEqual(await names(both({}), true), ['legacy', 'nft']);
  assert.deepEqual(await names(both({}), false), ['legacy']);
  const { 'iptables-legacy --version': _gone, ...withoutLegacy } = both({});
  assert.deepEqual(await names(withoutLegacy, true), ['nft']);
  const broken: RunCommand = () => Promise.reject(new RangeError('a fault of our own'));
  await assert.rejects(
    allBackends(broken, () => true),
    RangeError,
  );
});

test('a program is found where the first directory of PATH that has it leads', (t) => {
  const root = realpathSync(mkdtempSync(join(tmpdir(), 'path-')));
  t.after(() => rmSync(root, { recursive: true, force: true }));
  for (const name of ['empty', 'one', 'two', 'alternatives']) mkdirSync(join(root, name));
  const path = ['empty', 'nowhere', 'one', 'two'].map((name) => join(root, name)).join(':');
  assert.equal(programPath('iptables', path), undefined);
  writeFileSync(join(root, 'alternatives/xtables-nft-multi'), '');
  symlinkSync('../alternatives/xtables-nft-multi', join(root, 'one/iptables'));
  writeFileSync(join(root, 'two/iptables'), '');
  assert.equal(programPath('iptables', path), join(root, 'alternatives/xtables-nft-multi'));
});

test('a backend of which a program is missing is none, whatever the other programs say', async () => {
  for (const absent of ['iptables-nft-save', 'ip6tables-nft-save']) {
    const { [absent]: _, ...known } = both({ nft: KUBELET, nft6: KUBELET });
    const { backend, reason } = await detectIptables(programs(known).run);
    assert.deepEqual([backend, reason], ['legacy', 'the only one installed'], absent);
    const failing = { ...known, [absent]: { exit: 1, stderr: 'no IPv6 here' } };
    assert.equal((await detectIptables(programs(failing).run)).backend, 'nft', 'one that fails is one without rules');
  }
});

test('the trial does not wait for the xtables lock: who holds it, or tables that can be read, are proof enough', async () => {
  const locked = { exit: 4, stderr: 'Another app is currently holding the xtables lock; waiting for it to exit...' };
  const known = both(
    {},
    { 'iptables-legacy-restore --noflush -w 1': locked, 'ip6tables-legacy-restore --noflush -w 1': locked },
  );
  assert.equal((await detectIptables(programs(known).run, { probe: true, backend: 'legacy' })).backend, 'legacy');
  const all = ['filter', 'nat', 'mangle'].map((table) => `*${table}\n:KUBE-X - [0:0]\nCOMMIT\n`).join('');
  const { run, calls } = programs({ ...both({ legacy: all }), 'ip6tables-legacy-save': all });
  assert.equal((await detectIptables(run, { probe: true })).backend, 'legacy');
  assert.deepEqual(
    calls.filter((call) => call.includes('restore')),
    [],
  );
});

test('a family whose tables do not work is left out, with the reason in one line that is not cut in a word', async () => {
  const failing = {
    exit: 2,
    stderr:
      "modprobe: ERROR: could not insert 'ip6_tables': Operation not permitted\nip6tables-restore v1.8.9 (legacy): " +
      "ip6tables-restore: unable to initialize table 'filter'\n\nError occurred at line: 1\nTry `ip6tables-restore -h'\n",
  };
  const known = both(
    { legacy: SERVICES },
    { 'iptables-legacy-restore --noflush -w 1': '', 'ip6tables-legacy-restore --noflush -w 1': failing },
  );
  const { families, failures } = await detectIptables(programs(known).run, { probe: true });
  assert.deepEqual(families, [4]);
  assert.match(
    failures[6]!,
    /^modprobe: ERROR: could not insert 'ip6_tables': .* unable to initialize table 'filter'$/,
  );
});

test('each table that our rules are in is tried unless it shows, in both families', async () => {
  const inputs: string[] = [];
  const known = { ...both({ legacy: RULES }), 'ip6tables-legacy-save': '' };
  const { run } = programs(known);
  const detected = await detectIptables(
    async (command, args, options) => {
      if (!command.endsWith('-restore')) return run(command, args);
      inputs.push(`${command} ${options!.input!.match(/^\*\w+/gm)!.join(' ')}`);
      return { stdout: '', stderr: '' };
    },
    { probe: true },
  );
  assert.equal(detected.backend, 'legacy');
  assert.deepEqual(inputs, ['iptables-legacy-restore *mangle *nat', 'ip6tables-legacy-restore *mangle *nat *filter']);
});

test('where nothing may be loaded, no iptables-nft program looks at a kernel without nf_tables', async () => {
  const { run, calls } = programs(both({ legacy: RULES }));
  const programPath = (name: string): string => `/sbin/xtables-${name.includes('legacy') ? 'legacy' : 'nft'}-multi`;
  const options = { isPresent: (name: string) => name !== 'nf_tables', programPath };
  assert.equal((await detectIptables(run, options)).backend, 'legacy', 'it has rules');
  const empty = programs(both({}));
  const { backend, reason } = await detectIptables(empty.run, options);
  assert.deepEqual([backend, reason], ['nft', "the system's default"]);
  for (const call of [...calls, ...empty.calls]) assert.match(call, /^ip6?tables-legacy(-save| --version)$/);
});

test('old iptables without the two names: used, without what it does not know', async () => {
  const old = { 'iptables --version': 'iptables v1.4.21\n', 'iptables-save': '', 'ip6tables-save': '' };
  const tools = await detectIptables(programs(old).run);
  assert.deepEqual(
    [tools.backend, tools.version, tools.randomFully, tools.restoreWaits, tools.commands[4].save],
    ['legacy', '1.4.21', false, false, 'iptables-save'],
  );
  for (const [version, isModern] of [
    ['1.6.1', false],
    ['1.6.2', true],
    ['1.10.0', true],
    ['2.0', true],
  ] as const) {
    const found = await detectIptables(
      programs({ ...old, 'iptables --version': `iptables v${version} (legacy)\n` }).run,
    );
    assert.deepEqual([found.randomFully, found.restoreWaits], [isModern, isModern], version);
  }
  await assert.rejects(detectIptables(programs({}).run), /iptables not found in PATH: install/);
});

const TOOLS: IptablesTools = {
  backend: 'legacy',
  version: '1.8.9',
  randomFully: true,
  restoreWaits: true,
  commands: {
    4: { save: 'iptables-legacy-save', restore: 'iptables-legacy-restore' },
    6: { save: 'ip6tables-legacy-save', restore: 'ip6tables-legacy-restore' },
  },
  reason: 'test',
};
const HELD = 'Another app is currently holding the xtables lock. Stopped waiting after 1s.';

/** A clock that tries and sleeps move. */
function fakeClock(): Clock & { time: number; slept: number[] } {
  const clock = {
    time: 0,
    slept: [] as number[],
    now: () => clock.time,
    after: (milliseconds: number, action: () => void) => {
      clock.slept.push(milliseconds);
      clock.time += milliseconds;
      const soon = setImmediate(action);
      return () => clearImmediate(soon);
    },
  };
  return clock;
}

/**
 * iptables-restore while the lock is held for the first `held` tries, each of which waits as long as it was told to.
 */
function lockedRestore(held: number, clock: { time: number }) {
  const waits: string[] = [];
  let tries = 0;
  const run: RunCommand = async (command, args) => {
    waits.push(args.join(' '));
    if (tries++ >= held) return { stdout: '', stderr: '' };
    clock.time += Number(args[2]) * 1000;
    throw new CommandError(command, args, 4, HELD);
  };
  return { run, waits };
}

test('while another process holds the lock the restore tries again, longer, and the wait is reported piece by piece', async () => {
  const clock = fakeClock();
  const { run, waits } = lockedRestore(5, clock);
  const reported: number[] = [];
  await new Iptables(TOOLS, run, clock).restore(4, 'text', { onWait: (ms) => reported.push(ms) });
  assert.deepEqual(waits, ['--noflush -w 1', ...Array<string>(5).fill('--noflush -w 5')]);
  assert.equal(
    reported.reduce((sum, ms) => sum + ms, 0),
    clock.time,
  );
  assert.equal(reported.length, 6);
  assert.deepEqual(clock.slept, [200, 400, 800, 1600, 3200], 'backs off');
});

test('a restore that finds the lock free reports no wait; one with a deadline gives up; other errors are not retried', async () => {
  const clock = fakeClock();
  const free = lockedRestore(0, clock);
  await new Iptables(TOOLS, free.run, clock).restore(6, 'text', { onWait: () => assert.fail('no wait') });
  assert.equal(free.waits.length, 1);
  const stuck = lockedRestore(Infinity, clock);
  await assert.rejects(new Iptables(TOOLS, stuck.run, clock).restore(4, 'text', { deadline: 10_000 }), isLockHeld);
  assert.ok(stuck.waits.length >= 2 && stuck.waits.length < 5);
  let tries = 0;
  const broken: RunCommand = async (command, args) => {
    tries++;
    throw new CommandError(command, args, 1, 'iptables-restore: line 3 failed');
  };
  await assert.rejects(
    new Iptables(TOOLS, broken, clock).restore(4, 'text'),
    /exited with 1: iptables-restore: line 3 failed/,
  );
  assert.equal(tries, 1);
});

test('a save that hangs has an end: by time, and by abort', async () => {
  const seen: (CommandOptions | undefined)[] = [];
  const run: RunCommand = async (_command, _args, options) => {
    seen.push(options);
    return { stdout: '', stderr: '' };
  };
  const { signal } = new AbortController();
  await new Iptables(TOOLS, run).save(4, signal);
  assert.ok(seen[0]!.timeout! > 0);
  assert.equal(seen[0]!.signal, signal);
});

test('an abort ends the waiting', async () => {
  const abort = new AbortController();
  let tries = 0;
  const run: RunCommand = async (command, args) => {
    tries++;
    queueMicrotask(() => abort.abort(new Error('shutting down')));
    throw new CommandError(command, args, 4, HELD);
  };
  await assert.rejects(new Iptables(TOOLS, run).restore(4, 'text', { signal: abort.signal }), /shutting down/);
  assert.equal(tries, 1);
});

test('save prints all tables with one process', async () => {
  const { run, calls } = programs({ 'ip6tables-legacy-save': RULES });
  assert.equal(await new Iptables(TOOLS, run).save(6), RULES);
  assert.equal(calls.length, 1);
});

test('real programs: input, output, exit codes, absence, abort, and the count', async () => {
  const runner = new CommandRunner();
  assert.equal((await runner.run('cat', [], { input: 'a b\n"c"' })).stdout, 'a b\n"c"');
  assert.equal((await runner.run('printf', ['%s', '$HOME; `id`'])).stdout, '$HOME; `id`', 'no shell');
  const failed = await runner
    .run('sh', ['-c', 'echo oops >&2; exit 3'], { input: 'x'.repeat(1 << 20) })
    .catch((error: unknown) => error);
  assert.ok(failed instanceof CommandError);
  assert.deepEqual([failed.exitCode, failed.stderr.trim(), failed.missing], [3, 'oops', false]);
  assert.match(failed.message, /^sh -c .* exited with 3: oops$/);
  await assert.rejects(
    runner.run('no-such-program', ['-x']),
    (error) => error instanceof CommandError && error.missing,
  );
  const abort = new AbortController();
  const sleeping = runner.run('sleep', ['60'], { signal: abort.signal });
  abort.abort();
  await assert.rejects(sleeping, (error) => error instanceof CommandError && error.exitCode === undefined);
  assert.equal(runner.spawned, 5);
});
