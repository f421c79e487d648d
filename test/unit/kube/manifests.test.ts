import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, renameSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { promisify } from 'node:util';
import { parseManifest } from '../../../src/kube/manifest-file.js';
import { ManifestSource } from '../../../src/kube/manifests.js';
import { type EndpointSlice, parseEndpointSlice } from '../../../src/model/endpoint-slice.js';
import { type NodeInfo, parseNode } from '../../../src/model/node.js';
import { type Service, parseService } from '../../../src/model/service.js';
import { formatAddress } from '../../../src/values/address.js';
import { TestSink, until } from '../../fakes/api-server-testing.js';
import { scaleCluster } from '../../fakes/cluster-generator.js';

const service = (name: string, clusterIP = '10.96.0.9', rest = ''): string => `
apiVersion: v1
kind: Service
metadata: {name: ${name}}
spec:
  clusterIP: ${clusterIP}
  ports: [{port: 80, targetPort: 8080}]
${rest}`;

const slice = `
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [10.1.2.3]}]
ports: [{port: 8080}]
`;

interface Rig {
  readonly source: ManifestSource<Service, EndpointSlice, NodeInfo>;
  readonly directory: string;
  readonly services: TestSink<Service>;
  readonly slices: TestSink<EndpointSlice>;
  readonly nodes: TestSink<NodeInfo>;
  readonly logged: string[];
  write(name: string, text: string): void;
}

async function startSource(t: TestContext, files: Readonly<Record<string, string>>): Promise<Rig> {
  const directory = mkdtempSync(join(tmpdir(), 'manifests-'));
  const write = (name: string, text: string): void => writeFileSync(join(directory, name), text);
  for (const [name, text] of Object.entries(files)) write(name, text);
  const [services, slices, nodes] = [new TestSink<Service>(), new TestSink<EndpointSlice>(), new TestSink<NodeInfo>()];
  const logged: string[] = [];
  const onProblem = (key: string, problem: string): void => void logged.push(`${key}: ${problem}`);
  const log = (fields: object, message: string): void => void logged.push(`${message} ${JSON.stringify(fields)}`);
  const source = new ManifestSource({
    directory,
    nodeName: 'node-0',
    services: { parse: parseService, sink: services, onProblem, keyOf: ({ key }) => key },
    endpointSlices: {
      parse: (object, report) => parseEndpointSlice(object, 'node-0', report),
      sink: slices,
      onProblem,
    },
    node: { parse: parseNode, sink: nodes, onProblem },
    log: { info: log, warn: log },
  });
  t.after(async () => {
    await source.close();
    rmSync(directory, { recursive: true, force: true });
  });
  await source.start();
  return { source, directory, services, slices, nodes, logged, write };
}

test('a directory of every form: documents, Lists, JSON; defaults as the API server sets them', async (t) => {
  const list = {
    apiVersion: 'v1',
    kind: 'List',
    items: [{ apiVersion: 'v1', kind: 'Node', metadata: { name: 'node-0' } }],
  };
  const rig = await startSource(t, {
    'web.yaml': `${service('web', '10.96.0.9', '  sessionAffinity: ClientIP')}\n---${slice}---\n# nothing\n`,
    'nodes.json': JSON.stringify(list),
    'services.yml':
      'kind: ServiceList\napiVersion: v1\nitems: [{metadata: {name: x, namespace: y}, spec: {clusterIPs: [fd00::1], ports: [{port: 1}]}}]',
    'README.md': 'no manifest',
    '.hidden.yaml': 'broken: [',
  });
  assert.deepEqual(rig.services.keys, ['default/web', 'y/x']);
  const web = rig.services.values.get('default/web')!;
  assert.deepEqual([...web.ports], [{ name: '', protocol: 'TCP', port: 80, nodePort: 0 }]);
  assert.equal(web.affinitySeconds, 10800);
  assert.equal(formatAddress(rig.services.values.get('y/x')!.clusterIPs[0]!), 'fd00::1');
  assert.equal(rig.slices.values.get('default/web-1')!.service, 'default/web');
  assert.deepEqual(rig.nodes.keys, ['node-0']);
  assert.deepEqual([rig.services.syncs, rig.slices.syncs, rig.nodes.syncs], [1, 1, 1]);
  assert.deepEqual(rig.logged, []);
});

