/** What a change has touched, and what is left of it when only some of that is asked for. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { keepTouched, newTouched, touchEntry } from '../../../src/desired/desired-state.js';
import { type IpsetName } from '../../../src/desired/ipset-definitions.js';
import { type Address, parseAddress } from '../../../src/values/address.js';
import { type IpsetEntry } from '../../../src/values/ipset.js';
import { type VirtualServerKey, addressServerKey } from '../../../src/values/virtual-server.js';

const SET: IpsetName = 'KUBE-CLUSTER-IP';
const [ONE, TWO] = ['10.96.0.1', '10.96.0.2'].map((text) => parseAddress(text)!) as [Address, Address];
const server = (address: Address): VirtualServerKey => addressServerKey('TCP', address, 80);
const entry = (address: Address): IpsetEntry => address as string as IpsetEntry;

test('only what is wanted as well stays touched: servers, addresses, entries of each set', () => {
  const [touched, wanted] = [newTouched(), newTouched()];
  for (const address of [ONE, TWO]) {
    touched.servers.add(server(address));
    touched.addresses.add(address);
    touchEntry(touched, SET, entry(address));
    touchEntry(touched, 'KUBE-LOOP-BACK', entry(address));
  }
  wanted.servers.add(server(ONE));
  wanted.addresses.add(ONE);
  touchEntry(wanted, SET, entry(ONE));
  keepTouched(touched, wanted);
  assert.deepEqual([...touched.servers], [server(ONE)]);
  assert.deepEqual([...touched.addresses], [ONE]);
  assert.deepEqual([...touched.entries.get(SET)!], [entry(ONE)]);
  assert.deepEqual([...touched.entries.get('KUBE-LOOP-BACK')!], []);
});
