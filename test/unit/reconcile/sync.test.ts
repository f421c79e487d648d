/** Syncs over fake kernels: adoption, change, repair, failure. Counts and states, no times. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { NETLINK_GENERIC, NETLINK_NETFILTER, NETLINK_ROUTE } from '../../../src/netlink/socket.js';
import { parseAddress } from '../../../src/values/address.js';
import { addressServerKey, formatVirtualServer, realServerKey } from '../../../src/values/virtual-server.js';
import { TestCluster } from '../../support/desired-cluster.js';
import { sysctlDirectory } from '../../support/test-world.js';
import { TestKernel } from '../../fakes/test-kernel.js';
import { ReconcileRig, web } from '../../support/reconcile-rig.js';
import { VERIFY_MS } from '../../support/rig.js';

const ip = (text: string) => parseAddress(text)!;
const WEB = addressServerKey('TCP', ip('10.96.0.1'), 80);
const A = realServerKey(ip('10.0.0.1'), 8080);

function dns(): TestCluster {
  const cluster = new TestCluster({ families: [4] });
  cluster.service('dns', { clusterIP: '10.96.0.10', ports: [{ port: 53, protocol: 'UDP' }] });
  cluster.slice('dns', ['10.0.0.1', '10.0.0.2'], { ports: [{ name: '', port: 53, protocol: 'UDP' }] });
  return cluster;
}

/** One synced web Service. */
async function running(): Promise<ReconcileRig> {
  const rig = new ReconcileRig(web());
  await rig.sync();
  return rig;
}

