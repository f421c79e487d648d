/** Changes that come in the middle of longer work: while the kernel is read back, and during the first sync. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { scaleCluster, scaleSlices } from '../../fakes/cluster-generator.js';
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
