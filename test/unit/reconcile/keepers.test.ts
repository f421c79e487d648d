/** Rules: kept right, written only when wrong, and never in the way of the rest. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { CommandError } from '../../../src/kernel/command.js';
import { FakeIptables } from '../../support/fake-iptables.js';
import { RulesRig, rulesOf } from '../../support/rules-rig.js';
import { parseSavedRules } from '../../../src/plan/iptables-save.js';

describe('the rules', () => {
  test('are written once, and only read as long as they are right', async () => {
    const rig = new RulesRig();
    assert.deepEqual(await rig.check(), ['save-4', 'save-6', 'restore-4', 'restore-6']);
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
    assert.deepEqual(await rig.check(), ['save-4', 'save-6', 'restore-4', 'restore-6']);
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

  describe("where kube-proxy's iptables mode serves", () => {
    const JUMP = '-m comment --comment "kubernetes service portals" -j KUBE-SERVICES';
    const leftovers = (rig: RulesRig) => {
      const nat = new Map([
        ['PREROUTING', [JUMP]],
        ['OUTPUT', [JUMP]],
        ['KUBE-SERVICES', ['-d 10.96.0.1/32 -p tcp -m tcp --dport 443 -j KUBE-SVC-NPX46M4PTMTKRN6Y']],
        ['KUBE-SVC-NPX46M4PTMTKRN6Y', ['-j KUBE-SEP-KVJL6ZMMD3P7LRBX']],
        ['KUBE-SEP-KVJL6ZMMD3P7LRBX', ['-p tcp -m tcp -j DNAT --to-destination 192.0.2.1:6443']],
      ]);
      rig.fake.tables['save-4']!.set('nat', nat);
      const filter = new Map([['KUBE-EXTERNAL-SERVICES', ['-d 192.0.2.9/32 -j REJECT']]]);
      rig.fake.tables['save-4']!.set('filter', filter);
      return { nat, filter };
    };
    const isTakenOver = (nat: ReadonlyMap<string, string[]>): boolean =>
      [...nat.keys()].every((name) => !/KUBE-(SVC|SEP|IPVS-TAKEOVER)/.test(name)) &&
      nat.get('KUBE-SERVICES')!.some((rule) => rule.includes('KUBE-CLUSTER-IP')) &&
      !nat.get('POSTROUTING')!.some((rule) => rule.includes('TAKEOVER'));

    test('its nat table stays until the release, all else is written at once, and VIPs wait for the one rule', async () => {
      const rig = new RulesRig();
      const { nat, filter } = leftovers(rig);
      const before = structuredClone(nat);
      rig.keeper.check();
      await rig.keeper.prepared();
      assert.match(nat.get('KUBE-IPVS-TAKEOVER')!.join(), /KUBE-IPVS-IPS src -j MASQUERADE$/);
      assert.match(nat.get('POSTROUTING')![0]!, /-j KUBE-IPVS-TAKEOVER$/);
      await rig.keeper.settled();
      for (const [name, rules] of before) assert.deepEqual(nat.get(name), rules, name);
      assert.ok(!filter.has('KUBE-EXTERNAL-SERVICES') && filter.has('KUBE-IPVS-FILTER'), 'filter is ours');
      assert.ok(rig.fake.tables['save-6']!.get('nat')!.has('KUBE-SERVICES'), 'IPv6 does not wait');
      assert.deepEqual(
        rig.outcomes.map(({ heldBack }) => heldBack),
        [[4]],
      );
      for (let i = 0; i < 3; i++) await rig.check();
      assert.ok(nat.has('KUBE-SVC-NPX46M4PTMTKRN6Y'), 'however often they are checked');
      assert.equal(rig.inPlace, 0);
      rig.keeper.release();
      await rig.keeper.settled();
      assert.ok(isTakenOver(nat), [...nat].join('\n'));
      assert.equal(rig.inPlace, 1);
      assert.ok(rig.outcomes.every(({ drift }) => drift.total === 0));
      await rig.check();
      assert.equal(rig.inPlace, 1, 'once');
    });

    test('its nat table goes in one piece, with all of ours in it', async () => {
      const fake = new FakeIptables();
      const restored: string[] = [];
      const { run } = fake;
      fake.run = (command, args, options) => {
        if (command.startsWith('restore')) restored.push(options?.input ?? '');
        return run(command, args, options);
      };
      const rig = new RulesRig([4], fake);
      leftovers(rig);
      await rig.check();
      restored.length = 0;
      rig.keeper.release();
      await rig.keeper.settled();
      const nat = restored.flatMap((text) => text.split(/^(?=\*)/m)).filter((text) => text.startsWith('*nat'));
      assert.equal(nat.length, 1);
      for (const part of ['-X KUBE-SVC-', '-X KUBE-SEP-', '-X KUBE-IPVS-TAKEOVER', '-A KUBE-SERVICES'])
        assert.ok(nat[0]!.includes(part), part);
    });

    test('a release during a check is followed by another', async () => {
      const rig = new RulesRig([4]);
      const { nat } = leftovers(rig);
      rig.keeper.check();
      await rig.keeper.prepared();
      rig.keeper.release();
      await rig.keeper.settled();
      assert.ok(isTakenOver(nat));
      assert.equal(rig.inPlace, 1);
    });

    test('VIPs do not wait longer than a few seconds for a lock that somebody holds', async () => {
      const rig = new RulesRig([4]);
      leftovers(rig);
      let release = (): void => undefined;
      const held = new Promise<void>((resolve) => (release = resolve));
      rig.fake.before = (command) => (command.startsWith('restore') ? held : undefined);
      rig.keeper.check();
      let isPrepared = false;
      const prepared = rig.keeper.prepared().then(() => (isPrepared = true));
      for (let i = 0; i < 20; i++) await new Promise(setImmediate);
      assert.equal(isPrepared, false);
      await rig.timers.advance(5000);
      await prepared;
      release();
      await rig.keeper.settled();
    });

    test('the tables of its nftables mode are removed when all else is written, with the one rule until then', async () => {
      const rig = new RulesRig([4]);
      rig.hasForeignTables = true;
      await rig.check();
      const nat = rig.fake.tables['save-4']!.get('nat')!;
      assert.ok(nat.has('KUBE-IPVS-TAKEOVER') && nat.has('KUBE-SERVICES'), 'nothing of ours waits for them');
      await rig.check();
      assert.ok(nat.has('KUBE-IPVS-TAKEOVER'));
      rig.keeper.release();
      await rig.keeper.settled();
      assert.equal(rig.inPlace, 1);
      rig.hasForeignTables = false;
      await rig.check();
      assert.ok(isTakenOver(nat));
    });
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

  test('that cannot be written are tried again by themselves every five seconds, until they are', async () => {
    const rig = new RulesRig();
    rig.fake.before = (command) => {
      if (command === 'restore-6') throw new CommandError(command, [], 2, 'bad rule');
    };
    await rig.check();
    for (let failures = 1; failures <= 3; failures++) {
      assert.equal(rig.outcomes.length, failures);
      assert.equal(rig.timers.pending, 1);
      await rig.timers.advance(4999);
      assert.equal(rig.keeper.checkingSince, undefined);
      if (failures === 3) rig.fake.before = () => undefined;
      await rig.timers.advance(1);
      await rig.keeper.settled();
    }
    assert.deepEqual(
      rig.outcomes.map(({ error }) => error === undefined),
      [false, false, false, true],
    );
    assert.equal(rig.timers.pending, 0, 'what is in place needs no retry');
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

  test('are waited for on stop until the program has ended that is killed', async () => {
    const rig = new RulesRig([4]);
    let end = (): void => undefined;
    rig.fake.before = () => new Promise((resolve) => (end = resolve));
    rig.keeper.check();
    while (rig.fake.calls.length === 0) await new Promise(setImmediate);
    let hasStopped = false;
    const stopping = rig.keeper.stop().then(() => (hasStopped = true));
    for (let turn = 0; turn < 10; turn++) await new Promise(setImmediate);
    assert.equal(hasStopped, false);
    end();
    await stopping;
    assert.deepEqual([rig.fake.calls.length, rig.outcomes], [1, []]);
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
