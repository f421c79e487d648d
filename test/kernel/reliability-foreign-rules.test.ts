// test-kernel: timeout=300
/**
 * Rules of others that lead to our chains: takeover, verification, repair, restart and clean-up leave them where they
 * are.
 */
import assert from 'node:assert/strict';
import { after, before } from 'node:test';
import { iptablesBackend } from './harness/iptables-programs.js';
import { iptablesRules, shell } from './harness/kernel-state.js';
import { waitUntil } from './harness/wait.js';
import { Rig, fixtureCluster } from './reliability-rig.js';
import { steps } from './reliability-steps.js';

const step = steps();
let rig: Rig;
let config: string;

/**
 * CNI portmap with `externalSetMarkChain`, dockershim's heirs, and an administrator: in chains of their own and in
 * built-in ones.
 */
const OTHERS: readonly string[] = [
  '-t nat -A CNI-DN-0123456789abcdef01234 -s 10.128.0.0/24 -p tcp -m tcp --dport 8080 -j KUBE-MARK-MASQ',
  '-t nat -A KUBE-HP-ABCDEFGHIJKLMNOP -s 10.128.0.9/32 -m comment --comment "web_default hostport 80" -j KUBE-MARK-MASQ',
  '-t nat -A PREROUTING -s 10.5.0.0/16 -p tcp -m tcp --dport 9099 -j KUBE-MARK-MASQ',
  '-t nat -A OUTPUT -d 192.0.2.250/32 -g KUBE-SERVICES',
  '-t filter -A INPUT -s 10.5.0.0/16 -m comment --comment "routed, too" -j KUBE-PROXY-FIREWALL',
  '-t filter -A SITE-RULES -j KUBE-IPVS-FILTER',
];
const CHAINS = ['nat CNI-DN-0123456789abcdef01234', 'nat KUBE-HP-ABCDEFGHIJKLMNOP', 'filter SITE-RULES'];

async function forBothFamilies(script: (program: string) => string): Promise<void> {
  await shell(['$IPTABLES -w', '$IP6TABLES -w'].map(script).join('\n'));
}

const ofFamily = (rule: string, program: string): string =>
  program.startsWith('$IP6TABLES')
    ? rule.replace(/(\d+\.){3}\d+\/(\d+)/, (_, __, bits) => `fd00:5::/${4 * Number(bits)}`)
    : rule;

/** `-A CHAIN ...` of everything that is not ours, by what iptables-save prints. */
async function foreign(family: 4 | 6): Promise<string[]> {
  const ours = /^-A (INPUT|FORWARD|OUTPUT|PREROUTING|POSTROUTING) -m comment --comment "kube/;
  return (await iptablesRules(family)).filter(
    (line) => line.startsWith('-A ') && !ours.test(line) && !/^-A KUBE-(?!HP)/.test(line),
  );
}

async function bothForeign(): Promise<string[]> {
  return [...(await foreign(4)), ...(await foreign(6))];
}

let wanted: string[];

before(async () => {
  await shell(`
    modprobe -q ipv6 || true; modprobe dummy; modprobe ip_vs
    ip link add eth0 type dummy && ip link set eth0 up
    ip addr add 10.200.0.2/24 dev eth0 && ip addr add fd00:200::2/64 dev eth0 nodad
    ipset restore -exist < test/fixtures/kube-proxy-1.36/ipset-create.txt
    $IPTABLES-restore --noflush < test/fixtures/kube-proxy-1.36/iptables.txt
    $IP6TABLES-restore --noflush < test/fixtures/kube-proxy-1.36/ip6tables.txt`);
  await forBothFamilies((program) =>
    [
      ...CHAINS.map((chain) => `${program} -t ${chain.replace(' ', ' -N ')}`),
      ...OTHERS.map((rule) => `${program} ${ofFamily(rule, program)}`),
    ].join('\n'),
  );
  wanted = await bothForeign();
  assert.equal(wanted.length, 2 * OTHERS.length);
  rig = await Rig.create(fixtureCluster());
  config = rig.config({}, { syncPeriod: '1s' });
});