describe('the first sync', () => {
  test('makes everything and says so', async () => {
    const rig = new ReconcileRig(web());
    assert.equal(rig.reconciler.adopted, false);
    const report = await rig.sync();
    assert.equal(rig.reconciler.adopted, true);
    assert.deepEqual([report.adopted, report.verified, report.failures], [true, undefined, []]);
    assert.deepEqual([report.ipvs.virtualServersAdded, report.ipvs.realServersAdded, report.addresses], [1, 2, 1]);
    assert.equal(rig.weights('TCP 10.96.0.1:80'), '10.0.0.1:8080=1 10.0.0.2:8080=1');
    assert.deepEqual(rig.kernel.links.addressesOf('kube-ipvs0'), ['10.96.0.1/32']);
    assert.equal(rig.kernel.netfilter.ipset!.sets.get('KUBE-CLUSTER-IP')!.elements.size, 1);
  });

  test('on a kernel that is already as desired changes nothing', async () => {
    const kernel = (await running()).kernel;
    const rig = new ReconcileRig(web(), kernel);
    const before = rig.state();
    const commands = new Map(kernel.ipvs.commands);
    const report = await rig.sync();
    assert.deepEqual(rig.state(), before);
    assert.deepEqual(Object.values(report.ipvs), [0, 0, 0, 0, 0, 0]);
    assert.deepEqual([report.addresses, report.setEntries], [0, 0]);
    const writes = [1, 2, 3, 5, 6, 7].map(
      (command) => (kernel.ipvs.commands.get(command) ?? 0) - (commands.get(command) ?? 0),
    );
    assert.deepEqual(writes, [0, 0, 0, 0, 0, 0]);
  });

  test('changes only what differs from what it found', async () => {
    const kernel = (await running()).kernel;
    const cluster = web();
    cluster.slice('web', ['10.0.0.2', '10.0.0.3']);
    const { ipvs } = await new ReconcileRig(cluster, kernel).sync();
    assert.deepEqual(
      [ipvs.virtualServersAdded, ipvs.realServersAdded, ipvs.realServersChanged, ipvs.realServersDeleted],
      [0, 1, 1, 1], // the one that is not wanted has no connections: its drain is over at once
    );
  });

  test('removes what a former run left, by its address on the dummy link or its entry in a set', async () => {
    const kernel = (await running()).kernel;
    kernel.links.removeAddress('kube-ipvs0', '10.96.0.1');
    const rig = new ReconcileRig(new TestCluster({ families: [4] }), kernel);
    const { ipvs } = await rig.sync();
    assert.equal(ipvs.virtualServersDeleted, 1);
    assert.deepEqual(rig.state(), []);
  });

  test('leaves alone what others made, and what is excluded', async () => {
    const kernel = (await running()).kernel;
    const other = addressServerKey('TCP', ip('192.0.2.1'), 80);
    const settings = { scheduler: 'wlc', flags: 0, timeout: 0 };
    kernel.ipvs.table.set(other, { settings, netmask: 0xffffffff, realServers: new Map() });
    const cluster = new TestCluster({ families: [4] });
    cluster.service('api', { clusterIP: '10.97.0.1' });
    await new ReconcileRig(cluster, kernel, ['10.96.0.0/16']).sync();
    const names = [...kernel.ipvs.table.keys()].map(formatVirtualServer).sort();
    assert.deepEqual(names, ['TCP 10.96.0.1:80', 'TCP 10.97.0.1:80', 'TCP 192.0.2.1:80']);
  });

  test('an address of a deleted Service goes even where excludeCIDRs keep its virtual server, as with kube-proxy', async () => {
    const kernel = (await running()).kernel;
    const rig = new ReconcileRig(new TestCluster({ families: [4] }), kernel, ['10.96.0.0/16']);
    await rig.sync();
    assert.deepEqual(kernel.links.addressesOf('kube-ipvs0'), []);
    assert.deepEqual([...kernel.ipvs.table.keys()].map(formatVirtualServer), ['TCP 10.96.0.1:80']);
    assert.deepEqual(await rig.verify(), []);
  });

  test('tells a keepalived in front of a NodePort, at start too, from its own on an address that is gone', async () => {
    const nodePort = (): TestCluster => {
      const cluster = web();
      cluster.service('web', { type: 'NodePort', ports: [{ port: 80, nodePort: 30443 }] });
      return cluster;
    };
    const first = new ReconcileRig(nodePort());
    await first.sync();
    const { kernel } = first;
    const stand = (address: string, ...reals: string[]): void => {
      const settings = { scheduler: 'wlc', flags: 0, timeout: 0 };
      const entries = reals.map((real) => {
        const [host, port] = real.split(':');
        return [realServerKey(ip(host!), Number(port)), { weight: 1, forwarding: 'masquerade' }];
      });
      const key = addressServerKey('TCP', ip(address), 30443);
      kernel.ipvs.table.set(key, { settings, netmask: 0xffffffff, realServers: new Map(entries as never) });
    };
    stand('198.51.100.10', '10.200.0.3:30443', '10.200.0.4:30443'); // keepalived: the nodes are its real servers
    stand('198.51.100.11'); // keepalived while none of them answers
    stand('10.200.9.9', '10.0.0.1:8080', '10.0.0.2:8080'); // an address that the node had in a former run
    const names = (): string[] => [...kernel.ipvs.table.keys()].map(formatVirtualServer).sort();
    const wanted = ['10.200.0.2:30443', '10.96.0.1:80', '198.51.100.10:30443', '198.51.100.11:30443'];
    const second = new ReconcileRig(nodePort(), kernel);
    await second.sync();
    assert.deepEqual(
      names(),
      wanted.map((name) => `TCP ${name}`),
    );
    stand('198.51.100.12', '10.0.0.1:8080'); // while the daemon runs, only what it knows is its business
    assert.deepEqual(await second.verify(), []);
    assert.ok(names().includes('TCP 198.51.100.12:30443'));
  });

  test('while the Node is unknown leaves what follows from it, and puts it right when it comes', async () => {
    const restricted = (isNodeKnown: boolean): TestCluster => {
      const cluster = new TestCluster({ families: [4] });
      if (!isNodeKnown) cluster.state.setNode(undefined);
      const spec = { type: 'LoadBalancer', ports: [{ port: 80 }], loadBalancerSourceRanges: ['10.200.0.0/24'] };
      cluster.service('web', spec, { ingress: [{ ip: '192.0.2.10' }] });
      cluster.slice('web', ['10.0.0.1']);
      return cluster;
    };
    const first = new ReconcileRig(restricted(true));
    await first.sync();
    const { kernel } = first;
    const entries = (): number => kernel.netfilter.ipset!.sets.get('KUBE-LOAD-BALANCER-SOURCE-IP')!.elements.size;
    assert.equal(entries(), 1, 'the node itself is let in');
    const second = new ReconcileRig(restricted(false), kernel);
    await second.sync();
    assert.equal(entries(), 1);
    assert.deepEqual(await second.verify(), []);
    assert.equal(entries(), 1);
    second.cluster.service('web', { type: 'LoadBalancer', ports: [{ port: 80 }] }, { ingress: [{ ip: '192.0.2.10' }] });
    second.cluster.node({ zone: 'a', addresses: ['10.200.0.2'] });
    await second.sync();
    await second.verify();
    assert.equal(entries(), 0, 'wanted no more, once that can be told');
  });

  test('gives the API server’s Service its place before all others', async () => {
    const cluster = new TestCluster({ families: [4] });
    for (let i = 1; i <= 200; i++) cluster.service(`web-${i}`, { clusterIP: `10.96.1.${i}` });
    cluster.service('kubernetes', { clusterIP: '10.96.0.1', ports: [{ port: 443 }] });
    const rig = new ReconcileRig(cluster);
    await rig.sync();
    assert.equal(formatVirtualServer([...rig.kernel.ipvs.table.keys()][0]!), 'TCP 10.96.0.1:443');
    assert.equal(rig.kernel.ipvs.table.size, 201);
  });

  test('keeps addresses of the node off the dummy link', async () => {
    const cluster = web();
    cluster.service('web', { externalIPs: ['10.200.0.2', '192.0.2.1'] });
    const rig = new ReconcileRig(cluster);
    await rig.sync();
    assert.deepEqual(rig.kernel.links.addressesOf('kube-ipvs0'), ['10.96.0.1/32', '192.0.2.1/32']);
    rig.kernel.links.addAddress('eth0', '192.0.2.1', 32);
    rig.reconciler.prerequisites.wantAddresses();
    await rig.sync();
    assert.deepEqual(rig.kernel.links.addressesOf('kube-ipvs0'), ['10.96.0.1/32']);
    rig.kernel.links.removeAddress('eth0', '192.0.2.1');
    rig.reconciler.prerequisites.wantAddresses();
    await rig.sync();
    assert.deepEqual(rig.kernel.links.addressesOf('kube-ipvs0'), ['10.96.0.1/32', '192.0.2.1/32']);
  });
});

