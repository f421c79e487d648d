/**
 * Our rules against what the program nft makes of the same rules in its own language (test/fixtures/netlink/
 * nftables.nft), as a kernel held them: scripts/record-nftables.mjs.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ipsetDefinitions } from '../../../src/desired/ipset-definitions.js';
import { nftablesTable } from '../../../src/desired/nftables-rules.js';
import { proxyRules } from '../../../src/desired/proxy-rules.js';
import { NftClient } from '../../../src/kernel/nftables/client.js';
import { setKeyLength, setKeyType } from '../../../src/kernel/nftables/transaction.js';
import { type NetlinkSocket } from '../../../src/netlink/socket.js';
import { nftRuleText } from '../../../src/plan/nftables-diff.js';
import { type Family } from '../../../src/values/address.js';
import { nftSet } from '../../../src/values/nftables-elements.js';
import { NFTABLES_TABLE, type NftTable } from '../../../src/values/nftables.js';
import { parsePrefix } from '../../../src/values/prefix.js';
import { Replay } from '../../fakes/netlink-recording.js';

const RECORDING = new Replay('test/fixtures/netlink/nftables.json').recording;
/** NFT_MSG_NEW* of the answers to NFT_MSG_GET*. */
const ANSWERS: Readonly<Record<number, number>> = { 4: 3, 7: 6, 10: 9 };
/** nft turns round the one byte of a protocol in keys of ranges, which does nothing. */
const NOTHING = / \[foreign text=byteorder [0-9a-f]{32}080003000000000108000400000000010800050000000002\]/;

/** Answers a dump with those of the recorded messages that are of its kind and family, and NLMSG_DONE. */
function kernel(): NetlinkSocket {
  const queue: Buffer[] = [];
  return {
    send: (bytes, length) => {
      const request = Buffer.from(bytes.subarray(0, length));
      const [type, sequence, family] = [request[4]!, request.readUInt32LE(8), request[16]!];
      const found: Buffer[] = [];
      for (const [, hex] of RECORDING.datagrams) {
        const datagram = Buffer.from(hex, 'hex');
        for (let at = 0; at < datagram.length; at += (datagram.readUInt32LE(at) + 3) & ~3) {
          if (datagram[at + 4] !== ANSWERS[type] || datagram[at + 16] !== family) continue;
          const message = Buffer.from(datagram.subarray(at, at + datagram.readUInt32LE(at)));
          message.writeUInt32LE(sequence, 8);
          found.push(message);
        }
      }
      const done = Buffer.alloc(20);
      done.writeUInt32LE(20, 0);
      done.writeUInt16LE(3, 4);
      done.writeUInt16LE(2, 6);
      done.writeUInt32LE(sequence, 8);
      queue.push(...found, done);
      return length;
    },
    receive: (bytes) => {
      const datagram = queue.shift();
      if (datagram === undefined) throw Object.assign(new Error('nothing to receive'), { code: 'EAGAIN' });
      bytes.set(datagram);
      return datagram.length;
    },
    waitReadable: () => Promise.reject(new Error('a request socket')),
    attachFilter: () => assert.fail('a request socket'),
    close: () => undefined,
  };
}

function ours(family: Family): NftTable {
  const cidrs = [family === 4 ? '10.128.0.0/9' : 'fd00:10:128::/48'].map((text) => parsePrefix(text)!);
  return nftablesTable(
    proxyRules({
      ...{ family, masqueradeMark: 0x4000, masqueradeAll: false, randomFully: true },
      detectLocal: { mode: 'ClusterCIDR', cidrs },
      uplinks: ['eth0'],
    }),
  );
}

const client = new NftClient(kernel, NFTABLES_TABLE);

for (const family of [4, 6] as const) {
  test(`rules and chains of IPv${family} are what nft makes of them`, async () => {
    const held = await client.readTable(family, () => Promise.resolve());
    const lines = (table: NftTable): string[] =>
      table.chains
        .flatMap(({ name, hook, rules }) => [
          `${name} ${JSON.stringify(hook && [hook.type, hook.hook, hook.priority])}`,
          ...rules.map((rule, i) => `${name} ${i}: ${nftRuleText(rule).replace(NOTHING, '')}`),
        ])
        .sort();
    assert.ok(held!.chains.length > 10);
    assert.deepEqual(lines(held!), lines(ours(family)));
  });

  test(`sets of IPv${family} are of the types that nft gives them`, () => {
    const held = client.listSets(family).map(({ name, keyType, keyLength, isInterval, isOdd }) => {
      assert.equal(isOdd, false);
      return [name, keyType, keyLength, isInterval];
    });
    const wanted = ipsetDefinitions(family).map((definition) => {
      const { name, key, isInterval } = nftSet(definition);
      return [name, setKeyType(key), setKeyLength(key), isInterval];
    });
    assert.deepEqual(held.sort(), wanted.sort());
  });
}
