import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { type TestContext, test } from 'node:test';
import { parseService } from '../../../src/model/service.js';
import { parseEndpointSlice } from '../../../src/model/endpoint-slice.js';
import { type ControlAnswer } from '../../fakes/api-server-control.js';
import { type ApiObject } from '../../fakes/api-server-store.js';
import { testService, until } from '../../fakes/api-server-testing.js';
import { FakeApiServer } from '../../fakes/api-server.js';
import { RandomCluster } from '../../fakes/cluster-generator-random.js';
import { scaleCluster } from '../../fakes/cluster-generator.js';

const SELECTOR = '%21service.kubernetes.io%2Fheadless%2C%21service.kubernetes.io%2Fservice-proxy-name';

async function startServer(t: TestContext, options = {}): Promise<FakeApiServer> {
  const server = new FakeApiServer(options);
  await server.start();
  t.after(() => server.stop());
  return server;
}

function recorded(name: string): { request: string; status: number; body: string } {
  return JSON.parse(readFileSync(`test/fixtures/kube-apiserver-1.36/${name}.json`, 'utf8')) as never;
}

/** Names of all fields with their types, values left out: two bodies of one shape have the same. */
function shape(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(shape);
  if (typeof value !== 'object' || value === null) return value === null ? 'null' : typeof value;
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, shape(inner)]));
}

function lines(body: string): unknown[] {
  return body
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as unknown);
}

/** The recorded objects, put into the fake. */
function loadRecorded(server: FakeApiServer, names: readonly string[]): void {
  for (const name of names) {
    const { items } = JSON.parse(recorded(name).body) as { items: ApiObject[] };
    server.set(...items.map((item) => ({ kind: 'Service', ...item })));
  }
}

test('a paged list has the recorded shape, byte for byte but for versions and tokens', async (t) => {
  const server = await startServer(t);
  loadRecorded(server, ['list-services-page-1', 'list-services-page-2']);
  server.set(testService('zz'));
  const first = await (await fetch(`${server.url}/api/v1/services?limit=2&labelSelector=${SELECTOR}`)).text();
  const scrub = (body: string): string => body.replace(/"(resourceVersion|continue)":"[^"]*"/g, '"$1":""');
  assert.equal(scrub(first), scrub(recorded('list-services-page-1').body));
  const { metadata } = JSON.parse(first) as { metadata: { continue: string } };
  const second = await (await fetch(`${server.url}/api/v1/services?limit=2&continue=${metadata.continue}`)).text();
  assert.equal(scrub(second), scrub(recorded('list-services-page-2').body));
});

test('every page of a list shows the version of its first page; an expired token answers 410 Expired', async (t) => {
  const server = await startServer(t);
  server.set(testService('a'), testService('b'), testService('c'));
  interface Page {
    metadata: { resourceVersion: string; continue: string };
    items: { metadata: { name: string } }[];
  }
  const page = async (query: string): Promise<Page> =>
    (await (await fetch(`${server.url}/api/v1/services?limit=1&${query}`)).json()) as Page;
  const first = await page('');
  server.delete('services', 'default/b');
  server.set(testService('aa'));
  const second = await page(`continue=${first.metadata.continue}`);
  assert.equal(second.items[0]!.metadata.name, 'b');
  assert.equal(second.metadata.resourceVersion, first.metadata.resourceVersion);
  server.compact();
  const expired = await fetch(`${server.url}/api/v1/services?limit=1&continue=${second.metadata.continue}`);
  assert.equal(expired.status, 410);
  assert.equal(((await expired.json()) as { reason: string }).reason, 'Expired');
});

test('a streaming list and its bookmark have the recorded shape', async (t) => {
  const server = await startServer(t);
  const events = lines(recorded('watchlist-services').body) as { type: string; object: ApiObject }[];
  server.set(...events.filter(({ type }) => type === 'ADDED').map(({ object }) => object));
  const path = `/api/v1/services?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&labelSelector=${SELECTOR}`;
  const body = await readUntil(`${server.url}${path}`, (text) => text.includes('initial-events-end'));
  assert.deepEqual(lines(body).map(shape), events.map(shape));
});

