/** What one Service asks of the kernel: virtual servers, their settings, addresses, and who gets what two claim. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { Claims } from '../../../src/desired/claims.js';
import { nodePortAddresses } from '../../../src/desired/node-ports.js';
import { type Address, formatAddress, parseAddress } from '../../../src/values/address.js';
import { parsePrefix } from '../../../src/values/prefix.js';
import { type VirtualServerKey, addressServerKey, formatVirtualServer } from '../../../src/values/virtual-server.js';
import { TestCluster } from '../../support/desired-cluster.js';

const ip = (text: string): Address => parseAddress(text)!;
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
    const primary = [ip('10.0.1.1'), ip('fd00::1')];
    const select = (how: { all?: true; primary?: true }, cidrs: string[], family: 4 | 6): string[] => {
      const selection = { all: false, primary: false, ...how, cidrs: cidrs.map((text) => parsePrefix(text)!) };
      return nodePortAddresses(selection, family, local, primary).map(formatAddress);
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

describe('two Services that claim one address and port', () => {
  const external = { externalIPs: ['192.0.2.1'] };
  const owner = async (cluster: TestCluster): Promise<string> =>
    (await cluster.table()).find((line) => line.startsWith('TCP 192.0.2.1:80'))!;

  test('the older has it, in whichever order they come, and the other keeps the rest', async () => {
    for (const order of [
      ['old', 'new'],
      ['new', 'old'],
    ]) {
      const cluster = new TestCluster();
      for (const name of order) {
        const created = name === 'old' ? '2023-01-01T00:00:00Z' : '2024-01-01T00:00:00Z';
        cluster.service(name, { ...external, clusterIP: name === 'old' ? '10.96.0.1' : '10.96.0.2' }, { created });
        cluster.slice(name, [name === 'old' ? '10.0.0.1' : '10.0.0.2']);
        await cluster.update();
      }
      assert.deepEqual(await cluster.table(), [
        'TCP 10.96.0.1:80 -> 10.0.0.1:8080',
        'TCP 10.96.0.2:80 -> 10.0.0.2:8080',
        'TCP 192.0.2.1:80 -> 10.0.0.1:8080',
      ]);
      assert.deepEqual([...new Set(cluster.conflicts)], ['TCP 192.0.2.1:80 not for default/new']);
    }
  });

  test('of one age, the first by name has it', async () => {
    const cluster = new TestCluster();
    cluster.service('b', { ...external, clusterIP: '10.96.0.2' });
    cluster.service('a', external);
    cluster.slice('a', ['10.0.0.1']);
    cluster.slice('b', ['10.0.0.2']);
    assert.match(await owner(cluster), /10\.0\.0\.1/);
  });

  test('the other has it as soon as the first lets go', async () => {
    const cluster = new TestCluster();
    cluster.service('a', external);
    cluster.service('b', { ...external, clusterIP: '10.96.0.2' });
    cluster.slice('a', ['10.0.0.1']);
    cluster.slice('b', ['10.0.0.2']);
    assert.match(await owner(cluster), /10\.0\.0\.1/);
    cluster.service('a');
    assert.match(await owner(cluster), /10\.0\.0\.2/);
    assert.equal(cluster.updater.claims.conflicts, 0);
    assert.ok((await cluster.addresses()).includes('192.0.2.1'));
    cluster.service('a', external);
    assert.match(await owner(cluster), /10\.0\.0\.1/);
    cluster.state.deleteService('default/a');
    assert.match(await owner(cluster), /10\.0\.0\.2/);
    cluster.state.deleteService('default/b');
    assert.deepEqual(await cluster.table(), []);
    assert.deepEqual(await cluster.addresses(), []);
  });

  test('may share an address on different ports, and it stays as long as one needs it', async () => {
    const cluster = new TestCluster();
    cluster.service('a', external);
    cluster.service('b', { ...external, clusterIP: '10.96.0.2', ports: [{ port: 81 }] });
    assert.equal(cluster.updater.claims.conflicts, 0);
    assert.ok((await cluster.addresses()).includes('192.0.2.1'));
    cluster.service('a');
    const touched = await cluster.update();
    assert.equal(touched.addresses.has(ip('192.0.2.1')), false);
    assert.ok((await cluster.addresses()).includes('192.0.2.1'));
    cluster.state.deleteService('default/b');
    assert.deepEqual(await cluster.addresses(), ['10.96.0.1']);
  });
});

test('claims are decided alike whatever the history', () => {
  const servers = [1, 2, 3].map((port) => addressServerKey('TCP', ip('192.0.2.1'), port));
  const names = ['a', 'b', 'c', 'd'];
  const step = fc.tuple(fc.constantFrom(...names), fc.nat(2), fc.subarray(servers));
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), (history) => {
      const claims = new Claims();
      const last = new Map<string, [created: number, wanted: readonly VirtualServerKey[]]>();
      for (const [name, created, wanted] of history) {
        const before = new Map(servers.map((server) => [server, names.find((one) => claims.owns(one, server))]));
        const affected = claims.update(name, created, wanted);
        last.set(name, [created, wanted]);
        for (const server of servers) {
          const now = names.find((one) => claims.owns(one, server));
          const was = before.get(server);
          // Whoever lost or won by another's change has to be told.
          if (was !== now)
            for (const one of [was, now]) assert.ok(one === undefined || one === name || affected.has(one));
        }
      }
      for (const server of servers) {
        const claimants = names
          .filter((name) => last.get(name)?.[1].includes(server))
          .sort((a, b) => last.get(a)![0] - last.get(b)![0] || (a < b ? -1 : 1));
        for (const name of names) assert.equal(claims.owns(name, server), name === claimants[0]);
        assert.deepEqual([...claims.losers(server)].sort(), claimants.slice(1).sort());
      }
    }),
  );
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
