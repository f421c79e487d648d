// test-kernel: timeout=900 seconds=35
/**
 * Everything that the daemon keeps in the kernel is damaged behind its back: repaired in one pass, counted, named;
 * others' entries stay.
 */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { after, before } from 'node:test';
import { shell } from './harness/kernel-state.js';
import { addRule, chainInLog, changeSets, deleteJump, destroyAll, flushChain } from './harness/rules-damage.js';
import { rulesBackend } from './harness/rules-under-test.js';
import { waitUntil } from './harness/wait.js';
import { Rig, Scrape, driftNames, fixtureCluster } from './reliability-rig.js';
import { netlinkWrites } from './reliability-netlink.js';
import { steps } from './reliability-steps.js';
import { type Snapshot, boundAddresses, snapshot } from './reliability-state.js';

const REPAIRED = 'drift found and repaired';
const SYNC_PERIOD_MS = 2000;
const step = steps();
let rig: Rig;
let good: Snapshot;
let repaired = 0;

before(async () => {
  await shell(`
    modprobe -q ipv6 || true; modprobe dummy; modprobe ip_vs; modprobe ip_vs_wlc
    ip link add eth0 type dummy && ip link set eth0 up
    ip addr add 10.200.0.2/24 dev eth0 && ip addr add fd00:200::2/64 dev eth0 nodad
    ip link add other0 type dummy && ip link set other0 up
    ip addr add 10.99.9.9/32 dev other0 && ip addr add 10.97.0.1/32 dev other0
    ${foreignServers()}
    ipset create mine hash:ip && ipset add mine 192.0.2.99
    $IPTABLES -w -N MINE && $IPTABLES -w -A MINE -m set --match-set mine src -j ACCEPT
    $IPTABLES -w -A INPUT -j MINE && $IPTABLES -w -t nat -A POSTROUTING -s 192.0.2.99 -j MASQUERADE`);
  rig = await Rig.create(fixtureCluster());
});

after(async () => {
  console.log(`drift: ${repaired} differences repaired`);
  await rig.close();
});

/**
 * keepalived's: on an address of its own; one in excludeCIDRs, local, whose port is a node port of ours; and one in
 * front of that node port on several nodes, which has to use its number.
 */
function foreignServers(): string {
  return `
    ipvsadm -A -t 10.99.9.9:80 -s wlc && ipvsadm -a -t 10.99.9.9:80 -r 10.128.0.11:8080 -m -w 7
    ipvsadm -A -t 10.97.0.1:30100 -s wlc && ipvsadm -a -t 10.97.0.1:30100 -r 10.128.0.11:8080 -g -w 3
    ipvsadm -A -t 10.99.9.10:30100 -s wlc && ipvsadm -a -t 10.99.9.10:30100 -r 10.200.0.2:30100 -g -w 1
    ipvsadm -a -t 10.99.9.10:30100 -r 10.200.0.3:30100 -g -w 1\n`;
}

async function startDaemon(syncPeriod: string): Promise<void> {
  const nodePortAddresses = ['10.200.0.0/16', 'fd00:200::/64'];
  const config = rig.config({ nodePortAddresses }, { syncPeriod, excludeCIDRs: ['10.97.0.0/16'] });
  await rig.start(config);
  await rig.waitForRules();
}

/**
 * Damages the kernel, waits until it is as before, and returns how the drift metric grew, by `kind object`. All of it
 * must be found by one verification, hence one log line.
 */
async function damage(script: string): Promise<{ counts: Record<string, number>; names: string[]; lines: number }> {
  const { log } = rig.daemon;
  const before = driftCounts(await rig.scrape());
  const from = log.length;
  await rig.behindItsBack(script);
  await waitUntil('the daemon to notice', () => log.slice(from).some(({ msg }) => noticed.has(msg)));
  await waitUntilGood();
  const after = driftCounts(await rig.scrape());
  const counts = Object.fromEntries(
    Object.entries(after)
      .map(([key, value]): [string, number] => [key, value - (before[key] ?? 0)])
      .filter(([, value]) => value > 0),
  );
  repaired += Object.values(counts).reduce((sum, value) => sum + value, 0);
  const lines = log.slice(from).filter(({ msg }) => msg === REPAIRED).length;
  return { counts, names: driftNames(log, from), lines };
}
const RULES_WRITTEN = `${rulesBackend()} rules written`;
const noticed = new Set([REPAIRED, RULES_WRITTEN]);

