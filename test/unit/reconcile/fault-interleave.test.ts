/** Changes that come in the middle of longer work: while the kernel is read back, and during the first sync. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { scaleCluster, scaleSlices } from '../../fakes/cluster-generator.js';
import { NETLINK_GENERIC, NETLINK_NETFILTER, NETLINK_ROUTE } from '../../../src/netlink/socket.js';
import { splitMessages } from '../../fakes/netlink-bytes.js';
import { FaultRig } from '../../support/fault-rig.js';

const SCALE = { services: 100, endpointsPerService: 5 };

async function rigOf(minInterval: number): Promise<FaultRig> {
  const rig = new FaultRig('sockopt', minInterval);
  for (const object of scaleCluster(SCALE)) rig.core.set(object);
  assert.equal(await rig.sync(), true);
  return rig;
}

/** Verifies, and replaces an endpoint after a few turns of the reading. */
async function verifyAndChange(rig: FaultRig): Promise<{ readonly writtenBeforeEnd: readonly string[] }> {
  const written = rig.written.length;
  let writtenBeforeEnd: readonly string[] = [];
  let isDone = false;
  const verifying = rig.verify().finally(() => (isDone = true));
  for (let turn = 0; !isDone; turn++) {
    if (turn === 10) for (const slice of scaleSlices(70, SCALE, { endpoint: 2, by: 1 })) rig.core.set(slice);
    writtenBeforeEnd = rig.written.slice(written);
    await nextTurn();
  }
  assert.equal(await verifying, true);
  assert.equal(rig.verifiedDrift, 0);
  return { writtenBeforeEnd };
}

test('a change does not wait for the end of the verification', async () => {
  const rig = await rigOf(0);
  const { writtenBeforeEnd } = await verifyAndChange(rig);
  assert.deepEqual(writtenBeforeEnd, ['add', 'set'], 'the new backend, and weight 0 for the old one');
  assert.equal(rig.interleaved, 1);
  assert.equal(rig.lastReport.servicesChanged, 1);
  await rig.sync();
  assert.deepEqual(rig.drift(), []);
});

test('a burst in the middle of a verification is made in few pieces', async () => {
  const rig = await rigOf(0);
  let isDone = false;
  const verifying = rig.verify().finally(() => (isDone = true));
  for (let turn = 0; !isDone; turn++) {
    if (turn >= 10 && turn < 50)
      for (const slice of scaleSlices(turn, SCALE, { endpoint: 2, by: 1 })) rig.core.set(slice);
    if (turn === 60) await rig.clock.advance(50);
    else await nextTurn();
  }
  assert.equal(await verifying, true);
  assert.equal(rig.verifiedDrift, 0);
  assert.equal(rig.interleaved, 2, 'the first of them at once, the others together');
  await rig.sync();
  assert.deepEqual(rig.drift(), []);
});

test('a change waits for minSyncPeriod, also while the kernel is read back', async () => {
  const rig = await rigOf(1000);
  await verifyAndChange(rig);
  assert.equal(rig.interleaved, 0);
  await rig.sync();
  assert.deepEqual(rig.drift(), []);
});

test('a change of what is programmed already does not wait for the end of the first sync', async () => {
  const scale = { services: 600, endpointsPerService: 5 };
  const rig = new FaultRig('sockopt', 0);
  for (const object of scaleCluster(scale)) rig.core.set(object);
  let isDone = false;
  const syncing = rig.sync().finally(() => (isDone = true));
  const { applied } = rig.dataPlane.ipvs;
  while (applied.size < 200) await nextTurn();
  const [programmed] = [...applied.values()];
  const before = rig.written.length;
  for (const slice of scaleSlices(0, scale, { endpoint: 2, by: 1 })) rig.core.set(slice);
  rig.reporter.changeQueued(performance.now());
  let isThereAfter: number | undefined;
  while (!isDone) {
    if (isThereAfter === undefined && [...applied.values()][0] !== programmed) isThereAfter = rig.written.length;
    await nextTurn();
  }
  assert.equal(await syncing, true);
  assert.ok(isThereAfter !== undefined && isThereAfter < rig.written.length, 'made before the sync was over');
  // 128 virtual servers of six messages each, and two for the change.
  assert.ok(isThereAfter - before <= 2 * 128 * 6, `${isThereAfter - before} messages went before it`);
  assert.equal(rig.interleaved, 1);
  assert.deepEqual(rig.drift(), []);
  assert.match(await rig.metrics.text(), /^kubeproxy_ipvs_change_duration_seconds_count 1$/m);
});

