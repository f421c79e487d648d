/** What Services put into the ipsets; golden.test.ts compares whole sets with kube-proxy's. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import {
  allIpsetDefinitions,
  OWN_IPSET_ROLES,
  ipsetDefinitions,
  ipsetName,
} from '../../../src/desired/ipset-definitions.js';
import { type Fields, TestCluster, type TestEndpoint } from '../../support/desired-cluster.js';

const FIXTURES = new URL('../../../../test/fixtures/', import.meta.url);
const definitions = allIpsetDefinitions();
const HERE = { ip: '10.128.0.7', node: 'node-0' };
const ELSEWHERE = '10.128.1.7';
const INGRESS = { ingress: [{ ip: '192.0.2.1' }] };
/** Reachable in every way. */
const EXPOSED = { type: 'LoadBalancer', externalIPs: ['198.51.100.1'], ports: [{ port: 80, nodePort: 30001 }] };

/** Entries of one IPv4 set for one Service, `10.96.0.1,tcp:80`. */
async function entriesIn(
  role: string,
  spec: Fields,
  endpoints: Parameters<TestCluster['slice']>[1] = [HERE],
  more: Parameters<TestCluster['service']>[2] = INGRESS,
): Promise<string[]> {
  const cluster = new TestCluster({ families: [4] });
  cluster.service('web', spec, more);
  cluster.slice('web', endpoints);
  const prefix = `KUBE-${role} `;
  const entries = await cluster.entries(`KUBE-${role}`);
  return entries.filter((entry) => entry.startsWith(prefix)).map((entry) => entry.slice(prefix.length));
}

test('the sets of kube-proxy 1.36 have its names and types, and only two are ours', () => {
  const own = new Set(OWN_IPSET_ROLES.flatMap((role) => [ipsetName(4, role), ipsetName(6, role)] as string[]));
  const lines = [...ipsetDefinitions(4), ...ipsetDefinitions(6)]
    .filter((one) => !own.has(one.name))
    .map(({ name, type, family }) => {
      const detail = type === 'bitmap:port' ? 'range 0-65535' : `family ${family === 4 ? 'inet' : 'inet6'}`;
      return `create ${name} ${type} ${detail}`;
    });
  const recorded = readFileSync(new URL('kube-proxy-1.36/ipset-create.txt', FIXTURES), 'utf8').trim().split('\n');
  assert.deepEqual(lines.sort(), recorded.sort());
  assert.equal(own.size, 4);
  assert.ok([...definitions.keys()].every((name) => name.length <= 31));
});

test('no endpoints: every address of the port refuses', async () => {
  const all = ['10.200.0.2,tcp:30001', '10.96.0.1,tcp:80', '192.0.2.1,tcp:80', '198.51.100.1,tcp:80'];
  const local = { ...EXPOSED, externalTrafficPolicy: 'Local', internalTrafficPolicy: 'Local' };
  for (const spec of [EXPOSED, local]) {
    assert.deepEqual(await entriesIn('NO-ENDPOINTS', spec, []), all);
    assert.deepEqual(await entriesIn('NO-LOCAL-ENDPOINTS', spec, []), []);
  }
});

test('external policy Local without local endpoints names the external addresses only', async () => {
  const spec = { ...EXPOSED, externalTrafficPolicy: 'Local' };
  const external = ['10.200.0.2,tcp:30001', '192.0.2.1,tcp:80', '198.51.100.1,tcp:80'];
  assert.deepEqual(await entriesIn('NO-LOCAL-ENDPOINTS', spec, [ELSEWHERE]), external);
  assert.deepEqual(await entriesIn('NO-ENDPOINTS', spec, [ELSEWHERE]), []);
  assert.deepEqual(await entriesIn('NO-LOCAL-ENDPOINTS', spec, [ELSEWHERE, HERE]), []);
});

test('internal policy Local without local endpoints refuses at the ClusterIP, also when the table holds cluster endpoints', async () => {
  const spec = { internalTrafficPolicy: 'Local' };
  assert.deepEqual(await entriesIn('NO-ENDPOINTS', { ...EXPOSED, ...spec }, [ELSEWHERE]), ['10.96.0.1,tcp:80']);
  assert.deepEqual(await entriesIn('NO-LOCAL-ENDPOINTS', { ...EXPOSED, ...spec }, [ELSEWHERE]), ['10.96.0.1,tcp:80']);
  assert.deepEqual(await entriesIn('NO-ENDPOINTS', spec, [ELSEWHERE], {}), ['10.96.0.1,tcp:80']);
  assert.deepEqual(await entriesIn('NO-LOCAL-ENDPOINTS', spec, [ELSEWHERE], {}), []);
});

