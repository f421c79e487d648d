/**
 * From an API server to a data plane that may begin: when, with which protected addresses, and what is said of the
 * Node.
 */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { pino } from 'pino';
import { loadConfigDocument } from '../../../src/config/load.js';
import { Sources, type SourcesOptions } from '../../../src/daemon/cluster/sources.js';
import { SourceReport } from '../../../src/daemon/cluster/source-report.js';
import { SyncReporter } from '../../../src/daemon/report/sync-reporter.js';
import { type WallClock, systemClock } from '../../../src/time/clock.js';
import { ClusterState } from '../../../src/model/cluster-state.js';
import { parseAddress } from '../../../src/values/address.js';
import { Metrics } from '../../../src/serve/metrics.js';
import { type ApiObject } from '../../fakes/api-server-store.js';
import { testService, until } from '../../fakes/api-server-testing.js';
import { FakeApiServer } from '../../fakes/api-server.js';

const NODE: ApiObject = {
  kind: 'Node',
  apiVersion: 'v1',
  metadata: { name: 'node-0', labels: { 'topology.kubernetes.io/zone': 'a' } },
  spec: { podCIDRs: ['10.1.0.0/24'] },
  status: { addresses: [{ type: 'InternalIP', address: '10.200.0.2' }] },
};

/** Like no other time-out. */
const NODE_WAIT_MS = 31_234;
/** For the addresses of other nodes. */
const PROTECTION_WAIT_MS = 10_000;

interface Rig {
  readonly server: FakeApiServer;
  readonly sources: Sources;
  readonly cluster: ClusterState;
  readonly metrics: Metrics;
  readonly logged: string[];
  ready: number;
  requests: number;
  /** Ends the wait for the Node, or for the addresses of others. */
  expire(): void;
}

async function start(
  t: TestContext,
  objects: readonly ApiObject[],
  options: {
    config?: object;
    before?: (server: FakeApiServer) => void;
    sources?: Partial<SourcesOptions>;
    reporter?: object;
    /** An API server that is not the fake one: it is not asked. */
    elsewhere?: string;
  } = {},
): Promise<Rig> {
  const server = new FakeApiServer();
  server.set(...objects);
  options.before?.(server);
  const master = options.elsewhere ?? (await server.start());
  const HEAD = { apiVersion: 'kubeproxy.config.k8s.io/v1alpha1', kind: 'KubeProxyConfiguration' };
  const { config } = loadConfigDocument({ ...HEAD, ...options.config }, 'test', { master });
  const logged: string[] = [];
  const log = pino({ level: 'info' }, { write: (line) => void logged.push((JSON.parse(line) as { msg: string }).msg) });
  const metrics = new Metrics({ version: '0.0.0' });
  const cluster = new ClusterState();
  const waits = new Set<() => void>();
  const clock: WallClock = {
    ...systemClock,
    after: (ms, callback) => {
      if (ms !== NODE_WAIT_MS && ms !== PROTECTION_WAIT_MS) return systemClock.after(ms, callback);
      waits.add(callback);
      return () => waits.delete(callback);
    },
  };
  const dataPlane = {
    cluster,
    reconciler: { adopted: false, precompute: () => undefined },
    rules: { check: () => undefined },
    runner: { request: () => rig.requests++ },
    options: {
      config,
      nodeName: 'node-0',
      log,
      reporter: options.reporter === undefined ? new SyncReporter(metrics, log) : { metrics, ...options.reporter },
    },
  };
  const rig: Rig = {
    server,
    cluster,
    metrics,
    logged,
    ready: 0,
    requests: 0,
    expire: () => {
      for (const callback of waits) callback();
    },
    sources: new Sources(dataPlane as never, {
      manifests: undefined,
      onReady: () => rig.ready++,
      clock,
      nodeWaitMs: NODE_WAIT_MS,
      ...options.sources,
    }),
  };
  t.after(async () => {
    await rig.sources.close();
    await server.stop();
  });
  if (options.elsewhere === undefined) await rig.sources.start();
  return rig;
}

async function gauge(rig: Rig, name: string): Promise<string> {
  const text = await rig.metrics.text();
  return new RegExp(`^${name} (.*)$`, 'm').exec(text)?.[1] ?? 'none';
}

test('with its Node the data plane begins at once; eligible and known', async (t) => {
  const rig = await start(t, [testService('a'), NODE]);
  await until('begun', () => rig.ready === 1);
  assert.equal(rig.sources.isSynced, true);
  assert.equal(rig.sources.node.isEligible, true);
  assert.equal(rig.sources.waitsFor, undefined);
  assert.deepEqual(rig.sources.notes, []);
  assert.equal(await gauge(rig, 'kubeproxy_ipvs_node_known'), '1');
});

