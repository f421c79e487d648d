/** Which of the node's addresses serve NodePorts: kube-proxy's detectNodeIPs and nodePortAddresses. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { primaryAddress, servesNodePorts } from '../../../src/desired/node-ports.js';
import { parseAddress } from '../../../src/values/address.js';

const address = (text: string) => parseAddress(text)!;
const PRIMARY = { all: false, primary: true, cidrs: [] };

test('bindAddress is the primary address of its family, and says so without a Node', () => {
  const bound = address('10.0.0.5');
  assert.deepEqual(primaryAddress(undefined, bound, 4), { address: bound, isKnown: true });
  assert.deepEqual(primaryAddress(undefined, bound, 6), { address: undefined, isKnown: false });
});

test('bound to loopback there is no primary address: `primary` says nothing, all addresses serve', () => {
  const primary = primaryAddress(undefined, address('127.0.0.1'), 4);
  assert.deepEqual(primary, { address: undefined, isKnown: true });
  assert.equal(servesNodePorts(PRIMARY, address('192.0.2.7'), primary), true);
  assert.equal(servesNodePorts(PRIMARY, address('127.0.0.1'), primary), false);
});

test('while neither the Node nor the configuration says anything, no address serves', () => {
  const primary = primaryAddress(undefined, undefined, 4);
  assert.equal(servesNodePorts(PRIMARY, address('192.0.2.7'), primary), false);
});
