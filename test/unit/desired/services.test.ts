/** What one Service asks of the kernel: virtual servers, their settings, addresses. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { nodePortAddresses } from '../../../src/desired/node-ports.js';
import { parseNode } from '../../../src/model/node.js';
import { type Address, formatAddress, parseAddress } from '../../../src/values/address.js';
import { parsePrefix } from '../../../src/values/prefix.js';
import { formatVirtualServer } from '../../../src/values/virtual-server.js';
import { TestCluster } from '../../support/desired-cluster.js';

const ip = (text: string): Address => parseAddress(text)!;
const EVERYWHERE = { all: true, primary: false, cidrs: [] };
const NODE_PORT = { type: 'NodePort', ports: [{ port: 80, nodePort: 30080 }] };

describe('a Service is reachable', () => {
  test('on its cluster IPs, of both families when it has both', async () => {
    const cluster = new TestCluster();
    cluster.service('web', { clusterIPs: ['10.96.0.1', 'fd00::1'], ports: [{ port: 80 }, { port: 443 }] });
    assert.deepEqual(await cluster.table(), [
      'TCP 10.96.0.1:443 ->',
      'TCP 10.96.0.1:80 ->',
      'TCP [fd00::1]:443 ->',
      'TCP [fd00::1]:80 ->',
    ]);
    assert.deepEqual(await cluster.addresses(), ['10.96.0.1', 'fd00::1']);
  });

  test('on external and load balancer addresses of its own families', async () => {
    const cluster = new TestCluster();
    const ingress = [{ ip: '203.0.113.1' }, { ip: '2001:db8::2' }, { ip: '203.0.113.9', ipMode: 'Proxy' }];
    cluster.service('web', { type: 'LoadBalancer', externalIPs: ['192.0.2.1', '2001:db8::1'] }, { ingress });
    assert.deepEqual(await cluster.table(), ['TCP 10.96.0.1:80 ->', 'TCP 192.0.2.1:80 ->', 'TCP 203.0.113.1:80 ->']);
    assert.deepEqual(await cluster.addresses(), ['10.96.0.1', '192.0.2.1', '203.0.113.1']);
  });

  test('in families that the node serves', async () => {
    const cluster = new TestCluster({ families: [4] });
    cluster.service('web', { ...NODE_PORT, clusterIPs: ['10.96.0.1', 'fd00::1'] });
    cluster.service('six', { clusterIP: 'fd00::2' });
    assert.deepEqual(await cluster.table(), ['TCP 10.200.0.2:30080 ->', 'TCP 10.96.0.1:80 ->']);
  });

  test('by TCP, UDP and SCTP on the same port', async () => {
    const cluster = new TestCluster();
    cluster.service('web', { ports: ['TCP', 'UDP', 'SCTP'].map((protocol) => ({ protocol, port: 80 })) });
    const expected = ['SCTP 10.96.0.1:80 ->', 'TCP 10.96.0.1:80 ->', 'UDP 10.96.0.1:80 ->'];
    assert.deepEqual(await cluster.table(), expected);
  });

  test('once on an address that is external and ingress at a time', async () => {
    const cluster = new TestCluster();
    cluster.service('web', { type: 'LoadBalancer', externalIPs: ['192.0.2.1'] }, { ingress: [{ ip: '192.0.2.1' }] });
    assert.deepEqual(await cluster.table(), ['TCP 10.96.0.1:80 ->', 'TCP 192.0.2.1:80 ->']);
  });

  test('no more once it is deleted, headless or external', async () => {
    for (const spec of [undefined, { clusterIP: 'None' }, { type: 'ExternalName' }]) {
      const cluster = new TestCluster();
      cluster.service('web', NODE_PORT);
      cluster.slice('web', ['10.0.0.1']);
      assert.equal((await cluster.table()).length, 2);
      if (spec === undefined) cluster.state.deleteService('default/web');
      else cluster.service('web', spec);
      assert.deepEqual(await cluster.table(), []);
      assert.deepEqual(await cluster.addresses(), []);
      assert.deepEqual(await cluster.entries(''), []);
    }
  });
});

describe('node ports', () => {
  test('are served on every address of the node but loopback, and bound nowhere', async () => {
    const cluster = new TestCluster();
    cluster.service('web', { ...NODE_PORT, clusterIPs: ['10.96.0.1', 'fd00::1'] });
    assert.deepEqual(await cluster.table(), [
      'TCP 10.200.0.2:30080 ->',
      'TCP 10.96.0.1:80 ->',
      'TCP [fd00:200::2]:30080 ->',
      'TCP [fd00::1]:80 ->',
    ]);
    assert.deepEqual(await cluster.addresses(), ['10.96.0.1', 'fd00::1']);
  });

  test('follow addresses that come and go', async () => {
    const cluster = new TestCluster({ families: [4] });
    cluster.service('web', NODE_PORT);
    cluster.local('10.200.0.2', '10.200.0.9');
    assert.deepEqual((await cluster.table()).length, 3);
    cluster.local('10.200.0.9');
    assert.deepEqual(await cluster.table(), ['TCP 10.200.0.9:30080 ->', 'TCP 10.96.0.1:80 ->']);
  });

  test('are served on the addresses that the selection names', () => {
    const local = new Set(
      ['10.0.0.1', '10.0.1.1', '127.0.0.1', '169.254.0.1', 'fd00::1', 'fe80::1', '::1'].map((text) => ip(text)),
    );
    const primary = (family: 4 | 6) => ({ address: ip(family === 4 ? '10.0.1.1' : 'fd00::1'), isKnown: true });
    const select = (how: { all?: true; primary?: true }, cidrs: string[], family: 4 | 6): string[] => {
      const selection = { all: false, primary: false, ...how, cidrs: cidrs.map((text) => parsePrefix(text)!) };
      return nodePortAddresses(selection, family, local, primary(family)).map(formatAddress);
    };
    assert.deepEqual(select({ all: true }, [], 4), ['10.0.0.1', '10.0.1.1', '169.254.0.1']);
    assert.deepEqual(select({ all: true }, [], 6), ['fd00::1']);
    assert.deepEqual(select({ primary: true }, [], 4), ['10.0.1.1']);
    assert.deepEqual(select({ primary: true }, [], 6), ['fd00::1']);
    assert.deepEqual(select({}, ['10.0.0.0/24'], 4), ['10.0.0.1']);
    assert.deepEqual(select({}, ['127.0.0.0/8', 'fe80::/10', '::/0'], 4), []);
    assert.deepEqual(select({}, ['fe80::/10', '::1/128'], 6), []);
    assert.deepEqual(select({ primary: true }, ['10.0.0.0/24'], 4), ['10.0.0.1', '10.0.1.1']);
    assert.deepEqual(select({}, [], 4), []);
  });

  test('by `primary` are served on one address of each family: the first internal one, else the first external one', async () => {
    const primary = { all: false, primary: true, cidrs: [] };
    const served = async (cluster: TestCluster): Promise<string[]> => {
      cluster.service('web', { ...NODE_PORT, clusterIPs: ['10.96.0.1', 'fd00:96::1'] });
      const names = (await cluster.table()).map((line) => line.split(' ')[1]!.replace(/:30080$/, ''));
      return names.filter((name) => !name.includes('96'));
    };
    const cluster = new TestCluster({ nodePorts: { 4: primary, 6: primary } });
    const [internal, external] = [['InternalIP'], ['ExternalIP']].map(([type]) => (address: string) => ({
      type,
      address,
    }));
    const setNode = (...addresses: object[]): void => {
      const object = { metadata: { name: 'node-0' }, status: { addresses } };
      cluster.state.setNode(parseNode(object, () => undefined));
    };
    const [internal4, second4, external4] = ['10.0.0.5', '192.168.1.5', '203.0.113.5'] as const;
    cluster.local(internal4, second4, external4, '2001:db8::5', 'fd00::5', 'fe80::5', '127.0.0.1', '::1');
    setNode(external!(external4), external!('2001:db8::5'), internal!(internal4), internal!(second4));
    assert.deepEqual(await served(cluster), [internal4, '[2001:db8::5]']);
    setNode(external!(external4), external!('2001:db8::5'));
    assert.deepEqual(await served(cluster), [external4, '[2001:db8::5]']);
    setNode(internal!('10.77.77.77'), internal!('fd00::5'));
    assert.deepEqual(await served(cluster), ['[fd00::5]'], 'an address that no interface has');
    setNode(internal!(internal4));
    assert.deepEqual(
      await served(cluster),
      [internal4, '[2001:db8::5]', '[fd00::5]'],
      'a family without any: all of it',
    );
    cluster.state.setNode(undefined);
    assert.deepEqual(await served(cluster), [], 'nothing is opened while the Node is unknown');
    const bound = new TestCluster({ nodePorts: { 4: primary, 6: primary }, nodeIP: ip(second4) });
    bound.node({ zone: 'a', addresses: [internal4, 'fd00::5'] });
    bound.local(internal4, second4, 'fd00::5');
    assert.deepEqual(await served(bound), [second4, '[fd00::5]'], 'bindAddress names the address');
  });

  test('are not recomputed for an address that serves none and that nobody names', async () => {
    const cluster = new TestCluster({ nodePorts: { 4: { all: false, primary: true, cidrs: [] }, 6: EVERYWHERE } });
    for (let i = 1; i <= 50; i++) cluster.service(`web-${i}`, { ...NODE_PORT, clusterIP: `10.96.1.${i}` });
    await cluster.update();
    cluster.local('10.200.0.2', 'fd00:200::2', '127.0.0.1', '::1', 'fe80::aaaa', '169.254.1.1');
    assert.equal(cluster.state.dirtyCount, 0);
    cluster.local('10.200.0.2', 'fd00:200::2', '127.0.0.1', '::1', 'fd00:200::9');
    assert.equal(cluster.state.dirtyCount, 50);
  });
});

describe('settings', () => {
  const settingsOf = async (scheduler: string, spec = {}): Promise<string> => {
    const cluster = new TestCluster({ scheduler });
    cluster.service('web', spec);
    return (await cluster.settings()).join('; ').replace('TCP 10.96.0.1:80 ', '');
  };

  test('have the scheduler, and persistence for session affinity', async () => {
    assert.equal(await settingsOf('rr'), 'rr flags=0 timeout=0');
    assert.equal(await settingsOf('lc', { sessionAffinity: 'ClientIP' }), 'lc flags=1 timeout=10800');
    const sessionAffinityConfig = { clientIP: { timeoutSeconds: 600 } };
    assert.equal(
      await settingsOf('rr', { sessionAffinity: 'ClientIP', sessionAffinityConfig }),
      'rr flags=1 timeout=600',
    );
  });

  test('let hashing schedulers fall back from drained backends, and mh hash ports', async () => {
    assert.equal(await settingsOf('sh'), 'sh flags=8 timeout=0');
    assert.equal(await settingsOf('mh'), 'mh flags=24 timeout=0');
    assert.equal(await settingsOf('mh', { sessionAffinity: 'ClientIP' }), 'mh flags=25 timeout=10800');
    assert.equal(await settingsOf('dh'), 'dh flags=0 timeout=0');
  });
});

describe('an address that is the node’s own', () => {
  test('is served but does not count as a VIP, so that the host’s ports stay open', async () => {
    const cluster = new TestCluster();
    cluster.service('web', { externalIPs: ['10.200.0.2', '192.0.2.1'] });
    assert.deepEqual(await cluster.table(), ['TCP 10.200.0.2:80 ->', 'TCP 10.96.0.1:80 ->', 'TCP 192.0.2.1:80 ->']);
    assert.deepEqual(await cluster.entries('KUBE-IPVS-IPS'), ['KUBE-IPVS-IPS 10.96.0.1', 'KUBE-IPVS-IPS 192.0.2.1']);
    cluster.local('192.0.2.1');
    assert.deepEqual(await cluster.entries('KUBE-IPVS-IPS'), ['KUBE-IPVS-IPS 10.200.0.2', 'KUBE-IPVS-IPS 10.96.0.1']);
  });
});

test('a Service that contests itself: the NodePort of one port wins over an external IP with another', async () => {
  const cluster = new TestCluster();
  const ports = [
    { name: 'b', port: 30000 },
    { name: 'a', port: 80, nodePort: 30000 },
  ];
  cluster.service('web', { type: 'NodePort', externalIPs: ['10.200.0.2'], ports });
  cluster.slice('web', ['10.0.0.1'], { ports: [{ name: 'a', port: 1 }] });
  cluster.slice('web', ['10.0.0.1'], { name: 'web-2', ports: [{ name: 'b', port: 2 }] });
  assert.ok((await cluster.table()).includes('TCP 10.200.0.2:30000 -> 10.0.0.1:1'));
  assert.deepEqual(await cluster.entries('EXTERNAL-IP'), ['KUBE-EXTERNAL-IP 10.200.0.2,tcp:80']);
});

describe('an update touches', () => {
  const touchedBy = async (change: (cluster: TestCluster) => void): Promise<string[]> => {
    const cluster = new TestCluster();
    for (let i = 1; i <= 20; i++) {
      cluster.service(`web-${i}`, { clusterIP: `10.96.0.${i}`, ports: [{ port: 80 }, { port: 81 }] });
      cluster.slice(`web-${i}`, [`10.0.${i}.1`, `10.0.${i}.2`]);
    }
    await cluster.update();
    change(cluster);
    const touched = await cluster.update();
    return [
      ...[...touched.servers].map(formatVirtualServer),
      ...[...touched.addresses].map(formatAddress),
      ...[...touched.entries.keys()],
    ].sort();
  };

  test('the virtual servers of one slice for a change of that slice', async () => {
    const servers = ['TCP 10.96.0.7:80', 'TCP 10.96.0.7:81'];
    assert.deepEqual(await touchedBy((cluster) => cluster.slice('web-7', ['10.0.7.1'])), servers);
  });

  test('nothing when a slice comes again as it was', async () => {
    assert.deepEqual(await touchedBy((cluster) => cluster.slice('web-7', ['10.0.7.2', '10.0.7.1'])), []);
  });

  test('nothing when a Service comes again as it was', async () => {
    const same = { clusterIP: '10.96.0.7', ports: [{ port: 80 }, { port: 81 }] };
    assert.deepEqual(await touchedBy((cluster) => cluster.service('web-7', same)), []);
  });

  test('everything of a Service that is deleted, and nothing else', async () => {
    assert.deepEqual(await touchedBy((cluster) => cluster.state.deleteService('default/web-7')), [
      '10.96.0.7',
      'KUBE-CLUSTER-IP',
      'KUBE-IPVS-IPS',
      'TCP 10.96.0.7:80',
      'TCP 10.96.0.7:81',
    ]);
  });

  test('the settings of a Service alone when its affinity changes', async () => {
    const spec = { clusterIP: '10.96.0.7', ports: [{ port: 80 }, { port: 81 }], sessionAffinity: 'ClientIP' };
    const servers = ['TCP 10.96.0.7:80', 'TCP 10.96.0.7:81'];
    assert.deepEqual(await touchedBy((cluster) => cluster.service('web-7', spec)), servers);
  });
});
