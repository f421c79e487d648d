/**
 * Small clusters of what the API server accepts, in odd combinations, against the oracle; fast-check shrinks what
 * differs.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { type ApiObject } from '../../fakes/api-server-store.js';
import { type RawObject, expectedState } from '../../kernel/chaos-oracle.js';
import { countReadyHere } from '../../kernel/chaos-oracle-endpoints.js';
import { CoreCluster, NODE, differences, printExpected } from '../../support/fuzz-cluster.js';
import { fuzzRuns, fuzzSeeds } from '../../support/fuzz-seed.js';

const NAMES = ['one', 'two'] as const;
const LOCAL = ['10.200.0.2', 'fd00:200::2'];
const CLUSTER_IPS = { one: ['10.96.0.1', 'fd00:96::1'], two: ['10.96.0.2', 'fd00:96::2'] } as const;

function some<T>(values: readonly T[]): fc.Arbitrary<T[]> {
  return fc.subarray([...values]);
}

const port = fc.record(
  {
    name: fc.constantFrom('a', 'b'),
    protocol: fc.constantFrom('TCP', 'UDP', 'SCTP'),
    port: fc.constantFrom(80, 81, 30000),
  },
  { requiredKeys: ['name', 'port'] },
);
/** As the API server demands: each name once, each port and protocol once. */
const ports = fc.array(port, { minLength: 1, maxLength: 3 }).map((list) =>
  list.filter((one, i) => {
    const before = list.slice(0, i);
    const isSamePort = (other: typeof one): boolean =>
      other.port === one.port && (other.protocol ?? 'TCP') === (one.protocol ?? 'TCP');
    return !before.some((other) => other.name === one.name || isSamePort(other));
  }),
);

function service(name: (typeof NAMES)[number], base: number): fc.Arbitrary<ApiObject> {
  return fc
    .record({
      type: fc.constantFrom('ClusterIP', 'NodePort', 'LoadBalancer'),
      families: fc.constantFrom([0], [1], [0, 1], [1, 0]),
      ports,
      externalIPs: some(['198.51.100.1', '2001:db8::1', '10.200.0.2', '203.0.113.1', '10.96.0.1', 'fd00:96::2']),
      externalTrafficPolicy: fc.constantFrom('Cluster', 'Local'),
      internalTrafficPolicy: fc.constantFrom('Cluster', 'Local'),
      affinity: fc.constantFrom(undefined, 0, 600),
      ranges: some([
        ...['10.0.0.0/8', '203.0.113.7/32', 'fd00::/8', 'fd00:200::2/128', '10.200.0.0/24'],
        ...['0.0.0.0/0', '::/0', ' fd00:1::/64 '],
      ]),
      health: fc.boolean(),
      ingress: some([
        { ip: '203.0.113.1' },
        { ip: '2001:db8:113::1', ipMode: 'VIP' },
        { ip: '203.0.113.2', ipMode: 'Proxy' },
        { hostname: 'lb.example.com' },
      ]),
      created: fc.constantFrom('2026-01-01T00:00:00Z', '2026-01-02T00:00:00Z'),
    })
    .map((one) => {
      const clusterIPs = one.families.map((family) => CLUSTER_IPS[name][family]);
      const hasNodePorts = one.type !== 'ClusterIP';
      const affinity = one.affinity === undefined ? {} : { sessionAffinity: 'ClientIP' };
      const timeout = one.affinity ? { sessionAffinityConfig: { clientIP: { timeoutSeconds: one.affinity } } } : {};
      return {
        kind: 'Service',
        metadata: { namespace: 'ns', name, creationTimestamp: one.created },
        spec: {
          ...{ type: one.type, clusterIP: clusterIPs[0], clusterIPs, externalIPs: one.externalIPs },
          ports: one.ports.map((each, i) => ({ ...each, ...(hasNodePorts ? { nodePort: base + i } : {}) })),
          externalTrafficPolicy: one.externalTrafficPolicy,
          internalTrafficPolicy: one.internalTrafficPolicy,
          ...(one.type === 'LoadBalancer' ? { loadBalancerSourceRanges: one.ranges } : {}),
          ...(one.health ? { healthCheckNodePort: base + 1000 } : {}),
          ...affinity,
          ...timeout,
        },
        status: { loadBalancer: one.type === 'LoadBalancer' ? { ingress: one.ingress } : {} },
      };
    });
}