test('a change does not wait until all is looked at that has drained', async () => {
  const scale = { services: 600, endpointsPerService: 5 };
  const rig = new FaultRig('sockopt', 0);
  for (const object of scaleCluster(scale)) rig.core.set(object);
  assert.equal(await rig.sync(), true);
  const before = rig.written.length;
  for (let i = 0; i < scale.services; i++)
    for (const slice of scaleSlices(i, scale, { endpoint: 2, by: 1 })) rig.core.set(slice);
  let isDone = false;
  const syncing = rig.sync().finally(() => (isDone = true));
  const written = (): readonly string[] => rig.written.slice(before);
  while (!isDone && !written().includes('delete')) await nextTurn();
  for (const slice of scaleSlices(0, scale, { endpoint: 3, by: 1 })) rig.core.set(slice);
  assert.equal(await syncing, true);
  assert.equal(rig.interleaved, 1);
  const last = written().lastIndexOf('add');
  assert.ok(last > written().indexOf('delete') && last < written().lastIndexOf('delete'), 'made between two deletions');
  assert.deepEqual(rig.drift(), []);
});

/** What is asked of the kernel or changed in it, in the order that it happens; `only` changes of virtual servers. */
function watchKernel(rig: FaultRig, onEvent: (event: string) => void): void {
  const before = rig.kernel.onSend;
  rig.kernel.onSend = (datagram, protocol) => {
    before(datagram, protocol);
    for (const { type, body } of splitMessages(datagram)) {
      const isIpvs = protocol === NETLINK_GENERIC && type !== 16;
      if (isIpvs && body[0]! <= 3) onEvent('virtual server changed');
      if (isIpvs && body[0] === 4) onEvent('virtual servers');
      if (isIpvs && body[0] === 5) onEvent('real server added');
      if (isIpvs && body[0] === 8) onEvent('real servers');
      if (protocol === NETLINK_ROUTE && type === 22) onEvent('addresses');
      if (protocol === NETLINK_NETFILTER && type === ((6 << 8) | 7)) onEvent('set');
    }
  };
}

/** With a thousand Services each of these is a long dump of its own; the change comes when it has begun. */
for (const [what, next] of [
  ['addresses', 'virtual servers'],
  ['virtual servers', 'real servers'],
] as const)
  test(`a change does not wait until all ${what} are read`, async () => {
    const scale = { services: 2000, endpointsPerService: 1 };
    const rig = new FaultRig('dump', 0);
    for (const object of scaleCluster(scale)) rig.core.set(object);
    assert.equal(await rig.sync(), true);
    const events: string[] = [];
    watchKernel(rig, (event) => {
      events.push(event);
      if (event === what && events.filter((one) => one === what).length === 1)
        for (const slice of scaleSlices(70, scale, { endpoint: 0, by: 1 })) rig.core.set(slice);
    });
    assert.equal(await rig.verify(), true);
    assert.equal(rig.verifiedDrift, 0);
    const added = events.indexOf('real server added');
    assert.ok(added > events.indexOf(what), 'made while this is read');
    assert.ok(added < events.indexOf(next, events.indexOf(what)), `made before all ${what} were there`);
    assert.deepEqual(rig.drift(), []);
  });

test('Services that come and go while the kernel is read do not have it read again, and hide no drift', async () => {
  const rig = new FaultRig('dump', 0);
  const objects = [...scaleCluster({ ...SCALE, services: SCALE.services + 1 })];
  const [added, present] = [objects.slice(-2), objects.slice(0, -2)];
  for (const object of present) rig.core.set(object);
  assert.equal(await rig.sync(), true);
  const [, byHand] = rig.kernel.ipvs.table.keys();
  rig.kernel.ipvs.table.delete(byHand!);
  let reads = 0;
  watchKernel(rig, (event) => {
    if (event !== 'real servers' || ++reads !== 30) return;
    for (const object of added) rig.core.set(object);
    rig.core.delete(present[0]!);
  });
  assert.equal(await rig.verify(), true);
  assert.equal(rig.interleaved, 1);
  assert.equal(rig.verifiedDrift, 1, 'what a hand deleted');
  assert.ok(reads <= SCALE.services + 1, `the real servers of ${reads} virtual servers were read`);
  await rig.sync();
  assert.deepEqual(rig.drift(), []);
});
