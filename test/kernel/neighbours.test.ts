// test-kernel: timeout=600
/**
 * Beside what else lives on a node: NodeLocal DNSCache, a load balancer that answers ARP in layer 2 (MetalLB,
 * kube-vip's services), and one that puts the VIP on the node's own link (keepalived, kube-vip's control plane). Their
 * state is made by hand as their documentation has it, and so are the rules of flannel; systemd-networkd is the real
 * program. What counts is the kernel's state and the packets.
 */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { kubeIpvs0Addresses, shell } from './harness/kernel-state.js';
import { Lab, NODE } from './harness/lab.js';
import { OTHER_NODE, ROUTER } from './harness/layout.js';
import { Networkd, networkdMissing } from './harness/networkd.js';
import { waitUntil } from './harness/wait.js';
import { type ServiceSpec, endpointSlice, node, service } from './reliability-objects.js';
import { Rig } from './reliability-rig.js';
import { steps } from './reliability-steps.js';

const DNS: ServiceSpec = { name: 'kube-dns', address: '10.96.0.10', port: 53, protocol: 'UDP', targetPort: 53 };
const LB: ServiceSpec = { name: 'lb', address: '10.96.0.20', port: 80, nodePort: 30080 };
const [CACHE, VIP] = ['169.254.20.10', '10.200.0.50'] as const;
const [DNS_POD, WEB_POD] = ['10.128.0.53', '10.128.0.11'] as const;

const step = steps();
const networkd = new Networkd();
let lab: Lab;
let rig: Rig;
let config: string;

before(async () => {
  lab = await Lab.create({
    pods: [
      { name: 'client', addresses: ['10.128.0.10'] },
      { name: 'dns', addresses: [DNS_POD] },
      { name: 'web', addresses: [WEB_POD] },
    ],
  });
  await lab.agent.serve('dns', { protocol: 'UDP', address: DNS_POD, port: 53, by: 'coredns' });
  await lab.agent.serve('web', { protocol: 'TCP', address: WEB_POD, port: 8080, by: 'web' });
  await shell(
    `ip link add nodelocaldns type dummy; ip addr add ${CACHE}/32 dev nodelocaldns; ip link set nodelocaldns up`,
  );
  await lab.agent.serve(NODE, { protocol: 'UDP', address: CACHE, port: 53, by: 'cache' });
  rig = await Rig.create([node(), service(DNS), endpointSlice(DNS, [DNS_POD]), balanced(), local()]);
  config = rig.config();
  await rig.start(config);
  await rig.waitForRules();
});

after(async () => {
  await networkd.stop();
  await rig.close();
  lab.close();
});

/** A load balancer's VIP in the nodes' own network, with the policy that keeps the client's address. */
function balanced(): object {
  const base = service(LB) as { spec: object };
  return {
    ...base,
    spec: { ...base.spec, type: 'LoadBalancer', externalTrafficPolicy: 'Local', healthCheckNodePort: 32000 },
    status: { loadBalancer: { ingress: [{ ip: VIP }] } },
  };
}

function local(): object {
  const slice = endpointSlice(LB, [WEB_POD]) as { endpoints: object[] };
  return { ...slice, endpoints: slice.endpoints.map((endpoint) => ({ ...endpoint, nodeName: 'node-0' })) };
}

async function answers(from: string, address: string, by: string, target: ServiceSpec): Promise<void> {
  const { port, protocol = 'TCP' } = target;
  const outcome = await lab.agent.request(from, { protocol, address, port, timeout: 3000 });
  assert.deepEqual([outcome.result, 'by' in outcome ? outcome.by : ''], ['answered', by], `${from} -> ${address}`);
}

async function isBound(address: string): Promise<boolean> {
  return (await kubeIpvs0Addresses()).some((line) => line.startsWith(`inet ${address}/`));
}

step(
  'NodeLocal DNSCache with its own address: pods reach it and the DNS Service, and its link is left alone',
  async () => {
    await answers('client', CACHE, 'cache', DNS);
    await answers('client', DNS.address, 'coredns', DNS);
    await answers(NODE, CACHE, 'cache', DNS);
    await rig.waitUntilVerified(config);
    assert.match(await shell('ip -o addr show dev nodelocaldns'), /inet 169\.254\.20\.10\/32/);
  },
);

