/** What is left out of a Service though it is well-formed: for the sake of the node. */
import assert from 'node:assert/strict';
import { beforeEach, describe, test } from 'node:test';
import { parseAddress } from '../../../src/values/address.js';
import { TestCluster } from '../../support/desired-cluster.js';

const addresses = (...texts: string[]) => texts.map((text) => parseAddress(text)!);
const API_SERVERS = { addresses: addresses('192.0.2.10', '2001:db8::10'), reason: 'an API server' };

let cluster: TestCluster;

beforeEach(() => {
  cluster = new TestCluster();
  cluster.slice('web', ['10.0.0.1']);
});

describe('a VIP on a protected address', () => {
  test('is refused as external IP and as load balancer address, named, and the rest of the Service is served', async () => {
    cluster.state.protect('api', API_SERVERS);
    const spec = {
      type: 'LoadBalancer',
      ...{ clusterIP: '10.96.0.1', clusterIPs: ['10.96.0.1', 'fd00:96::1'] },
      externalIPs: ['198.51.100.1', '192.0.2.10', '2001:db8::10'],
      ports: [{ port: 6443, nodePort: 30443 }],
    };
    cluster.service('web', spec, { ingress: [{ ip: '192.0.2.10' }, { ip: '203.0.113.1' }] });
    assert.deepEqual(await cluster.addresses(), ['10.96.0.1', '198.51.100.1', '203.0.113.1', 'fd00:96::1']);
    assert.deepEqual(
      (await cluster.table()).map((line) => line.split(' ')[1]),
      [
        '10.200.0.2:30443',
        '10.96.0.1:6443',
        '198.51.100.1:6443',
        '203.0.113.1:6443',
        '[fd00:200::2]:30443',
        '[fd00:96::1]:6443',
      ],
    );
    assert.deepEqual(
      (await cluster.entries('')).filter((entry) => /192\.0\.2\.10|2001:db8::10/.test(entry)),
      [],
    );
    assert.deepEqual(cluster.refused, [
      'default/web protected: loadBalancer 192.0.2.10 is left out: it is an API server',
      'default/web protected: externalIP 192.0.2.10 is left out: it is an API server',
      'default/web protected: externalIP 2001:db8::10 is left out: it is an API server',
    ]);
  });

  test('goes when the address gets protected, comes back when it is no more, and is told anew each time', async () => {
    cluster.service('web', { externalIPs: ['192.0.2.10'] });
    assert.deepEqual(await cluster.addresses(), ['10.96.0.1', '192.0.2.10']);
    for (let i = 1; i <= 2; i++) {
      cluster.state.protect('api', API_SERVERS);
      const touched = await cluster.update();
      assert.deepEqual([...touched.addresses], addresses('192.0.2.10'));
      assert.deepEqual(await cluster.addresses(), ['10.96.0.1']);
      cluster.slice('web', ['10.0.0.2']);
      await cluster.update();
      assert.equal(cluster.refused.length, i, 'not once more for each change of the Service');
      assert.equal(cluster.updater.refusals.get('default/web')?.length, 1);
      cluster.state.protect('api', undefined);
      assert.deepEqual(await cluster.addresses(), ['10.96.0.1', '192.0.2.10']);
      assert.equal(cluster.updater.refusals.size, 0);
    }
    cluster.state.protect('api', API_SERVERS);
    await cluster.update();
    cluster.state.deleteService('default/web');
    await cluster.update();
    assert.equal(cluster.updater.refusals.size, 0);
  });

  test('is served where the address is of the node itself: it is not bound there', async () => {
    cluster.state.protect('node', { addresses: addresses('10.200.0.2'), reason: 'an address of Node node-0' });
    cluster.service('web', { externalIPs: ['10.200.0.2'] });
    assert.ok((await cluster.table()).includes('TCP 10.200.0.2:80 -> 10.0.0.1:8080'));
    cluster.local('10.200.0.7');
    assert.ok(!(await cluster.addresses()).includes('10.200.0.2'), 'refused as soon as the node has it no more');
    assert.equal(cluster.refused.length, 1);
    cluster.local('10.200.0.7', '10.200.0.2');
    assert.ok((await cluster.table()).includes('TCP 10.200.0.2:80 -> 10.0.0.1:8080'));
  });

  test('of NodePorts is served whatever is protected', async () => {
    cluster.state.protect('node', { addresses: addresses('10.200.0.2'), reason: 'an address of Node node-0' });
    cluster.service('web', { type: 'NodePort', ports: [{ port: 80, nodePort: 30080 }] });
    assert.ok((await cluster.table()).includes('TCP 10.200.0.2:30080 -> 10.0.0.1:8080'));
    assert.deepEqual(cluster.refused, []);
  });

  test('is refused as cluster IP too, but not where the node reaches the API server by it', async () => {
    cluster.service('web');
    cluster.service('kubernetes', { clusterIP: '10.96.0.9', ports: [{ port: 443 }], externalIPs: ['192.0.2.10'] });
    cluster.service('proxy', { clusterIP: '10.96.0.8' });
    cluster.state.protect('api', API_SERVERS);
    cluster.state.protect('nodes', { addresses: addresses('10.96.0.1', '10.96.0.9'), reason: 'an address of Node n3' });
    const peers = { addresses: addresses('10.96.0.8', '10.96.0.9'), reason: 'the peer of a connection' };
    cluster.state.protect('peers', { ...peers, mayBeClusterIP: true });
    assert.deepEqual(await cluster.addresses(), ['10.96.0.8', '10.96.0.9']);
    cluster.service('other', { clusterIP: '10.96.0.7', externalIPs: ['10.96.0.8'] });
    assert.deepEqual(await cluster.addresses(), ['10.96.0.7', '10.96.0.8', '10.96.0.9']);
    assert.deepEqual(cluster.refused.sort(), [
      'default/kubernetes protected: externalIP 192.0.2.10 is left out: it is an API server',
      'default/other protected: externalIP 10.96.0.8 is left out: it is the peer of a connection',
      'default/web protected: clusterIP 10.96.0.1 is left out: it is an address of Node n3',
    ]);
  });
});

