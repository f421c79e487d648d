/** Endpoints that are taken away keep their connections for a while; addresses that are taken away come back. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { NETLINK_GENERIC } from '../../../src/netlink/socket.js';
import { parseAddress } from '../../../src/values/address.js';
import { addressServerKey, realServerKey, realServerList } from '../../../src/values/virtual-server.js';
import { TestCluster } from '../../support/desired-cluster.js';
import { DRAIN_MS, ReconcileRig, web } from '../../support/reconcile-rig.js';
import { testConfig } from '../../support/test-world.js';

const ip = (text: string) => parseAddress(text)!;
const WEB = addressServerKey('TCP', ip('10.96.0.1'), 80);
const A = realServerKey(ip('10.0.0.1'), 8080);
const B = realServerKey(ip('10.0.0.2'), 8080);

/** One synced web Service. */
async function running(): Promise<ReconcileRig> {
  const rig = new ReconcileRig(web());
  await rig.sync();
  return rig;
}

describe('a removed endpoint', () => {
  const connections = (rig: ReconcileRig, active: number, inactive: number): void => {
    Object.assign(rig.kernel.ipvs.table.get(WEB)!.realServers.get(B)!, { active, inactive });
  };

  test('drains as long as it has connections, active or not', async () => {
    const rig = await running();
    connections(rig, 3, 0);
    rig.cluster.slice('web', ['10.0.0.1']);
    await rig.sync();
    assert.equal(rig.weights('TCP 10.96.0.1:80'), '10.0.0.1:8080=1 10.0.0.2:8080=0');
    assert.equal(rig.drains.size, 1);
    assert.equal(rig.drains.connections(WEB, B), 3);
    connections(rig, 0, 2);
    await rig.sync();
    assert.equal(rig.drains.size, 1);
    connections(rig, 0, 0);
    await rig.sync();
    assert.equal(rig.weights('TCP 10.96.0.1:80'), '10.0.0.1:8080=1');
    assert.equal(rig.drains.size, 0);
  });

  test('is deleted at its deadline, connections or not', async () => {
    const rig = await running();
    connections(rig, 3, 0);
    rig.cluster.slice('web', ['10.0.0.1']);
    await rig.sync();
    assert.deepEqual(rig.drains.list(), [{ server: WEB, real: B, msLeft: DRAIN_MS }]);
    await rig.clock.advance(DRAIN_MS - 1);
    await rig.sync();
    assert.equal(rig.drains.size, 1);
    await rig.clock.advance(1);
    await rig.sync();
    assert.equal(rig.weights('TCP 10.96.0.1:80'), '10.0.0.1:8080=1');
  });

  test('to which somebody gives weight again is drift, and drains on', async () => {
    const rig = await running();
    connections(rig, 3, 0);
    rig.cluster.slice('web', ['10.0.0.1']);
    await rig.sync();
    assert.deepEqual(await rig.verify(), []);
    Object.assign(rig.kernel.ipvs.table.get(WEB)!.realServers.get(B)!, { weight: 1 });
    assert.deepEqual(await rig.verify(), ['1 changed real_server']);
    assert.equal(rig.weights('TCP 10.96.0.1:80'), '10.0.0.1:8080=1 10.0.0.2:8080=0');
  });

  test('that comes back has its weight again and is drained no more', async () => {
    const rig = await running();
    connections(rig, 3, 0);
    rig.cluster.slice('web', ['10.0.0.1']);
    await rig.sync();
    rig.cluster.slice('web', ['10.0.0.1', '10.0.0.2']);
    const { ipvs } = await rig.sync();
    assert.deepEqual([ipvs.realServersAdded, ipvs.realServersChanged, ipvs.realServersDeleted], [0, 1, 0]);
    assert.equal(rig.weights('TCP 10.96.0.1:80'), '10.0.0.1:8080=1 10.0.0.2:8080=1');
    assert.equal(rig.drains.size, 0);
  });

  test('waits while further changes do, for a deleted one makes every add dearer; half a minute at most', async () => {
    const rig = await running();
    const upsert = rig.ipvs.upsert.bind(rig.ipvs);
    let endpoints = 3;
    rig.ipvs.upsert = (...work) => {
      rig.cluster.slice('other', [`10.0.1.${endpoints++}`]); // a change comes while the sync goes on
      return upsert(...work);
    };
    rig.cluster.slice('web', ['10.0.0.1']);
    for (const age of [0, 10_000, 29_000]) {
      await rig.clock.advance(age - rig.clock.now());
      await rig.sync();
      assert.equal(rig.weights('TCP 10.96.0.1:80'), '10.0.0.1:8080=1 10.0.0.2:8080=0');
    }
    await rig.clock.advance(1000);
    await rig.sync();
    assert.equal(rig.weights('TCP 10.96.0.1:80'), '10.0.0.1:8080=1');
    rig.cluster.slice('web', ['10.0.0.3']);
    await rig.sync();
    assert.equal(rig.weights('TCP 10.96.0.1:80'), '10.0.0.1:8080=0 10.0.0.3:8080=1');
    rig.ipvs.upsert = upsert;
    await rig.sync();
    assert.equal(rig.weights('TCP 10.96.0.1:80'), '10.0.0.3:8080=1');
  });

  test('keeps its deadline when another one joins it', async () => {
    const rig = await running();
    connections(rig, 3, 0);
    Object.assign(rig.kernel.ipvs.table.get(WEB)!.realServers.get(A)!, { active: 1 });
    rig.cluster.slice('web', ['10.0.0.1']);
    await rig.sync();
    await rig.clock.advance(10_000);
    rig.cluster.slice('web', []);
    await rig.sync();
    const left = new Map(rig.drains.list().map(({ real, msLeft }) => [real, msLeft]));
    assert.deepEqual([left.get(B), left.get(A)], [DRAIN_MS - 10_000, DRAIN_MS]);
  });

  test('goes on draining after a restart, and one that is wanted again has its weight back', async () => {
    for (const wanted of [['10.0.0.1'], ['10.0.0.1', '10.0.0.2']]) {
      const old = await running();
      connections(old, 3, 0);
      old.cluster.slice('web', ['10.0.0.1']);
      await old.sync();
      const cluster = web();
      cluster.slice('web', wanted);
      const rig = new ReconcileRig(cluster, old.kernel);
      await rig.sync();
      const weight = wanted.length - 1;
      assert.equal(rig.weights('TCP 10.96.0.1:80'), `10.0.0.1:8080=1 10.0.0.2:8080=${weight}`);
      assert.equal(rig.drains.size, 1 - weight);
      connections(rig, 0, 0);
      await rig.sync();
      assert.equal(rig.drains.size, 0);
    }
  });

  test('that cannot be deleted makes the sync fail, and the next one tries again', async () => {
    const rig = await running();
    connections(rig, 3, 0);
    rig.cluster.slice('web', ['10.0.0.1']);
    await rig.sync();
    connections(rig, 0, 0);
    rig.kernel.faults.push({ at: 'message', code: 'ENOMEM', protocol: NETLINK_GENERIC });
    assert.equal((await rig.sync()).failures.length, 1);
    assert.equal((await rig.sync()).ok, true);
    assert.equal(rig.weights('TCP 10.96.0.1:80'), '10.0.0.1:8080=1');
    assert.equal(rig.drains.size, 0);
  });

  test('goes at once with its whole Service', async () => {
    const rig = await running();
    connections(rig, 3, 0);
    rig.cluster.slice('web', ['10.0.0.1']);
    await rig.sync();
    rig.cluster.state.deleteService('default/web');
    await rig.sync();
    assert.deepEqual([rig.drains.size, rig.state()], [0, []]);
  });
});

