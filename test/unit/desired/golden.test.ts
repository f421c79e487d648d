/** The recorded cluster must give the recorded table of kube-proxy 1.36, from the pure core alone. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { ClusterState } from '../../../src/model/cluster-state.js';
import { parseEndpointSlice } from '../../../src/model/endpoint-slice.js';
import { parseNode } from '../../../src/model/node.js';
import { parseService } from '../../../src/model/service.js';
import { newTouched } from '../../../src/desired/desired-state.js';
import { allIpsetDefinitions, type IpsetName } from '../../../src/desired/ipset-definitions.js';
import { DesiredUpdater } from '../../../src/reconcile/desired-updater.js';
import { type Address, formatAddress, parseAddress } from '../../../src/values/address.js';
import { formatIpsetEntry } from '../../../src/values/ipset.js';
import {
  FLAG_PERSISTENT,
  formatHostPort,
  formatRealServer,
  realServerKeys,
  virtualServerFamily,
  virtualServerIdentity,
} from '../../../src/values/virtual-server.js';

const FIXTURES = new URL('../../../../test/fixtures/', import.meta.url);
const read = (path: string): string => readFileSync(new URL(path, FIXTURES), 'utf8');
const lines = (path: string): string[] =>
  read(path)
    .split('\n')
    .filter((line) => line !== '')
    .sort();
const items = (path: string): unknown[] => (JSON.parse(read(path)) as { items: unknown[] }).items;

/** What the API server's label selector would have left out. */
function isSelected(object: unknown): boolean {
  const labels = (object as { metadata: { labels?: Record<string, string> } }).metadata.labels ?? {};
  return !('service.kubernetes.io/headless' in labels) && !('service.kubernetes.io/service-proxy-name' in labels);
}

async function desiredOfFixture(): Promise<DesiredUpdater> {
  const cluster = new ClusterState();
  const problems: string[] = [];
  const report = (problem: string): void => void problems.push(problem);
  for (const object of items('cluster/services.json').filter(isSelected)) {
    const service = parseService(object, report);
    if (service !== undefined) cluster.setService(service);
  }
  for (const object of items('cluster/endpointslices.json').filter(isSelected)) {
    const slice = parseEndpointSlice(object, 'node-0', report);
    if (slice !== undefined) cluster.setSlice(slice);
  }
  cluster.setNode(parseNode(items('cluster/nodes.json')[0], report));
  cluster.setLocalAddresses(
    new Set(['10.200.0.2', 'fd00:200::2', '127.0.0.1', '::1'].map((text) => parseAddress(text)!)),
  );
  assert.deepEqual(problems, []);
  const everywhere = { all: true, primary: false, cidrs: [] };
  const settings = {
    nodeName: 'node-0',
    scheduler: 'rr',
    families: [4, 6] as const,
    nodePorts: { 4: everywhere, 6: everywhere },
  };
  const updater = new DesiredUpdater(cluster, settings, {
    conflicts: () => assert.fail('no conflict in the fixture'),
    refused: () => assert.fail('nothing refused in the fixture'),
  });
  await updater.updateDirty(newTouched());
  return updater;
}

const OPTIONS = { TCP: '-t', UDP: '-u', SCTP: '--sctp-service' } as const;

test('virtual and real servers equal kube-proxy 1.36', async () => {
  const { desired } = await desiredOfFixture();
  const printed: string[] = [];
  for (const server of desired.virtualServers.values()) {
    const identity = virtualServerIdentity(server.key);
    assert(identity.kind === 'address');
    const name = `${OPTIONS[identity.protocol]} ${formatHostPort(identity.address, identity.port)}`;
    const persistence = server.settings.flags & FLAG_PERSISTENT ? ` -p ${server.settings.timeout}` : '';
    printed.push(`-A ${name} -s ${server.settings.scheduler}${persistence}`);
    for (const real of realServerKeys(server.realServers, virtualServerFamily(server.key)))
      printed.push(`-a ${name} -r ${formatRealServer(real)} -m -w 1`);
  }
  assert.deepEqual(printed.sort(), lines('kube-proxy-1.36/ipvs.txt'));
});

test('bound addresses equal kube-proxy 1.36', async () => {
  const { desired, cluster } = await desiredOfFixture();
  const bound = [...desired.addresses()].filter((address) => !cluster.localAddresses.has(address));
  const print = (address: Address): string =>
    `${address.length === 4 ? 'inet' : 'inet6'} ${formatAddress(address)}/${address.length * 8}`;
  assert.deepEqual(bound.map(print).sort(), lines('kube-proxy-1.36/kube-ipvs0.txt'));
});

test('entries of the sets that kube-proxy 1.36 has equal its own', async () => {
  const { desired } = await desiredOfFixture();
  const own = new Set([
    'KUBE-NO-ENDPOINTS',
    'KUBE-NO-LOCAL-ENDPOINTS',
    'KUBE-6-NO-ENDPOINTS',
    'KUBE-6-NO-LOCAL-ENDPOINTS',
  ]);
  const printed: string[] = [];
  for (const { name, type } of allIpsetDefinitions().values()) {
    if (own.has(name)) continue;
    for (const entry of desired.entries(name as IpsetName).keys())
      printed.push(`add ${name} ${formatIpsetEntry(type, entry)}`);
  }
  assert.deepEqual(printed.sort(), lines('kube-proxy-1.36/ipset-add.txt'));
});

test('entries of our own sets', async () => {
  const { desired } = await desiredOfFixture();
  const own = (['KUBE-NO-ENDPOINTS', 'KUBE-NO-LOCAL-ENDPOINTS', 'KUBE-6-NO-ENDPOINTS'] as const).flatMap((name) =>
    [...desired.entries(name).keys()].map((entry) => `${name} ${formatIpsetEntry('hash:ip,port', entry)}`),
  );
  assert.deepEqual(own.sort(), [
    'KUBE-NO-ENDPOINTS 10.96.0.28,tcp:80', // internal policy Local, endpoints elsewhere only
    'KUBE-NO-ENDPOINTS 10.96.0.29,tcp:80',
    'KUBE-NO-ENDPOINTS 10.96.0.38,tcp:80', // no endpoint port of that name
    'KUBE-NO-LOCAL-ENDPOINTS 10.200.0.2,tcp:30103',
  ]);
});

test('an update that changes nothing touches nothing', async () => {
  const updater = await desiredOfFixture();
  updater.cluster.markAllDirty();
  const touched = newTouched();
  const before = updater.desired.virtualServers.size;
  await updater.updateDirty(touched);
  assert.equal(touched.servers.size, 0);
  assert.equal(touched.addresses.size, 0);
  assert.equal(touched.entries.size, 0);
  assert.equal(updater.desired.virtualServers.size, before);
});
