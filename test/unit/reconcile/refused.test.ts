/** Objects that the kernel refuses for good: skipped, named, tried again now and then; in the way of nothing else. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { parseAddress } from '../../../src/values/address.js';
import { formatRealServer, formatVirtualServer } from '../../../src/values/virtual-server.js';
import { scaleCluster } from '../../fakes/cluster-generator.js';
import { FaultRig } from '../../support/fault-rig.js';

const BROADCAST = '10.200.0.255:8080';
const FIVE_MINUTES = 300_000;

function slice(service: string, addresses: readonly string[], name = `${service}-1`): object {
  return {
    kind: 'EndpointSlice',
    metadata: {
      namespace: 'default',
      name,
      labels: { 'kubernetes.io/service-name': service },
      annotations: { 'endpoints.kubernetes.io/last-change-trigger-time': new Date().toISOString() },
    },
    addressType: 'IPv4',
    ports: [{ name: '', port: 8080, protocol: 'TCP' }],
    endpoints: addresses.map((ip) => ({ addresses: [ip], conditions: { ready: true } })),
  };
}

function service(name: string, clusterIP: string, spec: object = {}): object {
  return {
    kind: 'Service',
    metadata: { namespace: 'default', name, creationTimestamp: '2024-01-01T00:00:00Z' },
    spec: { type: 'ClusterIP', clusterIP, clusterIPs: [clusterIP], ports: [{ port: 80, protocol: 'TCP' }], ...spec },
  };
}

/** A few Services in the kernel; then one whose second backend the kernel will not have. */
async function refusing(errno = 'EINVAL'): Promise<FaultRig> {
  const rig = new FaultRig();
  for (const object of scaleCluster({ services: 5, endpointsPerService: 3 })) rig.core.set(object);
  assert.equal(await rig.sync(), true);
  rig.kernel.ipvs.refuse = (_server, real) =>
    real !== undefined && formatRealServer(real) === BROADCAST ? errno : undefined;
  set(rig, service('bad', '10.96.50.1'), slice('bad', ['10.0.0.1', '10.200.0.255', '10.0.0.2']));
  return rig;
}

function set(rig: FaultRig, ...objects: object[]): void {
  for (const object of objects) rig.core.set(object as never);
}

/** Syncs until nothing has to be tried again soon. */
async function settle(rig: FaultRig): Promise<number> {
  for (let syncs = 1; syncs < 10; syncs++) if (await rig.sync()) return syncs;
  throw new Error('still failing after 10 syncs');
}