describe('a Service of more addresses and ports than a node should hold', () => {
  const many = (count: number, nodePort = 0) =>
    Array.from({ length: count }, (_, i) => ({
      name: `p${i}`,
      port: 1000 + i,
      ...(nodePort ? { nodePort: nodePort + i } : {}),
    }));
  const external = (count: number) => Array.from({ length: count }, (_, i) => `198.51.${100 + (i >> 8)}.${i & 255}`);

  test('is cut at 10,000 virtual servers: cluster IPs stay, then NodePorts, then external IPs in their order', async () => {
    cluster.local('10.200.0.2');
    cluster.service('web', { type: 'NodePort', ports: many(1000, 30000), externalIPs: external(12) });
    const lines = (await cluster.table()).map((line) => line.split(' ')[1]!);
    assert.equal(lines.length, 10_000);
    const at = (address: string): number => lines.filter((line) => line.startsWith(`${address}:`)).length;
    assert.equal(at('10.96.0.1'), 1000);
    assert.equal(at('10.200.0.2'), 1000);
    assert.deepEqual(cluster.refused, [
      'default/web too-many: 4000 of 14000 virtual servers are left out: a Service may have 10000',
    ]);
    const before = lines.join();
    cluster.service('web', { type: 'NodePort', ports: many(1000, 30000), externalIPs: external(12) });
    assert.equal((await cluster.table()).map((line) => line.split(' ')[1]!).join(), before);
  });

  test('of exactly 10,000 is whole', async () => {
    cluster.local('10.200.0.2');
    cluster.service('web', { ports: many(1000), externalIPs: external(9) });
    assert.equal((await cluster.table()).length, 10_000);
    assert.deepEqual(cluster.refused, []);
  });
});

test('without the feature gate AllowServiceExternalIPs external IPs are not served, all else is', async () => {
  const without = new TestCluster({ allowsExternalIPs: false });
  without.service('web', { type: 'LoadBalancer', externalIPs: ['198.51.100.1'] }, { ingress: [{ ip: '203.0.113.1' }] });
  assert.deepEqual(await without.addresses(), ['10.96.0.1', '203.0.113.1']);
  assert.deepEqual(without.refused, []);
});