test('the API server knows no such Node (hostnameOverride is wrong): not eligible, as in kube-proxy, and said everywhere', async (t) => {
  const rig = await start(t, [testService('a'), { ...NODE, metadata: { name: 'node-0.example' } }]);
  await until('listed', () => rig.sources.node.isKnown && rig.cluster.services.size === 1);
  assert.equal(rig.ready, 0, 'the kubelet may be about to register it');
  assert.equal(rig.sources.node.isEligible, false);
  assert.equal(await gauge(rig, 'kubeproxy_ipvs_node_known'), '0');
  assert.ok(rig.logged.some((line) => line.includes('knows no Node "node-0"')));
  assert.match(rig.sources.notes.join('\n'), /hostnameOverride/);
  await until('all lists', () => rig.sources.waitsFor?.startsWith('the Node object') === true);
  rig.expire();
  await until('begun', () => rig.ready === 1);
  assert.equal(rig.sources.node.isEligible, false);
  rig.server.set(NODE);
  await until('registered', () => rig.sources.node.isEligible);
  assert.deepEqual(rig.sources.notes, []);
});

test('a Node list that fails is no verdict on the Node: eligible, and the data plane begins after the wait', async (t) => {
  const rig = await start(t, [testService('a'), NODE], {
    before: (server) => server.fault({ resource: 'nodes', fault: { kind: 'status', code: 503 } }),
  });
  await until('listed', () => rig.sources.waitsFor?.startsWith('the Node object') === true);
  assert.equal(rig.sources.node.isKnown, false);
  assert.equal(rig.sources.node.isEligible, true);
  await until('the failure is named', () => /list nodes|watch nodes/.test(rig.sources.waitsFor ?? ''));
  rig.expire();
  await until('begun', () => rig.ready === 1);
  assert.equal(rig.sources.node.isEligible, true);
});

test('a Node that the cluster autoscaler takes away is not eligible; one that was deleted stays what it was', async (t) => {
  const rig = await start(t, [testService('a'), NODE]);
  await until('begun', () => rig.ready === 1);
  rig.server.delete('nodes', 'node-0');
  rig.server.set(testService('b'));
  await until('b', () => rig.cluster.services.size === 2);
  await until('deleted', () => rig.logged.some((line) => line.includes('Node object is gone')));
  assert.equal(rig.sources.node.isEligible, true);
  rig.server.set({ ...NODE, spec: { taints: [{ key: 'ToBeDeletedByClusterAutoscaler', effect: 'NoSchedule' }] } });
  await until('tainted', () => !rig.sources.node.isEligible);
});

for (const [name, config, lacking] of [
  ['nodePortAddresses "primary"', { nodePortAddresses: ['primary'] }, { ...NODE, status: { addresses: [] } }],
  ['detectLocalMode NodeCIDR', { detectLocalMode: 'NodeCIDR' }, { ...NODE, spec: {} }],
] as const) {
  test(`${name}: no beginning without what it needs of the Node, however long that takes`, async (t) => {
    const rig = await start(t, [testService('a'), lacking], { config });
    await until('waiting', () => rig.sources.waitsFor?.includes(name) === true);
    assert.equal(rig.sources.isSynced, false);
    assert.ok(rig.logged.some((line) => line.includes(name)));
    rig.expire();
    assert.equal(rig.ready, 0);
    rig.server.set(NODE);
    await until('begun', () => rig.ready === 1);
  });
}

test('a dry run does not wait for a Node that the API server does not know', async (t) => {
  const rig = await start(t, [testService('a')], { sources: { absentNodeWaitMs: 0 } });
  await until('begun', () => rig.ready === 1);
});

