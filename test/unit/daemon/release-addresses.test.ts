/** Before anything is listed: an API server's address that is bound here as a VIP would keep it from being heard. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { pino } from 'pino';
import { releaseAddresses } from '../../../src/daemon/takeover/release-addresses.js';
import { ipsetDefinitions } from '../../../src/desired/ipset-definitions.js';
import { IpsetBackend } from '../../../src/kernel/ipset/backend.js';
import { IpsetClient } from '../../../src/kernel/ipset/client.js';
import { LinkClient } from '../../../src/kernel/rtnetlink/client.js';
import { type Address, familyOf, formatAddress, parseAddress } from '../../../src/values/address.js';
import { TestKernel } from '../../fakes/test-kernel.js';
import { parseEntry } from '../../support/netfilter-sessions.js';

const ip = (text: string): Address => parseAddress(text)!;

interface Node {
  readonly kernel: TestKernel;
  readonly links: LinkClient;
  readonly ipset: IpsetClient;
  readonly logged: string[];
  release(...needed: string[]): string[];
  bound(): string[];
}

/** kube-ipvs0 with these addresses, and those of `clusterIPs` in the set of cluster IPs, with port 443. */
function nodeOf(t: TestContext, bound: readonly string[], clusterIPs: readonly string[]): Node {
  const kernel = new TestKernel();
  const links = new LinkClient(kernel.open);
  const ipset = new IpsetClient(kernel.open);
  t.after(() => [links, ipset].forEach((client) => client.close()));
  const { index } = links.ensureDummy('kube-ipvs0');
  for (const address of bound) links.addAddress(index, ip(address));
  assert.deepEqual(links.flush(), []);
  for (const family of [4, 6] as const) {
    const set = ipsetDefinitions(family).find(({ name }) => name.endsWith('-CLUSTER-IP'))!;
    ipset.createSet(set);
    const own = clusterIPs.filter((address) => familyOf(ip(address)) === family);
    assert.deepEqual(
      ipset.addEntries(
        set,
        own.map((address) => parseEntry(set.type, `${address},tcp:443`)),
      ),
      [],
    );
  }
  const logged: string[] = [];
  const log = pino({ level: 'info' }, { write: (line) => void logged.push((JSON.parse(line) as { msg: string }).msg) });
  return {
    ...{ kernel, links, ipset, logged },
    release: (...needed) =>
      releaseAddresses({ links, sets: new IpsetBackend(ipset) }, needed.map(ip), log).map(formatAddress),
    bound: () => links.listAddresses(index).map(({ address }) => formatAddress(address)),
  };
}

test('an external IP that is an API server’s goes; cluster IPs, and what nobody needs, stay', (t) => {
  const bound = ['10.96.0.1', '192.0.2.1', '192.0.2.2', 'fd00:96::1', '2001:db8::1'];
  const node = nodeOf(t, bound, ['10.96.0.1', 'fd00:96::1']);
  const needed = ['10.96.0.1', '192.0.2.1', 'fd00:96::1', '2001:db8::1', '203.0.113.1'];
  assert.deepEqual(node.release(...needed), ['192.0.2.1', '2001:db8::1']);
  assert.deepEqual(node.bound(), ['10.96.0.1', '192.0.2.2', 'fd00:96::1']);
  assert.deepEqual(node.logged, ['taken off kube-ipvs0: the API server was unreachable behind these addresses']);
  assert.deepEqual(node.release(...needed), [], 'once');
  assert.equal(node.logged.length, 1);
});

test('so do routes that stand for it, and an address that has both is named once', (t) => {
  const node = nodeOf(t, ['192.0.2.1'], ['10.96.0.1']);
  const lo = node.links.findLink('lo')?.index ?? 1;
  for (const address of ['192.0.2.1', '192.0.2.7', '10.96.0.1']) node.links.routes.add(lo, ip(address));
  assert.deepEqual(node.links.routes.flush(), []);
  assert.deepEqual(node.release('192.0.2.1', '192.0.2.7', '10.96.0.1'), ['192.0.2.1', '192.0.2.7']);
  assert.deepEqual(node.bound(), []);
  assert.deepEqual(
    node.links.routes.list().map(({ address }) => formatAddress(address)),
    ['10.96.0.1'],
  );
});

test('without cluster IPs of the family nothing can be told from one, and nothing is done', (t) => {
  const node = nodeOf(t, ['10.96.0.1', '2001:db8::1'], ['fd00:96::1']);
  assert.deepEqual(node.release('10.96.0.1'), []);
  assert.deepEqual(node.release('2001:db8::1'), ['2001:db8::1']);
  assert.deepEqual(node.bound(), ['10.96.0.1']);
});

test('on a fresh node there is nothing, and addresses of other links are none of it', (t) => {
  const node = nodeOf(t, [], ['10.96.0.1']);
  node.links.deleteLink('kube-ipvs0');
  assert.deepEqual(node.release('10.200.0.2'), []);
  assert.deepEqual(node.logged, []);
});

test('what the kernel refuses is told, and a kernel that cannot be read stops no start', (t) => {
  const node = nodeOf(t, ['192.0.2.1'], ['10.96.0.1']);
  node.kernel.faults.push({ at: 'message', code: 'EBUSY', when: ([first]) => first?.type === 21 });
  assert.deepEqual(node.release('192.0.2.1'), ['192.0.2.1']);
  assert.deepEqual(node.logged, [
    "an API server's address stays on kube-ipvs0",
    'taken off kube-ipvs0: the API server was unreachable behind these addresses',
  ]);
  node.kernel.faults.push({ at: 'message', code: 'EPERM', stays: true });
  assert.deepEqual(node.release('192.0.2.1'), []);
  assert.equal(node.logged.at(-1), 'addresses of kube-ipvs0 could not be read before the start');
});
