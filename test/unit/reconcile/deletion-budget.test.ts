/**
 * The kernel searches its list of deleted real servers at every addition, so a rolling update must not delete while it
 * adds, and what it deletes afterwards must come slowly enough that the list stays short.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { DeletionBudget } from '../../../src/reconcile/deletion-budget.js';
import { parseAddress } from '../../../src/values/address.js';
import { addressServerKey } from '../../../src/values/virtual-server.js';
import { TestCluster } from '../../support/desired-cluster.js';
import { ReconcileRig } from '../../support/reconcile-rig.js';

/** So long the kernel keeps what was deleted on its list, ms. */
const LISTED_MS = 180_000;
/** So many may be deleted at once. */
const AT_ONCE = 5000;

class Time {
  ms = 0;
  now = (): number => this.ms;
}

/** Takes all that there is every second, of so many; how many in each. */
function takeFor(budget: DeletionBudget, time: Time, seconds: number, waiting: number): number[] {
  return Array.from({ length: seconds }, () => {
    time.ms += 1000;
    const taken = Math.max(0, Math.min(budget.left(waiting), waiting));
    budget.spend(taken);
    waiting -= taken;
    return taken;
  });
}

const sum = (counts: readonly number[]): number => counts.reduce((all, one) => all + one, 0);

describe('the budget of deletions', () => {
  test('lets 5,000 go at once, and then so many that the kernel lists 15,000 at most', () => {
    const time = new Time();
    const budget = new DeletionBudget(time);
    assert.equal(budget.left(10_000), 5000);
    const taken = takeFor(budget, time, 900, 30_000);
    for (let from = 0; from + 180 <= taken.length; from++) {
      const listed = sum(taken.slice(from, from + 180));
      assert.ok(listed <= 15_010, `${listed} from second ${from} on`);
    }
    assert.equal(sum(taken), 30_000);
  });

  test('grants nothing while real servers are added, but goes on after a minute of that', () => {
    const time = new Time();
    const budget = new DeletionBudget(time);
    budget.spend(AT_ONCE);
    const during = (seconds: number): number => {
      for (let i = 0; i < seconds; i++) {
        time.ms += 1000;
        budget.added();
      }
      return budget.left(50_000);
    };
    assert.equal(during(59), 83, 'for the second before the first addition');
    budget.spend(83);
    assert.ok(during(10) > 300);
  });

  test('is there again two seconds after the last addition', () => {
    const time = new Time();
    const budget = new DeletionBudget(time);
    budget.added();
    budget.spend(AT_ONCE);
    time.ms = 2000;
    assert.equal(budget.left(1), 0);
    time.ms = 3000;
    assert.equal(budget.left(1), 55);
  });

  test('grows with what waits, so that backends that come and go for ever leave few behind', () => {
    const time = new Time();
    const budget = new DeletionBudget(time);
    const [perSecond, seconds] = [400, 6000]; // what 500,000 endpoints that live for 20 minutes make
    let waiting = 0;
    for (let i = 0; i < seconds; i++) {
      time.ms += 1000;
      budget.added();
      waiting += perSecond;
      const taken = Math.max(0, Math.min(budget.left(waiting), waiting));
      budget.spend(taken);
      waiting -= taken;
    }
    assert.ok(waiting < 600 * perSecond * 1.1, `${waiting} wait`);
  });

  test('counts what has to go at once, and never waits longer for it than the kernel lists it', () => {
    const time = new Time();
    const budget = new DeletionBudget(time);
    budget.spend(100_000);
    assert.ok(budget.left(1) < 0);
    time.ms = LISTED_MS;
    assert.ok(budget.left(1) >= 0);
  });
});