test('source ranges bind the load balancer’s address; the node itself is asked through its VIP', async () => {
  const spec = { ...EXPOSED, loadBalancerSourceRanges: ['203.0.113.0/24', '10.200.0.0/16'] };
  assert.deepEqual(await entriesIn('LOAD-BALANCER-FW', spec), ['192.0.2.1,tcp:80']);
  const ranges = ['192.0.2.1,tcp:80,10.200.0.0/16', '192.0.2.1,tcp:80,203.0.113.0/24'];
  assert.deepEqual(await entriesIn('LOAD-BALANCER-SOURCE-CIDR', spec), ranges);
  assert.deepEqual(await entriesIn('LOAD-BALANCER-SOURCE-IP', spec), ['192.0.2.1,tcp:80,192.0.2.1']);
  const others = { ...spec, loadBalancerSourceRanges: ['203.0.113.0/24'] };
  assert.deepEqual(await entriesIn('LOAD-BALANCER-SOURCE-IP', others), []);
});

test('source ranges count per family: none, or everybody, leaves it open; what cannot be read closes it', async () => {
  const restricted = async (...loadBalancerSourceRanges: string[]): Promise<string> => {
    const cluster = new TestCluster();
    const clusterIPs = ['10.96.0.1', 'fd00:96::1'];
    const ingress = [{ ip: '192.0.2.1' }, { ip: '2001:db8::1' }];
    cluster.service('web', { ...EXPOSED, clusterIPs, loadBalancerSourceRanges }, { ingress });
    const entries = await cluster.entries('LOAD-BALANCER-FW');
    return entries.map((entry) => (entry.startsWith('KUBE-6-') ? 'IPv6' : 'IPv4')).join(' ');
  };
  assert.equal(await restricted(), '');
  assert.equal(await restricted('10.0.0.0/8'), 'IPv4');
  assert.equal(await restricted('fd00::/8'), 'IPv6');
  assert.equal(await restricted('fd00::/8', '10.0.0.0/8'), 'IPv6 IPv4');
  assert.equal(await restricted('0.0.0.0/0'), '');
  assert.equal(await restricted('10.0.0.0/8', '0.0.0.0/0', 'fd00::/8'), 'IPv6');
  assert.equal(await restricted('everybody'), 'IPv6 IPv4');
  assert.equal(await restricted('everybody', '10.0.0.0/8'), 'IPv4');
  assert.equal(await restricted('2001:db8::/129', '10.0.0.0/8'), 'IPv6 IPv4');
  assert.equal(await restricted('10.0.0.0/33', '::/0'), 'IPv4');
});

test('an address of the node itself is no VIP', async () => {
  const spec = { ...EXPOSED, externalIPs: ['10.200.0.2'] };
  assert.deepEqual(await entriesIn('IPVS-IPS', spec), ['10.96.0.1', '192.0.2.1']);
});

test('SCTP NodePorts are kept by address, the others by port', async () => {
  const spec = (protocol: string): Fields => ({
    ...EXPOSED,
    externalTrafficPolicy: 'Local',
    ports: [{ port: 80, nodePort: 30001, protocol }],
  });
  assert.deepEqual(await entriesIn('NODE-PORT-UDP', spec('UDP')), ['30001']);
  assert.deepEqual(await entriesIn('NODE-PORT-LOCAL-UDP', spec('UDP')), ['30001']);
  assert.deepEqual(await entriesIn('NODE-PORT-SCTP-HASH', spec('SCTP')), ['10.200.0.2,sctp:30001']);
  assert.deepEqual(await entriesIn('NODE-PORT-LOCAL-SCTP-HASH', spec('SCTP')), ['10.200.0.2,sctp:30001']);
  const cluster = new TestCluster({ families: [4] });
  cluster.local('127.0.0.1');
  cluster.service('web', EXPOSED);
  assert.deepEqual(await cluster.entries('NODE-PORT'), []);
});

