/**
 * The iptables programs and the real kernel: what is written is what is read back, and the xtables lock is waited for.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { before, test } from 'node:test';
import { openNetlinkSocket } from '../../native/libc.js';
import { iptablesRules } from '../../src/desired/iptables-rules.js';
import { type LocalDetection } from '../../src/desired/rule-config.js';
import { type RuleSet } from '../../src/desired/iptables-rule-set.js';
import { allIpsetDefinitions } from '../../src/desired/ipset-definitions.js';
import { CommandRunner } from '../../src/kernel/command.js';
import { Iptables } from '../../src/kernel/iptables/iptables.js';
import { isLockHeld } from '../../src/kernel/iptables/xtables-lock.js';
import { detectIptables } from '../../src/kernel/iptables/detect.js';
import { IpsetClient } from '../../src/kernel/ipset/client.js';
import { planRules, removeChains } from '../../src/plan/iptables-rule-diff.js';
import { parseSavedRules } from '../../src/plan/iptables-save.js';
import { FAMILIES, type Family } from '../../src/values/address.js';
import { type Prefix, parsePrefix } from '../../src/values/prefix.js';
import { waitUntil } from './harness/wait.js';
import { holdXtablesLock } from './harness/xtables-lock.js';

const runner = new CommandRunner();
let iptables: Iptables;

before(async () => {
  const tools = await detectIptables(runner.run, { probe: true });
  iptables = new Iptables(tools, runner.run);
  console.log(`iptables ${tools.version} ${tools.backend}: ${tools.reason}`);
  const ipset = new IpsetClient(openNetlinkSocket);
  for (const definition of allIpsetDefinitions().values()) ipset.createSet(definition);
  ipset.close();
});

async function plan(desired: RuleSet) {
  return planRules(desired, parseSavedRules(await iptables.save(desired.family)));
}

const isKube = ({ chain }: { chain: string }): boolean => chain.startsWith('KUBE-');

async function clean(family: Family): Promise<void> {
  await iptables.restore(family, removeChains(parseSavedRules(await iptables.save(family)), family, isKube).text);
}

function detections(family: Family): LocalDetection[] {
  const cidrs = [parsePrefix(family === 4 ? '10.128.0.0/9' : 'fd00:10:128::/48')!];
  return [
    { mode: 'none' },
    { mode: 'ClusterCIDR', cidrs },
    { mode: 'NodeCIDR', cidrs },
    { mode: 'BridgeInterface', name: 'cni0' },
    { mode: 'InterfaceNamePrefix', prefix: 'veth' },
  ];
}

function accepting(family: Family): { nodePortPrefixes: Prefix[] } {
  const prefixes = family === 4 ? ['10.0.0.0/8', '192.0.2.1/32'] : ['::/0'];
  return { nodePortPrefixes: prefixes.map((text) => parsePrefix(text)!) };
}

for (const family of FAMILIES) {
  test(`IPv${family}: rules written once do not differ when read back, in every mode; one process reads, one writes`, async () => {
    for (const detectLocal of detections(family)) {
      for (const masqueradeAll of [false, true]) {
        const desired = iptablesRules({
          family,
          masqueradeMark: 0x8000,
          masqueradeAll,
          randomFully: true,
          detectLocal,
          acceptServiceTraffic: masqueradeAll ? accepting(family) : undefined,
        });
        const { text } = await plan(desired);
        assert.notEqual(text, '');
        const { spawned } = runner;
        await iptables.restore(family, text);
        assert.deepEqual(await plan(desired), { differences: [], text: '' }, detectLocal.mode);
        assert.equal(runner.spawned - spawned, 2);
      }
    }
    await clean(family);
  });

  test(`IPv${family}: rules of kube-proxy 1.36 are taken over, and all of it goes without a trace`, async () => {
    const untouched = await savedWithoutDates(family);
    const file = `test/fixtures/kube-proxy-1.36/${family === 4 ? 'iptables' : 'ip6tables'}.txt`;
    await iptables.restore(family, readFileSync(file, 'utf8'));
    const desired = iptablesRules({
      family,
      masqueradeMark: 0x4000,
      masqueradeAll: false,
      randomFully: true,
      detectLocal: detections(family)[1]!,
    });
    await iptables.restore(family, (await plan(desired)).text);
    assert.deepEqual(await plan(desired), { differences: [], text: '' });
    await clean(family);
    assert.deepEqual(await savedWithoutDates(family), untouched);
    assert.equal(removeChains(parseSavedRules(await iptables.save(family)), family, isKube).text, '');
  });
}

async function savedWithoutDates(family: Family): Promise<[string, unknown][]> {
  return [...parseSavedRules(await iptables.save(family))];
}

test('the nft program understands every rule as well', async () => {
  for (const family of FAMILIES) {
    for (const detectLocal of detections(family)) {
      const config = {
        family,
        masqueradeMark: 0x4000,
        masqueradeAll: true,
        randomFully: true,
        detectLocal,
        acceptServiceTraffic: accepting(family),
      };
      const { text } = planRules(iptablesRules(config), new Map());
      const program = family === 4 ? 'iptables-nft-restore' : 'ip6tables-nft-restore';
      const args = ['--noflush', '--test', '-w', '1'];
      await assert.doesNotReject(runner.run(program, args, { input: text }), detectLocal.mode);
      const wrong = text.replace('-j KUBE-MARK-MASQ', '-m nonsense -j KUBE-MARK-MASQ');
      await assert.rejects(runner.run(program, args, { input: wrong }), /nonsense/);
    }
  }
});

test('while another process holds the xtables lock the write waits, the event loop goes on, and the wait is counted', async (t) => {
  if (iptables.tools.backend !== 'legacy') {
    t.skip('SKIPPED: iptables-nft has no lock to wait for');
    return;
  }
  const lock = await holdXtablesLock();
  let waited = 0;
  let ticks = 0;
  const ticker = setInterval(() => ticks++, 20);
  await assert.rejects(iptables.restore(4, '*filter\n:KUBE-LATE - [0:0]\nCOMMIT\n', { deadline: 1 }), isLockHeld);
  let isWritten = false;
  const written = iptables
    .restore(4, '*filter\n:KUBE-LATE - [0:0]\nCOMMIT\n', { onWait: (ms) => (waited += ms) })
    .then(() => (isWritten = true));
  await waitUntil('the wait to be reported, and turns of the event loop', () => waited > 0 && ticks > 20);
  assert.equal(isWritten, false, 'written while the lock was held');
  await lock.release();
  await written;
  clearInterval(ticker);
  assert.ok(
    parseSavedRules(await iptables.save(4))
      .get('filter')
      ?.has('KUBE-LATE'),
  );
  await clean(4);
});

test('a rule that the kernel refuses is a CommandError that tells the line, and leaves the table as it was', async () => {
  const before = await savedWithoutDates(4);
  const text = '*filter\n:KUBE-BAD - [0:0]\n-A KUBE-BAD -m set --match-set NO-SUCH-SET dst -j ACCEPT\nCOMMIT\n';
  await assert.rejects(iptables.restore(4, text), /exited with \d+: .*(NO-SUCH-SET|line 3)/s);
  assert.deepEqual(await savedWithoutDates(4), before);
});