const ADDRESSES = { IPv4: ['10.128.0.1', '10.128.0.2', '10.128.0.3'], IPv6: ['fd00:10::1', 'fd00:10::2'] } as const;
const conditions = fc.record(
  { ready: fc.boolean(), serving: fc.boolean(), terminating: fc.boolean() },
  { requiredKeys: [] },
);
const hints = fc.record(
  {
    forZones: some([{ name: 'zone-a' }, { name: 'zone-b' }]),
    forNodes: some([{ name: NODE }, { name: 'node-1' }]),
  },
  { requiredKeys: [] },
);

function slice(name: string): fc.Arbitrary<ApiObject> {
  return fc.constantFrom('IPv4' as const, 'IPv6' as const).chain((addressType) => {
    const endpoint = fc.record(
      {
        addresses: fc.constantFrom(...ADDRESSES[addressType]).map((address) => [address]),
        conditions,
        nodeName: fc.constantFrom(NODE, 'node-1'),
        hints,
      },
      { requiredKeys: ['addresses'] },
    );
    return fc
      .record({
        owner: fc.constantFrom(...NAMES),
        endpoints: fc.array(endpoint, { maxLength: 4 }),
        ports: fc.uniqueArray(
          fc.record({
            name: fc.constantFrom('a', 'b'),
            protocol: fc.constantFrom('TCP', 'UDP', 'SCTP'),
            port: fc.constantFrom(8080, 8081),
          }),
          { maxLength: 3, selector: (one) => one.name },
        ),
      })
      .map(({ owner, ...body }) => ({
        kind: 'EndpointSlice',
        metadata: { namespace: 'ns', name, labels: { 'kubernetes.io/service-name': owner } },
        addressType,
        ...body,
      }));
  });
}

const cluster = fc
  .tuple(service('one', 30000), fc.option(service('two', 30100)), slice('s1'), slice('s2'), slice('s3'))
  .map((objects) => objects.filter((object) => object !== null));

for (const seed of fuzzSeeds('odd clusters')) {
  test(`every combination is served as the oracle says (seed ${seed})`, async () => {
    await fc.assert(
      fc.asyncProperty(cluster, async (objects) => {
        const core = new CoreCluster(LOCAL);
        for (const object of objects) core.set(object);
        await core.update();
        const ofKind = (kind: string): RawObject[] => objects.filter((object) => object.kind === kind);
        const expected = expectedState({
          services: ofKind('Service'),
          slices: ofKind('EndpointSlice'),
          nodeName: NODE,
          zone: 'zone-a',
          nodeIPs: LOCAL,
          localAddresses: LOCAL,
          scheduler: 'rr',
        });
        assert.deepEqual(differences(core.print(), printExpected(expected)), []);
        for (const [key, { healthCheck }] of core.updater.desired.services) {
          const own = ofKind('EndpointSlice').filter(({ metadata }) => {
            return `ns/${metadata.labels?.['kubernetes.io/service-name']}` === key;
          });
          const families = core.cluster.services.get(key)!.clusterIPs.map((address) => (address.length === 4 ? 4 : 6));
          const counts = families.map((family) => countReadyHere(own, family, NODE));
          if (healthCheck !== undefined) assert.equal(healthCheck.localEndpoints, Math.max(...counts), key);
        }
        assert.deepEqual(core.problems, []);
      }),
      { seed, numRuns: fuzzRuns(1500) },
    );
  });
}
