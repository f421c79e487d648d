/** Entries of ipsets as elements of nf_tables, and back. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Address, formatAddress, parseAddress } from '../../../src/values/address.js';
import {
  addressEntry,
  addressPortAddressEntry,
  addressPortEntry,
  addressPortNetEntry,
  portEntry,
} from '../../../src/values/ipset.js';
import { ipsetEntry, nftElement } from '../../../src/values/nftables-elements.js';
import { formatPrefix, parsePrefix, prefixOf } from '../../../src/values/prefix.js';
import { addressServerKey } from '../../../src/values/virtual-server.js';

const ip = (text: string): Address => parseAddress(text)!;

for (const [prefix, first, last] of [
  ['10.0.0.0/8', '10.0.0.0', '10.255.255.255'],
  ['10.0.0.0/9', '10.0.0.0', '10.127.255.255'],
  ['192.0.2.128/25', '192.0.2.128', '192.0.2.255'],
  ['192.0.2.6/31', '192.0.2.6', '192.0.2.7'],
  ['192.0.2.7/32', '192.0.2.7', '192.0.2.7'],
  ['128.0.0.0/1', '128.0.0.0', '255.255.255.255'],
  ['2001:db8::/32', '2001:db8::', '2001:db8:ffff:ffff:ffff:ffff:ffff:ffff'],
  ['2001:db8::8/125', '2001:db8::8', '2001:db8::f'],
] as const)
  test(`a range is from its first address to its last: ${prefix}`, () => {
    const family = prefix.includes(':') ? 6 : 4;
    const source = parsePrefix(prefix)!;
    const server = addressServerKey('TCP', ip(family === 4 ? '10.96.0.1' : 'fd00::1'), 443);
    const element = nftElement('hash:ip,port,net', addressPortNetEntry(server, source));
    const length = ip(first).length;
    assert.equal(formatAddress(element.key.slice(-length) as Address), first);
    assert.equal(formatAddress(element.end!.slice(-length) as Address), last);
    assert.equal(element.end!.slice(0, -length), element.key.slice(0, -length), 'of one address and port');
    assert.ok(
      [...element.end!].every((byte) => byte.charCodeAt(0) < 256),
      'bytes',
    );
  });

test('entries of every type of set are read back as they were written', () => {
  for (const [address, other, family] of [
    ['10.96.0.1', '10.0.0.7', 4],
    ['fd00::1', 'fd00:1::7', 6],
  ] as const) {
    const server = addressServerKey('SCTP', ip(address), 0x1234);
    for (const [type, entry] of [
      ['bitmap:port', portEntry(30080)],
      ['hash:ip', addressEntry(ip(address))],
      ['hash:ip,port', addressPortEntry(server)],
      ['hash:ip,port,ip', addressPortAddressEntry(server, ip(other))],
    ] as const) {
      const element = nftElement(type, entry);
      assert.equal(element.end, undefined, 'no range');
      assert.equal(ipsetEntry({ name: 'set', type, family }, element), entry, type);
    }
  }
});

test('ranges of every length are read back as they were written', () => {
  for (const [text, family] of [
    ['203.0.113.85', 4],
    ['2001:db8:5555:aaaa:5555:aaaa:5555:aaaa', 6],
  ] as const)
    for (let bits = 1; bits <= ip(text).length * 8; bits++) {
      const source = prefixOf(ip(text), bits);
      const entry = addressPortNetEntry(addressServerKey('UDP', ip(text), 53), source);
      const definition = { name: 'set', type: 'hash:ip,port,net', family } as const;
      assert.equal(ipsetEntry(definition, nftElement(definition.type, entry)), entry, formatPrefix(source));
    }
});
