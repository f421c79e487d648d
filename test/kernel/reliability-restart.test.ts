// test-kernel: timeout=900 seconds=55
/**
 * Takeover from kube-proxy, restarts, kills, two instances and API outages under continuous traffic, of which nothing
 * may fail.
 */
import assert from 'node:assert/strict';
import { after, before } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Daemon } from './harness/daemon.js';
import { ipsets, ipvsRules, shell } from './harness/kernel-state.js';
import { Lab } from './harness/lab.js';
import { OTHER_NODE } from './harness/layout.js';
import { Loads, failures, sums } from './harness/loads.js';
import { allRules } from './harness/rules-state.js';
import { isNftables } from './harness/rules-under-test.js';
import { patience, waitUntil } from './harness/wait.js';
import { netlinkWrites } from './reliability-netlink.js';
import { type ServiceSpec, endpointSlice, serviceWithEndpoints } from './reliability-objects.js';
import { restoreKubeProxyState } from './kube-proxy-state.js';
import { Rig, fixtureCluster, fixtureLines } from './reliability-rig.js';
import { steps } from './reliability-steps.js';
import { connectionCounts, weights } from './reliability-state.js';

const PODS = [
  { name: 'client', addresses: ['10.128.0.10'] },
  { name: 'web-near', addresses: ['10.128.0.11'] },
  { name: 'web-far', addresses: ['10.128.1.11'], place: 'other' as const },
  { name: 'dns-near', addresses: ['10.128.0.12'] },
  { name: 'dns-far', addresses: ['10.128.1.12'], place: 'other' as const },
  { name: 'port-near', addresses: ['10.128.0.17'] },
  { name: 'port-far', addresses: ['10.128.1.17'], place: 'other' as const },
];
const WEB = { protocol: 'TCP', address: '10.96.0.10', port: 80, timeout: patience(20_000) } as const;
const DNS = { protocol: 'UDP', address: '10.96.0.11', port: 53, timeout: patience(20_000) } as const;
/** Answered only as long as sets and rules masquerade: client and one backend are on the same other node. */
const NODE_PORT = { protocol: 'TCP', address: '10.200.0.2', port: 30100, timeout: patience(20_000) } as const;
const CHURN: readonly ServiceSpec[] = Array.from({ length: 100 }, (_, i) => ({
  name: `churn-${i}`,
  address: `10.96.3.${i + 1}`,
  port: 80,
}));
const KILLS = 4;
/** Nothing of ours is deleted that was just made. */
const NEW_IN_NFTABLES = ['TABLE', 'CHAIN', 'RULE', 'SET', 'SETELEM'].map((what) => `nftables NEW${what}`);

const step = steps();
let lab: Lab;
let rig: Rig;
let config: string;
let loads: Loads;
let generation = 0;

before(async () => {
  lab = await Lab.create({ pods: PODS });
  const serving = PODS.slice(1).map(({ name, addresses }) => {
    const server = name.startsWith('dns')
      ? ({ protocol: 'UDP', port: 5353 } as const)
      : ({ protocol: 'TCP', port: 8080 } as const);
    return lab.agent.serve(name, { ...server, address: addresses[0]!, by: name });
  });
  await Promise.all(serving);
  rig = await Rig.create(fixtureCluster());
  config = rig.config();
  await shell('modprobe ip_vs; sysctl -qw net.ipv4.vs.conntrack=1 net.ipv4.vs.expire_nodest_conn=1');
  await restoreKubeProxyState();
  loads = new Loads({
    web: await lab.agent.load('client', { ...WEB, rate: 200, connections: 20, interval: 200 }),
    dns: await lab.agent.load('client', { ...DNS, rate: 20, workers: 1, connections: 10, interval: 200 }),
    port: await lab.agent.load(OTHER_NODE, { ...NODE_PORT, rate: 20, workers: 1, connections: 5, interval: 200 }),
  });
});

after(async () => {
  await rig.close();
  lab.close();
});

/** Every churning Service gets other endpoints. */
function churn(): void {
  generation++;
  const endpoints = (i: number): string[] =>
    Array.from({ length: 5 }, (_, n) => `10.129.${(generation + n) % 250}.${i + 1}`);
  if (generation === 1) rig.set(...CHURN.flatMap((spec, i) => serviceWithEndpoints(spec, endpoints(i))));
  else rig.set(...CHURN.map((spec, i) => endpointSlice(spec, endpoints(i))));
}

/** The table is kube-proxy's for the recorded cluster and the API server's present state for the churning Services. */
async function waitUntilConverged(): Promise<void> {
  const first = generation % 250;
  const expected = CHURN.map((_, i) =>
    Array.from({ length: 5 }, (__, n) => `10.129.${(first + n) % 250}.${i + 1}:8080=1`).sort(),
  );
  await waitUntil(
    'the churning Services',
    () => CHURN.every(({ address }, i) => String(weights(`TCP ${address}:80`)) === String(expected[i])),
    60_000,
    () => `${weights('TCP 10.96.3.1:80').join()} not ${expected[0]!.join()}\n${rig.daemon.tail(5)}`,
  );
  const rules = (await ipvsRules()).filter((line) => !/ 10\.96\.3\./.test(line));
  assert.deepEqual(rules, fixtureLines('kube-proxy-1.36/ipvs.txt').sort());
}

