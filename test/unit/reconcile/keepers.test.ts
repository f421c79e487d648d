/** Rules and sysctls: kept right, written only when wrong, and never in the way of the rest. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, describe, test } from 'node:test';
import { iptablesRules } from '../../../src/desired/iptables-rules.js';
import { type RuleSet } from '../../../src/desired/iptables-rule-set.js';
import { CommandError, type RunCommand } from '../../../src/kernel/command.js';
import { Iptables } from '../../../src/kernel/iptables/iptables.js';
import { Sysctl } from '../../../src/kernel/node/sysctl.js';
import { parseSavedRules } from '../../../src/plan/iptables-save.js';
import { IptablesWriter } from '../../../src/reconcile/iptables-writer.js';
import { type RulesOutcome, RulesKeeper } from '../../../src/reconcile/rules-keeper.js';
import { type SysctlInputs, ensureSysctls, desiredSysctls } from '../../../src/reconcile/sysctl-keeper.js';
import { type Family } from '../../../src/values/address.js';
import { type Clock } from '../../../src/time/clock.js';
import { HandClock } from '../../fakes/hand-clock.js';

const rulesOf = (family: Family): RuleSet =>
  iptablesRules({
    family,
    masqueradeMark: 0x4000,
    masqueradeAll: false,
    randomFully: true,
    detectLocal: { mode: 'none' },
  });

/** iptables programs over tables in memory, as much of them as the keeper uses: -save, and -restore --noflush. */
class FakeIptables {
  readonly tables: Record<string, Map<string, Map<string, string[]>>> = { 'save-4': new Map(), 'save-6': new Map() };
  readonly calls: string[] = [];
  /** Called before each program; throw a CommandError to fail it. */
  before: (command: string) => Promise<void> | void = () => undefined;

  run: RunCommand = async (command, _args, options) => {
    this.calls.push(command);
    await this.before(command);
    options?.signal?.throwIfAborted();
    if (command.startsWith('save')) return { stdout: this.#save(command), stderr: '' };
    this.#restore(this.tables[command.replace('restore', 'save')]!, options?.input ?? '');
    return { stdout: '', stderr: '' };
  };

  #save(command: string): string {
    return [...this.tables[command]!]
      .map(([table, chains]) => {
        const rules = [...chains].flatMap(([chain, lines]) => lines.map((line) => `-A ${chain} ${line}`));
        return [`*${table}`, ...[...chains.keys()].map((chain) => `:${chain} - [0:0]`), ...rules, 'COMMIT', ''].join(
          '\n',
        );
      })
      .join('');
  }

  #restore(tables: Map<string, Map<string, string[]>>, input: string): void {
    let chains = new Map<string, string[]>();
    for (const line of input.split('\n')) {
      const [verb = '', chain = '', ...rest] = line.split(' ');
      if (verb.startsWith('*')) {
        chains = tables.get(verb.slice(1)) ?? new Map<string, string[]>();
        tables.set(verb.slice(1), chains);
      } else if (verb.startsWith(':'))
        chains.set(verb.slice(1), []); // declared: made, or emptied
      else if (verb === '-A') chains.get(chain)!.push(rest.join(' '));
      else if (verb === '-I') {
        if (!chains.has(chain)) chains.set(chain, []);
        chains.get(chain)!.splice(Number(rest[0]) - 1, 0, rest.slice(1).join(' '));
      } else if (verb === '-D') chains.get(chain)!.splice(Number(rest[0]) - 1, 1);
      else if (verb === '-F') chains.set(chain, []);
      else if (verb === '-X') chains.delete(chain);
      else assert.ok(line === '' || line === 'COMMIT', line);
    }
  }
}

class RulesRig {
  readonly outcomes: RulesOutcome[] = [];
  readonly waits: number[] = [];
  readonly timers = new HandClock();
  now = 0;
  readonly keeper: RulesKeeper<RuleSet>;
  fingerprints: Record<Family, string | undefined> | undefined;

  constructor(
    families: readonly Family[] = [4, 6],
    readonly fake = new FakeIptables(),
  ) {
    const clock: Clock = {
      now: () => this.now,
      after: (ms, action) => {
        this.now += ms;
        const soon = setImmediate(action);
        return () => clearImmediate(soon);
      },
    };
    const commands = { 4: { save: 'save-4', restore: 'restore-4' }, 6: { save: 'save-6', restore: 'restore-6' } };
    const tools = {
      backend: 'nft',
      version: '1.8.9',
      randomFully: true,
      restoreWaits: true,
      reason: '',
      commands,
    } as const;
    this.keeper = new RulesKeeper({
      writer: new IptablesWriter({
        iptables: new Iptables(tools, this.fake.run, clock),
        onLockWait: (ms) => this.waits.push(ms),
        fingerprint: (family) => this.fingerprints?.[family],
      }),
      desired: () => families.map(rulesOf),
      clock: this.timers,
      onOutcome: (outcome) => this.outcomes.push(outcome),
    });
  }