after(() => rig.close());

async function verifications(count: number): Promise<void> {
  const done = async (): Promise<number> =>
    (await rig.scrape()).sum('kubeproxy_ipvs_verification_duration_seconds_count');
  const begun = await done();
  await waitUntil(`${count} verifications`, async () => (await done()) >= begun + count);
}

async function ruleDrift(): Promise<number> {
  const text = await rig.scrape();
  return ['missing', 'extra', 'changed'].reduce((sum, kind) => sum + text.drift('rule', kind), 0);
}

step('takeover from kube-proxy and verification leave them alone, and count no drift', async () => {
  await rig.start(config);
  await rig.waitForRules();
  await rig.waitUntilVerified(config);
  await verifications(3);
  assert.deepEqual(await bothForeign(), wanted);
  assert.equal(await ruleDrift(), 0);
});

step('repair of our own chains and jumps beside them leaves them alone', async () => {
  await forBothFamilies(
    (program) => `${program} -t nat -F KUBE-MARK-MASQ; ${program} -D INPUT 1; ${program} -t nat -D PREROUTING 1`,
  );
  await waitUntil(
    'the repair',
    async () => (await ruleDrift()) >= 6,
    60_000,
    () => rig.daemon.tail(5),
  );
  await rig.waitUntilVerified(config);
  assert.deepEqual(await bothForeign(), wanted);
});

step('so does a restart, and one that is added while the daemon runs stays, too', async () => {
  await rig.stop();
  await rig.start(config);
  const late = '-A POSTROUTING -o vpn0 -j KUBE-MARK-MASQ';
  await forBothFamilies((program) => `${program} -t nat ${late}`);
  await verifications(3);
  const now = await bothForeign();
  assert.deepEqual(
    now.filter((line) => !line.includes('vpn0')),
    wanted,
  );
  assert.equal(now.filter((line) => line === late).length, 2);
  assert.equal(await ruleDrift(), 0);
  await forBothFamilies((program) => `${program} -t nat -D ${late.slice(3)}`);
});

step(
  'clean-up keeps what they lead to, emptied but for the mark, and names it; once they are gone it goes, too',
  async () => {
    await rig.stop();
    for (let round = 0; round < 2; round++) {
      const { code, output } = await rig.command('cleanup', '--config', config);
      assert.equal(code, 0, output);
      for (const chain of [
        'nat KUBE-MARK-MASQ',
        'nat KUBE-SERVICES',
        'filter KUBE-PROXY-FIREWALL',
        'filter KUBE-IPVS-FILTER',
      ])
        for (const family of [4, 6])
          assert.ok(
            output.includes(`IPv${family} ${chain} (${iptablesBackend()}), used by -A `),
            `${chain} IPv${family}\n${output}`,
          );
      assert.ok(output.includes('-A CNI-DN-0123456789abcdef01234 '), output);
      assert.deepEqual(await bothForeign(), wanted);
      for (const family of [4, 6] as const) {
        const left = (await iptablesRules(family)).filter((line) => /^(:|-A )KUBE-(?!HP)/.test(line)).sort();
        assert.deepEqual(left, [
          '-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000',
          ':KUBE-IPVS-FILTER -',
          ':KUBE-MARK-MASQ -',
          ':KUBE-PROXY-FIREWALL -',
          ':KUBE-SERVICES -',
        ]);
      }
      assert.doesNotMatch(await shell('ipset list -n'), /KUBE-/);
    }
    await forBothFamilies((program) =>
      OTHERS.map((rule) => `${program} ${ofFamily(rule, program).replace(' -A ', ' -D ')}`).join('\n'),
    );
    const { code, output } = await rig.command('cleanup', '--config', config);
    assert.equal(code, 0, output);
    assert.doesNotMatch(output, /kept/);
    for (const family of [4, 6] as const)
      assert.equal((await iptablesRules(family)).filter((line) => /KUBE-(?!HP)/.test(line)).length, 0);
  },
);
