/**
 * Which addresses no VIP may take: API servers by name, peer and endpoint; other nodes where the cluster is small
 * enough.
 */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { type WallClock, systemClock } from '../../../src/time/clock.js';
import { KubeClient } from '../../../src/kube/client.js';
import { ApiServerAddresses } from '../../../src/daemon/cluster/api-server-addresses.js';
import { NodeAddresses, type ProtectNodeAddresses } from '../../../src/daemon/cluster/node-addresses.js';
import { AddressProtection } from '../../../src/daemon/cluster/protection.js';
import { RememberedAddresses } from '../../../src/daemon/cluster/remembered-addresses.js';
import { ClusterState } from '../../../src/model/cluster-state.js';
import { type Address, formatAddress, parseAddress } from '../../../src/values/address.js';
import { type ApiObject } from '../../fakes/api-server-store.js';
import { until } from '../../fakes/api-server-testing.js';
import { FakeApiServer } from '../../fakes/api-server.js';

const log = { info: () => undefined, warn: () => undefined };
const address = (text: string): Address => parseAddress(text)!;

function protectedBy(cluster: ClusterState): string[] {
  const { protectedAddresses: found } = cluster;
  const line = (one: Address): string => `${formatAddress(one)} ${found.reason(one)!.reason}`;
  return [...found.addresses()].map(line).sort();
}

test('the API server: what its name resolves to, peers, endpoints; each stays for a day after it was last seen', async () => {
  const cluster = new ClusterState();
  let now = 0;
  let answers: readonly string[] = ['192.0.2.1', '192.0.2.2', '2001:db8::1', '127.0.0.1'];
  const addresses = new ApiServerAddresses({
    hosts: ['api.example', '198.51.100.9'],
    protect: (source, protection) => void cluster.protect(source, protection),
    clock: { ...systemClock, now: () => now },
    log,
    resolve: (name) => {
      assert.equal(name, 'api.example');
      return answers.length === 0 ? Promise.reject(new Error('ENOTFOUND')) : Promise.resolve(answers);
    },
  });
  await addresses.resolve();
  addresses.sawPeer('::ffff:192.0.2.77');
  addresses.sawPeer('127.0.0.1');
  addresses.sawEndpoints([address('10.200.0.1'), address('192.0.2.1')]);
  assert.deepEqual(protectedBy(cluster), [
    '10.200.0.1 an API server (endpoint of default/kubernetes)',
    '192.0.2.1 an API server (endpoint of default/kubernetes)',
    '192.0.2.2 the API server that is configured',
    '192.0.2.77 the peer of a connection to the API server',
    '198.51.100.9 the API server that is configured',
    '2001:db8::1 the API server that is configured',
  ]);
  assert.equal(cluster.protectedAddresses.reason(address('192.0.2.2'))!.mayBeClusterIP, true);
  assert.equal(cluster.protectedAddresses.reason(address('10.200.0.1'))!.mayBeClusterIP, false);
  // An upgrade: the API server takes itself out of default/kubernetes, the name server does not answer.
  answers = [];
  addresses.sawEndpoints([]);
  now += 3_600_000;
  await addresses.resolve();
  assert.equal(cluster.protectedAddresses.size, 6, 'a pause does not open the door');
});

test('the names of API servers are looked up again as time goes by: one that moves is protected where it is', async () => {
  const cluster = new ClusterState();
  let fire = (): void => undefined;
  let now = 0;
  const waits: number[] = [];
  const clock: WallClock = {
    ...systemClock,
    now: () => now,
    random: () => 0.5,
    after: (ms, callback) => {
      waits.push(ms);
      fire = callback;
      return () => undefined;
    },
  };
  let answer = '192.0.2.1';
  const protect = (source: string, protection: object): void => void cluster.protect(source, protection as never);
  const resolve = (): Promise<readonly string[]> => Promise.resolve([answer]);
  const addresses = new ApiServerAddresses({ hosts: ['api.example'], protect, clock, log, resolve });
  const turn = (): Promise<void> => new Promise((done) => setImmediate(done));
  addresses.sawPeer('192.0.2.77');
  addresses.sawEndpoints([address('10.200.0.1')]);
  addresses.start();
  await turn();
  const others = [
    '10.200.0.1 an API server (endpoint of default/kubernetes)',
    '192.0.2.77 the peer of a connection to the API server',
  ];
  const both = ['192.0.2.1', '192.0.2.9'].map((text) => `${text} the API server that is configured`);
  assert.deepEqual(protectedBy(cluster), [...others, both[0]!].sort());
  answer = '192.0.2.9';
  fire();
  await turn();
  assert.deepEqual(protectedBy(cluster), [...others, ...both].sort());
  assert.deepEqual(waits, [450_000, 450_000], 'spread, so that nodes ask apart');
  // A day later: each of what was not seen again is free.
  addresses.sawEndpoints([]);
  now += 25 * 3_600_000;
  fire();
  await turn();
  assert.deepEqual(protectedBy(cluster), [both[1]]);
  const closed = addresses.close();
  fire();
  await closed;
});