function driftCounts(scrape: Scrape): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const line of scrape.text.split('\n')) {
    if (!line.startsWith('kubeproxy_ipvs_drift_repaired_total{')) continue;
    const label = (name: string): string => new RegExp(`${name}="(\\w+)"`).exec(line)![1]!;
    counts[`${label('kind')} ${label('object')}`] = Number(line.split(' ').at(-1));
  }
  return counts;
}

function differences(now: Snapshot): string[] {
  const lines: string[] = [];
  for (const part of Object.keys(good) as (keyof Snapshot)[]) {
    for (const line of good[part]) if (!now[part].includes(line)) lines.push(`missing ${part}: ${line}`);
    for (const line of now[part]) if (!good[part].includes(line)) lines.push(`extra ${part}: ${line}`);
    if (lines.length === 0 && String(now[part]) !== String(good[part])) lines.push(`another order of ${part}`);
  }
  return lines;
}

/** Waits until the kernel is as it was when `good` was taken. */
async function waitUntilGood(): Promise<void> {
  let left: string[] = [];
  await waitUntil(
    'the state of before',
    async () => (left = differences(await snapshot())).length === 0,
    60_000,
    () => `${left.slice(0, 20).join('\n')}\n${rig.daemon.tail(5)}`,
  );
}

step('address and link events are repaired without waiting for syncPeriod', async () => {
  await startDaemon('30s');
  good = await snapshot();
  const all = boundAddresses();
  assert.equal(all.length, 43);
  const isRestored = (): boolean => JSON.stringify(boundAddresses()) === JSON.stringify(all);
  const damages: [string, string][] = [
    ['ip addr del 10.96.0.10/32 dev kube-ipvs0', 'missing address 10.96.0.10'],
    ['ip addr del fd00:96::28/128 dev kube-ipvs0', 'missing address fd00:96::28'],
    ['ip link set kube-ipvs0 up; ip link set kube-ipvs0 down', ''], // flushes the IPv6 addresses
    ['ip link del kube-ipvs0', ''],
  ];
  for (const [script, name] of damages) {
    const from = rig.daemon.log.length;
    const isTold = (): boolean =>
      name === '' ? rig.daemon.log.length > from : driftNames(rig.daemon.log, from).includes(name);
    await shell(script);
    const begun = performance.now();
    await waitUntil(
      `repair of ${script}, and a log line with ${name}`,
      () => isRestored() && isTold(),
      60_000,
      () => `${boundAddresses().length} addresses\n${rig.daemon.tail(5)}`,
    );
    console.log(`${script}: repaired after ${Math.round(performance.now() - begun)} ms`);
  }
  // The link's events are over when verification, which they ask for, has run.
  await waitUntilGood();
  await rig.stop();
});

step('virtual servers and real servers: deleted, added, changed', async () => {
  await startDaemon(`${SYNC_PERIOD_MS}ms`);
  assert.deepEqual(await snapshot(), good);
  const { counts, names, lines } = await damage(`ipvsadm -R <<'END'
-D -t 10.96.0.10:80
-A -t 10.96.0.10:9999 -s rr
-a -t 10.96.0.10:9999 -r 10.128.0.11:8080 -m
-E -t 10.96.0.11:53 -s wlc
-E -u 10.96.0.11:53 -s rr -p 300
-d -t 10.96.0.17:80 -r 10.128.0.17:8080
-a -t 10.96.0.17:80 -r 10.128.0.99:8080 -m
-e -t 10.96.0.20:80 -r 10.128.0.20:8080 -m -w 5
-e -t 10.96.0.20:80 -r 10.128.1.20:8080 -m -w 0
-e -t 10.96.0.11:9153 -r 10.128.0.12:9153 -g -w 1
END`);
  assert.deepEqual(counts, {
    'missing virtual_server': 1,
    'extra virtual_server': 1,
    'changed virtual_server': 2,
    'missing real_server': 1,
    'extra real_server': 1,
    'changed real_server': 3,
  });
  assert.equal(lines, 1, rig.daemon.tail());
  assert.ok(names.includes('missing virtual_server TCP 10.96.0.10:80'), names.join());
  assert.ok(names.includes('changed real_server TCP 10.96.0.20:80 -> 10.128.1.20:8080'), names.join());
});

step('ipvsadm -C: the whole table back in one pass', async () => {
  const { counts, lines } = await damage(`ipvsadm -C\n${foreignServers()}`);
  assert.deepEqual(counts, { 'missing virtual_server': 62 });
  assert.equal(lines, 1);
});

