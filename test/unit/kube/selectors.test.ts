/**
 * Which objects are asked for: as kube-proxy 1.36 (cmd/kube-proxy/app/server.go), from the API server and from
 * manifests alike.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KubeClient } from '../../../src/kube/client.js';
import { parseManifest } from '../../../src/kube/manifest-file.js';
import { watchEndpointSlices, watchServices } from '../../../src/kube/resources.js';
import { type ApiObject } from '../../fakes/api-server-store.js';
import { TestSink, testService, until } from '../../fakes/api-server-testing.js';
import { FakeApiServer } from '../../fakes/api-server.js';

const FOREIGN = { 'service.kubernetes.io/service-proxy-name': 'other' };
const HEADLESS = { 'service.kubernetes.io/headless': '' };

function slice(name: string, labels: Record<string, string>): ApiObject {
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { name, namespace: 'default', labels },
    addressType: 'IPv4',
    endpoints: [],
    ports: [],
  };
}

const OBJECTS: readonly ApiObject[] = [
  testService('plain'),
  testService('labelled-headless', { labels: HEADLESS }),
  testService('foreign', { labels: FOREIGN }),
  slice('plain', {}),
  slice('headless', HEADLESS),
  slice('foreign', FOREIGN),
];
const SERVICES = ['default/labelled-headless', 'default/plain'];
const SLICES = ['default/foreign', 'default/plain'];

test('a Service with a ClusterIP is served although it is labelled headless; a slice is left out for that label only', async (t) => {
  const server = new FakeApiServer();
  server.set(...OBJECTS);
  const client = new KubeClient({ master: await server.start() });
  const sinks = [new TestSink<{ key: string }>(), new TestSink<{ key: string }>()] as const;
  const parse = (object: unknown): { key: string } => {
    const { metadata } = object as ApiObject;
    return { key: `${metadata.namespace}/${metadata.name}` };
  };
  const log = { info: () => undefined, warn: () => undefined };
  const options = { client, parse, log, onProblem: () => undefined };
  const reflectors = [
    watchServices({ ...options, sink: sinks[0] }),
    watchEndpointSlices({ ...options, sink: sinks[1] }),
  ];
  t.after(async () => {
    await Promise.all(reflectors.map((reflector) => reflector.close()));
    client.close();
    await server.stop();
  });
  for (const reflector of reflectors) reflector.start();
  await until('both lists', () => sinks.every(({ syncs }) => syncs === 1));
  assert.deepEqual(sinks[0].keys, SERVICES);
  assert.deepEqual(sinks[1].keys, SLICES);
});

test('the same objects as manifests', () => {
  const parsed = parseManifest(JSON.stringify({ apiVersion: 'v1', kind: 'List', items: OBJECTS }));
  assert.ok(!('error' in parsed));
  const keys = (kind: string): string[] => parsed.objects.filter((o) => o.kind === kind).map(({ key }) => key);
  assert.deepEqual(keys('Service').sort(), SERVICES);
  assert.deepEqual(keys('EndpointSlice').sort(), SLICES);
});