test('what was not seen for its time is forgotten, what is seen again stays, and there is a bound', () => {
  let now = 0;
  const known = new RememberedAddresses(1000, () => now);
  assert.equal(known.see([address('192.0.2.1'), address('192.0.2.2')]), true);
  now = 900;
  assert.equal(known.see([address('192.0.2.2')]), false);
  now = 1500;
  assert.equal(known.forgetOld(), true);
  assert.deepEqual(known.addresses.map(formatAddress), ['192.0.2.2']);
  known.see(Array.from({ length: 1000 }, (_, i) => address(`10.0.${i >> 8}.${i & 255}`)));
  assert.equal(known.addresses.length, 256);
});

test('endpoints of default/kubernetes that never change stay protected for as long as they are there', async () => {
  const cluster = new ClusterState();
  let now = 0;
  let fire = (): void => undefined;
  const clock: WallClock = {
    ...systemClock,
    now: () => now,
    after: (_ms, callback) => {
      fire = callback;
      return () => undefined;
    },
  };
  const protect = (source: string, protection: object): void => void cluster.protect(source, protection as never);
  const addresses = new ApiServerAddresses({ hosts: [], protect, clock, log });
  addresses.sawEndpoints([address('10.200.0.1')]);
  addresses.start();
  for (let day = 0; day < 5; day++) {
    await new Promise((resolve) => setImmediate(resolve));
    now += 20 * 3_600_000;
    fire();
  }
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(cluster.protectedAddresses.size, 1);
  const closed = addresses.close();
  fire();
  await closed;
});

function node(name: string, ...addresses: string[]): ApiObject {
  const list = addresses.map((one, i) => ({ type: i === 0 ? 'InternalIP' : 'ExternalIP', address: one }));
  return { kind: 'Node', apiVersion: 'v1', metadata: { name }, spec: {}, status: { addresses: list } };
}

async function startNodes(
  t: TestContext,
  mode: ProtectNodeAddresses,
  objects: readonly ApiObject[],
): Promise<{ server: FakeApiServer; cluster: ClusterState; nodes: NodeAddresses; changes: () => number }> {
  const server = new FakeApiServer();
  server.set(...objects);
  const client = new KubeClient({ master: await server.start() });
  const cluster = new ClusterState();
  let count = 0;
  const nodes = new NodeAddresses({
    mode,
    nodeName: 'node-0',
    client,
    protect: (source, protection) => {
      count++;
      cluster.protect(source, protection);
    },
    clock: systemClock,
    log,
  });
  t.after(async () => {
    await nodes.close();
    client.close();
    await server.stop();
  });
  nodes.start();
  return { server, cluster, nodes, changes: () => count };
}

test('auto in a small cluster: all other Nodes, and what becomes of them', async (t) => {
  const nodes = [node('node-0', '10.0.0.1'), node('node-1', '10.0.0.2', '203.0.113.2'), node('node-2', '10.0.0.3')];
  const rig = await startNodes(t, 'auto', nodes);
  await rig.nodes.ready;
  assert.deepEqual(protectedBy(rig.cluster), [
    '10.0.0.2 an address of node node-1',
    '10.0.0.3 an address of node node-2',
    '203.0.113.2 an address of node node-1',
  ]);
  assert.deepEqual(
    rig.server.requests.map(({ kind, query }) => `${kind} ${query.get('limit') ?? ''}`.trim()),
    ['list 1', 'watchlist'],
  );
  const before = rig.changes();
  rig.server.set({ ...node('node-1', '10.0.0.2', '203.0.113.2'), metadata: { name: 'node-1', labels: { a: 'b' } } });
  rig.server.set(node('node-2', '10.0.0.33'));
  rig.server.delete('nodes', 'node-1');
  await until('gone', () => rig.cluster.protectedAddresses.size === 1);
  assert.deepEqual(protectedBy(rig.cluster), ['10.0.0.33 an address of node node-2']);
  assert.equal(rig.changes() - before, 2, 'a heartbeat is no change');
});

