/** A VIP on an address that the node needs elsewhere leaves the kernel, and comes back when the address is free. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FaultRig } from '../../support/fault-rig.js';
import { parseAddress } from '../../../src/values/address.js';

const NEEDED = '192.0.2.10';
const PROTECTION = { addresses: [parseAddress(NEEDED)!], reason: 'an API server' };

test('an address that gets protected goes from kube-ipvs0 with its virtual server, found there at a start too', async () => {
  const rig = new FaultRig();
  rig.core.set({
    kind: 'Service',
    metadata: { namespace: 'shop', name: 'web' },
    spec: { clusterIP: '10.96.0.1', externalIPs: [NEEDED], ports: [{ port: 80 }] },
  });
  const isBound = (): boolean => rig.kernel.links.addressesOf('kube-ipvs0').some((one) => one.startsWith(`${NEEDED}/`));
  const isServed = (): boolean => rig.kernel.ipvs.dump().some((line) => line.includes(`${NEEDED}:80`));
  assert.equal(await rig.sync(), true);
  assert.deepEqual([isBound(), isServed()], [true, true]);
  rig.core.cluster.protect('api', PROTECTION);
  assert.equal(await rig.sync(), true);
  assert.deepEqual([isBound(), isServed()], [false, false]);
  assert.deepEqual(rig.drift(), []);
  rig.kernel.links.addAddress('kube-ipvs0', NEEDED, 32);
  await rig.verify();
  await rig.sync();
  assert.equal(isBound(), false, 'whoever put it there');
  rig.core.cluster.protect('api', undefined);
  assert.equal(await rig.sync(), true);
  assert.deepEqual([isBound(), isServed()], [true, true]);
  assert.deepEqual(rig.drift(), []);
});