test('a watch sees what the recorded one saw, with its versions', async (t) => {
  const server = await startServer(t);
  const events = lines(recorded('watch-endpointslices').body) as { type: string; object: ApiObject }[];
  const [added, modified] = [events[0]!.object, events[1]!.object];
  const start = server.store.revision;
  const labels = { ...modified.metadata.labels, 'service.kubernetes.io/service-proxy-name': 'other' };
  const foreign = { ...modified, metadata: { ...modified.metadata, labels } };
  server.set(added, modified, foreign, modified);
  server.delete('endpointslices', 'default/rec-1');
  const path = `/apis/discovery.k8s.io/v1/endpointslices?watch=1&allowWatchBookmarks=true&resourceVersion=${start}&labelSelector=${SELECTOR}`;
  const body = await readUntil(
    `${server.url}${path}`,
    (text) => text.includes('BOOKMARK'),
    () => server.bookmark(),
  );
  const seen = lines(body) as { type: string; object: ApiObject }[];
  assert.deepEqual(
    seen.map(({ type, object }) => `${type} ${Number(object.metadata['resourceVersion']) - start}`),
    ['ADDED 1', 'MODIFIED 2', 'DELETED 3', 'ADDED 4', 'DELETED 5', 'BOOKMARK 5'],
  );
  assert.deepEqual(seen.map(shape), events.slice(0, 6).map(shape));
});

test('a watch from a compacted version and a wrong token answer as recorded', async (t) => {
  const server = await startServer(t, { tokens: ['right'] });
  const plain = await fetch(`${server.url}/api/v1/services`);
  assert.equal(plain.status, 401);
  assert.equal(await plain.text(), recorded('list-unauthorized').body);
  server.set(testService('a'));
  server.compact();
  const headers = { authorization: 'Bearer right' };
  const old = await fetch(`${server.url}/api/v1/services?watch=1&resourceVersion=2`, { headers });
  assert.deepEqual(lines(await old.text()).map(shape), lines(recorded('watch-too-old').body).map(shape));
});

test('a slow reader gets everything in order although the server never waits for it', async (t) => {
  const server = await startServer(t, { realObjects: true });
  const start = server.store.revision;
  const body = readUntil(`${server.url}/api/v1/services?watch=1&resourceVersion=${start + 1}`, (text) =>
    text.includes('"last"'),
  );
  server.set(testService('first'));
  await until('watching', () => server.watches.size === 1);
  for (let i = 0; i < 5000; i++) server.set(testService(`s${i}`));
  server.set(testService('last'));
  const names = lines(await body).map((event) => (event as { object: ApiObject }).object.metadata.name);
  assert.deepEqual(names, [...Array.from({ length: 5000 }, (_, i) => `s${i}`), 'last']);
});

test('the stand-alone process: TLS, control port, standard input, generated objects', async (t) => {
  const child = spawn(
    process.execPath,
    ['build/test/fakes/api-server-main.js', '--generate', '20x3', '--load', 'test/fixtures/cluster/nodes.json'],
    { stdio: ['pipe', 'pipe', 'inherit'] },
  );
  t.after(() => child.kill());
  const output = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const nextLine = async (): Promise<string> => String((await output.next()).value);
  const { url, control } = JSON.parse(await nextLine()) as { url: string; control: string };
  const tell = async (command: unknown): Promise<ControlAnswer[]> => {
    const response = await fetch(control, { method: 'POST', body: JSON.stringify([command]) });
    return (await response.json()) as ControlAnswer[];
  };
  const [stats] = await tell({ op: 'stats' });
  assert.deepEqual([stats!['services'], stats!['endpointslices']], [20, 20]);
  assert.ok(Number(stats!['nodes']) >= 1);
  child.stdin.write(
    `${JSON.stringify({ op: 'patch', resource: 'services', key: 'ns-7/svc-7', patch: { spec: { type: 'X' } } })}\n`,
  );
  assert.equal((JSON.parse(await nextLine()) as ControlAnswer).ok, true);
  const patched = (await (await fetch(`${url}/api/v1/services/ns-7/svc-7`)).json()) as {
    spec: { type: string; sessionAffinity: string };
  };
  assert.equal(patched.spec.type, 'X');
  assert.equal(patched.spec.sessionAffinity, 'None', 'what the patch does not name stays');
  assert.equal((await tell({ op: 'delete', resource: 'services', key: 'ns-7/svc-7' }))[0]!['deleted'], true);
  assert.equal((await tell({ op: 'nonsense' }))[0]!.ok, false);
  assert.equal((await tell({ op: 'outage' }))[0]!.ok, true);
  await assert.rejects(fetch(`${url}/api/v1/services`));
  assert.equal((await tell({ op: 'recover' }))[0]!.ok, true);
  assert.equal((await fetch(`${url}/api/v1/services`)).status, 200);
  child.kill();
  await once(child, 'exit');
});