  /** Programs started by one check. */
  async check(): Promise<string[]> {
    const before = this.fake.calls.length;
    this.keeper.check();
    await this.keeper.settled();
    return this.fake.calls.slice(before);
  }
}

describe('the rules', () => {
  test('are written once, and only read as long as they are right', async () => {
    const rig = new RulesRig();
    assert.deepEqual(await rig.check(), ['save-4', 'restore-4', 'save-6', 'restore-6']);
    assert.deepEqual(await rig.check(), ['save-4', 'save-6']);
    assert.deepEqual(await rig.check(), ['save-4', 'save-6']);
    assert.equal(rig.keeper.writes, 2);
    assert.deepEqual(
      rig.outcomes.map(({ differences }) => differences.length > 0),
      [true, false, false],
    );
  });

  test('are not even read while their fingerprint stays', async () => {
    const rig = new RulesRig();
    rig.fingerprints = { 4: 'empty', 6: 'empty' };
    assert.deepEqual(await rig.check(), ['save-4', 'restore-4', 'save-6', 'restore-6']);
    rig.fingerprints = { 4: 'written', 6: 'written' };
    assert.deepEqual(await rig.check(), ['save-4', 'save-6']);
    assert.deepEqual(await rig.check(), []);
    rig.fingerprints[6] = 'something changed';
    rig.fake.tables['save-6']!.get('nat')!.delete('KUBE-SERVICES');
    assert.deepEqual(await rig.check(), ['save-6', 'restore-6']);
    rig.fingerprints[6] = 'written again';
    assert.deepEqual(await rig.check(), ['save-6']);
    assert.deepEqual(await rig.check(), []);
    rig.fingerprints[4] = undefined; // cannot be told
    assert.deepEqual(await rig.check(), ['save-4']);
    assert.deepEqual(await rig.check(), ['save-4']);
  });

  test('that were read ahead are not read again, unless they have changed since', async () => {
    for (const changed of [false, true]) {
      const rig = new RulesRig([4]);
      rig.fingerprints = { 4: 'before', 6: 'before' };
      rig.keeper.prefetch();
      if (changed) {
        await new Promise(setImmediate);
        rig.fingerprints[4] = 'after';
      }
      assert.deepEqual(await rig.check(), changed ? ['save-4', 'restore-4'] : ['restore-4']);
      assert.deepEqual(await rig.check(), ['save-4']);
      assert.ok(rig.fake.tables['save-4']!.get('nat')!.has('KUBE-SERVICES'));
    }
    const blind = new RulesRig([4]);
    blind.keeper.prefetch();
    assert.deepEqual(await blind.check(), ['save-4', 'restore-4']);
  });

  test('that somebody changed are written again, in the family that it happened in', async () => {
    const rig = new RulesRig();
    await rig.check();
    const nat = rig.fake.tables['save-6']!.get('nat')!;
    const right = [...nat.get('KUBE-SERVICES')!];
    for (const spoil of [
      () => nat.get('KUBE-SERVICES')!.pop(),
      () => nat.get('KUBE-SERVICES')!.push('-j DROP'),
      () => nat.delete('KUBE-SERVICES'),
      () => nat.set('PREROUTING', []),
    ]) {
      spoil();
      assert.deepEqual(await rig.check(), ['save-4', 'save-6', 'restore-6']);
      assert.deepEqual(nat.get('KUBE-SERVICES'), right);
      assert.ok(nat.get('PREROUTING')!.some((rule) => rule.endsWith('-j KUBE-SERVICES')));
      assert.deepEqual(await rig.check(), ['save-4', 'save-6']);
    }
  });

  test('of others in the same tables stay', async () => {
    const rig = new RulesRig([4]);
    const nat = new Map([
      ['PREROUTING', ['-j CNI-HOSTPORT-DNAT']],
      ['CNI-HOSTPORT-DNAT', ['-p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.0.0.1:80']],
    ]);
    rig.fake.tables['save-4']!.set('nat', nat);
    await rig.check();
    assert.deepEqual(nat.get('CNI-HOSTPORT-DNAT')!.length, 1);
    assert.deepEqual(nat.get('PREROUTING')!.length, 2);
    assert.match(nat.get('PREROUTING')![0]!, /KUBE-SERVICES$/);
  });

  test('are of a constant number, whatever there is', async () => {
    const rig = new RulesRig([4]);
    await rig.check();
    const saved = await rig.fake.run('save-4', []);
    const count = [...parseSavedRules(saved.stdout).values()].flatMap((chains) => [...chains.values()]);
    const wanted = rulesOf(4).tables.flatMap(({ chains, jumps }) => [
      ...chains.flatMap(({ rules }) => rules),
      ...jumps,
    ]);
    assert.equal(
      count.reduce((sum, { rules }) => sum + rules.length, 0),
      wanted.length,
    );
  });

  test('are checked once more when asked during a check, however often', async () => {
    const rig = new RulesRig([4]);
    rig.keeper.check();
    for (let i = 0; i < 10; i++) rig.keeper.check();
    await rig.keeper.settled();
    assert.deepEqual(rig.fake.calls, ['save-4', 'restore-4', 'save-4']);
  });

  test('wait for the lock as long as it takes, saying so, and are then written', async () => {
    const rig = new RulesRig([4]);
    let refusals = 5;
    rig.fake.before = (command) => {
      if (!command.startsWith('restore') || refusals-- <= 0) return;
      rig.now += 1000;
      assert.ok(rig.keeper.waitingSince !== undefined);
      throw new CommandError(command, [], 4, 'Another app is currently holding the xtables lock.');
    };
    await rig.check();
    assert.equal(rig.keeper.writes, 1);
    assert.equal(rig.outcomes[0]!.error, undefined);
    assert.ok(rig.waits.length >= 5);
    assert.equal(
      rig.waits.reduce((sum, ms) => sum + ms, 0),
      rig.now,
    );
    assert.equal(rig.keeper.waitingSince, undefined);
  });

  test('that cannot be written are an outcome, not an exception, and the next check tries again', async () => {
    const rig = new RulesRig();
    rig.fake.before = (command) => {
      if (command === 'restore-6') throw new CommandError(command, [], 2, 'bad rule');
    };
    await rig.check();
    assert.match(rig.keeper.lastError!.message, /bad rule/);
    assert.equal(rig.outcomes[0]!.family, 6);
    rig.fake.before = () => undefined;
    assert.deepEqual(await rig.check(), ['save-4', 'save-6', 'restore-6']);
    assert.equal(rig.keeper.lastError, undefined);
  });

  test('that cannot even be read, because iptables-save hangs, are seen to wait, and do not hold up the end', async () => {
    const rig = new RulesRig();
    rig.fake.run = (command, _args, options) =>
      new Promise((_resolve, reject) => {
        rig.fake.calls.push(command);
        assert.ok((options?.timeout ?? Infinity) <= 60_000, 'it is killed some day');
        options!.signal!.addEventListener('abort', () => reject(new CommandError(command, [], undefined, '')));
      });
    const hanging = new RulesRig([4, 6], rig.fake);
    assert.equal(hanging.keeper.checkingSince, undefined);
    hanging.keeper.check();
    assert.notEqual(hanging.keeper.checkingSince, undefined);
    while (rig.fake.calls.length === 0) await new Promise(setImmediate);
    await hanging.keeper.stop();
    assert.deepEqual(hanging.outcomes, []);
  });

  test('are given up on stop, with no outcome to act upon', async () => {
    const rig = new RulesRig([4]);
    rig.fake.before = (command) => {
      if (command.startsWith('restore'))
        throw new CommandError(command, [], 4, 'Another app is currently holding the xtables lock.');
    };
    rig.keeper.check();
    await rig.keeper.stop();
    assert.deepEqual(rig.outcomes, []);
    assert.equal(rig.keeper.writes, 0);
  });
});