step(
  'with the cluster IP on its link, too, the Service goes on by IPVS past the cache, and comes back whole',
  async () => {
    await shell(`ip addr add ${DNS.address}/32 dev nodelocaldns`);
    await waitUntil('the address to leave kube-ipvs0', async () => !(await isBound(DNS.address)));
    await answers('client', DNS.address, 'coredns', DNS);
    await rig.waitUntilVerified(config);
    assert.match(await shell('ip -o addr show dev nodelocaldns'), /inet 10\.96\.0\.10\/32/, 'it is not ours to remove');
    await shell('ip link del nodelocaldns');
    await waitUntil('the address to come back', () => isBound(DNS.address));
    await answers('client', DNS.address, 'coredns', DNS);
  },
);

step('without strictARP this node answers ARP for a VIP in its own network', async () => {
  const answer = await lab.agent.arp(OTHER_NODE, { interface: 'eth0', address: VIP, timeout: 2000 });
  assert.equal(answer.result, 'answered');
});

step('with strictARP only the speaker does: what it attracts is served, with the address of the client', async () => {
  await rig.stop();
  config = rig.config({}, { strictARP: true });
  await rig.start(config);
  const silence = await lab.agent.arp(OTHER_NODE, { interface: 'eth0', address: VIP, timeout: 2000 });
  assert.equal(silence.result, 'timeout');
  // What the speaker's answer makes of the client's neighbour table.
  await shell(`mac=$(cat /sys/class/net/eth0/address)
    ip -n ${ROUTER} neigh replace ${VIP} lladdr $mac dev br0 nud permanent`);
  const outcome = await lab.agent.request(ROUTER, { protocol: 'TCP', address: VIP, port: 80, timeout: 3000 });
  assert.deepEqual(outcome.result === 'answered' && [outcome.by, outcome.seen], ['web', '10.200.0.1']);
});

step("a VIP that moves onto the node's own link and away again is served all the time, and not taken", async () => {
  await shell(`ip addr add ${VIP}/32 dev eth0`);
  await waitUntil('the address to leave kube-ipvs0', async () => !(await isBound(VIP)));
  await answers(ROUTER, VIP, 'web', LB);
  const answer = await lab.agent.arp(OTHER_NODE, { interface: 'eth0', address: VIP, timeout: 2000 });
  assert.equal(answer.result, 'answered', 'it is on that very link now');
  await rig.waitUntilVerified(config);
  await shell(`ip addr del ${VIP}/32 dev eth0`);
  await waitUntil('the address to come back', () => isBound(VIP));
  await answers(ROUTER, VIP, 'web', LB);
});

/** What flannel 0.2x writes for IPv4, with its comments left out. */
const FLANNEL = `*nat
:FLANNEL-POSTRTG - [0:0]
-A POSTROUTING -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -j RETURN
-A FLANNEL-POSTRTG -s 10.128.0.0/24 -d 10.128.0.0/9 -j RETURN
-A FLANNEL-POSTRTG -s 10.128.0.0/9 -d 10.128.0.0/24 -j RETURN
-A FLANNEL-POSTRTG ! -s 10.128.0.0/9 -d 10.128.0.0/24 -j RETURN
-A FLANNEL-POSTRTG -s 10.128.0.0/9 ! -d 224.0.0.0/4 -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s 10.128.0.0/9 -d 10.128.0.0/9 -j MASQUERADE --random-fully
COMMIT
*filter
:FLANNEL-FWD - [0:0]
-A FORWARD -j FLANNEL-FWD
-A FLANNEL-FWD -s 10.128.0.0/9 -j ACCEPT
-A FLANNEL-FWD -d 10.128.0.0/9 -j ACCEPT
COMMIT`;

step(
  "flannel's rules and ours: clients keep their addresses where they should, and nobody's rules change",
  async () => {
    const theirs = (): Promise<string> =>
      shell('for table in nat filter; do $IPTABLES-save -t $table; done | grep -- "-A .*FLANNEL"');
    await shell(`$IPTABLES-restore -n <<'END'\n${FLANNEL}\nEND`);
    const before = await theirs();
    const seen = async (from: string, address: string, port: number): Promise<string> => {
      const outcome = await lab.agent.request(from, { protocol: 'TCP', address, port, timeout: 3000 });
      return outcome.result === 'answered' ? String(outcome.seen) : outcome.result;
    };
    assert.equal(await seen('client', LB.address, 80), '10.128.0.10', 'a pod');
    assert.equal(await seen(ROUTER, VIP, 80), '10.200.0.1', 'from outside, policy Local');
    const met = await shell('$IPTABLES-save -c -t nat | grep -- "-A FLANNEL-POSTRTG .*RETURN"');
    assert.match(met, /^\[[1-9]\d*:\d+\] .* -s 10\.128\.0\.0\/24 -d 10\.128\.0\.0\/9/m, 'the pod met their rules');
    await rig.waitUntilVerified(config);
    assert.equal(await theirs(), before);
  },
);