test('a scale cluster is the same every time and all of it is usable', () => {
  const objects = [...scaleCluster({ services: 300, endpointsPerService: 250 })];
  assert.deepEqual(objects, [...scaleCluster({ services: 300, endpointsPerService: 250 })]);
  const report = (problem: string): void => assert.fail(problem);
  const services = objects.filter(({ kind }) => kind === 'Service').map((object) => parseService(object, report)!);
  const slices = objects
    .filter(({ kind }) => kind === 'EndpointSlice')
    .map((object) => parseEndpointSlice(object, 'node-0', report)!);
  assert.equal(new Set(services.map(({ clusterIPs }) => clusterIPs[0])).size, 300);
  assert.equal(slices.length, 900, 'no more than 100 endpoints a slice');
  const addresses = new Set<string>();
  for (const { endpoints } of slices) {
    for (let i = 0; i < endpoints.length; i += 5) addresses.add(endpoints.slice(i, i + 4));
  }
  assert.equal(addresses.size, 75_000, 'every endpoint has an address of its own');
});

test('a random cluster repeats by its seed, uses every feature, and only bad fields are reported', () => {
  const run = (seed: number, badFields: boolean): { json: string; problems: string[] } => {
    const cluster = new RandomCluster({ seed, badFields, conflicts: true });
    const changes = [
      ...Array.from({ length: 200 }, () => cluster.create()),
      ...Array.from({ length: 500 }, () => cluster.step()),
    ].flat();
    const problems: string[] = [];
    for (const change of changes) {
      if (change.op !== 'set') continue;
      const { object } = change;
      if (object.kind === 'Service') parseService(object, (problem) => problems.push(problem));
      else parseEndpointSlice(object, 'node-0', (problem) => problems.push(problem));
    }
    return { json: JSON.stringify(changes), problems };
  };
  const clean = run(1, false);
  assert.equal(clean.json, run(1, false).json);
  assert.notEqual(clean.json, run(2, false).json);
  assert.deepEqual(clean.problems, []);
  assert.ok(run(1, true).problems.length > 10);
  for (const feature of FEATURES) assert.ok(clean.json.includes(feature), feature);
});

test('no two living Services of a random cluster share a port or an address, unless conflicts are asked for', () => {
  const cluster = new RandomCluster({ seed: 3 });
  for (let i = 0; i < 300; i++) cluster.create();
  for (let i = 0; i < 3000; i++) cluster.step();
  const claims = cluster.objects().flatMap((object) => {
    if (object.kind !== 'Service') return [];
    const service = parseService(object, (problem) => assert.fail(problem));
    if (service === undefined) return [];
    const addresses = [...service.clusterIPs, ...service.externalIPs, ...service.loadBalancerIPs];
    const nodePorts = service.ports.map(({ nodePort }) => nodePort).filter((port) => port > 0);
    return [...addresses, ...nodePorts, ...[service.healthCheckNodePort].filter((port) => port > 0)];
  });
  assert.ok(claims.length > 500);
  assert.equal(new Set(claims).size, claims.length);
});

const FEATURES = [
  '"op":"delete"',
  '"type":"NodePort"',
  '"type":"LoadBalancer"',
  '"type":"ExternalName"',
  '"clusterIP":"None"',
  '"RequireDualStack"',
  '"IPv6"',
  '"protocol":"UDP"',
  '"protocol":"SCTP"',
  '"sessionAffinity":"ClientIP"',
  '"externalTrafficPolicy":"Local"',
  '"internalTrafficPolicy":"Local"',
  '"healthCheckNodePort"',
  '"loadBalancerSourceRanges"',
  '"externalIPs"',
  '"ipMode":"Proxy"',
  '"hostname":"lb.example.com"',
  '"forZones"',
  '"forNodes"',
  '"ready":false,"serving":true,"terminating":true',
  'service.kubernetes.io/service-proxy-name',
];

/** Reads a streaming body until `isDone`; `poke` is called once the stream is open. */
async function readUntil(url: string, isDone: (text: string) => boolean, poke?: () => void): Promise<string> {
  const stop = new AbortController();
  const response = await fetch(url, { signal: stop.signal });
  poke?.();
  const decoder = new TextDecoder();
  let text = '';
  for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
    text += decoder.decode(chunk, { stream: true });
    if (isDone(text)) break;
  }
  stop.abort();
  return text;
}