describe('sysctls', () => {
  const root = mkdtempSync(join(tmpdir(), 'sysctls-'));
  after(() => rmSync(root, { recursive: true, force: true }));
  const path = (name: string): string => join(root, ...name.split('.'));
  const write = (name: string, value: string): void => {
    mkdirSync(dirname(path(name)), { recursive: true });
    writeFileSync(path(name), `${value}\n`);
  };
  const inputs = (more: Partial<SysctlInputs> = {}): SysctlInputs => ({
    strictARP: false,
    connReuseMode: undefined,
    cores: 2,
    conntrack: {
      maxPerCore: 0,
      min: 0,
      tcpEstablishedTimeoutMs: undefined,
      tcpCloseWaitTimeoutMs: undefined,
      tcpBeLiberal: false,
      udpTimeoutMs: undefined,
      udpStreamTimeoutMs: undefined,
    },
    ...more,
  });
  const wanted = (more: Partial<SysctlInputs> = {}): string[] =>
    desiredSysctls(inputs(more)).map(
      ({ name, value, atLeast }) => `${name}${atLeast === 'always' ? '>' : ''}=${value}`,
    );

  test('are those of kube-proxy, more only where the configuration asks', () => {
    const always = [
      'net.ipv4.vs.conntrack=1',
      'net.ipv4.vs.expire_nodest_conn=1',
      'net.ipv4.vs.expire_quiescent_template=1',
      'net.ipv4.ip_forward=1',
    ];
    assert.deepEqual(wanted(), always);
    assert.deepEqual(wanted({ connReuseMode: 0 }), [...always, 'net.ipv4.vs.conn_reuse_mode=0']);
    const arp = ['net.ipv4.conf.all.arp_ignore=1', 'net.ipv4.conf.all.arp_announce=2'];
    assert.deepEqual(wanted({ strictARP: true }), [...always, ...arp]);
    const conntrack = {
      maxPerCore: 32768,
      min: 131072,
      tcpEstablishedTimeoutMs: 86_400_000,
      tcpCloseWaitTimeoutMs: 3_600_000,
      tcpBeLiberal: true,
      udpTimeoutMs: 0,
      udpStreamTimeoutMs: 180_000,
    };
    assert.deepEqual(wanted({ conntrack }).slice(always.length), [
      'net.netfilter.nf_conntrack_max=131072',
      '/sys/module/nf_conntrack/parameters/hashsize>=32768',
      'net.netfilter.nf_conntrack_tcp_timeout_established=86400',
      'net.netfilter.nf_conntrack_tcp_timeout_close_wait=3600',
      'net.netfilter.nf_conntrack_udp_timeout_stream=180',
      'net.netfilter.nf_conntrack_tcp_be_liberal=1',
    ]);
    assert.deepEqual(wanted({ conntrack, cores: 8 })[4], 'net.netfilter.nf_conntrack_max=262144');
    // As kube-proxy 1.36: what the cores make is capped, seconds are cut.
    for (const cores of [33, 64, 128])
      assert.deepEqual(wanted({ conntrack, cores }).slice(4, 6), [
        'net.netfilter.nf_conntrack_max=1048576',
        '/sys/module/nf_conntrack/parameters/hashsize>=262144',
      ]);
    const large = { ...conntrack, min: 2_000_000, tcpEstablishedTimeoutMs: 1999 };
    assert.ok(wanted({ conntrack: large, cores: 2 }).includes('net.netfilter.nf_conntrack_max=2000000'));
    assert.ok(wanted({ conntrack: large }).includes('net.netfilter.nf_conntrack_tcp_timeout_established=1'));
    assert.ok(!wanted({ conntrack: { ...conntrack, maxPerCore: 0 } }).some((line) => /max|hashsize/.test(line)));
  });

  test('are written where they differ, and a bad one does not stop the others', () => {
    write('net.ipv4.vs.conntrack', '0');
    write('net.ipv4.vs.expire_quiescent_template', '1');
    write('net.ipv4.ip_forward', '0');
    const { changed, failures } = ensureSysctls(new Sysctl(root), desiredSysctls(inputs()));
    assert.deepEqual(changed, ['net.ipv4.vs.conntrack=1', 'net.ipv4.ip_forward=1']);
    assert.deepEqual(
      failures.map(({ desired: one }) => one.name),
      ['net.ipv4.vs.expire_nodest_conn'],
    );
    assert.match(failures[0]!.message, /modprobe ip_vs/);
    assert.equal(readFileSync(path('net.ipv4.ip_forward'), 'utf8').trim(), '1');
    assert.deepEqual(ensureSysctls(new Sysctl(root), desiredSysctls(inputs())).changed, []);
  });

  test('the conntrack limit is lowered at the start, as by kube-proxy; what somebody raises later is left', () => {
    const max = {
      name: 'net.netfilter.nf_conntrack_max',
      value: 1000,
      atLeast: 'after-start',
      required: false,
    } as const;
    const set = ['net.netfilter.nf_conntrack_max=1000'];
    write(max.name, '5000');
    assert.deepEqual(ensureSysctls(new Sysctl(root), [max]).changed, []);
    assert.deepEqual(ensureSysctls(new Sysctl(root), [max], 'start').changed, set);
    write(max.name, '500');
    assert.deepEqual(ensureSysctls(new Sysctl(root), [max]).changed, set);
  });

  test('the hash size is raised only, and a /sys that cannot be written is a remark', () => {
    const sysRoot = join(root, 'sys');
    const file = join(sysRoot, 'module/nf_conntrack/parameters/hashsize');
    mkdirSync(dirname(file), { recursive: true });
    const name = '/sys/module/nf_conntrack/parameters/hashsize';
    const size = { name, value: 1000, atLeast: 'always', required: false } as const;
    writeFileSync(file, '5000\n');
    assert.deepEqual(ensureSysctls(new Sysctl(root, sysRoot), [size], 'start').changed, []);
    writeFileSync(file, '500\n');
    assert.deepEqual(ensureSysctls(new Sysctl(root, sysRoot), [size]).changed, [`${name}=1000`]);
    const { failures } = ensureSysctls(new Sysctl(root, join(root, 'nowhere')), [size]);
    assert.match(failures[0]!.message, /hashsize does not exist: load the nf_conntrack module/);
  });
});