describe('a change', () => {
  test('of one endpoint costs the same few messages whatever the number of Services', async () => {
    const costs = [10, 1000].map(async (services) => {
      const cluster = new TestCluster({ families: [4] });
      for (let i = 0; i < services; i++) {
        cluster.service(`web-${i}`, { clusterIP: `10.96.${i >> 8}.${i & 255}` });
        cluster.slice(`web-${i}`, ['10.0.0.1', '10.0.0.2']);
      }
      const rig = new ReconcileRig(cluster);
      await rig.sync();
      await rig.sync();
      const before = rig.messages;
      cluster.slice('web-7', ['10.0.0.1', '10.0.0.2', '10.0.0.3']);
      await rig.sync();
      return rig.messages - before;
    });
    const [few, many] = await Promise.all(costs);
    assert.equal(few, many);
    assert.ok(few! >= 1 && few! <= 4, `${few} messages`);
  });

  test('of nothing costs no message', async () => {
    const rig = await running();
    await rig.sync();
    const before = rig.messages;
    await rig.sync();
    assert.equal(rig.messages, before);
  });

  test('that removes a Service removes all of it', async () => {
    const rig = await running();
    rig.cluster.state.deleteService('default/web');
    await rig.sync();
    assert.deepEqual(rig.state(), []);
  });

  test('of a UDP backend deletes it at once and names the stale flows', async () => {
    const rig = new ReconcileRig(dns());
    await rig.sync();
    assert.deepEqual(
      rig.stale.map(({ real }) => real),
      [undefined],
      'a new virtual server: flows from before it',
    );
    rig.cluster.slice('dns', ['10.0.0.1'], { ports: [{ name: '', port: 53, protocol: 'UDP' }] });
    await rig.sync();
    assert.equal(rig.weights('UDP 10.96.0.10:53'), '10.0.0.1:53=1');
    assert.deepEqual(rig.stale, [
      { server: addressServerKey('UDP', ip('10.96.0.10'), 53), real: realServerKey(ip('10.0.0.2'), 53) },
    ]);
  });
});