/** Every link whose name begins so, as a file for all links does it; the lab's own are left out. */
const ALL_LINKS = { 'network/50-all.network': '[Match]\nName=kube-*\n[Network]\nLinkLocalAddressing=no' };
/** A file for lo, as people have it who announce an address of the node by BGP. */
const LOOPBACK = { 'network/20-lo.network': '[Match]\nName=lo\n[Network]\nAddress=192.0.2.77/32' };
const REMOVES = /^(kube-ipvs0|lo): Removing foreign/m;

const missing = networkdMissing();
if (missing !== undefined) test(`systemd-networkd: NOT RUN, ${missing}`, { skip: true });
else besideNetworkd();

function besideNetworkd(): void {
  const repaired = async (): Promise<number> => (await rig.scrape()).drift('address', 'missing');
  const isRouted = async (): Promise<boolean> =>
    (await shell('ip route show table local proto 75')).includes(`local ${DNS.address} dev lo`);

  /** What `preflight` says of the links: [state, detail] of each line. */
  const links = async (): Promise<string[][]> => {
    const { output } = await rig.command('preflight', '--config', config);
    return [...output.matchAll(/^(\w+) +links: (.*)$/gm)].map(([, state = '', detail = '']) => [state, detail]);
  };

  step('systemd-networkd without a file for kube-ipvs0 leaves it alone', async () => {
    assert.deepEqual(
      (await links()).map(([state, detail]) => [state, /neither .* is seen/.test(detail!)]),
      [['ok', true]],
    );
    await networkd.start(['kube-ipvs0'], {});
    assert.doesNotMatch(networkd.log, REMOVES);
    assert.deepEqual(await links(), [['ok', 'systemd-networkd leaves kube-ipvs0 alone']]);
    await networkd.stop();
    assert.equal(await repaired(), 0);
  });

  step('with one that matches it takes the VIPs away at its start; they are back at once', async () => {
    await networkd.start(['kube-ipvs0'], ALL_LINKS);
    assert.match(networkd.log, /^kube-ipvs0: Removing foreign address .*10\.96\.0\.10\/32/m);
    await waitUntil('the repair to be counted', async () => (await repaired()) >= 3);
    for (const address of [DNS.address, LB.address, VIP]) assert.ok(await isBound(address), address);
    await answers('client', DNS.address, 'coredns', DNS);
    const [[state, detail] = []] = await links();
    assert.equal(state, 'WARN');
    assert.match(
      detail!,
      /^systemd-networkd manages kube-ipvs0 by \/run\/systemd\/network\/50-all\.network .*Unmanaged=yes into \/etc\/.*10-kube-ipvs0/,
    );
    await networkd.stop();
  });

  step('with Unmanaged=yes for kube-ipvs0 it does not', async () => {
    const before = await repaired();
    const own = { 'network/10-kube-ipvs0.network': '[Match]\nName=kube-ipvs0\n[Link]\nUnmanaged=yes' };
    await networkd.start(['kube-ipvs0'], { ...ALL_LINKS, ...own });
    assert.doesNotMatch(networkd.log, REMOVES);
    assert.deepEqual(await links(), [['ok', 'systemd-networkd leaves kube-ipvs0 alone']]);
    await networkd.stop();
    assert.equal(await repaired(), before);
  });

  step('VIPs as routes: a file for lo may cost them (systemd 257), not with ManageForeignRoutes=no', async () => {
    await rig.stop();
    config = rig.config({ kubeProxyIpvs: { vips: 'routes' } });
    await rig.start(config);
    await networkd.start(['lo'], LOOPBACK);
    const removes = REMOVES.test(networkd.log);
    console.log(`networkd ${removes ? 'removes' : 'keeps'} the routes of VIPs on lo`);
    await waitUntil('the repair to be counted', async () => (await repaired()) === (removes ? 3 : 0));
    await waitUntil('the routes', isRouted);
    await answers('client', DNS.address, 'coredns', DNS);
    assert.match(
      (await links()).join(),
      /^WARN,systemd-networkd manages lo by .*20-lo\.network .*ManageForeignRoutes=no/,
    );
    await networkd.stop();
    const before = await repaired();
    const keep = { 'networkd.conf.d/keep.conf': '[Network]\nManageForeignRoutes=no' };
    await networkd.start(['lo'], { ...LOOPBACK, ...keep });
    assert.doesNotMatch(networkd.log, REMOVES);
    assert.deepEqual(await links(), [['ok', 'systemd-networkd leaves lo alone']]);
    await networkd.stop();
    assert.equal(await repaired(), before);
    assert.ok(await isRouted());
  });
}
