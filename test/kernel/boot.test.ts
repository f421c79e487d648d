/** The test kernel itself: IPVS is there, and packets go where ipvsadm says, before any of the product's code runs. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { type Protocol } from '../../src/values/protocol.js';
import { type Agent } from './harness/agent.js';
import { hasIpvs, ipvsRules, realServerWeights, shell } from './harness/kernel-state.js';
import { Lab, NODE } from './harness/lab.js';
import { waitUntil } from './harness/wait.js';
import { OTHER_NODE, OUTSIDE } from './harness/layout.js';

const VIP = '10.96.7.7';
const VIP6 = 'fd00:96::77';
const PROTOCOLS: readonly Protocol[] = ['TCP', 'UDP', 'SCTP'];
const FLAG = { TCP: '-t', UDP: '-u', SCTP: '--sctp-service' };
const BACKENDS = [
  { name: 'one', addresses: ['10.128.0.11', 'fd00:10:128::11'] },
  { name: 'two', addresses: ['10.128.0.12', 'fd00:10:128::12'] },
  { name: 'far', addresses: ['10.128.1.13', 'fd00:10:128:1::13'], place: 'other' as const },
];

let lab: Lab | undefined;
const hands = (): Agent => lab!.agent;

before(async () => {
  assert.ok(await hasIpvs(), 'this kernel has no ip_vs');
  lab = await Lab.create({
    pods: [{ name: 'client', addresses: ['10.128.0.10', 'fd00:10:128::10'] }, ...BACKENDS],
  });
  const script = [`ip link add kube-ipvs0 type dummy`, `ip addr add ${VIP}/32 dev kube-ipvs0`];
  script.push(`ip addr add ${VIP6}/128 dev kube-ipvs0 nodad`, `sysctl -qw net.ipv4.vs.conntrack=1`);
  for (const protocol of PROTOCOLS) {
    for (const [family, vip] of [VIP, `[${VIP6}]`].entries()) {
      script.push(`ipvsadm -A ${FLAG[protocol]} ${vip}:80 -s rr`);
      for (const { addresses } of BACKENDS) {
        const address = family === 0 ? addresses[0] : `[${addresses[1]}]`;
        script.push(`ipvsadm -a ${FLAG[protocol]} ${vip}:80 -r ${address}:8080 -m`);
      }
    }
  }
  script.push(`ipvsadm -A -t ${VIP}:81 -s rr`);
  await shell(script.join('\n'));
  for (const { name, addresses } of BACKENDS) {
    for (const protocol of PROTOCOLS) {
      for (const address of addresses) await hands().serve(name, { protocol, address, port: 8080, by: name });
    }
  }
});

after(() => lab?.close());

for (const protocol of PROTOCOLS) {
  for (const address of [VIP, VIP6]) {
    test(`${protocol} requests from a pod to ${address} go round all backends and show the pod's address`, async () => {
      const counts = await hands().many('client', 9, { protocol, address, port: 80 });
      assert.deepEqual(counts.failed, {});
      assert.deepEqual(counts.by, { one: 3, two: 3, far: 3 });
      assert.deepEqual(counts.seen, { [address === VIP ? '10.128.0.10' : 'fd00:10:128::10']: 9 });
    });
  }
}

test('a client on the node itself reaches a backend with the VIP as its source', async () => {
  const outcome = await hands().request(NODE, { protocol: 'TCP', address: VIP, port: 80 });
  assert.equal(outcome.result, 'answered');
  assert.equal(outcome.result === 'answered' && outcome.seen, VIP);
});

test('outside and other node reach the VIP through this node; without masquerading only local backends can answer', async () => {
  for (const place of [OUTSIDE, OTHER_NODE]) {
    const counts = await hands().many(place, 3, { protocol: 'TCP', address: VIP, port: 80, timeout: 500 });
    assert.deepEqual(counts.by, { one: 1, two: 1 }, place);
    assert.deepEqual(counts.failed, { timeout: 1 }, place);
  }
});

test('a virtual server without real servers refuses', async () => {
  const outcome = await hands().request('client', { protocol: 'TCP', address: VIP, port: 81, timeout: 3000 });
  assert.equal(outcome.result, 'refused');
});

test('a connection stays open across requests, and a stopped server refuses', async () => {
  const connection = await hands().open('client', { protocol: 'TCP', address: '10.128.0.11', port: 8080 });
  const answer = await connection.ask();
  assert.equal(answer.result === 'answered' && answer.by, 'one');
  await connection.close();
  await hands().unserve('one', { protocol: 'TCP', address: '10.128.0.11', port: 8080 });
  const refused = await hands().request('client', { protocol: 'TCP', address: '10.128.0.11', port: 8080 });
  assert.equal(refused.result, 'refused');
});

test('load: new and long-lived connections are counted, and none fails', async () => {
  const load = await hands().load('client', {
    protocol: 'TCP',
    address: '10.128.0.12',
    port: 8080,
    rate: 100,
    connections: 5,
    interval: 50,
  });
  await waitUntil('20 requests', async () => (await load.counts()).answered >= 20);
  const counts = await load.stop();
  assert.equal(counts.held, 5);
  assert.ok(counts.asked > 0);
  assert.deepEqual([counts.failed, counts.lost], [{}, {}]);
});

test('ping and ARP probes see who answers', async () => {
  for (const address of ['10.128.0.11', 'fd00:10:128::11', VIP]) {
    assert.equal((await hands().ping('client', { address })).result, 'answered', address);
  }
  assert.equal((await hands().ping('client', { address: '10.128.0.99', timeout: 300 })).result === 'answered', false);
  assert.equal((await hands().arp('router', { interface: 'br0', address: '10.200.0.2' })).result, 'answered');
  assert.equal(
    (await hands().arp('router', { interface: 'br0', address: '10.200.0.77', timeout: 200 })).result,
    'timeout',
  );
});

test('ipvsadm -Sn reads back sorted', async () => {
  const rules = await ipvsRules();
  assert.equal(rules.length, 7 + 18);
  const weights = await realServerWeights();
  assert.equal(weights.length, 18);
  assert.equal(weights.includes(`UDP ${VIP}:80 -> 10.128.1.13:8080 1`), true);
  assert.equal(weights.includes(`SCTP [${VIP6}]:80 -> [fd00:10:128:1::13]:8080 1`), true);
  assert.equal(rules[0], `-A --sctp-service ${VIP}:80 -s rr`);
});