describe('a rolling update', () => {
  const services = 1500;
  const name = (i: number): string => `web-${i}`;
  const endpoints = (i: number, round: number): string[] => [`10.1.${i >> 8}.${i & 255}`, `10.2.0.${round}`];

  function cluster(protocol: 'TCP' | 'UDP'): TestCluster {
    const made = new TestCluster({ families: [4] });
    for (let i = 0; i < services; i++) {
      const ports = [{ name: 'p', protocol, port: 80, targetPort: 8080 }];
      made.service(name(i), { clusterIP: `10.96.${i >> 8}.${i & 255}`, ports });
      made.slice(name(i), endpoints(i, 0), { ports: [{ name: 'p', protocol, port: 8080 }] });
    }
    return made;
  }

  test('adds and sets weight 0 first: few deletions before all is there, and the rest evenly', async () => {
    const rig = new ReconcileRig(cluster('TCP'));
    await rig.sync();
    rig.ipvs.budget.spend(AT_ONCE - 500);
    let deleted = 0;
    for (let i = 0; i < services; i++) {
      rig.cluster.slice(name(i), endpoints(i, 1), { ports: [{ name: 'p', protocol: 'TCP', port: 8080 }] });
      if (i % 100 !== 99) continue;
      await rig.clock.advance(50);
      deleted += (await rig.sync()).ipvs.realServersDeleted;
    }
    assert.equal(deleted, 500);
    const weights = (): number[] =>
      [...rig.kernel.ipvs.table.values()].flatMap(({ realServers }) => [...realServers.values()].map((r) => r.weight));
    assert.equal(weights().filter((weight) => weight === 1).length, 2 * services);
    assert.equal(weights().filter((weight) => weight === 0).length, services - 500);
    assert.equal(rig.drains.size, services - 500);
    for (let second = 0; second < 60 && rig.drains.size > 0; second++) {
      await rig.clock.advance(1000);
      const { ipvs } = await rig.sync();
      assert.ok(ipvs.realServersDeleted <= 56, `${ipvs.realServersDeleted} in a second`);
    }
    assert.deepEqual([rig.drains.size, weights().length], [0, 2 * services]);
  });

  test('looks at no drain while it may delete none', async () => {
    const rig = new ReconcileRig(cluster('TCP'));
    await rig.sync();
    rig.ipvs.budget.spend(AT_ONCE);
    let looks = 0;
    const { table } = rig.dataPlane;
    const connections = table.connections.bind(table);
    table.connections = (...args) => (looks++, connections(...args));
    for (let i = 0; i < services; i++) {
      rig.cluster.slice(name(i), endpoints(i, 1), { ports: [{ name: 'p', protocol: 'TCP', port: 8080 }] });
      if (i % 10 === 9) await rig.sync();
    }
    assert.deepEqual([looks, rig.drains.size], [0, services]);
  });

  test('of UDP adds all of a sync before it deletes, and deletes at once', async () => {
    const rig = new ReconcileRig(cluster('UDP'));
    await rig.sync();
    const order: string[] = [];
    const { ipvs } = rig.clients;
    const [add, remove] = [ipvs.addRealServers.bind(ipvs), ipvs.deleteRealServer.bind(ipvs)];
    ipvs.addRealServers = (...args) => (order.push('add'), add(...args));
    ipvs.deleteRealServer = (...args) => (order.push('delete'), remove(...args));
    for (let i = 0; i < services; i++)
      rig.cluster.slice(name(i), endpoints(i, 1), { ports: [{ name: 'p', protocol: 'UDP', port: 8080 }] });
    await rig.sync();
    assert.equal(order.lastIndexOf('add') + 1, order.indexOf('delete'));
    assert.equal(order.filter((what) => what === 'delete').length, services);
    assert.equal(rig.drains.size, 0);
  });

  test('a Service that is deleted takes its backends along at once, whatever is left of the budget', async () => {
    const rig = new ReconcileRig(cluster('TCP'));
    await rig.sync();
    rig.ipvs.budget.spend(100_000);
    rig.cluster.state.deleteService(`default/${name(7)}`);
    await rig.sync();
    const key = addressServerKey('TCP', parseAddress('10.96.0.7')!, 80);
    assert.equal(rig.kernel.ipvs.table.has(key), false);
    assert.equal(rig.drains.size, 0);
  });
});

describe('a deadline', () => {
  test('cuts connections whatever is left of the budget; what has none waits for it', async () => {
    const made = new TestCluster({ families: [4] });
    made.service('web');
    made.slice('web', ['10.0.0.1', '10.0.0.2', '10.0.0.3']);
    const rig = new ReconcileRig(made, undefined, [], undefined, { drainTimeoutMs: 10_000 });
    await rig.sync();
    rig.ipvs.budget.spend(100_000);
    const key = addressServerKey('TCP', parseAddress('10.96.0.1')!, 80);
    const reals = [...rig.kernel.ipvs.table.get(key)!.realServers.values()];
    Object.assign(reals[1]!, { active: 2 });
    rig.cluster.slice('web', ['10.0.0.1']);
    await rig.sync();
    assert.equal(rig.drains.size, 2);
    await rig.clock.advance(10_000);
    await rig.sync();
    assert.equal(rig.drains.size, 1);
    assert.equal(rig.weights('TCP 10.96.0.1:80').split(' ').length, 2);
    assert.match(rig.weights('TCP 10.96.0.1:80'), /=0/);
    await rig.clock.advance(LISTED_MS);
    await rig.sync();
    assert.equal(rig.drains.size, 0);
  });
});