test('an API server that refuses says who refused what, while nothing has begun', async (t) => {
  const rig = await start(t, [testService('a'), NODE], {
    before: (server) => server.fault({ fault: { kind: 'status', code: 403, reason: 'Forbidden' } }),
  });
  await until('all named', () => (rig.sources.waitsFor?.match(/403 Forbidden/g) ?? []).length === 2);
  assert.match(
    rig.sources.waitsFor!,
    /^the first lists of services and endpointslices from http:\/\/127\.0\.0\.1:\d+ \(/,
  );
});

test('Services on the addresses of API servers and of other nodes are known as such when the data plane begins', async (t) => {
  const kubernetes: ApiObject = {
    kind: 'EndpointSlice',
    apiVersion: 'discovery.k8s.io/v1',
    metadata: { name: 'kubernetes', namespace: 'default', labels: { 'kubernetes.io/service-name': 'kubernetes' } },
    addressType: 'IPv4',
    endpoints: [{ addresses: ['10.200.0.1'] }],
    ports: [{ name: 'https', port: 6443, protocol: 'TCP' }],
  };
  const other = {
    ...NODE,
    metadata: { name: 'node-1' },
    status: { addresses: [{ type: 'InternalIP', address: '10.200.0.3' }] },
  };
  const rig = await start(t, [testService('a'), NODE, other, kubernetes]);
  await until('begun', () => rig.ready === 1);
  const { protectedAddresses } = rig.cluster;
  assert.match(protectedAddresses.reason(parseAddress('10.200.0.1')!)!.reason, /endpoint of default\/kubernetes/);
  assert.match(protectedAddresses.reason(parseAddress('10.200.0.3')!)!.reason, /node-1/);
  assert.equal(protectedAddresses.reason(parseAddress('10.200.0.2')!), undefined, "this node's own");
  const before = rig.requests;
  const poison = { ...testService('p', { clusterIP: '10.96.0.11' }) };
  rig.server.set({ ...poison, spec: { ...(poison['spec'] as object), externalIPs: ['10.200.0.9'] } });
  await until('p', () => rig.cluster.services.has('default/p'));
  rig.server.set({ ...other, status: { addresses: [{ type: 'InternalIP', address: '10.200.0.9' }] } });
  await until('protected', () => protectedAddresses.has(parseAddress('10.200.0.9')!));
  assert.ok(rig.requests >= before + 2, 'a sync is asked for when a protected address concerns a Service');
});

test('it begins with the addresses of other nodes, and without them when they do not come', async (t) => {
  const rig = await start(t, [testService('a'), NODE], {
    before: (server) => server.fault({ resource: 'nodes', requests: ['list'], fault: { kind: 'hang' } }),
  });
  await until('synced', () => rig.sources.isSynced && rig.logged.includes('caches synced'));
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
  assert.equal(rig.ready, 0, 'a VIP on the address of a node would be bound first and taken off then');
  rig.expire();
  await until('begun', () => rig.ready === 1);
});

test('by which addresses the API server is reached is known before anything is asked of it', async (t) => {
  const rig = await start(t, [testService('a'), NODE], { elsewhere: 'http://192.0.2.1:6443' });
  assert.deepEqual(await rig.sources.apiServerAddresses(), [parseAddress('192.0.2.1')]);
});

test('closed while it waits it returns at once, whatever it waits for', async (t) => {
  const lacking = { ...NODE, status: { addresses: [] } };
  const waiting = await start(t, [testService('a'), lacking], { config: { nodePortAddresses: ['primary'] } });
  await until('waiting', () => waiting.sources.waitsFor?.includes('primary') === true);
  await waiting.sources.close();
  const hanging = await start(t, [], { before: (server) => server.fault({ fault: { kind: 'hang' } }) });
  await until('asked', () => (hanging.server.faults.injected.get('hang') ?? 0) >= 3);
  await hanging.sources.close();
  assert.deepEqual([waiting.ready, hanging.ready], [0, 0]);
});

test('an EndpointSlice that was triggered before this process gives no latency sample, a later one does', async (t) => {
  const slice = (name: string, at: number): ApiObject => ({
    kind: 'EndpointSlice',
    apiVersion: 'discovery.k8s.io/v1',
    metadata: {
      name,
      namespace: 'default',
      labels: { 'kubernetes.io/service-name': 'a' },
      annotations: { 'endpoints.kubernetes.io/last-change-trigger-time': new Date(at).toISOString() },
    },
    addressType: 'IPv4',
    endpoints: [],
    ports: [],
  });
  const triggered: number[] = [];
  const reporter = {
    changeQueued: () => undefined,
    endpointsTriggered: (_family: number, at: number) => triggered.push(at),
  };
  const rig = await start(t, [testService('a'), NODE, slice('old', Date.now() - 86_400_000)], { reporter });
  await until('begun', () => rig.ready === 1);
  const now = Date.now() + 5;
  rig.server.set(slice('new', now), slice('older', now - 3_600_000));
  await until('all three', () => rig.cluster.sliceCount === 3);
  assert.deepEqual(triggered, [now]);
});

test('metrics count watches begun again and lists taken again, by the way they ended; the first are none', async (t) => {
  const rig = await start(t, [testService('a'), NODE]);
  const services = async (): Promise<string[]> => {
    rig.sources.report.collect();
    const lines = (await rig.metrics.text()).split('\n');
    return lines.filter((line) => /^kubeproxy_ipvs_(watch_restarts|relists)_total\{resource="services"/.test(line));
  };
  const isWatched = (): boolean =>
    [...rig.server.watches].some(({ collection }) => collection.type.resource === 'services');
  await until('begun', () => rig.ready === 1 && isWatched());
  assert.deepEqual(await services(), []);
  rig.server.disturb('end');
  let counted: string[] = [];
  await until('watched anew', () => {
    void services().then((lines) => (counted = lines));
    return counted.length > 0;
  });
  const once = ['kubeproxy_ipvs_watch_restarts_total{resource="services",reason="ended"} 1'];
  assert.deepEqual(counted, once);
  assert.deepEqual(await services(), once, 'counted once');
});

test('a malformed object is logged once and counted each time; what was logged is forgotten before it fills the memory', () => {
  const logged: string[] = [];
  const log = pino({ level: 'warn' }, { write: (line) => void logged.push(line) });
  const metrics = new Metrics({ version: '0.0.0' });
  const report = new SourceReport(metrics, log, 0);
  const { onProblem } = report.problemsOf('services');
  const note = (i: number): number => {
    onProblem(`default/s${i}`, 'a problem');
    return logged.length;
  };
  for (let i = 0; i < 10_001; i++) note(i);
  assert.deepEqual([note(0), note(10_000)], [10_001, 10_001]);
  assert.equal(note(10_001), 10_002);
  assert.equal(note(0), 10_003, 'forgotten');
  assert.equal(note(0), 10_003);
});
