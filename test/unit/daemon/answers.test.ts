/** Small answers of the status page: what was repaired last and for whom, versions, who is meant by a search. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { describeRepair } from '../../../src/daemon/answer/last-repair.js';
import { KernelLook } from '../../../src/daemon/answer/kernel-look.js';
import { serviceMatcher } from '../../../src/daemon/answer/service-matcher.js';
import { drainingConnections, versionsOf } from '../../../src/daemon/answer/status-source.js';
import { type DataPlane } from '../../../src/daemon/data-plane.js';
import { type LastRepair } from '../../../src/daemon/report/repair-log.js';
import { IpvsClient } from '../../../src/kernel/ipvs/client.js';
import { parseAddress } from '../../../src/values/address.js';
import { addressServerKey, realServerKey } from '../../../src/values/virtual-server.js';
import { TestKernel } from '../../fakes/test-kernel.js';
import { TestCluster } from '../../support/desired-cluster.js';
import { FakeIptables } from '../../support/fake-iptables.js';
import { RR } from '../../support/netlink-sessions.js';
import { testConfig } from '../../support/test-world.js';

const ip = (text: string) => parseAddress(text)!;

async function shop(): Promise<TestCluster> {
  const cluster = new TestCluster();
  const six = { clusterIPs: ['10.96.0.1', 'fd00:96::1'] };
  cluster.service('web', { ...six, type: 'NodePort', ports: [{ port: 80, nodePort: 30_080 }] });
  cluster.slice('web', ['10.0.0.1', '10.0.0.2']);
  cluster.slice('web', ['fd00::1', 'fd00::2'], { name: 'web-6' });
  for (let i = 0; i < 5; i++) cluster.service(`ext${i}`, { clusterIP: `10.96.1.${i}`, externalIPs: ['192.0.2.1'] });
  await cluster.update();
  return cluster;
}

describe('the last repair', () => {
  const REPAIR: LastRepair = { at: 1000, object: 'address', kind: 'missing', name: '', total: 7 };

  test('of an address has the Services that name it, three at most; of a server or its backend the one that it serves', async () => {
    const { updater, state: cluster } = await shop();
    const services = (object: LastRepair['object'], name: string): readonly string[] =>
      describeRepair({ ...REPAIR, object, name }, { updater, cluster })!.services;
    assert.deepEqual(services('address', '10.96.0.1'), ['default/web']);
    assert.deepEqual(services('address', '192.0.2.1'), ['default/ext0', 'default/ext1', 'default/ext2']);
    assert.deepEqual(services('address', '192.0.2.99'), []);
    assert.deepEqual(services('address', 'no address'), []);
    assert.deepEqual(services('virtual_server', 'TCP 10.96.0.1:80'), ['default/web']);
    assert.deepEqual(services('real_server', 'TCP [fd00:96::1]:80 -> [fd00::1]:8080'), ['default/web']);
    for (const name of ['TCP 10.96.0.1:81', 'UDP 10.96.0.1:80', 'FWM 7 IPv4'])
      assert.deepEqual(services('virtual_server', name), []);
  });

  test('is when and what it was; none is none', async () => {
    const { updater, state: cluster } = await shop();
    assert.deepEqual(describeRepair({ ...REPAIR, name: '10.96.0.1' }, { updater, cluster }), {
      ...{
        at: new Date(1000),
        object: 'address',
        kind: 'missing',
        name: '10.96.0.1',
        services: ['default/web'],
        total: 7,
      },
    });
    assert.equal(describeRepair(undefined, { updater, cluster }), undefined);
  });
});

test('connections that drain are those of all addresses of the Service', async () => {
  const { updater } = await shop();
  const real = realServerKey(ip('10.0.0.1'), 8080);
  const draining: Record<string, number> = {
    [addressServerKey('TCP', ip('10.96.0.1'), 80)]: 3,
    [addressServerKey('TCP', ip('10.200.0.2'), 30_080)]: 4,
  };
  const drains = { connections: (key: string, of: string) => (of === real ? (draining[key] ?? 0) : 100) };
  const count = (service: string): number =>
    drainingConnections({ updater, drains } as unknown as DataPlane, service, real);
  assert.deepEqual([count('default/web'), count('default/ext0'), count('default/nobody')], [7, 0, 0]);
});

test('versions say where the rules are, and which families are served', () => {
  const said = (rules: 'iptables' | 'nftables'): unknown => {
    const iptables = rules === 'iptables' ? new FakeIptables().tools : undefined;
    const options = { iptables, families: [4, 6], config: testConfig({ vips: 'routes' }) };
    const { iptables: where, families, vips } = versionsOf({ options } as unknown as DataPlane);
    return [where, families, vips];
  };
  assert.deepEqual(said('iptables'), ['1.8.9 (legacy)', 'IPv4, IPv6', 'routes']);
  assert.deepEqual(said('nftables'), ['not used (rules in nf_tables)', 'IPv4, IPv6', 'routes']);
});

test('a search means a name, an address with or without a port, or one of an endpoint', async () => {
  const { updater, state } = await shop();
  const found = (text: string): string[] => {
    const matches = serviceMatcher(text, state, updater.context);
    return [...state.services.values()].filter(matches).map(({ key }) => key.replace('default/', ''));
  };
  const all = ['web', 'ext0', 'ext1', 'ext2', 'ext3', 'ext4'];
  for (const [text, services] of Object.entries({
    '': all,
    web: ['web'],
    'default/web': ['web'],
    'other/web': [],
    '10.96.0.1': ['web'],
    '10.96.0.1:80': ['web'],
    '10.96.0.1:81': [],
    'fd00:96::1': ['web'],
    '[fd00:96::1]:80': ['web'],
    '[fd00:96::1]:81': [],
    '192.0.2.1': all.slice(1),
    '10.200.0.2': ['web'],
    '10.200.0.2:30080': ['web'],
    '10.200.0.2:80': [],
    '10.0.0.2': ['web'],
    '10.0.0.2:8080': ['web'],
    '10.0.0.2:80': [],
    '[fd00::2]:8080': ['web'],
    '10.0.0.3': [],
  }))
    assert.deepEqual(found(text), services, text);
});

test('an address of a family that is not served finds nothing', async () => {
  const cluster = new TestCluster({ families: [4] });
  cluster.service('web', { clusterIPs: ['10.96.0.1', 'fd00:96::1'] });
  await cluster.update();
  const matches = serviceMatcher('fd00:96::1', cluster.state, cluster.updater.context);
  assert.deepEqual([...cluster.state.services.values()].filter(matches), []);
});

test('what the kernel has of a Service is looked at now; of a virtual server that it lacks nothing is counted', async () => {
  const kernel = new TestKernel();
  const ipvs = new IpvsClient(kernel.open);
  const look = new KernelLook(kernel.open);
  const [there, absent] = [80, 81].map((port) => ({ key: addressServerKey('TCP', ip('10.96.0.1'), port) }));
  ipvs.addVirtualServer(there!.key, RR);
  ipvs.addRealServer(there!.key, realServerKey(ip('10.0.0.1'), 8080), 1);
  assert.deepEqual(ipvs.flush(), []);
  kernel.ipvs.table.get(there!.key)!.statistics = [5n, 50n, 40n, 5000n, 4000n];
  const nothing = { connections: 0, inPackets: 0, outPackets: 0, inBytes: 0, outBytes: 0 };
  const place = { protocol: 'TCP', address: '10.96.0.1' };
  const real = { address: '10.0.0.1', port: 8080, weight: 1, activeConnections: 0, inactiveConnections: 0 };
  const counted = { connections: 5, inPackets: 50, outPackets: 40, inBytes: 5000, outBytes: 4000 };
  assert.deepEqual(await look.service([there!, absent!]), {
    servers: [
      { ...place, port: 80, exists: true, ...counted, realServers: [real] },
      { ...place, port: 81, exists: false, ...nothing, realServers: [] },
    ],
  });
  kernel.permitted = false;
  assert.match(JSON.stringify(await look.service([there!])), /"failure":".*EPERM/);
  kernel.permitted = true;
  assert.deepEqual(Object.keys(await look.service([absent!])), ['servers']);
  look.close();
  ipvs.close();
});
