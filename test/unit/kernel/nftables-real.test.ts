/**
 * The codec of nf_tables against a real kernel, where this machine lets us: rules and sets of ours in a network
 * namespace of our own, read back by us and by the program nft.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { readSets } from '../../../src/reconcile/ipset-keeper.js';
import { openNetlinkSocket } from '../../../native/libc.js';
import { ipsetDefinitions, ipsetName } from '../../../src/desired/ipset-definitions.js';
import { nftablesTable } from '../../../src/desired/nftables-rules.js';
import { proxyRules } from '../../../src/desired/proxy-rules.js';
import { NftClient } from '../../../src/kernel/nftables/client.js';
import { nftablesRefusal } from '../../../src/kernel/nftables/probe.js';
import { NftRuleCounters } from '../../../src/kernel/nftables/rule-counters.js';
import { NftSets } from '../../../src/kernel/nftables/sets.js';
import { KUBE_PROXY_TABLE, deleteTables, familiesWithTable } from '../../../src/kernel/nftables/tables.js';
import { NftTransaction } from '../../../src/kernel/nftables/transaction.js';
import { NetlinkConnection } from '../../../src/netlink/connection.js';
import { NETLINK_NETFILTER } from '../../../src/netlink/socket.js';
import { planNftables } from '../../../src/plan/nftables-diff.js';
import { type Family, parseAddress } from '../../../src/values/address.js';
import {
  type IpsetDefinition,
  type IpsetEntry,
  addressEntry,
  addressPortAddressEntry,
  addressPortEntry,
  addressPortNetEntry,
  portEntry,
} from '../../../src/values/ipset.js';
import { nftSet } from '../../../src/values/nftables-elements.js';
import { NFTABLES_TABLE, type NftTable } from '../../../src/values/nftables.js';
import { parsePrefix } from '../../../src/values/prefix.js';
import { addressServerKey } from '../../../src/values/virtual-server.js';
import { isInOwnNamespace, testInOwnNamespace } from '../../support/own-namespace.js';

const FAMILIES: readonly Family[] = [4, 6];
const ADDRESS = { 4: parseAddress('192.0.2.22')!, 6: parseAddress('2001:db8::22')! };
const pause = (): Promise<void> => Promise.resolve();

function definitionOf(family: Family, role: Parameters<typeof ipsetName>[1]): IpsetDefinition {
  return ipsetDefinitions(family).find(({ name }) => name === ipsetName(family, role))!;
}

function range(family: Family, text: string): IpsetEntry {
  return addressPortNetEntry(addressServerKey('TCP', ADDRESS[family], 80), parsePrefix(text)!);
}

function entriesOf(family: Family, { type }: IpsetDefinition): IpsetEntry[] {
  const server = addressServerKey('SCTP', ADDRESS[family], 65_535);
  if (type === 'bitmap:port') return [portEntry(30_100), portEntry(1)];
  if (type === 'hash:ip') return [addressEntry(ADDRESS[family])];
  if (type === 'hash:ip,port') return [addressPortEntry(server)];
  if (type === 'hash:ip,port,ip') return [addressPortAddressEntry(server, ADDRESS[family])];
  const ranges = family === 4 ? ['203.0.113.0/25', '198.51.100.7/32'] : ['2001:db8:1::/49', '2001:db8:2::7/128'];
  return ranges.map((text) => range(family, text));
}

function tableOf(family: Family, masqueradeMark = 0x4000): NftTable {
  const cidrs = [family === 4 ? '10.128.0.0/9' : 'fd00:10:128::/47'].map((text) => parsePrefix(text)!);
  return nftablesTable(
    proxyRules({
      ...{ family, masqueradeMark, masqueradeAll: false, randomFully: true },
      detectLocal: { mode: 'ClusterCIDR', cidrs },
      uplinks: ['eth0'],
    }),
  );
}

if (isInOwnNamespace) {
  const client = new NftClient(openNetlinkSocket, NFTABLES_TABLE);
  const sets = new NftSets(client);
  const nft = (...words: string[]): string => execFileSync('nft', words, { encoding: 'utf8' });

  test('inside: a probe with everything leaves nothing', () => {
    for (const family of FAMILIES) {
      const wanted = ipsetDefinitions(family).map(nftSet);
      assert.equal(nftablesRefusal(openNetlinkSocket, tableOf(family), wanted), undefined);
    }
    assert.equal(nft('list', 'tables'), '');
    assert.match(nftablesRefusal(openNetlinkSocket, tableOf(4), [])!, /ENOENT/);
  });

  test('inside: sets are made once, hold what is put in, and are told from others of their name', () => {
    for (const family of FAMILIES) {
      const definitions = ipsetDefinitions(family);
      const ensured = (): string[] => [...new Set([...sets.ensure(definitions)].map(({ outcome }) => outcome))];
      assert.deepEqual(sets.present(definitions).size, 0);
      assert.deepEqual([ensured(), ensured()], [['created'], ['kept']]);
      for (const definition of definitions) {
        const entries = entriesOf(family, definition);
        assert.deepEqual(sets.addEntries(definition, entries), []);
        assert.deepEqual(sets.addEntries(definition, entries), [], 'present ones are no error');
        assert.deepEqual(sets.entriesOf(definition).sort(), [...entries].sort(), definition.name);
        assert.deepEqual(sets.deleteEntries(definition, [entries[0]!]), []);
        assert.deepEqual(sets.deleteEntries(definition, entries), [], 'absent ones are no error');
        assert.deepEqual(sets.entriesOf(definition), []);
      }
      const odd = definitionOf(family, 'IPVS-IPS');
      client.commit(family, 'test', [{ verb: 'delete-set', name: odd.name }]);
      const other = { ...nftSet(odd), key: [{ datatype: 13, length: 2 }] };
      client.commit(family, 'test', [{ verb: 'add-set', set: other }]);
      assert.equal(sets.present(definitions).get(odd.name), 'other');
      assert.deepEqual(ensured().sort(), ['kept', 'replaced']);
    }
  });

  test('inside: a range that takes the place of one it overlaps with does so at once', () => {
    const definition = definitionOf(4, 'LOAD-BALANCER-SOURCE-CIDR');
    const [wide, narrow, other] = ['10.0.0.0/8', '10.1.0.0/16', '10.2.0.0/16'].map((text) => range(4, text));
    assert.deepEqual(sets.addEntries(definition, [wide!]), []);
    assert.deepEqual(sets.addEntries(definition, [narrow!, other!]), []);
    assert.deepEqual(sets.entriesOf(definition).sort(), [narrow!, other!].sort());
    assert.deepEqual(sets.deleteEntries(definition, [wide!]), []);
    assert.deepEqual(sets.addEntries(definition, [wide!]), []);
    assert.deepEqual(sets.deleteEntries(definition, [narrow!, other!]), []);
    assert.deepEqual(sets.entriesOf(definition), [wide!]);
    nft('delete', 'element', 'ip', NFTABLES_TABLE, definition.name, '{ 192.0.2.22 . tcp . 80 . 10.0.0.0/8 }');
    assert.deepEqual(sets.addEntries(definition, [narrow!]), [], 'what somebody else took away is in nobody’s way');
    nft('add', 'element', 'ip', NFTABLES_TABLE, definition.name, '{ 192.0.2.22 . tcp . 80 . 172.16.0.0/12 }');
    const foreign = sets.entriesOf(definition).filter((entry) => entry !== narrow);
    assert.deepEqual(sets.deleteEntries(definition, foreign), [], 'what somebody else put in is found and goes');
    assert.deepEqual(sets.entriesOf(definition), [narrow!]);
  });

  test('inside: a set that grows is read whole while the kernel makes room for it', async () => {
    const definition = definitionOf(6, 'CLUSTER-IP');
    const desired = new Set<IpsetEntry>();
    for (let from = 0; from < 20_000; from += 500) {
      const entries = Array.from({ length: 500 }, (_, i) => {
        const text = `2001:db8::${((from + i) >> 8).toString(16)}:${((from + i) & 255).toString(16)}`;
        return addressPortEntry(addressServerKey('UDP', parseAddress(text)!, 53));
      });
      assert.deepEqual(sets.addEntries(definition, entries), []);
      for (const entry of entries) desired.add(entry);
      if (from % 2000 !== 0) continue;
      const read = await readSets(sets, new Map([[definition.name, definition]]), () => desired);
      assert.equal(read.get(ipsetName(6, 'CLUSTER-IP'))!.size, desired.size);
    }
    assert.deepEqual(sets.deleteEntries(definition, [...desired]), []);
    assert.deepEqual(sets.entriesOf(definition), []);
  });

  test('inside: a refused element keeps none of the others out', () => {
    const definition = definitionOf(4, 'CLUSTER-IP');
    const good = entriesOf(4, definition);
    const failures = sets.addEntries(definition, [...good, 'short' as IpsetEntry]);
    assert.deepEqual(
      failures.map(({ entry }) => entry),
      ['short'],
    );
    assert.deepEqual(sets.entriesOf(definition), good);
  });

  test('inside: rules are written at once, read back equal, and what somebody does to them is seen and mended', async () => {
    for (const family of FAMILIES) {
      const desired = tableOf(family);
      const nftFamily = family === 4 ? 'ip' : 'ip6';
      const plan = async () => planNftables(desired, await client.readTable(family, pause));
      const mend = async (): Promise<string[]> => {
        const { differences, operations } = await plan();
        client.commit(family, 'test', operations);
        assert.deepEqual((await plan()).operations, []);
        return differences.map(({ kind, chain, what }) => `${kind} ${chain} ${what}`);
      };
      assert.equal((await mend()).length, desired.chains.length);
      const damage = async (...words: string[]): Promise<string[]> => (nft(...words), mend());
      const chain = (name: string): string[] => [nftFamily, NFTABLES_TABLE, name];
      assert.deepEqual(await damage('flush', 'chain', ...chain('nat-KUBE-SERVICES')), [
        'changed nat-KUBE-SERVICES rules',
      ]);
      assert.deepEqual(await damage('add', 'rule', ...chain('filter-INPUT'), 'drop'), ['changed filter-INPUT rules']);
      nft('add', 'chain', ...chain('strange'));
      assert.deepEqual(await damage('add', 'rule', ...chain('strange'), 'counter'), ['extra strange chain']);
      nft('flush', 'chain', ...chain('nat-OUTPUT'));
      assert.deepEqual(await damage('delete', 'chain', ...chain('nat-OUTPUT')), ['missing nat-OUTPUT chain']);
      const text = nft('list', 'table', nftFamily, NFTABLES_TABLE);
      assert.match(text, /type nat hook prerouting priority dstnat - 1; policy accept;/);
      assert.match(text, /reject with tcp reset/);
      assert.match(text, /meta mark set meta mark \| 0x0*4000/);
      assert.match(text, /counter packets 0 bytes 0 masquerade fully-random/);
      const counters = new NftRuleCounters(openNetlinkSocket, NFTABLES_TABLE);
      nft('add', 'rule', ...chain('filter-KUBE-SOURCE-RANGES-FIREWALL'), 'counter packets 7 bytes 700');
      assert.deepEqual((await counters.read(family, 'filter'))?.get('KUBE-SOURCE-RANGES-FIREWALL'), [0, 0, 7]);
      counters.close();
      await mend();
    }
    const { differences, operations } = planNftables(tableOf(4, 0x8000), await client.readTable(4, pause));
    assert.deepEqual(
      differences.map(({ chain }) => chain),
      ['nat-KUBE-POSTROUTING', 'nat-KUBE-MARK-MASQ'],
    );
    client.commit(4, 'test', operations);
    assert.deepEqual(familiesWithTable(openNetlinkSocket, NFTABLES_TABLE), [4, 6]);
  });

  test('inside: made by the same batch, found, deleted with its like, found no more; others stay', () => {
    const connection = new NetlinkConnection(() => openNetlinkSocket(NETLINK_NETFILTER));
    const make = (family: Family, name: string): void =>
      new NftTransaction(connection, family, name).commit('make', [{ verb: 'add-table' }]);
    for (const family of [4, 6] as const) make(family, KUBE_PROXY_TABLE);
    make(4, 'somebody');
    assert.deepEqual(deleteTables(openNetlinkSocket, KUBE_PROXY_TABLE), [4, 6]);
    assert.deepEqual(familiesWithTable(openNetlinkSocket, KUBE_PROXY_TABLE), []);
    assert.deepEqual(familiesWithTable(openNetlinkSocket, 'somebody'), [4]);
    assert.deepEqual(deleteTables(openNetlinkSocket, KUBE_PROXY_TABLE), []);
    const gone = new NftTransaction(connection, 4, KUBE_PROXY_TABLE);
    assert.throws(() => gone.commit('delete', [{ verb: 'delete-table' }]), /ENOENT/);
    connection.close();
  });
} else testInOwnNamespace('a real kernel takes rules and sets, and gives them back', 7);
