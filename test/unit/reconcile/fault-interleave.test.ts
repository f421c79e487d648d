/** Changes that come while the kernel is read back. */
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
