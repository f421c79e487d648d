/**
 * API objects that mean harm, and any objects in any order: nothing throws, nothing unusable reaches a table, and the
 * desired state is the same whatever way the cluster came to be what it is.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { type IpsetName, allIpsetDefinitions } from '../../../src/desired/ipset-definitions.js';
import { parseEndpointSlice } from '../../../src/model/endpoint-slice.js';
import { parseNode } from '../../../src/model/node.js';
import { parseService } from '../../../src/model/service.js';
import { isLoopback, isMulticast, isUnspecified } from '../../../src/values/address.js';
import { type IpsetEntry, formatIpsetEntry } from '../../../src/values/ipset.js';
import {
  realServerAddress,
  realServerKeyLength,
  realServerKeys,
  realServerPort,
  virtualServerFamily,
  virtualServerIdentity,
} from '../../../src/values/virtual-server.js';
import { type ApiObject } from '../../fakes/api-server-store.js';
import { CoreCluster, NODE, differences, keyOf } from '../../support/fuzz-cluster.js';
import { assertReach, fuzzRuns, fuzzSeeds } from '../../support/fuzz-seed.js';

/** Few values, so that objects collide: the same addresses, ports and names again and again. */
const ip = fc.constantFrom(
  '10.96.0.1',
  '10.96.0.2',
  '198.51.100.1',
  '10.200.0.2',
  'fd00:96::1',
  'fd00:96::2',
  '2001:db8::1',
);
const badIp = fc.constantFrom(
  '',
  'None',
  '127.0.0.1',
  '::1',
  '0.0.0.0',
  '::',
  '224.0.0.1',
  'ff02::1',
  '1.2.3',
  '::ffff:1.2.3.4',
  '010.1.1.1',
  'x',
);
const anyIp = fc.oneof({ weight: 6, arbitrary: ip }, { weight: 1, arbitrary: badIp });
const junk = fc.oneof(
  fc.jsonValue({ maxDepth: 2 }),
  fc.constantFrom<unknown>(undefined, -1, 1.5, 65536, 2 ** 40, Infinity, NaN),
);

/** The value, and now and then something else in its place. */
function maybe<T>(value: fc.Arbitrary<T>): fc.Arbitrary<unknown> {
  return fc.oneof({ weight: 12, arbitrary: value }, { weight: 1, arbitrary: junk });
}

function fields(model: Record<string, fc.Arbitrary<unknown>>): fc.Arbitrary<Record<string, unknown>> {
  const dirty = Object.fromEntries(Object.entries(model).map(([name, value]) => [name, maybe(value)]));
  return fc.record(dirty, { requiredKeys: [] });
}

const protocol = fc.constantFrom('TCP', 'UDP', 'SCTP');
const portName = fc.constantFrom('', 'a', 'b');
const servicePort = fields({
  name: portName,
  protocol,
  port: fc.constantFrom(80, 81),
  nodePort: fc.constantFrom(0, 30001, 30002),
});
const policy = fc.constantFrom('Cluster', 'Local');
const spec = fc
  .tuple(
    anyIp,
    fields({
      type: fc.constantFrom('ClusterIP', 'NodePort', 'LoadBalancer', 'ExternalName'),
      clusterIPs: fc.array(anyIp, { maxLength: 2 }),
      externalIPs: fc.array(anyIp, { maxLength: 2 }),
      ports: fc.array(servicePort, { maxLength: 3 }),
      externalTrafficPolicy: policy,
      internalTrafficPolicy: policy,
      sessionAffinity: fc.constantFrom('None', 'ClientIP'),
      sessionAffinityConfig: fields({ clientIP: fields({ timeoutSeconds: fc.constantFrom(1, 600, 86_400, 0) }) }),
      loadBalancerSourceRanges: fc.array(
        fc.constantFrom(
          '10.0.0.0/8',
          '0.0.0.0/0',
          '::/0',
          ' 10.1.2.3/32',
          '10.0.0.0/33',
          'x',
          'fd00::/8',
          '10.200.0.2',
        ),
      ),
      healthCheckNodePort: fc.constantFrom(0, 31001, 31002),
    }),
  )
  .map(([clusterIP, rest]) => ({ clusterIP, ...rest }));