test('changes are followed by themselves; only what changed is delivered', async (t) => {
  const rig = await startSource(t, { 'a.yaml': service('a'), 'b.yaml': service('b') });
  rig.services.take();
  rig.write('b.yaml', service('b', '10.96.0.77'));
  await until('b changed', () => rig.services.calls.includes('upsert default/b'));
  assert.deepEqual(rig.services.take(), ['replaceStart', 'upsert default/b', 'replaceEnd']);
  unlinkSync(join(rig.directory, 'a.yaml'));
  await until('a gone', () => rig.services.calls.includes('delete default/a'));
  rig.write('.c.tmp', service('c'));
  renameSync(join(rig.directory, '.c.tmp'), join(rig.directory, 'c.yaml'));
  await until('c there', () => rig.services.keys.join() === 'default/b,default/c');
});

test('a broken file keeps its last good objects, says so once with file, document and reason, and recovers', async (t) => {
  const rig = await startSource(t, { 'a.yaml': service('a'), 'b.yaml': `${service('b')}\n---\n${service('b2')}` });
  rig.services.take();
  rig.write('b.yaml', `${service('b', '10.96.0.99')}\n---\nkind: [oops`);
  await until('complaint', () => rig.logged.length > 0);
  await rig.source.rescan();
  await rig.source.rescan();
  assert.deepEqual(rig.services.keys, ['default/a', 'default/b', 'default/b2']);
  assert.equal(rig.logged.length, 1);
  assert.match(rig.logged[0]!, /b\.yaml: document 2: .*"objectsKept":2/);
  assert.equal(rig.source.state().brokenFiles, 1);
  assert.equal(rig.services.calls.filter((call) => call.startsWith('delete')).length, 0);
  rig.write('b.yaml', service('b', '10.96.0.99'));
  await until('good again', () => rig.services.keys.join() === 'default/a,default/b');
  assert.equal(formatAddress(rig.services.values.get('default/b')!.clusterIPs[0]!), '10.96.0.99');
  assert.equal(rig.source.state().lastError, undefined);
});

test('a broken file that is taken away is none any more; one that cannot be read keeps what it had', async (t) => {
  const rig = await startSource(t, { 'a.yaml': service('a'), 'b.yaml': 'kind: [oops' });
  assert.equal(rig.source.state().brokenFiles, 1);
  unlinkSync(join(rig.directory, 'b.yaml'));
  await rig.source.rescan();
  assert.equal(rig.source.state().brokenFiles, 0);
  unlinkSync(join(rig.directory, 'a.yaml'));
  mkdirSync(join(rig.directory, 'a.yaml'));
  await rig.source.rescan();
  assert.deepEqual(rig.services.keys, ['default/a']);
  assert.equal(rig.source.state().brokenFiles, 1);
  assert.match(rig.logged.at(-1)!, /a\.yaml: EISDIR.*"objectsKept":1/);
});

test('two files with one object: the first by name wins, the other takes over when it goes', async (t) => {
  const rig = await startSource(t, { '1.yaml': service('a', '10.96.0.1'), '2.yaml': service('a', '10.96.0.2') });
  const address = (): string => formatAddress(rig.services.values.get('default/a')!.clusterIPs[0]!);
  assert.equal(address(), '10.96.0.1');
  assert.equal(rig.logged.filter((line) => line.includes('defined in 1.yaml already')).length, 1);
  unlinkSync(join(rig.directory, '1.yaml'));
  await until('taken over', () => address() === '10.96.0.2');
  assert.equal(rig.services.values.size, 1);
});

test('the selector of kube-proxy applies; other kinds are named once and left alone', async (t) => {
  const foreign = service('foreign').replace(
    '{name: foreign}',
    '{name: foreign, labels: {service.kubernetes.io/service-proxy-name: x}}',
  );
  const deployment = 'apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}';
  const rig = await startSource(t, {
    'a.yaml': [service('a'), foreign, deployment, service('none', '""')].join('\n---\n'),
  });
  await rig.source.rescan();
  assert.deepEqual(rig.services.keys, ['default/a']);
  assert.equal(rig.logged.length, 2);
  assert.match(rig.logged[0]!, /apps\/v1 Deployment d/);
  assert.match(rig.logged[1]!, /default\/none: no spec.clusterIP/);
});

test('a directory that vanishes keeps its objects; one that was never there is refused', async (t) => {
  const rig = await startSource(t, { 'a.yaml': service('a') });
  rmSync(rig.directory, { recursive: true });
  await rig.source.rescan();
  assert.deepEqual(rig.services.keys, ['default/a']);
  assert.match(rig.source.state().lastError!, /read manifests: ENOENT/);
  mkdirSync(rig.directory);
  rig.write('b.yaml', service('b'));
  await rig.source.rescan();
  assert.deepEqual(rig.services.keys, ['default/b']);
  const missing = new ManifestSource({ ...sourceOptions(), directory: '/nonexistent/manifests' });
  await assert.rejects(missing.start(), /read manifests: ENOENT/);
});