describe('verification', () => {
  test('comes every interval and finds nothing where nothing drifted, writing nothing', async () => {
    const rig = await running();
    await rig.clock.advance(VERIFY_MS - 1);
    assert.equal((await rig.sync()).verified, undefined);
    await rig.clock.advance(1);
    const { commands } = rig.kernel.ipvs;
    const writes = (): number => [1, 2, 3, 5, 6, 7].reduce((sum, command) => sum + (commands.get(command) ?? 0), 0);
    const before = writes();
    assert.equal((await rig.sync()).drift.total, 0);
    assert.equal(writes(), before);
  });

  const vandalism: [string, (rig: ReconcileRig) => void, string[]][] = [
    ['a virtual server deleted', ({ kernel }) => kernel.ipvs.table.delete(WEB), ['1 missing virtual_server']],
    ['ipvsadm -C', ({ kernel }) => kernel.ipvs.table.clear(), ['1 missing virtual_server']],
    [
      'another scheduler',
      ({ kernel }) => (kernel.ipvs.table.get(WEB)!.settings = { scheduler: 'lc', flags: 0, timeout: 0 }),
      ['1 changed virtual_server'],
    ],
    [
      'persistence',
      ({ kernel }) => (kernel.ipvs.table.get(WEB)!.settings = { scheduler: 'rr', flags: 1, timeout: 60 }),
      ['1 changed virtual_server'],
    ],
    ['a backend deleted', ({ kernel }) => kernel.ipvs.table.get(WEB)!.realServers.delete(A), ['1 missing real_server']],
    [
      'a weight of 0',
      ({ kernel }) => (kernel.ipvs.table.get(WEB)!.realServers.get(A)!.weight = 0),
      ['1 changed real_server'],
    ],
    [
      'a weight of 5',
      ({ kernel }) => (kernel.ipvs.table.get(WEB)!.realServers.get(A)!.weight = 5),
      ['1 changed real_server'],
    ],
    [
      'an address removed',
      ({ kernel }) => kernel.links.removeAddress('kube-ipvs0', '10.96.0.1'),
      ['1 missing address'],
    ],
    ['an address added', ({ kernel }) => kernel.links.addAddress('kube-ipvs0', '10.96.9.9', 32), ['1 extra address']],
    [
      'ip link del',
      ({ kernel, reconciler }) => {
        kernel.links.deleteLink('kube-ipvs0');
        reconciler.prerequisites.linkLost();
      },
      ['1 missing address', '1 missing link'],
    ],
    [
      'ipset flush',
      ({ kernel }) => {
        for (const { elements } of kernel.netfilter.ipset!.sets.values()) elements.clear();
      },
      ['2 missing set_entry'],
    ],
  ];
  for (const [what, vandalise, drift] of vandalism)
    test(`repairs: ${what}`, async () => {
      const rig = await running();
      const before = rig.state();
      vandalise(rig);
      assert.notDeepEqual(rig.state(), before);
      assert.deepEqual(await rig.verify(), drift);
      assert.deepEqual(rig.state(), before);
      assert.deepEqual(await rig.verify(), []);
    });

  test('takes a foreign backend out of a virtual server of ours, draining it', async () => {
    const rig = await running();
    const foreign = { ...rig.kernel.ipvs.table.get(WEB)!.realServers.get(A)! };
    rig.kernel.ipvs.table.get(WEB)!.realServers.set(realServerKey(ip('10.0.0.9'), 22), foreign);
    assert.deepEqual(await rig.verify(), ['1 extra real_server']);
    assert.equal(rig.weights('TCP 10.96.0.1:80'), '10.0.0.1:8080=1 10.0.0.2:8080=1 10.0.0.9:22=0');
    await rig.sync();
    assert.equal(rig.weights('TCP 10.96.0.1:80'), '10.0.0.1:8080=1 10.0.0.2:8080=1');
  });

  test('counts sysctls that others changed', async () => {
    const root = sysctlDirectory();
    const rig = new ReconcileRig(web(), new TestKernel(), [], root);
    await rig.sync();
    writeFileSync(`${root}/net/ipv4/ip_forward`, '0\n');
    assert.deepEqual(await rig.verify(), ['1 changed sysctl']);
    assert.equal(readFileSync(`${root}/net/ipv4/ip_forward`, 'utf8').trim(), '1');
  });

  test('that was asked for and could not finish is made up for by the next sync', async () => {
    const rig = await running();
    rig.reconciler.pending.verification = true;
    rig.kernel.faults.push({ at: 'send', code: 'ENOMEM', protocol: NETLINK_NETFILTER, stays: true });
    assert.notEqual((await rig.sync()).error, undefined);
    rig.kernel.faults.length = 0;
    assert.notEqual((await rig.sync()).verified, undefined);
  });
});

