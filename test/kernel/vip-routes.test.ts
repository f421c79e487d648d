// test-kernel: timeout=900 seconds=35
/**
 * VIPs as routes: from kube-proxy's addresses to routes, to addresses and back under continuous traffic; what others do
 * to the routes is repaired at once, what they have of their own is left alone, and clean-up leaves nothing.
 */
import assert from 'node:assert/strict';
import { after, before } from 'node:test';
import { kubeIpvs0Addresses, shell } from './harness/kernel-state.js';
import { Lab } from './harness/lab.js';
import { Loads, failures } from './harness/loads.js';
import { patience, waitUntil } from './harness/wait.js';
import { Rig, fixtureCluster, fixtureLines } from './reliability-rig.js';
import { steps } from './reliability-steps.js';

const PODS = [
  { name: 'client', addresses: ['10.128.0.10'] },
  { name: 'web-near', addresses: ['10.128.0.11'] },
  { name: 'web-far', addresses: ['10.128.1.11'], place: 'other' as const },
];
const WEB = { protocol: 'TCP', address: '10.96.0.10', port: 80, timeout: patience(20_000) } as const;
const ADDRESSES = fixtureLines('kube-proxy-1.36/kube-ipvs0.txt');
/** Somebody else's: a whole range that is local, one of ours with a metric of his, and one by another protocol. */
const FOREIGN = [
  'local 10.77.0.0/24 dev lo table local',
  'local 10.96.0.10 dev lo table local metric 9',
  'local 10.78.0.1 dev eth0 table local proto 99',
];

const step = steps();
let lab: Lab;
let rig: Rig;
let routes: string;
let addresses: string;
let loads: Loads;

before(async () => {
  lab = await Lab.create({ pods: PODS });
  const serving = PODS.slice(1).map(({ name, addresses: [address] }) =>
    lab.agent.serve(name, { protocol: 'TCP', port: 8080, address: address!, by: name }),
  );
  await Promise.all(serving);
  rig = await Rig.create(fixtureCluster());
  routes = rig.config({ kubeProxyIpvs: { vips: 'routes' } });
  addresses = rig.config();
  await shell(FOREIGN.map((route) => `ip route add ${route}`).join('\n'));
});

after(async () => {
  await rig.close();
  lab.close();
});

/** Addresses of the routes by our protocol, in the form of kubeIpvs0Addresses. */
async function vipRoutes(): Promise<string[]> {
  const text = await shell('ip -4 route show table local proto 75; ip -6 route show table local proto 75');
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const [, address = ''] = /^local (\S+) dev lo /.exec(line) ?? assert.fail(line);
      return address.includes(':') ? `inet6 ${address}/128` : `inet ${address}/32`;
    })
    .sort();
}

async function foreignRoutes(): Promise<string[]> {
  const lines = (await shell('ip route show table local')).split('\n').map((line) => line.trim());
  return lines.filter((line) => /^local (10\.7[78]\.|10\.96\.0\.10 .*metric 9)/.test(line)).sort();
}

async function startTraffic(): Promise<void> {
  loads = new Loads({ web: await lab.agent.load('client', { ...WEB, rate: 100, connections: 10, interval: 200 }) });
}

async function stopTraffic(): Promise<void> {
  const counts = await loads.stop();
  assert.equal(failures(counts), 0, JSON.stringify(counts));
}

async function driftOf(object: string, kind: string): Promise<number> {
  return (await rig.scrape()).drift(object, kind);
}

step('addresses as kube-proxy has them', async () => {
  await rig.start(addresses);
  await rig.waitForRules();
  assert.deepEqual(await kubeIpvs0Addresses(), ADDRESSES);
  assert.deepEqual(await vipRoutes(), []);
  await startTraffic();
  await loads.assertNothingLost('addresses as kube-proxy has them');
});

