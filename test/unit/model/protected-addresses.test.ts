/** Addresses that the node needs elsewhere, as several sources know them. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { AddressIndex } from '../../../src/model/address-index.js';
import { ProtectedAddresses } from '../../../src/model/protected-addresses.js';
import { type Address, formatAddress, parseAddress } from '../../../src/values/address.js';

const ip = (text: string): Address => parseAddress(text)!;
const shown = (addresses: Iterable<Address>): string[] => [...addresses].map(formatAddress).sort();

describe('protected addresses', () => {
  test('are replaced source by source, and what changed is returned', () => {
    const known = new ProtectedAddresses();
    const set = (source: string, ...addresses: string[]): string[] =>
      shown(known.set(source, { addresses: addresses.map(ip), reason: `of ${source}` }));
    assert.deepEqual(set('node a', '10.0.0.1', 'fd00::1', '10.0.0.1'), ['10.0.0.1', 'fd00::1']);
    assert.deepEqual(set('node a', '10.0.0.1', 'fd00::1'), []);
    assert.deepEqual(set('node a', '10.0.0.1', '10.0.0.2'), ['10.0.0.2', 'fd00::1']);
    assert.deepEqual(shown(known.addresses()), ['10.0.0.1', '10.0.0.2']);
    assert.equal(known.has(ip('fd00::1')), false);
    assert.deepEqual(shown(known.set('node a', undefined)), ['10.0.0.1', '10.0.0.2']);
    assert.deepEqual(shown(known.set('node a', undefined)), []);
    assert.equal(known.size, 0);
  });

  test('that several sources know stay until the last one lets go, whatever came first', () => {
    const orders = [
      ['b', 'a'],
      ['a', 'b'],
    ];
    for (const order of orders) {
      const known = new ProtectedAddresses();
      for (const source of order) known.set(source, { addresses: [ip('10.0.0.1')], reason: source });
      assert.equal(known.reason(ip('10.0.0.1'))?.reason, 'a');
      assert.deepEqual(shown(known.set('b', undefined)), [], 'the reason is the same as before');
      assert.equal(known.reason(ip('10.0.0.1'))?.reason, 'a');
      assert.deepEqual(shown(known.set('a', undefined)), ['10.0.0.1']);
      assert.equal(known.reason(ip('10.0.0.1')), undefined);
    }
  });

  test('that may be cluster IPs for one source are none if another one knows better', () => {
    const known = new ProtectedAddresses();
    known.set('a', { addresses: [ip('10.0.0.1')], reason: 'the configured server', mayBeClusterIP: true });
    assert.equal(known.reason(ip('10.0.0.1'))?.mayBeClusterIP, true);
    assert.deepEqual(shown(known.set('z', { addresses: [ip('10.0.0.1')], reason: 'a node' })), ['10.0.0.1']);
    assert.deepEqual(known.reason(ip('10.0.0.1')), { reason: 'a node', mayBeClusterIP: false });
  });
});

test('the index of addresses knows every Service that names one, and forgets it', () => {
  const index = new AddressIndex();
  const [one, other] = [ip('10.0.0.1'), ip('fd00::1')];
  for (const service of ['d/a', 'd/b', 'd/c', 'd/a']) index.add(one, service);
  index.add(other, 'd/a');
  assert.deepEqual([...index.at(one)], ['d/a', 'd/b', 'd/c']);
  index.delete(one, 'd/a');
  index.delete(one, 'd/nobody');
  assert.deepEqual([...index.at(one)], ['d/b', 'd/c']);
  index.delete(one, 'd/c');
  assert.deepEqual([...index.at(one)], ['d/b']);
  index.delete(one, 'd/c');
  index.delete(one, 'd/b');
  index.delete(one, 'd/b');
  assert.deepEqual([...index.at(one)], []);
  assert.deepEqual([...index.at(other)], ['d/a']);
});