function sourceOptions(): ConstructorParameters<typeof ManifestSource<Service, Service, Service>>[0] {
  const feed = { parse: parseService, sink: new TestSink<Service>(), onProblem: () => undefined };
  const log = { info: () => undefined, warn: () => undefined };
  return { directory: '', nodeName: '', services: feed, endpointSlices: feed, node: feed, log };
}

test('hostile files: aliases that explode, wrong types, no names; an error each, never a crash', () => {
  const bomb = `a: &a [x,x,x,x,x,x,x,x,x]\n${'bcdefghi'
    .split('')
    .map((name, i) => `${name}: &${name} [${`*${'abcdefgh'[i]},`.repeat(9)}]`)
    .join('\n')}`;
  for (const [text, reason] of [
    [bomb, /alias/i],
    ['just text', /document 1: not an object/],
    ['[1, 2]', /not an object/],
    ['metadata: {name: x}', /kind is missing/],
    ['apiVersion: v1\nkind: Service\nmetadata: {}', /Service: metadata.name is missing/],
    ['apiVersion: v1\nkind: List\nitems: [{kind: Node, apiVersion: v1}]', /item 1: Node: metadata.name is missing/],
    ['a: 1\na: 2', /document 1: /],
    ['\u0000\u0001', /document 1/],
  ] as const) {
    const parsed = parseManifest(text);
    assert.ok('error' in parsed, text.slice(0, 40));
    assert.match(parsed.error, reason);
  }
  assert.deepEqual(parseManifest(''), { objects: [], ignored: [] });
});

test('what is not used is told: broken files, kinds that are not served, second definitions', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'manifests-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const files = {
    '1.yaml': service('a'),
    '2.yaml': service('a'),
    'broken.yaml': 'kind: [',
    'foreign.json': '{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d"}}',
  };
  for (const [name, text] of Object.entries(files)) writeFileSync(join(directory, name), text);
  const skipped: string[] = [];
  const onSkipped = (file: string, what: string, reason: string): void =>
    void skipped.push(`${reason} ${file.slice(directory.length + 1)}: ${what}`);
  const source = new ManifestSource({ ...sourceOptions(), directory, onSkipped });
  t.after(() => source.close());
  await source.start();
  await source.rescan();
  assert.equal(skipped.length, 3, skipped.join('\n'));
  assert.match(skipped[0]!, /^broken broken\.yaml: document 1: /);
  assert.equal(skipped[1], 'not_served foreign.json: apps/v1 Deployment d');
  assert.equal(skipped[2], 'duplicate 2.yaml: Service default/a: defined in 1.yaml already');
});

test("kubectl's JSON of 10,000 Services with 10 endpoints each: seconds, and memory in proportion to the file", async () => {
  const items = [...scaleCluster({ services: 10_000, endpointsPerService: 10 })].map((object) => ({
    ...object,
    metadata: {
      ...object.metadata,
      managedFields: [{ manager: 'kubectl', fieldsV1: { 'f:spec': { 'f:ports': {} } } }],
    },
  }));
  const directory = mkdtempSync(join(tmpdir(), 'manifests-'));
  const file = join(directory, 'all.json');
  writeFileSync(file, JSON.stringify({ apiVersion: 'v1', kind: 'List', items }, undefined, 4));
  const script = `
    import { readFileSync } from 'node:fs';
    import { parseManifest } from '${new URL('../../../src/kube/manifest-file.js', import.meta.url).href}';
    const parsed = parseManifest(readFileSync(process.argv[1], 'utf8'));
    console.log(parsed.objects.length, parsed.objects.some(({ json }) => json.includes('managedFields')));`;
  try {
    // A heap of 400 MB for a file of 30: the YAML parser did not do it with 1 GB.
    const args = ['--max-old-space-size=400', '--input-type=module', '-e', script, file];
    const { stdout } = await promisify(execFile)(process.execPath, args, { timeout: 60_000 });
    assert.equal(stdout.trim(), '20000 false');
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test('JSON that is broken is an error; YAML that begins like JSON is still YAML', () => {
  const flow = parseManifest('{apiVersion: v1, kind: Node, metadata: {name: n}}');
  assert.ok(!('error' in flow) && flow.objects.length === 1);
  const large = parseManifest(`{"kind":"List","items":[${'{"kind":"Node"},'.repeat(100_000)}`);
  assert.ok('error' in large);
});