describe('a failure', () => {
  const cases: [string, number, string][] = [
    ['a virtual server', NETLINK_GENERIC, 'ENOMEM'],
    ['an address', NETLINK_ROUTE, 'ENOBUFS'],
  ];
  for (const [what, protocol, code] of cases)
    test(`of ${what} leaves the rest in place, and the next sync makes up for it`, async () => {
      const rig = await running();
      await rig.sync();
      for (let i = 2; i < 9; i++) {
        rig.cluster.service(`web-${i}`, { clusterIP: `10.96.0.${i}` });
        rig.cluster.slice(`web-${i}`, ['10.0.0.1']);
      }
      rig.kernel.faults.push({ at: 'message', code, protocol, skip: 2 });
      const report = await rig.sync();
      assert.ok(report.failures.length > 0);
      assert.equal(report.failures[0]!.code, code);
      assert.equal((await rig.sync()).ok, true);
      const clean = new ReconcileRig(rig.cluster);
      rig.cluster.state.markAllDirty();
      await clean.sync();
      assert.deepEqual(rig.state(), clean.state());
    });

  test('of one message in a batch does not hide behind the others', async () => {
    const rig = new ReconcileRig(web());
    await rig.sync();
    rig.cluster.slice('web', ['10.0.0.1', '10.0.0.2', '10.0.0.3', '10.0.0.4', '10.0.0.5', '10.0.0.6']);
    rig.kernel.faults.push({ at: 'message', code: 'EBUSY', skip: 1, protocol: NETLINK_GENERIC, text: 'busy' });
    const { failures } = await rig.sync();
    assert.equal(failures.length, 1);
    assert.match(failures[0]!.message, /EBUSY.*busy|busy.*EBUSY/);
    assert.equal(rig.kernel.ipvs.table.get(WEB)!.realServers.size, 5);
    assert.equal((await rig.sync()).failures.length, 0);
    assert.equal(rig.kernel.ipvs.table.get(WEB)!.realServers.size, 6);
  });

  test('of the whole kernel is thrown, and nothing is forgotten', async () => {
    const rig = await running();
    rig.cluster.slice('web', ['10.0.0.3']);
    rig.kernel.permitted = false;
    assert.equal((await rig.sync()).ok, false);
    rig.kernel.permitted = true;
    assert.equal((await rig.sync()).ok, true);
    assert.match(rig.weights('TCP 10.96.0.1:80'), /10\.0\.0\.3:8080=1/);
  });

  test('because somebody deleted it first is none', async () => {
    const rig = await running();
    rig.kernel.ipvs.table.delete(WEB);
    rig.cluster.state.deleteService('default/web');
    assert.deepEqual((await rig.sync()).failures, []);
  });
});

test('a kernel of its own is empty: the rig does not help', () => {
  assert.deepEqual(new ReconcileRig(web(), new TestKernel()).state(), []);
});