test('auto in a large cluster: one list of one, and no watch; on watches it all the same; off asks nothing', async (t) => {
  const nodes = Array.from({ length: 251 }, (_, i) => node(`node-${i}`, `10.0.${i >> 8}.${i & 255}`));
  const auto = await startNodes(t, 'auto', nodes);
  await auto.nodes.ready;
  assert.equal(auto.server.requests.length, 1);
  assert.equal(auto.server.requests[0]!.query.get('limit'), '1');
  assert.equal(auto.cluster.protectedAddresses.size, 0);
  const on = await startNodes(t, 'on', nodes);
  await on.nodes.ready;
  assert.equal(on.cluster.protectedAddresses.size, 250);
  assert.deepEqual(
    on.server.requests.map(({ kind }) => kind),
    ['watchlist'],
  );
  const off = await startNodes(t, 'off', nodes);
  await off.nodes.ready;
  assert.equal(off.server.requests.length, 0);
});

test('exactly 250 Nodes are watched; a cluster that doubles under the watch is not any more', async (t) => {
  const nodes = Array.from({ length: 250 }, (_, i) => node(`node-${i}`, `10.0.0.${i}`));
  const rig = await startNodes(t, 'auto', nodes);
  await rig.nodes.ready;
  assert.equal(rig.cluster.protectedAddresses.size, 249);
  for (let i = 0; i < 260; i++) rig.server.set(node(`new-${i}`, `10.1.${i >> 8}.${i & 255}`));
  await until('given up', () => rig.cluster.protectedAddresses.size === 0);
  await until('the watch has ended', () => rig.server.watches.size === 0);
});

test('a count that is refused holds nobody up, and is asked for again', async (t) => {
  const server = new FakeApiServer();
  server.set(node('node-1', '10.0.0.2'));
  server.fault({ resource: 'nodes', times: 1, fault: { kind: 'status', code: 403 } });
  const client = new KubeClient({ master: await server.start() });
  const cluster = new ClusterState();
  const protect = (source: string, protection: unknown): void => void cluster.protect(source, protection as never);
  let askAgain = (): void => assert.fail('it does not wait before it asks again');
  const after: WallClock['after'] = (_ms, callback) => {
    askAgain = callback;
    return () => undefined;
  };
  const clock: WallClock = { ...systemClock, after };
  const nodes = new NodeAddresses({ mode: 'auto', nodeName: 'node-0', client, protect, clock, log });
  t.after(async () => {
    await nodes.close();
    client.close();
    await server.stop();
  });
  nodes.start();
  await nodes.ready;
  assert.equal(server.requests.length, 1, 'ready while it waits');
  askAgain();
  await until('asked again', () => cluster.protectedAddresses.size === 1);
});

test('both together: closed they ask for nothing more, and a name server that is silent is not waited for', async (t) => {
  const server = new FakeApiServer();
  server.set(node('node-0', '10.0.0.1'), node('node-1', '10.0.0.2'));
  await server.start();
  t.after(() => server.stop());
  const client = new KubeClient({ master: server.url.replace('127.0.0.1', 'localhost') });
  t.after(() => client.close());
  const waits = new Set<object>();
  const clock: WallClock = {
    ...systemClock,
    after: (ms, callback) => {
      const one = {};
      waits.add(one);
      const cancel = systemClock.after(ms, () => {
        waits.delete(one);
        callback();
      });
      return () => {
        waits.delete(one);
        cancel();
      };
    },
  };
  const cluster = new ClusterState();
  let answer: Promise<readonly string[]> = new Promise(() => undefined);
  const protection = new AddressProtection({
    ...{ client, cluster, clock, log, nodeName: 'node-0', config: { protectNodeAddresses: 'auto' } },
    ...{ onChange: () => undefined, resolve: () => answer },
  });
  assert.deepEqual(await protection.resolve(1), []);
  answer = Promise.resolve(['192.0.2.1']);
  assert.deepEqual((await protection.resolve(60_000)).map(formatAddress), ['192.0.2.1']);
  protection.start();
  await protection.ready;
  await until('it waits for the next look', () => waits.size >= 1);
  assert.deepEqual(protectedBy(cluster), [
    '10.0.0.2 an address of node node-1',
    '192.0.2.1 the API server that is configured',
  ]);
  await protection.close();
  assert.equal(waits.size, 0);
});