const status = fields({
  loadBalancer: fields({
    ingress: fc.array(fields({ ip: anyIp, ipMode: fc.constantFrom('VIP', 'Proxy'), hostname: fc.constant('h') }), {
      maxLength: 2,
    }),
  }),
});
const endpoint = fields({
  addresses: fc.array(fc.oneof(fc.constantFrom('10.128.0.1', '10.128.0.2', 'fd00:10::1', 'fd00:10::2'), badIp), {
    minLength: 1,
    maxLength: 2,
  }),
  conditions: fields({ ready: fc.boolean(), serving: fc.boolean(), terminating: fc.boolean() }),
  nodeName: fc.constantFrom(NODE, 'node-1'),
  hints: fields({
    forZones: fc.array(fields({ name: fc.constantFrom('zone-a', 'zone-b') })),
    forNodes: fc.array(fields({ name: fc.constantFrom(NODE, 'node-1') })),
  }),
});
const name = fc.constantFrom('one', 'two', 'three');
const created = fc.constantFrom('2026-01-01T00:00:00Z', '2026-01-02T00:00:00Z', 'never');
const labels = fc.oneof(
  { weight: 8, arbitrary: fc.constant({}) },
  {
    weight: 1,
    arbitrary: fc.constantFrom(
      { 'service.kubernetes.io/headless': '' },
      { 'service.kubernetes.io/service-proxy-name': 'x' },
    ),
  },
);
const service = fc
  .record({ name, created, labels, spec: maybe(spec), status: maybe(status) })
  .map((one): ApiObject => ({
    kind: 'Service',
    metadata: { namespace: 'ns', name: one.name, creationTimestamp: one.created, labels: one.labels },
    spec: one.spec,
    status: one.status,
  }));
const slice = fc
  .record({
    name: fc.constantFrom('s1', 's2', 's3', 's4'),
    owner: name,
    labels,
    body: fields({
      addressType: fc.constantFrom('IPv4', 'IPv6', 'FQDN'),
      endpoints: fc.array(endpoint, { maxLength: 4 }),
      ports: fc.array(fields({ name: portName, protocol, port: fc.constantFrom(8080, 8081) }), { maxLength: 2 }),
    }),
  })
  .map((one): ApiObject => ({
    kind: 'EndpointSlice',
    metadata: { namespace: 'ns', name: one.name, labels: { ...one.labels, 'kubernetes.io/service-name': one.owner } },
    ...one.body,
  }));
const object = fc.oneof(service, slice);

/** One event: an object comes or goes, the node's addresses change, or everything so far is worked off. */
type Event = { set: ApiObject } | { delete: ApiObject } | { local: string[] } | 'sync';
const event: fc.Arbitrary<Event> = fc.oneof(
  { weight: 6, arbitrary: object.map((one) => ({ set: one })) },
  { weight: 2, arbitrary: object.map((one) => ({ delete: one })) },
  {
    weight: 1,
    arbitrary: fc.subarray(['10.200.0.2', '198.51.100.1', 'fd00:200::2', '2001:db8::1']).map((local) => ({ local })),
  },
  { weight: 3, arbitrary: fc.constant('sync' as const) },
);

/** What the kernel would hold if only what was touched were ever written to it. */
class TouchedKernel {
  readonly #lines = new Map<string, string>();

  constructor(readonly core: CoreCluster) {}

  async sync(): Promise<void> {
    const touched = await this.core.update();
    const { desired } = this.core.updater;
    for (const key of touched.servers) {
      const server = desired.virtualServers.get(key);
      this.#write(`server ${key}`, server && JSON.stringify([server.settings, server.realServers]));
    }
    for (const address of touched.addresses)
      this.#write(`address ${address}`, desired.hasAddress(address) ? 'bound' : undefined);
    for (const [set, entries] of touched.entries)
      for (const entry of entries) this.#write(`${set} ${entry}`, desired.hasEntry(set, entry) ? 'in' : undefined);
  }