step("kube-proxy's state is taken over without removing and adding anything again", async () => {
  await loads.waitFor('traffic through what kube-proxy made', ({ answered, asked }) => answered > 5 && asked > 10);
  await loads.assertNothingLost("kube-proxy's state, nobody running");
  const counts = await connectionCounts();
  const writes = await netlinkWrites(async () => {
    await rig.start(config);
    await rig.waitForRules();
    await waitUntil('its own rules', async () =>
      (await allRules(4)).some((line) => line.includes('KUBE-NO-ENDPOINTS')),
    );
    if (isNftables())
      await waitUntil(
        "kube-proxy's sets to go",
        async () => (await ipsets()).create.length === 0,
        60_000,
        () => rig.daemon.tail(),
      );
  });
  console.log(`takeover wrote ${JSON.stringify(writes)}`);
  // The start tries the scheduler out on a firewall mark of its own: that is the one virtual server that came and went.
  const { 'ipvs NEW_SERVICE': added, 'ipvs DEL_SERVICE': deleted, ...others } = writes;
  assert.deepEqual([added, deleted], [1, 1]);
  // Our own sets are made; where all of ours is in nf_tables, kube-proxy's sets go when that is in place.
  const allowed = isNftables()
    ? new Set([...NEW_IN_NFTABLES, 'ipset DESTROY'])
    : new Set(['ipset CREATE', 'ipset ADD']);
  assert.deepEqual(
    Object.keys(others).filter((what) => !allowed.has(what)),
    [],
  );
  for (const [entry, count] of await connectionCounts())
    assert.ok(count >= (counts.get(entry) ?? Infinity), `${entry} was made anew`);
  await loads.assertNothingLost('takeover from kube-proxy');
});

step('SIGTERM and start', async () => {
  churn();
  await waitUntilConverged();
  const exit = await rig.stop();
  assert.equal(exit.code, 0);
  churn();
  await sleep(1000);
  await rig.start(config);
  await waitUntilConverged();
  await loads.assertNothingLost('SIGTERM and start');
});

step('kill -9 at random moments, changes under way', async () => {
  const moments: number[] = [];
  await rig.stop('SIGKILL');
  for (let i = 0; i < KILLS; i++) {
    const daemon = rig.launch(['--config', config]);
    // Half of them within start and adoption, half of them within the changes that follow.
    if (i % 2 === 1) await rig.adopt(daemon);
    churn();
    const moment = Math.round(Math.random() * (i % 2 === 1 ? 60 : 3000));
    moments.push(moment);
    await sleep(moment);
    await daemon.stop('SIGKILL');
  }
  console.log(`killed ${moments.join(', ')} ms after start or change`);
  await rig.start(config);
  await waitUntilConverged();
  await loads.assertNothingLost(`${KILLS + 1} x kill -9 and start`);
});

step('a second instance waits for the first to end, then takes over', async () => {
  const first = rig.daemon;
  const second = rig.launch(['--config', config]);
  await second.waitForLog('that it waits', ({ msg }) => msg.startsWith('another instance runs'));
  churn();
  await waitUntilConverged();
  assert.equal(
    second.log.some(({ msg }) => msg === 'started'),
    false,
  );
  const exit = await first.stop();
  assert.deepEqual(exit, { code: 0, signal: null });
  await rig.adopt(second);
  churn();
  await waitUntilConverged();
  await loads.assertNothingLost('two instances');
});

step('the API server goes away and comes back with changes', async () => {
  const { daemon } = rig;
  await rig.api.outage();
  churn();
  await sleep(3000);
  assert.equal(isRunning(daemon), true);
  assert.equal((await rig.health('/livez')).status, 200);
  await rig.api.recover();
  await waitUntilConverged();
  await loads.assertNothingLost('API server away');
});

step('the API server restarts with its history compacted: lists anew, nothing lost', async () => {
  const before = (await rig.scrape()).sum('kubeproxy_ipvs_relists_total');
  await rig.api.outage();
  churn();
  rig.api.compact();
  await rig.api.recover();
  await waitUntilConverged();
  const writes = await netlinkWrites(() => sleep(1500));
  assert.deepEqual(writes, {}, 'a list anew that changes nothing writes nothing');
  console.log(`lists taken anew: ${(await rig.scrape()).sum('kubeproxy_ipvs_relists_total') - before}`);
  await loads.assertNothingLost('history compacted');
});

function isRunning(daemon: Daemon): boolean {
  return daemon.exit === undefined;
}

step('the traffic of the whole test: nothing failed, nothing was reset', async () => {
  const all = await loads.stop();
  const { sent, asked, held } = sums(all);
  console.log(
    `restart: ${sent} new connections and ${asked} requests on ${held} long-lived ones, ${failures(all)} failed or reset`,
  );
  assert.equal(failures(all), 0);
  assert.equal(held, 35);
  assert.ok(sent > 2000 && asked > 1000, 'that was hardly any traffic');
});
