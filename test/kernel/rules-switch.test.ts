// test-kernel: timeout=900
/**
 * Rules and sets in nf_tables: taken over from kube-proxy's iptables and ipset, given back, and chosen where those are
 * missing, under continuous traffic, of which nothing may fail.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { after, before } from 'node:test';
import { ipsets, ipvsRules, iptablesRules, loadModules, run, shell } from './harness/kernel-state.js';
import { Lab } from './harness/lab.js';
import { OTHER_NODE } from './harness/layout.js';
import { Loads } from './harness/loads.js';
import { patience, waitUntil } from './harness/wait.js';
import { TABLE, nftSets } from './harness/nftables-state.js';
import { restoreKubeProxyState } from './kube-proxy-state.js';
import { Rig, fixtureCluster, fixtureLines } from './reliability-rig.js';
import { steps } from './reliability-steps.js';

const PODS = [
  { name: 'client', addresses: ['10.128.0.10'] },
  { name: 'web-near', addresses: ['10.128.0.11'] },
  { name: 'web-far', addresses: ['10.128.1.11'], place: 'other' as const },
  { name: 'port-near', addresses: ['10.128.0.17'] },
  { name: 'port-far', addresses: ['10.128.1.17'], place: 'other' as const },
];
const WEB = { protocol: 'TCP', address: '10.96.0.10', port: 80, timeout: patience(20_000) } as const;
/** Answered only as long as sets and rules masquerade: client and one backend are on the same other node. */
const NODE_PORT = { protocol: 'TCP', address: '10.200.0.2', port: 30100, timeout: patience(20_000) } as const;
const NFTABLES = { kubeProxyIpvs: { rules: 'nftables' } };
const IPTABLES = { kubeProxyIpvs: { rules: 'iptables' } };
/** Ours alone. */
const OWN_SET = /^add KUBE-(6-)?NO-(LOCAL-)?ENDPOINTS /;

const step = steps();
let missing: string | undefined;
let lab: Lab;
let rig: Rig;
let loads: Loads;

before(async () => {
  if (spawnSync('unshare', ['-n', 'nft', 'add', 'table', 'ip', 'probe']).status !== 0)
    missing = 'SKIPPED: this kernel has no nf_tables for IPv4, or no program nft is here to look';
  if (missing !== undefined) return;
  lab = await Lab.create({ pods: PODS });
  await Promise.all(
    PODS.slice(1).map(({ name, addresses }) =>
      lab.agent.serve(name, { protocol: 'TCP', port: 8080, address: addresses[0]!, by: name }),
    ),
  );
  rig = await Rig.create(fixtureCluster());
  loadModules('ip_vs');
  await shell('sysctl -qw net.ipv4.vs.conntrack=1 net.ipv4.vs.expire_nodest_conn=1');
  await restoreKubeProxyState();
  loads = new Loads({
    web: await lab.agent.load('client', { ...WEB, rate: 20, connections: 10, interval: 200 }),
    nodePort: await lab.agent.load(OTHER_NODE, { ...NODE_PORT, rate: 10, workers: 1, connections: 5, interval: 200 }),
  });
});

after(async () => {
  if (missing !== undefined) return;
  await rig.close();
  lab.close();
});

async function kubeChains(): Promise<string[]> {
  const lines = [...(await iptablesRules(4)), ...(await iptablesRules(6))];
  return lines.filter((line) => line.includes('KUBE-'));
}

async function assertInNftables(): Promise<void> {
  await waitUntil(
    'the chains of iptables to go',
    // Beside a set that is being destroyed iptables-nft-save cannot print the rules that named it, and fails.
    async () => (await kubeChains().catch(() => undefined))?.length === 0,
    60_000,
    () => rig.daemon.tail(),
  );
  await waitUntil('the ipsets to go', async () => (await ipsets()).create.every((line) => !line.includes('KUBE-')));
  const recorded = fixtureLines('kube-proxy-1.36/ipset-add.txt').sort();
  assert.deepEqual(
    (await nftSets()).add.filter((line) => !OWN_SET.test(line)),
    recorded,
  );
  assert.deepEqual(await ipvsRules(), fixtureLines('kube-proxy-1.36/ipvs.txt').sort());
}

const nftStep = (name: string, action: () => Promise<void>): void =>
  step(name, async (context) => {
    if (missing !== undefined) return context.skip(missing);
    await action();
  });

nftStep('the rules of kube-proxy’s IPVS mode are taken over into nf_tables, nothing lost', async () => {
  await loads.assertNothingLost('before');
  const config = rig.config(NFTABLES);
  await rig.start(config);
  await assertInNftables();
  await rig.waitUntilVerified(config);
  await loads.assertNothingLost('from kube-proxy to nf_tables');
});

