/** VIPs as routes: the same promises as for addresses, and the way from one to the other without a gap. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type VipForm } from '../../../src/values/vip-form.js';
import { parseAddress } from '../../../src/values/address.js';
import { TestCluster } from '../../support/desired-cluster.js';
import { ReconcileRig } from '../../support/reconcile-rig.js';
import { TestKernel } from '../../fakes/test-kernel.js';

const ip = (text: string) => parseAddress(text)!;

function cluster(count: number): TestCluster {
  const made = new TestCluster({ families: [4] });
  for (let i = 0; i < count; i++) {
    made.service(`web-${i}`, { clusterIP: vip(i) });
    made.slice(`web-${i}`, ['10.0.0.1']);
  }
  return made;
}

function vip(i: number): string {
  return `10.96.${i >> 7}.${(i & 127) + 1}`;
}

function rigOf(vips: VipForm, count = 3, kernel = new TestKernel()): ReconcileRig {
  return new ReconcileRig(cluster(count), kernel, [], undefined, { vips });
}

const routesOf = (rig: ReconcileRig): string[] => rig.kernel.links.routes.list();
const addressesOf = (rig: ReconcileRig): string[] => rig.kernel.links.addressesOf('kube-ipvs0');
const ROUTES = ['10.96.0.1 dev 1', '10.96.0.2 dev 1', '10.96.0.3 dev 1'];
const ADDRESSES = ['10.96.0.1/32', '10.96.0.2/32', '10.96.0.3/32'];

describe('VIPs as routes', () => {
  test('are routes to lo and no addresses, follow the Services, and never what the node owns', async () => {
    const rig = rigOf('routes');
    await rig.sync();
    assert.deepEqual([routesOf(rig), addressesOf(rig)], [ROUTES, []]);
    assert.deepEqual(await rig.verify(), []);
    rig.cluster.service('web-3', { clusterIP: '10.200.0.2' });
    rig.cluster.state.deleteService('default/web-1');
    await rig.sync();
    assert.deepEqual(routesOf(rig), [ROUTES[0], ROUTES[2]]);
    rig.kernel.links.addAddress('eth0', '10.96.0.1', 32);
    rig.reconciler.prerequisites.wantAddresses();
    await rig.sync();
    assert.deepEqual(routesOf(rig), [ROUTES[2]]);
    rig.kernel.links.removeAddress('eth0', '10.96.0.1');
    rig.reconciler.prerequisites.wantAddresses();
    await rig.sync();
    assert.deepEqual(routesOf(rig), [ROUTES[0], ROUTES[2]]);
    assert.deepEqual(await rig.verify(), []);
  });

  test('that are missing, replaced or extra are found by a verification; other people’s are left alone', async () => {
    const rig = rigOf('routes');
    await rig.sync();
    const { routes } = rig.kernel.links;
    routes.remove('10.96.0.1');
    routes.put('10.96.0.2', { type: 6, protocol: 3 });
    routes.put('10.96.0.99');
    routes.put('10.96.0.3', { protocol: 99, metric: 0 });
    routes.put('10.78.0.1', { protocol: 186, metric: 20 });
    assert.deepEqual(await rig.verify(), ['1 extra address', '2 missing address']);
    assert.deepEqual(routesOf(rig), ['10.78.0.1 dev 1 proto 186', ...ROUTES, '10.96.0.3 dev 1 proto 99'].sort());
    assert.deepEqual(await rig.verify(), []);
  });

  test('an address that somebody puts on the link is removed, but for the kernel’s own link-local', async () => {
    const rig = rigOf('routes');
    await rig.sync();
    rig.kernel.links.addAddress('kube-ipvs0', '10.96.0.1', 32);
    rig.kernel.links.addAddress('kube-ipvs0', 'fe80::1', 64);
    assert.deepEqual(await rig.verify(), ['1 extra address']);
    assert.deepEqual([routesOf(rig), addressesOf(rig)], [ROUTES, ['fe80::1/64']]);
    assert.deepEqual(await rig.verify(), []);
  });

  test('cost a verification three dumps, whatever their number, and a change one message', async () => {
    const messages = async (count: number): Promise<number[]> => {
      const rig = rigOf('routes', count);
      await rig.sync();
      const { counters } = rig.clients.links;
      const before = counters.messagesSent;
      await rig.verify();
      const verified = counters.messagesSent;
      rig.cluster.service('one-more', { clusterIP: '10.97.0.1' });
      await rig.sync();
      return [verified - before, counters.messagesSent - verified];
    };
    assert.deepEqual(await messages(3), [3, 1]);
    assert.deepEqual(await messages(300), [3, 1]);
  });

  test('that the kernel refuses are named, skipped, and no drift', async () => {
    const rig = rigOf('routes');
    rig.kernel.links.routes.refuse = (address) => (address === ip('10.96.0.2') ? 'EINVAL' : undefined);
    for (let i = 0; i < 4; i++) await rig.sync();
    assert.equal(rig.reconciler.refusals.skipped.address, 1);
    assert.deepEqual([routesOf(rig), await rig.verify()], [[ROUTES[0], ROUTES[2]], []]);
  });

  test('survive the link: it is made anew, and they are where they were', async () => {
    const rig = rigOf('routes');
    await rig.sync();
    rig.kernel.links.deleteLink('kube-ipvs0');
    rig.reconciler.prerequisites.linkLost();
    await rig.sync();
    assert.ok(rig.kernel.links.find('kube-ipvs0'));
    assert.deepEqual(routesOf(rig), ROUTES);
  });
});

describe('from addresses to routes and back', () => {
  /** What came and went, in order. */
  function recorded(kernel: TestKernel): string[] {
    const log: string[] = [];
    const { links } = kernel;
    const note = (): void => {
      const state = `${links.addressesOf('kube-ipvs0').length} addresses, ${links.routes.list().length} routes`;
      if (log.at(-1) !== state) log.push(state);
    };
    const notify = kernel.notify.bind(kernel);
    kernel.notify = (...args) => {
      notify(...args);
      note();
    };
    return log;
  }

  for (const [from, to] of [
    ['addresses', 'routes'],
    ['routes', 'addresses'],
  ] as const)
    test(`from ${from} to ${to}: the new form is there before the old one goes, and nothing drifts`, async () => {
      const old = rigOf(from);
      await old.sync();
      const log = recorded(old.kernel);
      const rig = rigOf(to, 3, old.kernel);
      const record = await rig.sync();
      const [routes, addresses] = to === 'routes' ? [ROUTES, []] : [[], ADDRESSES];
      assert.deepEqual([routesOf(rig), addressesOf(rig)], [routes, addresses]);
      assert.equal(record.drift.total, 0);
      assert.ok(
        log.some((state) => state === '3 addresses, 3 routes'),
        log.join('; '),
      );
      assert.deepEqual(await rig.verify(), []);
    });

  test('virtual servers on a VIP in the other form are recognised as ours, even when nobody wants them', async () => {
    for (const [from, to] of [
      ['addresses', 'routes'],
      ['routes', 'addresses'],
    ] as const) {
      const old = rigOf(from);
      await old.sync();
      for (const { elements } of old.kernel.netfilter.ipset!.sets.values()) elements.clear();
      const rig = rigOf(to, 1, old.kernel);
      await rig.sync();
      const expected = to === 'routes' ? [ROUTES.slice(0, 1), []] : [[], ADDRESSES.slice(0, 1)];
      assert.deepEqual([routesOf(rig), addressesOf(rig)], expected);
      assert.equal(rig.kernel.ipvs.table.size, 1);
    }
  });

  test('hundreds of addresses go with their link, which is made anew', async () => {
    const old = rigOf('addresses', 600);
    await old.sync();
    const index = old.kernel.links.find('kube-ipvs0')!.index;
    const rig = rigOf('routes', 600, old.kernel);
    const before = rig.clients.links.counters.messagesSent;
    await rig.sync();
    assert.deepEqual([routesOf(rig).length, addressesOf(rig).length], [600, 0]);
    assert.notEqual(rig.kernel.links.find('kube-ipvs0')!.index, index);
    assert.ok(rig.clients.links.counters.messagesSent - before < 600 + 30);
    assert.deepEqual(await rig.verify(), []);
  });

  test('an address stays as long as its route is not there', async () => {
    const old = rigOf('addresses');
    await old.sync();
    const rig = rigOf('routes', 3, old.kernel);
    rig.kernel.links.routes.refuse = (address) => (address === ip('10.96.0.2') ? 'ENOMEM' : undefined);
    await rig.sync();
    assert.deepEqual(addressesOf(rig), ['10.96.0.2/32']);
    rig.kernel.links.routes.refuse = () => undefined;
    await rig.sync();
    assert.deepEqual([routesOf(rig), addressesOf(rig)], [ROUTES, []]);
  });

  test('the first Service is served first, and no other loses its address for it', async () => {
    const old = rigOf('addresses');
    await old.sync();
    const rig = rigOf('routes', 3, old.kernel);
    rig.cluster.service('kubernetes', { clusterIP: '10.96.1.1' });
    rig.kernel.links.routes.refuse = () => 'ENOMEM';
    await rig.sync();
    assert.deepEqual(addressesOf(rig), ADDRESSES);
  });
});
