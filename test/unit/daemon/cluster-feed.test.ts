/** What the feeds make of what comes, and of what comes again. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ClusterFeed } from '../../../src/daemon/cluster/cluster-feed.js';
import { ClusterState } from '../../../src/model/cluster-state.js';
import { formatAddress } from '../../../src/values/address.js';

function rig(): { cluster: ClusterState; feed: ClusterFeed; events: string[]; put: (object: object) => void } {
  const cluster = new ClusterState();
  const events: string[] = [];
  const feed = new ClusterFeed(cluster, 'node-0', {
    changed: (resource) => events.push(`changed ${resource}`),
    synced: (resource) => events.push(`synced ${resource}`),
    triggered: (family, at) => events.push(`triggered IPv${family} ${at}`),
    nodeChanged: ({ eligible }) => events.push(`node ${eligible ? 'eligible' : 'not eligible'}`),
    nodeDeleted: () => events.push('node deleted'),
    apiServers: (addresses) => events.push(`API servers ${addresses.map(formatAddress).join(' ')}`),
  });
  const put = (object: object): void => {
    const value = feed.slices.parse(object, (problem) => assert.fail(problem))!;
    feed.slices.sink.upsert(value.key, value);
  };
  return { cluster, feed, events, put };
}

const TRIGGERED = '2026-03-01T10:00:00Z';

function slice(name: string, service: string, changes: object = {}): object {
  return {
    kind: 'EndpointSlice',
    metadata: {
      name,
      namespace: 'default',
      labels: { 'kubernetes.io/service-name': service },
      annotations: { 'endpoints.kubernetes.io/last-change-trigger-time': TRIGGERED },
    },
    addressType: 'IPv4',
    endpoints: [
      { addresses: ['10.1.0.1'], hints: { forZones: [{ name: 'a' }] }, nodeName: 'node-0' },
      { addresses: ['10.1.0.2'], conditions: { ready: false } },
    ],
    ports: [{ name: 'http', port: 8080, protocol: 'TCP' }],
    ...changes,
  };
}

test('a list taken anew: slices that are as they were are no change and give no latency sample', () => {
  const { cluster, events, put } = rig();
  put(slice('web-1', 'web'));
  assert.deepEqual(events.splice(0), [`triggered IPv4 ${Date.parse(TRIGGERED)}`, 'changed endpointslices']);
  cluster.takeDirty();
  put(slice('web-1', 'web'));
  assert.deepEqual(events, []);
  assert.equal(cluster.dirtyCount, 0, 'nothing is worked out anew');
});

for (const [what, change] of [
  [
    'an endpoint more',
    { endpoints: [{ addresses: ['10.1.0.1'] }, { addresses: ['10.1.0.2'] }, { addresses: ['10.1.0.3'] }] },
  ],
  ['another port', { ports: [{ name: 'http', port: 8081, protocol: 'TCP' }] }],
  ['another readiness', { endpoints: [{ addresses: ['10.1.0.1'] }, { addresses: ['10.1.0.2'] }] }],
  [
    'another hint',
    {
      endpoints: [
        { addresses: ['10.1.0.1'], hints: { forZones: [{ name: 'b' }] }, nodeName: 'node-0' },
        { addresses: ['10.1.0.2'], conditions: { ready: false } },
      ],
    },
  ],
  [
    'another node',
    {
      endpoints: [
        { addresses: ['10.1.0.1'], hints: { forZones: [{ name: 'a' }] } },
        { addresses: ['10.1.0.2'], conditions: { ready: false } },
      ],
    },
  ],
] as const) {
  test(`${what} is a change`, () => {
    const { events, put } = rig();
    put(slice('web-1', 'web'));
    events.splice(0);
    put(slice('web-1', 'web', change));
    assert.equal(events.length, 2);
  });
}

test('a slice that moves to another Service is a change', () => {
  const { cluster, put } = rig();
  put(slice('web-1', 'web'));
  put(slice('web-1', 'other'));
  assert.equal(cluster.slicesOf('default/web').length, 0);
  assert.equal(cluster.slicesOf('default/other').length, 1);
});

test('the endpoints of default/kubernetes are API servers, ready or not', () => {
  const { events, put, feed } = rig();
  put(slice('kubernetes', 'kubernetes'));
  assert.ok(events.includes('API servers 10.1.0.1 10.1.0.2'));
  feed.slices.sink.delete('default/kubernetes');
  assert.ok(events.includes('API servers '));
});

test('a Node object that is gone changes nothing of what it said', () => {
  const { cluster, events, feed } = rig();
  const object = { metadata: { name: 'node-0', labels: { 'topology.kubernetes.io/zone': 'a' } } };
  const node = feed.node.parse(object, (problem) => assert.fail(problem))!;
  feed.node.sink.upsert('node-0', node);
  feed.node.sink.delete('node-0');
  assert.equal(cluster.node?.zone, 'a');
  assert.equal(cluster.node.eligible, true);
  assert.deepEqual(events, ['node eligible', 'changed nodes', 'node deleted', 'changed nodes']);
});

test('a list taken anew: Services that are as they were are not worked out anew, any difference is', () => {
  const { cluster, feed, events } = rig();
  const spec = {
    type: 'LoadBalancer',
    clusterIP: '10.96.0.10',
    clusterIPs: ['10.96.0.10'],
    externalIPs: ['198.51.100.1'],
    loadBalancerSourceRanges: ['192.0.2.0/24'],
    sessionAffinity: 'ClientIP',
    ports: [{ name: 'http', protocol: 'TCP', port: 80, nodePort: 30080 }],
  };
  const ingress = [{ ip: '203.0.113.1' }];
  const metadata = { name: 'web', namespace: 'default', creationTimestamp: TRIGGERED };
  const put = (changes: object = {}, addresses: readonly object[] = ingress, created = TRIGGERED): void => {
    const object = {
      metadata: { ...metadata, creationTimestamp: created },
      spec: { ...spec, ...changes },
      status: { loadBalancer: { ingress: addresses } },
    };
    const value = feed.services.parse(object, (problem) => assert.fail(problem))!;
    feed.services.sink.upsert(value.key, value);
  };
  const isChange = (): boolean => {
    const dirty = cluster.takeDirty().size > 0;
    assert.deepEqual(events.splice(0), dirty ? ['changed services'] : []);
    return dirty;
  };
  put();
  assert.equal(isChange(), true);
  put();
  assert.equal(isChange(), false, 'the same again');
  for (const change of [
    { clusterIPs: ['10.96.0.10', 'fd00:96::10'] },
    { externalIPs: ['198.51.100.2'] },
    { loadBalancerSourceRanges: ['192.0.2.0/25'] },
    { loadBalancerSourceRanges: ['192.0.3.0/24'] },
    { loadBalancerSourceRanges: [] },
    { sessionAffinity: 'None' },
    { sessionAffinityConfig: { clientIP: { timeoutSeconds: 60 } } },
    { externalTrafficPolicy: 'Local' },
    { externalTrafficPolicy: 'Local', healthCheckNodePort: 32000 },
    { internalTrafficPolicy: 'Local' },
    ...['name', 'protocol', 'port', 'nodePort'].map((field, i) => ({
      ports: [{ ...spec.ports[0], [field]: ['https', 'UDP', 81, 30081][i] }],
    })),
    { ports: [...spec.ports, { name: 'more', protocol: 'TCP', port: 81, nodePort: 30081 }] },
  ]) {
    put(change);
    assert.equal(isChange(), true, JSON.stringify(change));
    put();
    assert.equal(isChange(), true);
  }
  put({}, []);
  assert.equal(isChange(), true, 'the load balancer lost its address');
  put({}, ingress, '2026-03-01T10:00:01Z');
  assert.equal(isChange(), true, 'another Service of the same name');
});