nftStep('a restart starts no program of iptables and changes nothing', async () => {
  assert.equal((await rig.stop()).code, 0);
  const before = await run('nft', '-s', 'list', 'table', 'ip', TABLE);
  await rig.start(rig.config(NFTABLES));
  await waitUntil(
    'a verification',
    async () => (await rig.scrape()).sum('kubeproxy_ipvs_last_verification_timestamp_seconds') > 0,
  );
  const names = rig.daemon.log.filter(({ msg }) => /rules written|removed/.test(msg));
  assert.deepEqual(names, []);
  const text = await (await fetch('http://127.0.0.1:10249/metrics')).text();
  assert.doesNotMatch(text, /command="ip6?tables/);
  assert.equal(sorted(await run('nft', '-s', 'list', 'table', 'ip', TABLE)), sorted(before));
  await loads.assertNothingLost('restart');
});

nftStep('what somebody does to rules and sets is counted and mended', async () => {
  // Not to IPv4's rules for NodePorts: what opens a connection until they are mended is lost, as it must be.
  await shell(`nft flush chain ip6 ${TABLE} nat-KUBE-NODE-PORT; nft delete chain ip6 ${TABLE} nat-PREROUTING
    nft delete element ip ${TABLE} KUBE-LOOP-BACK '{ 10.128.0.17 . tcp . 8080 . 10.128.0.17 }'`);
  await waitUntil('the repair', async () => {
    const scrape = await rig.scrape();
    return (
      scrape.sum('kubeproxy_ipvs_drift_repaired_total', { object: 'rule' }) >= 2 &&
      scrape.sum('kubeproxy_ipvs_drift_repaired_total', { object: 'set_entry' }) >= 1
    );
  });
  await assertInNftables();
});

nftStep('back into iptables and ipset, nothing lost', async () => {
  assert.equal((await rig.stop()).code, 0);
  const config = rig.config(IPTABLES);
  await rig.start(config);
  await waitUntil(
    'our tables to go',
    async () => !(await run('nft', 'list', 'tables')).includes(TABLE),
    60_000,
    () => rig.daemon.tail(),
  );
  const recorded = fixtureLines('kube-proxy-1.36/ipset-add.txt').sort();
  assert.deepEqual(
    (await ipsets()).add.filter((line) => !OWN_SET.test(line)),
    recorded,
  );
  await rig.waitUntilVerified(config);
  await loads.assertNothingLost('from nf_tables to iptables');
});

nftStep('and into nf_tables again', async () => {
  assert.equal((await rig.stop()).code, 0);
  await rig.start(rig.config(NFTABLES));
  await assertInNftables();
  await loads.assertNothingLost('from iptables to nf_tables');
  assert.equal((await rig.stop()).code, 0);
});

nftStep('auto: nf_tables where ip_set cannot be had; preflight says so', async () => {
  await shell(`
    mkdir -p /etc/modprobe.d && echo 'install ip_set /bin/false' > /etc/modprobe.d/no-ip-set.conf
    modprobe -r xt_set ip_set_hash_ip ip_set_hash_ipport ip_set_hash_ipportip ip_set_hash_ipportnet ip_set_bitmap_port ip_set`);
  const config = rig.config({ kubeProxyIpvs: { rules: 'auto' } });
  const { code, output } = await rig.command('preflight', '--fix', '--config', config);
  assert.match(output, /ok {3}rules: nftables: kube-proxy's IPVS mode could not run here: /);
  assert.equal(code, 0, output);
  await rig.start(config);
  const [chosen] = rig.daemon.log.filter(({ msg }) => msg === 'rules');
  assert.equal(chosen?.['rules'], 'nftables');
  await loads.assertNothingLost('auto');
  assert.equal((await rig.stop()).code, 0);
});

nftStep('cleanup takes our tables away, and nobody else’s', async () => {
  await shell('nft add table ip somebody');
  const { code, output } = await rig.command('cleanup', '--config', rig.config(NFTABLES));
  assert.equal(code, 0, output);
  // Of iptables' own tables nothing is ours.
  const tables = (await run('nft', 'list', 'tables'))
    .split('\n')
    .filter((line) => !/ (filter|nat|mangle|raw)$/.test(line));
  assert.deepEqual(tables.filter(Boolean), ['table ip somebody']);
  assert.deepEqual(await kubeChains(), []);
  assert.deepEqual(await ipvsRules(), []);
});

/** Elements come in no order. */
function sorted(text: string): string {
  return text
    .replace(/[\s,]+/g, '\n')
    .split('\n')
    .sort()
    .join('\n');
}