describe('a backend that the kernel refuses for good', () => {
  for (const errno of ['EINVAL', 'EACCES', 'EADDRNOTAVAIL', 'EAFNOSUPPORT', 'ENETUNREACH', 'ERANGE'])
    test(`with ${errno}: is skipped after three tries, counted and named; the rest of its Service is served`, async () => {
      const rig = await refusing(errno);
      assert.equal(await settle(rig), 3);
      assert.deepEqual(rig.drift(), ['- -a -t 10.96.50.1:80 -r 10.200.0.255:8080']);
      assert.equal(await rig.metric('kubeproxy_ipvs_refused_objects', 'object="real_server"'), 1);
      const { refused, waitingSince, lastFailure } = rig.reporter.state;
      assert.equal(refused.count, 1);
      assert.match(refused.messages[0]!, new RegExp(`10\\.96\\.50\\.1:80 -> 10\\.200\\.0\\.255:8080: ${errno}`));
      assert.deepEqual([waitingSince, lastFailure], [undefined, undefined]);
      assert.deepEqual(rig.health().reasons, []);
      assert.deepEqual(rig.reports.flatMap(({ newlySkipped }) => newlySkipped).length, 1, 'it is told once');
    });

  for (const errno of ['ENOMEM', 'ENOBUFS', 'EPERM'])
    test(`with ${errno} it is not its fault: it waits, and health says so`, async () => {
      const rig = await refusing(errno);
      for (let i = 0; i < 8; i++) assert.equal(await rig.sync(), false);
      assert.equal(rig.reporter.state.refused.count, 0);
      assert.match(rig.health().reasons.join(), new RegExp(errno));
    });

  test('costs no message, no dump and no drift until it is tried again, which is ever more rarely', async () => {
    const rig = await refusing();
    await settle(rig);
    const { messages } = rig;
    await rig.sync();
    assert.equal(rig.messages, messages, 'a sync without a change');
    let tries = 0;
    const { refuse } = rig.kernel.ipvs;
    rig.kernel.ipvs.refuse = (server, real) => {
      const errno = refuse(server, real);
      if (errno !== undefined) tries++;
      return errno;
    };
    const triesAt: number[] = [];
    for (let seconds = 30; seconds <= 1800; seconds += 30) {
      const before = tries;
      assert.equal(await rig.verify(), true);
      assert.equal(rig.verifiedDrift, 0, 'what is refused has not drifted');
      if (tries > before) triesAt.push(seconds);
    }
    assert.ok(tries >= 5 && tries <= 10, `${tries} tries in half an hour, at ${triesAt.join()}`);
    const gaps = triesAt.slice(1).map((at, i) => at - triesAt[i]!);
    assert.ok(Math.max(...gaps) * 1000 <= FIVE_MINUTES, `gaps ${gaps.join()}`);
    assert.equal(rig.reports.flatMap(({ newlySkipped }) => newlySkipped).length, 1);
  });

  test('is there soon after the kernel would have it', async () => {
    const rig = await refusing();
    await settle(rig);
    rig.kernel.ipvs.refuse = () => undefined;
    for (let i = 0; i < 10; i++) assert.equal(await rig.verify(), true);
    assert.deepEqual(rig.drift(), []);
    assert.equal(rig.reporter.state.refused.count, 0);
    assert.equal(await rig.metric('kubeproxy_ipvs_refused_objects'), 0);
  });

  test('is due again in half a minute, then in twice as long; nothing is due where nothing is refused', async () => {
    const rig = await refusing();
    const { refusals } = rig.reconciler;
    assert.equal(refusals.dueIn, Infinity);
    await settle(rig);
    assert.equal(refusals.dueIn, 30_000);
    await rig.clock.advance(10_000);
    assert.equal(refusals.dueIn, 20_000);
    assert.ok(rig.reconciler.dueIn <= 20_000, 'and a sync with it');
    await rig.clock.advance(25_000);
    assert.equal(refusals.dueIn, 0);
    await rig.sync();
    assert.equal(refusals.dueIn, 60_000);
  });

  test('is forgotten when it is wanted no more', async () => {
    const rig = await refusing();
    await settle(rig);
    set(rig, slice('bad', ['10.0.0.1']));
    assert.equal(await rig.sync(), true);
    assert.equal(rig.reporter.state.refused.count, 0);
    assert.equal(await rig.metric('kubeproxy_ipvs_refused_objects'), 0);
    assert.deepEqual(rig.drift(), []);
  });

  test('keeps nobody waiting: what follows a sync follows each one, and others are programmed', async () => {
    const rig = await refusing();
    let after = 0;
    rig.reporter.afterSync = () => void after++;
    for (let i = 1; i <= 5; i++) {
      set(rig, service(`web-${i}`, `10.96.60.${i}`), slice(`web-${i}`, [`10.0.1.${i}`]));
      rig.reporter.endpointsTriggered(4, Date.now());
      await rig.sync();
      assert.equal(after, i, 'health check node ports follow');
      assert.equal(await rig.metric('kubeproxy_network_programming_duration_seconds_count', 'IPv4'), i);
      assert.deepEqual(rig.drift(), ['- -a -t 10.96.50.1:80 -r 10.200.0.255:8080']);
    }
    assert.ok((await rig.metric('kubeproxy_sync_proxy_rules_last_timestamp_seconds', 'IPv4')) > 0);
  });

  test('a change of its Service is made all the same, and does not tell it again', async () => {
    const rig = await refusing();
    await settle(rig);
    for (let i = 3; i < 9; i++) {
      set(rig, slice('bad', ['10.0.0.1', '10.200.0.255', `10.0.0.${i}`]));
      assert.equal(await rig.sync(), true);
      assert.deepEqual(rig.drift(), ['- -a -t 10.96.50.1:80 -r 10.200.0.255:8080']);
    }
    assert.equal(rig.reports.flatMap(({ newlySkipped }) => newlySkipped).length, 1);
    assert.equal(rig.reporter.state.refused.count, 1);
  });

  test('among hundreds, in the first batch and in the last one', async () => {
    const rig = new FaultRig();
    for (const object of scaleCluster({ services: 5, endpointsPerService: 3 })) rig.core.set(object);
    await rig.sync();
    const bad = new Set(['10.1.0.0:8080', '10.1.1.77:8080', '10.1.2.87:8080']);
    rig.kernel.ipvs.refuse = (_server, real) =>
      real !== undefined && bad.has(formatRealServer(real)) ? 'EINVAL' : undefined;
    const addresses = Array.from({ length: 600 }, (_, i) => `10.1.${i >> 8}.${i & 255}`);
    set(rig, service('large', '10.96.50.2'), slice('large', addresses));
    assert.equal(await settle(rig), 3);
    assert.equal(rig.drift().length, 3);
    assert.equal(rig.reporter.state.refused.count, 3);
    assert.equal(await rig.verify(), true);
    assert.equal(rig.verifiedDrift, 0);
  });
});