describe('without a deadline', () => {
  /** Real servers of web looked at, by getsockopt of its virtual server. */
  function looks(rig: ReconcileRig): () => number {
    let count = 0;
    const { table } = rig.dataPlane;
    const connections = table.connections.bind(table);
    table.connections = (...args) => {
      count++;
      return connections(...args);
    };
    return () => count;
  }

  async function draining(active: number): Promise<ReconcileRig> {
    const rig = new ReconcileRig(web(), undefined, [], undefined, { drainTimeoutMs: 0 });
    await rig.sync();
    Object.assign(rig.kernel.ipvs.table.get(WEB)!.realServers.get(B)!, { active });
    rig.cluster.slice('web', ['10.0.0.1']);
    await rig.sync();
    return rig;
  }

  test('a drain lasts as long as its connections, and ends with the last one', async () => {
    const rig = await draining(1);
    assert.deepEqual(rig.drains.list(), [{ server: WEB, real: B, msLeft: Infinity }]);
    for (let day = 0; day < 30; day++) {
      await rig.clock.advance(86_400_000);
      await rig.sync();
      assert.equal(rig.weights('TCP 10.96.0.1:80'), '10.0.0.1:8080=1 10.0.0.2:8080=0');
    }
    Object.assign(rig.kernel.ipvs.table.get(WEB)!.realServers.get(B)!, { active: 0 });
    await rig.clock.advance(60_000);
    await rig.sync();
    assert.equal(rig.weights('TCP 10.96.0.1:80'), '10.0.0.1:8080=1');
    assert.deepEqual([rig.drains.size, rig.drains.dueIn], [0, Infinity]);
  });

  test('is the default', () => assert.equal(testConfig().drainTimeoutMs, 0));

  test('it is looked at every second at first, then ever more rarely, and once a minute at least', async () => {
    const rig = await draining(1);
    const count = looks(rig);
    const dueIn = async (seconds: number): Promise<number> => {
      await rig.clock.advance(seconds * 1000);
      await rig.sync();
      return rig.drains.dueIn;
    };
    assert.equal(await dueIn(0), 1000);
    assert.equal(await dueIn(5), 1000);
    const later = await dueIn(55);
    assert.ok(later > 1000 && later <= 10_000, `${later} ms after a minute`);
    assert.equal(await dueIn(86_400), 60_000);
    const before = count();
    for (let second = 0; second < 3600; second++) await dueIn(1); // a change every second
    assert.ok(count() - before <= 61, `${count() - before} looks in an hour`);
  });

  test('150,000 of one virtual server are noted', async () => {
    const rig = await running();
    const gone = Array.from({ length: 150_000 }, (_, i) =>
      realServerKey(ip(`10.${64 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}`), 8080),
    );
    rig.ipvs.applied.set(WEB, { ...rig.ipvs.applied.get(WEB)!, draining: realServerList(gone) });
    rig.drains.note(WEB);
    assert.equal(rig.drains.size, 150_000);
  });

  test('10,000 of them are looked at in turn, some hundreds at a time', async () => {
    const cluster = new TestCluster({ families: [4] });
    const services = 1200;
    for (let i = 0; i < services; i++) {
      cluster.service(`web-${i}`, { clusterIP: `10.96.${i >> 8}.${i & 255}` });
      cluster.slice(`web-${i}`, ['10.0.0.1', '10.0.0.2']);
    }
    const rig = new ReconcileRig(cluster, undefined, [], undefined, { drainTimeoutMs: 0 });
    await rig.sync();
    for (const { realServers } of rig.kernel.ipvs.table.values())
      for (const [key, real] of realServers) if (key === B) Object.assign(real, { active: 1 });
    for (let i = 0; i < services; i++) cluster.slice(`web-${i}`, ['10.0.0.1']);
    await rig.sync();
    assert.equal(rig.drains.size, services);
    const count = looks(rig);
    await rig.clock.advance(1000);
    await rig.sync();
    assert.ok(count() <= 500, `${count()} in one poll`);
    for (const { realServers } of rig.kernel.ipvs.table.values())
      for (const real of realServers.values()) Object.assign(real, { active: 0 });
    for (let i = 0; i < 60 && rig.drains.size > 0; i++) {
      await rig.clock.advance(rig.drains.dueIn);
      const { ipvs } = await rig.sync();
      assert.ok(ipvs.realServersDeleted <= 500, `${ipvs.realServersDeleted} in one poll`);
    }
    assert.equal(rig.drains.size, 0);
  });
});

describe('an event on the dummy link', () => {
  test('for an address that was taken away has it bound again by the next sync', async () => {
    const rig = await running();
    rig.kernel.links.removeAddress('kube-ipvs0', '10.96.0.1');
    assert.equal(rig.reconciler.prerequisites.addressChanged(ip('10.96.0.1'), false), true);
    await rig.sync();
    assert.deepEqual(rig.kernel.links.addressesOf('kube-ipvs0'), ['10.96.0.1/32']);
  });

  test('that says what is desired, or is the kernel’s own link-local, is nothing', async () => {
    const rig = await running();
    assert.equal(rig.reconciler.prerequisites.addressChanged(ip('10.96.0.1'), true), false);
    assert.equal(rig.reconciler.prerequisites.addressChanged(ip('10.99.0.1'), false), false);
    assert.equal(rig.reconciler.prerequisites.addressChanged(ip('fe80::1'), true), false);
    assert.equal(rig.reconciler.prerequisites.addressChanged(ip('10.99.0.1'), true), true);
  });
});