step('addresses bound to kube-ipvs0 that nobody asked for', async () => {
  const { counts, names } = await damage(
    'ip addr add 10.96.77.7/32 dev kube-ipvs0; ip addr add fd00:96::77/128 dev kube-ipvs0 nodad',
  );
  assert.deepEqual(counts, { 'extra address': 2 });
  assert.ok(names.includes('extra address 10.96.77.7'), names.join());
});

step('sets: entries added and deleted, a set emptied', async () => {
  const size = good.sets.filter((line) => line.startsWith('add KUBE-EXTERNAL-IP ')).length;
  const { counts, names, lines } = await damage(
    changeSets([
      'flush KUBE-EXTERNAL-IP',
      'add KUBE-LOAD-BALANCER 192.0.2.250,tcp:80',
      'del KUBE-NODE-PORT-TCP 30100',
      'del KUBE-6-IPVS-IPS fd00:96::28',
    ]),
  );
  assert.deepEqual(counts, { 'missing set_entry': size + 2, 'extra set_entry': 1 });
  assert.equal(lines, 1);
  assert.ok(names.includes('extra set_entry KUBE-LOAD-BALANCER 192.0.2.250,tcp:80'), names.join());
});

step('rules: a jump, a rule and a whole chain deleted, a rule added, in both families', async () => {
  const from = rig.daemon.log.length;
  const { counts } = await damage(`
    ${flushChain(4, 'nat', 'KUBE-SERVICES')}
    ${deleteJump(4, 'filter', 'INPUT', 'KUBE-PROXY-FIREWALL')}
    ${addRule(4, 'filter', 'KUBE-IPVS-FILTER', 'before')}
    ${flushChain(6, 'nat', 'POSTROUTING')}`);
  assert.ok((counts['missing rule'] ?? 0) + (counts['changed rule'] ?? 0) >= 4, JSON.stringify(counts));
  const written = rig.daemon.log.slice(from).filter(({ msg }) => msg === RULES_WRITTEN);
  const text = JSON.stringify(written);
  for (const chain of [
    chainInLog(4, 'nat', 'KUBE-SERVICES'),
    chainInLog(4, 'filter', 'INPUT'),
    chainInLog(4, 'filter', 'KUBE-IPVS-FILTER'),
    chainInLog(6, 'nat', 'POSTROUTING'),
  ])
    assert.ok(text.includes(chain), `${chain} not in ${text}`);
});

step('sets destroyed, one of them made anew with another type, and all our chains with them', async () => {
  const sets = good.sets.filter((line) => line.startsWith('create KUBE-')).map((line) => line.split(' ')[1]!);
  const { counts } = await damage(`
    ${destroyAll(sets)}
    ${changeSets(['create KUBE-CLUSTER-IP hash:ip', 'add KUBE-CLUSTER-IP 10.96.0.10'])}`);
  assert.equal(counts['missing set'], sets.length - 1, JSON.stringify(counts));
  assert.equal(counts['changed set'], 1, JSON.stringify(counts));
  assert.equal(counts['missing set_entry'], good.sets.filter((line) => line.startsWith('add KUBE-')).length);
});

step('sysctls', async () => {
  const names = ['vs/conntrack', 'vs/expire_nodest_conn', 'ip_forward'].map((name) => `/proc/sys/net/ipv4/${name}`);
  const before = driftCounts(await rig.scrape());
  for (const name of names) writeFileSync(name, '0');
  await waitUntil('the sysctls', () => names.every((name) => readFileSync(name, 'utf8').trim() === '1'));
  const count = driftCounts(await rig.scrape())['changed sysctl'] ?? 0;
  assert.equal(count - (before['changed sysctl'] ?? 0), names.length);
  repaired += names.length;
});

step('a verification that finds nothing writes nothing', async () => {
  const count = async (): Promise<{ runs: number; processes: number }> => {
    const scrape = await rig.scrape();
    return {
      runs: scrape.sum('kubeproxy_ipvs_verification_duration_seconds_count'),
      processes: scrape.sum('kubeproxy_ipvs_processes_spawned_total'),
    };
  };
  const first = await count();
  const writes = await netlinkWrites(async () => {
    await waitUntil('three verifications', async () => (await count()).runs >= first.runs + 3);
  });
  const last = await count();
  const runs = last.runs - first.runs;
  assert.deepEqual(writes, {});
  // Two per verification; that of one under way at either end may fall into the time or out of it.
  const processes = last.processes - first.processes;
  assert.ok(processes <= 2 * (runs + 2), `${processes} processes in ${runs} verifications`);
  assert.deepEqual(await snapshot(), good);
  console.log(`${runs} verifications, ${62 + 83 + 43 + 139} objects each, nothing written, ${processes} processes`);
});