step('become routes at a restart, and addresses again, without a request lost', async () => {
  for (const form of ['routes', 'addresses', 'routes'] as const) {
    await rig.stop();
    await rig.start(form === 'routes' ? routes : addresses);
    await waitUntil(`all VIPs as ${form}`, async () => {
      const [bound, routed] = [await kubeIpvs0Addresses(), await vipRoutes()];
      const [there, gone] = form === 'routes' ? [routed, bound] : [bound, routed];
      return gone.length === 0 && String(there) === String(ADDRESSES);
    });
    await loads.assertNothingLost(`VIPs as ${form}`);
    await rig.waitUntilVerified(form === 'routes' ? routes : addresses);
    assert.equal(await driftOf('address', 'missing'), 0);
    assert.equal((await foreignRoutes()).length, FOREIGN.length);
  }
});

step('the other form is what plan would remove', async () => {
  const { code, output } = await rig.command('plan', '--config', addresses);
  assert.equal(code, 0, output);
  assert.match(output, /delete address 10\.96\.0\.10 on lo/);
  assert.match(output, new RegExp(`plan: ${ADDRESSES.length} to add, 0 to change, ${ADDRESSES.length} to delete`));
});

step('a route that is deleted, or whose place is taken, is repaired at once', async () => {
  const before = await driftOf('address', 'missing');
  await shell(`ip route del local 10.96.0.10 dev lo table local proto 75 metric 75
    ip route replace blackhole 10.96.0.11 table local metric 75
    ip -6 route del local ${ADDRESSES.find((line) => line.includes(':'))!.split(/[ /]/)[1]} dev lo table local proto 75`);
  await waitUntil('the routes', async () => String(await vipRoutes()) === String(ADDRESSES));
  await waitUntil('the metric', async () => (await driftOf('address', 'missing')) === before + 3);
  assert.doesNotMatch(await shell('ip route show table local'), /blackhole/);
});

step("thousands of somebody else's routes are no news", async () => {
  const before = await rig.scrape();
  const lines = '{ printf "route add 172.16.%d.%d/32 dev eth0 proto 186\\n", $1 / 256, $1 % 256 }';
  await shell(`seq 0 4999 | awk '${lines}' | ip -batch -\nip route flush proto 186`);
  const after = await rig.scrape();
  const messages = 'kubeproxy_ipvs_netlink_messages_total';
  assert.ok(after.sum(messages) - before.sum(messages) < 100);
  assert.doesNotMatch(rig.daemon.tail(50), /events were lost/);
});

step('all of lo flushed is found and repaired', async () => {
  await stopTraffic();
  await shell('ip -4 addr flush dev lo; ip addr add 127.0.0.1/8 dev lo');
  await waitUntil('the routes', async () => String(await vipRoutes()) === String(ADDRESSES));
  for (const route of FOREIGN.filter((line) => line.includes('dev lo'))) await shell(`ip route add ${route}`);
  await startTraffic();
});

step('way back: kube-proxy binds its addresses, and cleanup --own-only takes the routes', async () => {
  await rig.stop();
  const lines = ADDRESSES.map((line) => {
    const [family, address] = line.split(' ');
    return `addr add ${address} dev kube-ipvs0${family === 'inet6' ? ' nodad' : ''}`;
  });
  await shell(`ip -batch - <<'END'\n${lines.join('\n')}\nEND`);
  const { output } = await rig.command('cleanup', '--own-only', '--config', routes);
  assert.deepEqual(await vipRoutes(), [], output);
  assert.deepEqual(await kubeIpvs0Addresses(), ADDRESSES);
  await loads.assertNothingLost('kube-proxy again');
});

step('clean-up takes both and leaves what is not ours', async () => {
  await rig.start(routes);
  await waitUntil('the routes', async () => String(await vipRoutes()) === String(ADDRESSES));
  await rig.stop();
  await stopTraffic();
  const { code, output } = await rig.command('cleanup', '--config', routes);
  assert.equal(code, 0, output);
  assert.deepEqual([await vipRoutes(), await kubeIpvs0Addresses()], [[], []]);
  assert.equal((await foreignRoutes()).length, FOREIGN.length);
});