test('local endpoints are in the hairpin set with the endpoint’s own port', async () => {
  const spec = { ...EXPOSED, externalTrafficPolicy: 'Local', healthCheckNodePort: 32000 };
  assert.deepEqual(await entriesIn('LOOP-BACK', spec, [HERE, ELSEWHERE]), ['10.128.0.7,tcp:8080,10.128.0.7']);
  assert.deepEqual(await entriesIn('HEALTH-CHECK-NODE-PORT', spec), ['32000']);
});

test('a Service whose Local policy finds nothing here counts once per family, whatever the number of its ports', async () => {
  const cluster = new TestCluster();
  const slicePorts = ['a', 'b', 'c'].map((name, i) => ({ name, port: 8080 + i, protocol: 'TCP' }));
  const both = {
    ...{ type: 'NodePort', externalTrafficPolicy: 'Local', internalTrafficPolicy: 'Local' },
    ports: slicePorts.map(({ name }, i) => ({ name, port: 80 + i, nodePort: 30001 + i })),
    clusterIPs: ['10.96.0.1', 'fd00:96::1'],
  };
  cluster.service('web', both);
  cluster.slice('web', [ELSEWHERE], { ports: slicePorts });
  cluster.service('other', { ...both, clusterIPs: ['10.96.0.2', 'fd00:96::2'], externalTrafficPolicy: 'Cluster' });
  cluster.slice('other', [ELSEWHERE], { ports: slicePorts });
  await cluster.update();
  const { desired } = cluster.updater;
  assert.deepEqual(desired.withoutLocal(4), { internal: 2, external: 1 });
  assert.deepEqual(desired.withoutLocal(6), { internal: 0, external: 0 });
  cluster.slice('web', [ELSEWHERE, HERE], { ports: slicePorts.slice(0, 1) }); // of two ports nothing is left at all
  await cluster.update();
  assert.deepEqual(desired.withoutLocal(4), { internal: 1, external: 0 });
});

test('whether a Service is reached from outside is asked family by family', async () => {
  for (const [externalIPs, balancers, counts] of [
    [['192.0.2.1'], [], [1, 0]],
    [['2001:db8::1'], [], [0, 1]],
    [[], ['192.0.2.1'], [1, 0]],
    [[], ['2001:db8::1'], [0, 1]],
    [['2001:db8::1'], ['192.0.2.1'], [1, 1]],
  ] as const) {
    const cluster = new TestCluster();
    const spec = { type: 'LoadBalancer', externalTrafficPolicy: 'Local', clusterIPs: ['10.96.0.1', 'fd00:96::1'] };
    cluster.service('web', { ...spec, externalIPs }, { ingress: balancers.map((ip) => ({ ip })) });
    cluster.slice('web', ['10.0.0.2'], { name: 'four' });
    cluster.slice('web', ['fd00::2'], { name: 'six' });
    await cluster.update();
    const { desired } = cluster.updater;
    assert.deepEqual([desired.withoutLocal(4).external, desired.withoutLocal(6).external], counts);
  }
});

test('the health check counts the ready endpoints of this node: in each family, and the larger number', async () => {
  const cluster = new TestCluster();
  const clusterIPs = ['10.96.0.1', 'fd00:96::1'];
  const policy = { externalTrafficPolicy: 'Local', healthCheckNodePort: 32000 };
  cluster.service('web', { type: 'LoadBalancer', clusterIPs, ...policy });
  const here = (ip: string): TestEndpoint => ({ ip, node: 'node-0' });
  const cases: [(string | TestEndpoint)[], (string | TestEndpoint)[], number][] = [
    [['10.0.0.1'], ['fd00::1'], 0],
    [['10.0.0.1', here('10.0.0.2')], ['fd00::1'], 1],
    [[{ ...here('10.0.0.2'), ready: false }], ['fd00::1'], 0],
    [[here('10.0.0.2')], [here('fd00::2')], 1],
    [[here('10.0.0.2')], [here('fd00::2'), here('fd00::3'), here('fd00::4')], 3],
  ];
  for (const [four, six, count] of cases) {
    cluster.slice('web', four, { name: 'four' });
    cluster.slice('web', six, { name: 'six' });
    await cluster.update();
    const { healthCheck } = cluster.updater.desired.services.get('default/web')!;
    assert.deepEqual(healthCheck, { port: 32000, localEndpoints: count }, JSON.stringify([four, six]));
  }
});
