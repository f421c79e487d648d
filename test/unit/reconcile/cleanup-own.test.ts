/** `cleanup --own-only`: what hinders the way back to kube-proxy is named. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { OWN_IPSET_ROLES, allIpsetDefinitions, ipsetName } from '../../../src/desired/ipset-definitions.js';
import { Iptables } from '../../../src/kernel/iptables/iptables.js';
import { IpsetClient } from '../../../src/kernel/ipset/client.js';
import { LinkClient } from '../../../src/kernel/rtnetlink/client.js';
import { type CleanupReport, cleanupOwn } from '../../../src/reconcile/cleanup.js';
import { type IpsetEntry } from '../../../src/values/ipset.js';
import { TestKernel } from '../../fakes/test-kernel.js';
import { FakeIptables } from '../../support/fake-iptables.js';
import { parseEntry } from '../../support/netfilter-sessions.js';

/** kube-proxy makes every set with `maxelem 65536` and refuses one that has another. */
const KUBE_PROXY_LIMIT = 65_536;

async function ownCleanup(fill: (ipset: IpsetClient) => void): Promise<CleanupReport> {
  const [kernel, iptables] = [new TestKernel(), new FakeIptables()];
  const ipset = new IpsetClient(kernel.open);
  const links = new LinkClient(kernel.open);
  fill(ipset);
  try {
    return await cleanupOwn({
      ...{ ipvs: undefined, links, ipset, excludeCIDRs: [], dryRun: false },
      iptables: [new Iptables(iptables.tools, iptables.run)],
    });
  } finally {
    for (const client of [ipset, links]) client.close();
  }
}

const definition = (name: string) => [...allIpsetDefinitions().values()].find((one) => one.name === name)!;
const entries = (count: number): IpsetEntry[] =>
  Array.from({ length: count }, (_, i) =>
    parseEntry('hash:ip,port', `10.${i >> 16}.${(i >> 8) & 255}.${i & 255},tcp:80`),
  );

test('a set of kube-proxy that had to grow is named, with the fix; those of 65,536 are not', async () => {
  const { remarks, failures } = await ownCleanup((ipset) => {
    for (const [name, count] of [
      ['KUBE-CLUSTER-IP', KUBE_PROXY_LIMIT + 1],
      ['KUBE-EXTERNAL-IP', 5000],
    ] as const) {
      ipset.createSet(definition(name));
      assert.deepEqual(ipset.addEntries(definition(name), entries(count)), []);
    }
  });
  assert.deepEqual(failures, []);
  assert.equal(remarks.length, 1, remarks.join('\n'));
  assert.match(
    remarks[0]!,
    /^KUBE-CLUSTER-IP has room for 131072 entries, and kube-proxy, .*: run cleanup without --own-only before kube-proxy/,
  );
});

test('a set of our own that grew is removed, whatever its size, and a foreign one is nobody else’s matter', async () => {
  const own = ipsetName(4, OWN_IPSET_ROLES[0]!);
  const { remarks, sets } = await ownCleanup((ipset) => {
    ipset.createSet(definition(own), 4 * KUBE_PROXY_LIMIT);
    ipset.createSet({ ...definition('KUBE-CLUSTER-IP'), name: 'THEIRS' }, 4 * KUBE_PROXY_LIMIT);
  });
  assert.deepEqual([remarks, sets], [[], [own]]);
});