describe('refused for good', () => {
  test('a virtual server: skipped with its backends, which are not counted besides', async () => {
    const rig = await refusing();
    rig.kernel.ipvs.refuse = (server, real) =>
      real === undefined && formatVirtualServer(server) === 'TCP 10.96.50.1:80' ? 'EINVAL' : undefined;
    assert.equal(await settle(rig), 3);
    assert.deepEqual(rig.reconciler.refusals.skipped, { virtual_server: 1, real_server: 0, address: 0, set_entry: 0 });
    assert.equal(rig.reconciler.refusals.skippedCount, 1);
    assert.equal(await rig.verify(), true);
    assert.equal(rig.verifiedDrift, 0);
    rig.kernel.ipvs.refuse = () => undefined;
    for (let i = 0; i < 10; i++) await rig.verify();
    assert.deepEqual(rig.drift(), []);
  });

  test('an address: skipped, its virtual server is there; bound when the kernel takes it', async () => {
    const rig = await refusing();
    rig.kernel.ipvs.refuse = () => undefined;
    const vip = parseAddress('10.96.50.1')!;
    rig.kernel.links.refuse = (address) => (address === vip ? 'EACCES' : undefined);
    assert.equal(await settle(rig), 3);
    assert.deepEqual(rig.drift(), ['- address 10.96.50.1']);
    assert.equal(rig.reconciler.refusals.skipped.address, 1);
    for (let i = 0; i < 4; i++) {
      assert.equal(await rig.verify(), true);
      assert.equal(rig.verifiedDrift, 0);
    }
    rig.kernel.links.refuse = () => undefined;
    for (let i = 0; i < 10; i++) await rig.verify();
    assert.deepEqual(rig.drift(), []);
    assert.equal(rig.reporter.state.refused.count, 0);
  });

  for (const [family, clusterIP, errno, says] of [
    [
      'IPv6',
      'fd00:96::50',
      'EACCES',
      /^fd00:96::50: .*EACCES.* \(net\.ipv6\.conf\.kube-ipvs0\.disable_ipv6 is 1: set it to 0\)$/,
    ],
    ['IPv4', '10.96.50.9', 'EACCES', /^10\.96\.50\.9: .*EACCES(?!.*disable_ipv6)/],
    ['IPv6', 'fd00:96::50', 'ERANGE', /^fd00:96::50: .*ERANGE(?!.*disable_ipv6)/],
  ] as const)
    test(`an ${family} address refused with ${errno}: the log and the status page say the fix where there is one`, async () => {
      const rig = await refusing();
      rig.kernel.ipvs.refuse = () => undefined;
      set(rig, service('vip', clusterIP, { clusterIPs: [clusterIP] }));
      const vip = parseAddress(clusterIP)!;
      rig.kernel.links.refuse = (address) => (address === vip ? errno : undefined);
      assert.equal(await settle(rig), 3);
      const [message = '', ...more] = rig.reporter.state.refused.messages;
      assert.match(message, says);
      assert.deepEqual(more, []);
      const logged = rig.reports.flatMap(({ newlySkipped }) => newlySkipped);
      assert.deepEqual(logged, [message]);
    });

  test('an entry of a set', async () => {
    const rig = await refusing();
    rig.kernel.ipvs.refuse = () => undefined;
    rig.kernel.netfilter.ipset!.refuse = (set, element) =>
      set === 'KUBE-CLUSTER-IP' && element.includes('0a603201') ? 34 : 0;
    assert.equal(await settle(rig), 3);
    assert.deepEqual(rig.drift(), ['- add KUBE-CLUSTER-IP 10.96.50.1,tcp:80']);
    assert.equal(await rig.verify(), true);
    assert.equal(rig.verifiedDrift, 0);
  });

  test('drift of others is found beside it', async () => {
    const rig = await refusing();
    await settle(rig);
    rig.kernel.links.removeAddress('kube-ipvs0', '10.96.1.2');
    rig.kernel.ipvs.table.delete(
      [...rig.kernel.ipvs.table.keys()].find((key) => formatVirtualServer(key) === 'TCP 10.96.1.3:80')!,
    );
    assert.equal(await rig.verify(), true);
    assert.equal(rig.verifiedDrift, 2);
    assert.deepEqual(rig.drift(), ['- -a -t 10.96.50.1:80 -r 10.200.0.255:8080']);
  });
});

describe('a whole class refused', () => {
  test('every virtual server: this node is at fault, and health says so', async () => {
    const rig = await refusing();
    rig.kernel.ipvs.refuse = () => 'EINVAL';
    rig.kernel.ipvs.table.clear();
    await rig.verify();
    for (let i = 0; i < 8; i++) assert.equal(await rig.sync(), false);
    assert.match(rig.health().reasons.join(), /every virtual server.*EINVAL/);
  });

  test('every address', async () => {
    const rig = new FaultRig();
    rig.kernel.links.refuse = () => 'EACCES';
    for (const object of scaleCluster({ services: 5, endpointsPerService: 3 })) rig.core.set(object);
    for (let i = 0; i < 8; i++) assert.equal(await rig.sync(), false);
    assert.match(rig.health().reasons.join(), /every address.*EACCES/);
    rig.kernel.links.refuse = () => undefined;
    for (let i = 0; i < 10; i++) await rig.verify();
    assert.deepEqual(rig.drift(), []);
    assert.deepEqual(rig.health().reasons, []);
  });
});
