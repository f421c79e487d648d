/** Which endpoints traffic goes to: kube-proxy 1.36's rules, one test each. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type Fields, TERMINATING, TestCluster, type TestEndpoint, backends } from '../../support/desired-cluster.js';

const here = (ip: string, more: Omit<TestEndpoint, 'ip'> = {}): TestEndpoint => ({ ip, node: 'node-0', ...more });
const there = (ip: string, more: Omit<TestEndpoint, 'ip'> = {}): TestEndpoint => ({ ip, ...more });
const unready = { ready: false, serving: false };

describe('of the endpoints', () => {
  test('the ready ones are used', async () => {
    assert.equal(await backends(['10.0.0.1', there('10.0.0.2', unready), '10.0.0.3']), '10.0.0.1 10.0.0.3');
  });

  test('serving ones that terminate are used when none is ready, and only then', async () => {
    assert.equal(await backends(['10.0.0.1', there('10.0.0.2', TERMINATING)]), '10.0.0.1');
    assert.equal(await backends([there('10.0.0.1', unready), there('10.0.0.2', TERMINATING)]), '10.0.0.2');
  });

  test('none is used that serves without being ready or terminating', async () => {
    assert.equal(await backends([there('10.0.0.1', { ready: false, serving: true })]), '');
  });

  test('none is used that terminates and serves no more', async () => {
    assert.equal(await backends([there('10.0.0.1', { ready: false, serving: false, terminating: true })]), '');
  });

  test('a ready one that terminates is used: publishNotReadyAddresses sets both', async () => {
    assert.equal(await backends([there('10.0.0.1', { ready: true, serving: true, terminating: true })]), '10.0.0.1');
  });

  test('a Service without any still has its virtual server, so that it refuses', async () => {
    const cluster = new TestCluster();
    cluster.service('web');
    assert.deepEqual(await cluster.table(), ['TCP 10.96.0.1:80 ->']);
    assert.deepEqual(await cluster.entries('KUBE-NO-ENDPOINTS'), ['KUBE-NO-ENDPOINTS 10.96.0.1,tcp:80']);
    cluster.slice('web', ['10.0.0.1']);
    assert.deepEqual(await cluster.entries('KUBE-NO-ENDPOINTS'), []);
  });
});

describe('hints', () => {
  const inZone = (ip: string, ...zones: string[]): TestEndpoint => there(ip, { zones });
  const onNode = (ip: string, ...nodes: string[]): TestEndpoint => there(ip, { nodes });

  test('for zones keep traffic in ours', async () => {
    assert.equal(await backends([inZone('10.0.0.1', 'a'), inZone('10.0.0.2', 'b')]), '10.0.0.1');
    assert.equal(await backends([inZone('10.0.0.1', 'b', 'a'), inZone('10.0.0.2', 'b')]), '10.0.0.1');
  });

  test('for zones are ignored when one ready endpoint has none', async () => {
    assert.equal(await backends([inZone('10.0.0.1', 'a'), there('10.0.0.2')]), '10.0.0.1 10.0.0.2');
  });

  test('for zones are ignored when none is for ours', async () => {
    assert.equal(await backends([inZone('10.0.0.1', 'b'), inZone('10.0.0.2', 'c')]), '10.0.0.1 10.0.0.2');
  });

  test('for zones do not matter on endpoints that are not ready', async () => {
    const [a, b] = [inZone('10.0.0.1', 'a'), inZone('10.0.0.2', 'b')];
    assert.equal(await backends([a, b, there('10.0.0.3', unready)]), '10.0.0.1');
    assert.equal(await backends([{ ...a, ...unready }, b]), '10.0.0.2');
  });

  test('for zones are ignored on a node without a zone', async () => {
    const cluster = new TestCluster();
    cluster.node({ zone: '', addresses: ['10.200.0.2'] });
    cluster.service('web');
    cluster.slice('web', [inZone('10.0.0.1', 'a'), inZone('10.0.0.2', 'b')]);
    assert.deepEqual(await cluster.table(), ['TCP 10.96.0.1:80 -> 10.0.0.1:8080 10.0.0.2:8080']);
    cluster.node({ zone: 'b', addresses: ['10.200.0.2'] });
    assert.deepEqual(await cluster.table(), ['TCP 10.96.0.1:80 -> 10.0.0.2:8080']);
  });

  test('for nodes go before those for zones', async () => {
    const both = there('10.0.0.1', { nodes: ['node-0'], zones: ['b'] });
    assert.equal(await backends([both, there('10.0.0.2', { nodes: ['node-1'], zones: ['a'] })]), '10.0.0.1');
  });

  test('for nodes fall back to those for zones when none is for this node', async () => {
    const near = there('10.0.0.1', { nodes: ['node-7'], zones: ['a'] });
    assert.equal(await backends([near, there('10.0.0.2', { nodes: ['node-1'], zones: ['b'] })]), '10.0.0.1');
  });

  test('for nodes are ignored when one ready endpoint has none', async () => {
    assert.equal(await backends([onNode('10.0.0.1', 'node-0'), there('10.0.0.2')]), '10.0.0.1 10.0.0.2');
  });

  test('do not choose among terminating endpoints', async () => {
    const leaving = [inZone('10.0.0.1', 'a'), inZone('10.0.0.2', 'b')].map((one) => ({ ...one, ...TERMINATING }));
    assert.equal(await backends(leaving), '10.0.0.1 10.0.0.2');
  });

  test('do not choose for a Local policy', async () => {
    const listed = [here('10.0.0.1', { zones: ['b'] }), here('10.0.0.2', { zones: ['a'] })];
    assert.equal(await backends(listed, { internalTrafficPolicy: 'Local' }), '10.0.0.1 10.0.0.2');
  });
});

describe('internal policy Local', () => {
  const local = { internalTrafficPolicy: 'Local' };

  test('uses endpoints on this node', async () => {
    assert.equal(await backends([here('10.0.0.1'), there('10.0.0.2')], local), '10.0.0.1');
  });

  test('without one of them has no endpoint, though there are others', async () => {
    assert.equal(await backends([there('10.0.0.2')], local), '');
    const cluster = new TestCluster();
    cluster.service('web', local);
    cluster.slice('web', ['10.0.0.2']);
    assert.deepEqual(await cluster.entries('KUBE-NO-ENDPOINTS'), ['KUBE-NO-ENDPOINTS 10.96.0.1,tcp:80']);
    const counts = cluster.updater.desired;
    assert.deepEqual([counts.withoutLocal(4).internal, counts.withoutLocal(6).internal], [1, 0]);
  });

  test('is not said to lack one on this node where no other node has a usable one either', async () => {
    const cluster = new TestCluster();
    cluster.service('web', local);
    for (const [endpoint, count] of [
      [{ ip: '10.0.0.2', ready: false }, 0],
      [{ ip: '10.0.0.2', ...TERMINATING, serving: false }, 0],
      [{ ip: '10.0.0.2', ...TERMINATING }, 1],
      ['10.0.0.2', 1],
    ] as const) {
      cluster.slice('web', [endpoint]);
      await cluster.update();
      assert.equal(cluster.updater.desired.withoutLocal(4).internal, count, JSON.stringify(endpoint));
    }
  });

  test('prefers ready ones, then those that terminate, on this node alone', async () => {
    assert.equal(await backends([here('10.0.0.1', TERMINATING), here('10.0.0.2')], local), '10.0.0.2');
    assert.equal(await backends([here('10.0.0.1', TERMINATING), there('10.0.0.2')], local), '10.0.0.1');
  });

  test('leaves the external side to its own policy', async () => {
    const cluster = new TestCluster();
    cluster.service('web', { ...local, externalIPs: ['192.0.2.1'] });
    cluster.slice('web', [here('10.0.0.1'), there('10.0.0.2')]);
    assert.deepEqual(await cluster.table(), [
      'TCP 10.96.0.1:80 -> 10.0.0.1:8080',
      'TCP 192.0.2.1:80 -> 10.0.0.1:8080 10.0.0.2:8080',
    ]);
  });
});

describe('external policy Local', () => {
  const outside = { type: 'NodePort', externalTrafficPolicy: 'Local', ports: [{ port: 80, nodePort: 30080 }] };

  test('uses endpoints on this node from outside, and all from inside', async () => {
    const cluster = new TestCluster({ families: [4] });
    cluster.service('web', { ...outside, externalIPs: ['192.0.2.1'] });
    cluster.slice('web', [here('10.0.0.1'), there('10.0.0.2')]);
    assert.deepEqual(await cluster.table(), [
      'TCP 10.200.0.2:30080 -> 10.0.0.1:8080',
      'TCP 10.96.0.1:80 -> 10.0.0.1:8080 10.0.0.2:8080',
      'TCP 192.0.2.1:80 -> 10.0.0.1:8080',
    ]);
    assert.deepEqual(await cluster.entries('NO-LOCAL-ENDPOINTS'), []);
  });

  test('without one of them keeps the cluster in the table for pods, and marks it for the rules to drop others', async () => {
    const cluster = new TestCluster({ families: [4] });
    cluster.service('web', outside);
    cluster.slice('web', [there('10.0.0.2')]);
    assert.deepEqual(await cluster.table(), [
      'TCP 10.200.0.2:30080 -> 10.0.0.2:8080',
      'TCP 10.96.0.1:80 -> 10.0.0.2:8080',
    ]);
    assert.deepEqual(await cluster.entries('NO-LOCAL-ENDPOINTS'), ['KUBE-NO-LOCAL-ENDPOINTS 10.200.0.2,tcp:30080']);
    assert.equal(cluster.updater.desired.withoutLocal(4).external, 1);
    cluster.slice('web', [here('10.0.0.2')]);
    assert.deepEqual(await cluster.entries('NO-LOCAL-ENDPOINTS'), []);
    assert.equal(cluster.updater.desired.withoutLocal(4).external, 0);
  });

  test('uses local ones that terminate before the rest of the cluster', async () => {
    const cluster = new TestCluster({ families: [4] });
    cluster.service('web', outside);
    cluster.slice('web', [here('10.0.0.1', TERMINATING), there('10.0.0.2')]);
    assert.deepEqual(await cluster.table(), [
      'TCP 10.200.0.2:30080 -> 10.0.0.1:8080',
      'TCP 10.96.0.1:80 -> 10.0.0.2:8080',
    ]);
  });
});

describe('slices', () => {
  test('of a Service are joined, and an endpoint in two of them counts once', async () => {
    const cluster = new TestCluster();
    cluster.service('web');
    cluster.slice('web', ['10.0.0.1', '10.0.0.2']);
    cluster.slice('web', ['10.0.0.2', '10.0.0.3'], { name: 'web-2' });
    assert.deepEqual(await cluster.table(), ['TCP 10.96.0.1:80 -> 10.0.0.1:8080 10.0.0.2:8080 10.0.0.3:8080']);
  });

  test('that disagree: ready wins over not ready, whichever came last', async () => {
    for (const flip of [false, true]) {
      const cluster = new TestCluster();
      cluster.service('web');
      cluster.slice('web', [there('10.0.0.1', flip ? {} : unready)]);
      cluster.slice('web', [there('10.0.0.1', flip ? unready : {})], { name: 'web-2' });
      assert.deepEqual(await cluster.table(), ['TCP 10.96.0.1:80 -> 10.0.0.1:8080']);
    }
  });

  test('that disagree: what runs beats what terminates, whatever slice, place and node', async () => {
    const [dying, gone] = [TERMINATING, { ready: false, serving: false, terminating: true }];
    const pairs: [TestEndpoint, TestEndpoint][] = [
      [there('10.0.0.1', dying), there('10.0.0.1')],
      [here('10.0.0.1', dying), there('10.0.0.1')],
      [there('10.0.0.1', gone), here('10.0.0.1')],
      [here('10.0.0.1', { ...dying, ready: true }), there('10.0.0.1')],
    ];
    for (const [old, young] of pairs)
      for (const records of [
        [old, young],
        [young, old],
      ]) {
        const other = there('10.0.0.2', dying);
        assert.equal(await backends([...records, other]), '10.0.0.1', 'in one slice');
        const cluster = new TestCluster();
        cluster.service('web');
        records.forEach((record, i) => cluster.slice('web', [record, other], { name: `web-${i}` }));
        assert.deepEqual(await cluster.table(), ['TCP 10.96.0.1:80 -> 10.0.0.1:8080'], 'in two');
      }
  });

  test('that disagree: a Pod of the host network that is replaced on its node is served by its successor', async () => {
    const cluster = new TestCluster();
    cluster.service('web', {
      type: 'NodePort',
      externalTrafficPolicy: 'Local',
      ports: [{ port: 80, nodePort: 30080 }],
    });
    cluster.slice('web', [here('10.200.0.2'), here('10.200.0.2', { ready: false, terminating: true, serving: false })]);
    assert.ok((await cluster.table()).includes('TCP 10.200.0.2:30080 -> 10.200.0.2:8080'));
    assert.deepEqual(await cluster.entries('NO-'), []);
  });

  test('that disagree: one not ready that runs stands for a ready one that terminates, as in kube-proxy', async () => {
    const dying = { ready: true, serving: true, terminating: true };
    assert.equal(await backends([there('10.0.0.1', dying), there('10.0.0.1', unready), there('10.0.0.2')]), '10.0.0.2');
  });

  test('that disagree: of what runs ready comes first, then local; the hints are the winner’s', async () => {
    const local: Fields = { internalTrafficPolicy: 'Local' };
    for (const flip of [false, true]) {
      const order = <T>(...pair: [T, T]): T[] => (flip ? pair.reverse() : pair);
      assert.equal(await backends(order(here('10.0.0.1', unready), there('10.0.0.1'))), '10.0.0.1');
      assert.equal(await backends(order(here('10.0.0.1'), there('10.0.0.1')), local), '10.0.0.1');
      const hinted = order(there('10.0.0.1', { ...TERMINATING, zones: ['a'] }), there('10.0.0.1', { zones: ['b'] }));
      assert.equal(await backends([...hinted, there('10.0.0.2', { zones: ['a'] })]), '10.0.0.2');
    }
  });

  test('that disagree: an endpoint is on this node only if the record that counts is', async () => {
    for (const records of [
      [here('10.0.0.1', { ready: true, terminating: true }), there('10.0.0.1')],
      [there('10.0.0.1'), here('10.0.0.1', { ready: true, terminating: true })],
    ]) {
      const cluster = new TestCluster();
      cluster.service('web');
      cluster.slice('web', [...records, here('10.0.0.3')]);
      assert.deepEqual(await cluster.table(), ['TCP 10.96.0.1:80 -> 10.0.0.1:8080 10.0.0.3:8080']);
      assert.deepEqual(await cluster.entries('LOOP-BACK'), ['KUBE-LOOP-BACK 10.0.0.3,tcp:8080,10.0.0.3']);
    }
  });

  test('may have ports of their own, matched by name', async () => {
    const cluster = new TestCluster();
    cluster.service('web', {
      ports: [
        { name: 'http', port: 80 },
        { name: 'admin', port: 90 },
      ],
    });
    const ports = (http: number): object[] => [
      { name: 'http', port: http, protocol: 'TCP' },
      { name: 'admin', port: 9, protocol: 'TCP' },
    ];
    cluster.slice('web', ['10.0.0.1'], { ports: ports(8080) });
    cluster.slice('web', ['10.0.0.2'], { name: 'web-2', ports: ports(8081) });
    cluster.slice('web', ['10.0.0.3'], { name: 'web-3', ports: [{ name: 'other', port: 7 }] });
    assert.deepEqual(await cluster.table(), [
      'TCP 10.96.0.1:80 -> 10.0.0.1:8080 10.0.0.2:8081',
      'TCP 10.96.0.1:90 -> 10.0.0.1:9 10.0.0.2:9',
    ]);
  });

  test('match by protocol as well as by name', async () => {
    const cluster = new TestCluster();
    cluster.service('dns', {
      ports: [
        { name: 'dns', port: 53, protocol: 'UDP' },
        { name: 'dns-tcp', port: 53, protocol: 'TCP' },
      ],
    });
    cluster.slice('dns', ['10.0.0.1'], {
      ports: [
        { name: 'dns', port: 5353, protocol: 'UDP' },
        { name: 'dns-tcp', port: 5354, protocol: 'TCP' },
        { name: 'dns', port: 6666, protocol: 'TCP' },
      ],
    });
    assert.deepEqual(await cluster.table(), ['TCP 10.96.0.1:53 -> 10.0.0.1:5354', 'UDP 10.96.0.1:53 -> 10.0.0.1:5353']);
  });

  test('of one family serve that family alone', async () => {
    const cluster = new TestCluster();
    cluster.service('web', { clusterIPs: ['10.96.0.1', 'fd00::1'] });
    cluster.slice('web', ['10.0.0.1']);
    cluster.slice('web', ['fd00:1::1'], { name: 'web-6' });
    assert.deepEqual(await cluster.table(), [
      'TCP 10.96.0.1:80 -> 10.0.0.1:8080',
      'TCP [fd00::1]:80 -> [fd00:1::1]:8080',
    ]);
  });

  test('without endpoints or ports are no harm', async () => {
    const cluster = new TestCluster();
    cluster.service('web');
    cluster.slice('web', ['10.0.0.1'], { ports: [] });
    cluster.slice('web', [], { name: 'web-2' });
    assert.deepEqual(await cluster.table(), ['TCP 10.96.0.1:80 ->']);
  });

  test('of a Service that is not there do nothing until it is', async () => {
    const cluster = new TestCluster();
    cluster.slice('web', ['10.0.0.1']);
    assert.deepEqual(await cluster.table(), []);
    cluster.service('web');
    assert.deepEqual(await cluster.table(), ['TCP 10.96.0.1:80 -> 10.0.0.1:8080']);
  });
});

test('the health check counts ready endpoints on this node, each address once', async () => {
  const cluster = new TestCluster();
  const spec = { type: 'LoadBalancer', externalTrafficPolicy: 'Local', healthCheckNodePort: 31000 };
  const check = async (): Promise<unknown> => {
    await cluster.update();
    return cluster.updater.desired.services.get('default/web')?.healthCheck;
  };
  cluster.service('web', spec, { ingress: [{ ip: '203.0.113.1' }] });
  assert.deepEqual(await check(), { port: 31000, localEndpoints: 0 });
  cluster.slice('web', [here('10.0.0.1'), here('10.0.0.2', TERMINATING), there('10.0.0.3'), here('10.0.0.4', unready)]);
  cluster.slice('web', [here('10.0.0.1'), here('10.0.0.5')], { name: 'web-2' });
  assert.deepEqual(await check(), { port: 31000, localEndpoints: 2 });
  assert.deepEqual([...cluster.updater.desired.healthChecks], ['default/web']);
  const dying = { ready: true, serving: true, terminating: true };
  cluster.slice('web', [here('10.0.0.1', dying), there('10.0.0.1'), there('10.0.0.6', TERMINATING), here('10.0.0.6')]);
  cluster.slice('web', [there('10.0.0.6', TERMINATING)], { name: 'web-2' });
  assert.deepEqual(await check(), { port: 31000, localEndpoints: 1 }, 'the record that counts decides');
  cluster.slice('web', [here('10.0.0.6', unready)], { name: 'web-2', ports: [{ name: 'admin', port: 9 }] });
  assert.deepEqual(await check(), { port: 31000, localEndpoints: 1 }, 'port by port');
  cluster.service('web');
  assert.equal(await check(), undefined);
  assert.equal(cluster.updater.desired.healthChecks.size, 0);
});