  /** How that differs from everything that is desired. */
  check(): void {
    const { desired } = this.core.updater;
    const wanted = new Map<string, string>();
    for (const [key, { settings, realServers }] of desired.virtualServers)
      wanted.set(`server ${key}`, JSON.stringify([settings, realServers]));
    for (const address of desired.addresses()) wanted.set(`address ${address}`, 'bound');
    for (const set of allIpsetDefinitions().keys())
      for (const entry of desired.entries(set).keys()) wanted.set(`${set} ${entry}`, 'in');
    assert.deepEqual(new Map([...this.#lines].sort()), new Map([...wanted].sort()));
  }

  #write(name: string, value: string | undefined): void {
    if (value === undefined) this.#lines.delete(name);
    else this.#lines.set(name, value);
  }
}

/** Nothing in the desired state may be something that the kernel or the node would suffer from. */
function assertSane(core: CoreCluster): void {
  const { desired } = core.updater;
  for (const { key, realServers, settings } of desired.virtualServers.values()) {
    const identity = virtualServerIdentity(key);
    assert.ok(identity.kind === 'address' && identity.port > 0);
    assert.ok(!isLoopback(identity.address) && !isMulticast(identity.address) && !isUnspecified(identity.address));
    assert.equal((settings.flags & 1) !== 0, settings.timeout > 0);
    assert.ok(settings.timeout <= 86_400);
    const family = virtualServerFamily(key);
    assert.equal(realServers.length % realServerKeyLength(family), 0);
    const reals = realServerKeys(realServers, family);
    assert.deepEqual([...new Set(reals)].sort(), reals, 'sorted, each once');
    for (const real of reals) {
      assert.ok(realServerPort(real) > 0);
      assert.ok(!isLoopback(realServerAddress(real)) && !isUnspecified(realServerAddress(real)));
    }
  }
  for (const { name: set, type, family } of allIpsetDefinitions().values())
    for (const entry of desired.entries(set as IpsetName).keys()) assertEntry(entry, type, family);
}

function assertEntry(entry: IpsetEntry, type: Parameters<typeof formatIpsetEntry>[0], family: 4 | 6): void {
  const length = family === 4 ? 4 : 16;
  const expected = {
    'bitmap:port': 2,
    'hash:ip': length,
    'hash:ip,port': 3 + length,
    'hash:ip,port,ip': 3 + 2 * length,
    'hash:ip,port,net': 4 + 2 * length,
  };
  assert.equal(entry.length, expected[type], `${type} ${formatIpsetEntry(type, entry)}`);
  // The kernel refuses /0 in a set of networks, and with it the whole line.
  if (type === 'hash:ip,port,net') assert.notEqual(entry.charCodeAt(3 + length), 0);
}

for (const seed of fuzzSeeds('API objects')) {
  test(`no value makes a parser throw (seed ${seed})`, () => {
    const anything = fc.oneof(
      fc.anything({ maxDepth: 4 }),
      object,
      service.map((one) => ({ ...one, kind: 'Node' })),
    );
    let problems = 0;
    fc.assert(
      fc.property(anything, (value) => {
        const report = (problem: string): void => {
          problems++;
          assert.ok(problem.length < 300, 'a problem fits on a line');
        };
        parseService(value, report);
        parseEndpointSlice(value, NODE, report);
        parseNode(value, report);
      }),
      { seed, numRuns: fuzzRuns(2000) },
    );
    assertReach(seed, problems, 101, 'bad fields reported');
  });

  test(`any history gives the state that a fresh start gives, by its touched keys alone (seed ${seed})`, async () => {
    let servers = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(event, { maxLength: 25 }), async (events) => {
        let local = ['10.200.0.2', 'fd00:200::2'];
        const core = new CoreCluster(local);
        const kernel = new TouchedKernel(core);
        const objects = new Map<string, ApiObject>();
        for (const one of [...events, 'sync' as const]) {
          if (one === 'sync') {
            await kernel.sync();
            kernel.check();
          } else if ('local' in one) core.setLocal((local = one.local));
          else if ('set' in one) {
            objects.set(`${one.set.kind} ${keyOf(one.set)}`, one.set);
            core.set(one.set);
          } else {
            objects.delete(`${one.delete.kind} ${keyOf(one.delete)}`);
            core.delete(one.delete);
          }
        }
        assertSane(core);
        servers += core.updater.desired.virtualServers.size;
        const fresh = new CoreCluster(local);
        for (const [, one] of [...objects].reverse()) fresh.set(one);
        await fresh.update();
        assert.deepEqual(differences(core.print(), fresh.print()), []);
      }),
      { seed, numRuns: fuzzRuns(600) },
    );
    assertReach(seed, servers, 301, 'virtual servers');
  });
}
