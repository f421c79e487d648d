import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Uplinks } from '../../../src/kernel/node/uplinks.js';
import { parseAddress } from '../../../src/values/address.js';

const ip = (text: string) => parseAddress(text)!;

test('uplinks hold an address of the Node; looked for when the addresses change, and until one is found', () => {
  let asked = 0;
  let present: Record<string, { address: string }[]> = { lo: [{ address: '127.0.0.1' }] };
  const uplinks = new Uplinks(() => {
    asked++;
    return present;
  });
  assert.deepEqual(uplinks.of([]), []);
  assert.equal(asked, 0);
  const addresses = [ip('10.0.0.5'), ip('fd00::5')];
  assert.deepEqual(uplinks.of(addresses), []);
  present = {
    ...present,
    eth1: [{ address: 'fe80::1' }, { address: 'fd00::5' }],
    eth0: [{ address: '10.0.0.5' }],
    cni0: [{ address: '10.128.0.1' }],
  };
  assert.deepEqual(uplinks.of(addresses), ['eth0', 'eth1']);
  assert.deepEqual(uplinks.of([...addresses]), ['eth0', 'eth1']);
  assert.equal(asked, 2);
  assert.deepEqual(uplinks.of([ip('10.128.0.1')]), ['cni0']);
});
