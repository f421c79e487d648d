import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { serviceSetEntries, type ServiceSetInput } from '../../../src/desired/service-sets.js';
import {
  allSetDefinitions,
  OWN_SET_ROLES,
  setDefinitions,
  setName,
  type SetName,
} from '../../../src/desired/set-definitions.js';
import { desiredService } from '../../../src/desired/service.js';
import { parseEndpointSlice } from '../../../src/model/endpoint-slice.js';
import { parseService } from '../../../src/model/service.js';
import { type Address, parseAddress } from '../../../src/values/address.js';
import { formatSetEntry, type SetEntry } from '../../../src/values/ip-set.js';
import { parsePrefix, type Prefix } from '../../../src/values/prefix.js';
import { realServerKey } from '../../../src/values/virtual-server.js';

const FIXTURES = new URL('../../../../test/fixtures/', import.meta.url);
const definitions = allSetDefinitions();

function fixtureLines(name: string): string[] {
  return readFileSync(new URL(`kube-proxy-1.36/${name}`, FIXTURES), 'utf8')
    .trim()
    .split('\n')
    .sort();
}

function fixtureItems(name: string): unknown[] {
  return (JSON.parse(readFileSync(new URL(`cluster/${name}.json`, FIXTURES), 'utf8')) as { items: unknown[] }).items;
}

function address(text: string): Address {
  const parsed = parseAddress(text);
  assert.ok(parsed !== undefined, text);
  return parsed;
}

function prefix(text: string): Prefix {
  const parsed = parsePrefix(text);
  assert.ok(parsed !== undefined, text);
  return parsed;
}

function shown(set: SetName, entry: SetEntry): string {
  return `${set} ${formatSetEntry(definitions.get(set)!.type, entry)}`;
}

/** Every entry of the recorded cluster, as `ipset save` would print it. */
function fixtureEntries(): string[] {
  const ignore = (): void => undefined;
  const slices = fixtureItems('endpointslices').flatMap((item) => parseEndpointSlice(item, 'node-0', ignore) ?? []);
  const node = { 4: address('10.200.0.2'), 6: address('fd00:200::2') };
  const context = {
    scheduler: 'rr',
    topology: { nodeName: 'node-0', zone: 'zone-a' },
    families: [4, 6] as const,
    nodePortAddresses: { 4: [node[4]], 6: [node[6]] },
    localAddresses: new Set([node[4], node[6]]),
    nodeIP: node,
    allowsExternalIPs: true,
    protectedAddresses: { reason: () => undefined },
  };
  const entries = new Set<string>();
  for (const item of fixtureItems('services')) {
    const labels = (item as { metadata: { labels?: Record<string, string> } }).metadata.labels ?? {};
    const isExcluded =
      'service.kubernetes.io/headless' in labels || 'service.kubernetes.io/service-proxy-name' in labels;
    const service = isExcluded ? undefined : parseService(item, ignore);
    if (service === undefined) continue;
    const own = slices.filter((slice) => slice.service === service.key);
    const flat = desiredService(service, own, context, () => true).setEntries;
    for (let i = 0; i < flat.length; i += 2) entries.add(shown(flat[i] as SetName, flat[i + 1] as SetEntry));
  }
  return [...entries].sort();
}

const BASE: ServiceSetInput = {
  family: 4,
  protocol: 'TCP',
  port: 80,
  clusterIP: address('10.96.0.1'),
  externalIPs: [],
  loadBalancerIPs: [],
  nodePort: 0,
  nodeAddresses: [address('10.200.0.2')],
  nodeIP: address('10.200.0.2'),
  loadBalancerSourceRanges: [],
  externalLocal: false,
  internalLocal: false,
  hasEndpoints: true,
  hasLocalEndpoints: true,
  usesClusterEndpoints: true,
  healthCheckNodePort: 0,
  localEndpoints: [],
};

function entriesOf(change: Partial<ServiceSetInput>): string[] {
  const entries: string[] = [];
  serviceSetEntries({ ...BASE, ...change }, (set, entry) => entries.push(shown(set, entry).replace('KUBE-', '')));
  return entries.sort();
}

function entriesIn(set: string, change: Partial<ServiceSetInput>): string[] {
  const found = entriesOf(change).filter((entry) => entry.startsWith(`${set} `));
  return found.map((entry) => entry.slice(set.length + 1));
}

test('the sets of kube-proxy 1.36 have its names and types, and only two are ours', () => {
  const own = new Set(OWN_SET_ROLES.flatMap((role) => [setName(4, role), setName(6, role)] as string[]));
  const lines = [...setDefinitions(4), ...setDefinitions(6)]
    .filter((one) => !own.has(one.name))
    .map(({ name, type, family }) => {
      const detail = type === 'bitmap:port' ? 'range 0-65535' : `family ${family === 4 ? 'inet' : 'inet6'}`;
      return `create ${name} ${type} ${detail}`;
    });
  assert.deepEqual(lines.sort(), fixtureLines('ipset-create.txt'));
  assert.equal(own.size, 4);
  assert.ok([...definitions.keys()].every((name) => name.length <= 31));
});

test('the recorded cluster fills kube-proxy’s sets as kube-proxy 1.36 does', () => {
  const own = new Set(OWN_SET_ROLES.flatMap((role) => [setName(4, role), setName(6, role)] as string[]));
  const kubeProxys = fixtureEntries().filter((line) => !own.has(line.split(' ')[0]!));
  assert.deepEqual(
    kubeProxys.map((line) => `add ${line}`),
    fixtureLines('ipset-add.txt'),
  );
});

test('the recorded cluster fills our own sets', () => {
  const own = fixtureEntries().filter((line) => /^KUBE-(6-)?NO-/.test(line));
  assert.deepEqual(own, [
    'KUBE-NO-ENDPOINTS 10.96.0.28,tcp:80', // internal policy Local, endpoints elsewhere only
    'KUBE-NO-ENDPOINTS 10.96.0.29,tcp:80',
    'KUBE-NO-ENDPOINTS 10.96.0.38,tcp:80', // no endpoint port of that name
    'KUBE-NO-LOCAL-ENDPOINTS 10.200.0.2,tcp:30103',
  ]);
});

test('no endpoints: every address of the port refuses', () => {
  const change = {
    hasEndpoints: false,
    hasLocalEndpoints: false,
    externalIPs: [address('198.51.100.1')],
    loadBalancerIPs: [address('192.0.2.1')],
    nodePort: 30001,
  };
  const all = ['10.200.0.2,tcp:30001', '10.96.0.1,tcp:80', '192.0.2.1,tcp:80', '198.51.100.1,tcp:80'];
  assert.deepEqual(entriesIn('NO-ENDPOINTS', change), all);
  assert.deepEqual(entriesIn('NO-LOCAL-ENDPOINTS', { ...change, externalLocal: true }), []);
});

test('external policy Local without local endpoints names the external addresses only', () => {
  const change = {
    externalLocal: true,
    hasLocalEndpoints: false,
    externalIPs: [address('198.51.100.1')],
    loadBalancerIPs: [address('192.0.2.1')],
    nodePort: 30001,
  };
  const external = ['10.200.0.2,tcp:30001', '192.0.2.1,tcp:80', '198.51.100.1,tcp:80'];
  assert.deepEqual(entriesIn('NO-LOCAL-ENDPOINTS', change), external);
  assert.deepEqual(entriesIn('NO-ENDPOINTS', change), []);
  assert.deepEqual(entriesIn('NO-LOCAL-ENDPOINTS', { ...change, hasLocalEndpoints: true }), []);
});

test('internal policy Local without local endpoints refuses at the ClusterIP, also when the table holds cluster endpoints', () => {
  const change = { internalLocal: true, hasLocalEndpoints: false };
  assert.deepEqual(entriesIn('NO-ENDPOINTS', change), ['10.96.0.1,tcp:80']);
  assert.deepEqual(entriesIn('NO-LOCAL-ENDPOINTS', change), ['10.96.0.1,tcp:80']);
  assert.deepEqual(entriesIn('NO-LOCAL-ENDPOINTS', { ...change, usesClusterEndpoints: false }), []);
});

test('source ranges bind the load balancer’s address; the node itself is asked through its VIP', () => {
  const change = {
    loadBalancerIPs: [address('192.0.2.1')],
    externalIPs: [address('198.51.100.1')],
    loadBalancerSourceRanges: [prefix('203.0.113.0/24'), prefix('10.200.0.0/16')],
  };
  assert.deepEqual(entriesIn('LOAD-BALANCER-FW', change), ['192.0.2.1,tcp:80']);
  const ranges = ['192.0.2.1,tcp:80,10.200.0.0/16', '192.0.2.1,tcp:80,203.0.113.0/24'];
  assert.deepEqual(entriesIn('LOAD-BALANCER-SOURCE-CIDR', change), ranges);
  assert.deepEqual(entriesIn('LOAD-BALANCER-SOURCE-IP', change), ['192.0.2.1,tcp:80,192.0.2.1']);
  const others = { ...change, loadBalancerSourceRanges: [prefix('203.0.113.0/24')] };
  assert.deepEqual(entriesIn('LOAD-BALANCER-SOURCE-IP', others), []);
});

test('a range of everybody restricts nobody; ranges of the other family alone allow nobody', () => {
  const change = { loadBalancerIPs: [address('192.0.2.1')], loadBalancerSourceRanges: [prefix('0.0.0.0/0')] };
  assert.deepEqual(entriesIn('LOAD-BALANCER-FW', change), []);
  const closed = { ...change, loadBalancerSourceRanges: [], isSourceRestricted: true };
  assert.deepEqual(entriesIn('LOAD-BALANCER-FW', closed), ['192.0.2.1,tcp:80']);
});

test('an address of the node itself is no VIP', () => {
  const change = { externalIPs: [address('10.200.0.2')], loadBalancerIPs: [address('10.200.0.9')] };
  assert.deepEqual(entriesIn('IPVS-IPS', change), ['10.200.0.9', '10.96.0.1']);
  const isNodeAddress = (one: Address): boolean => one === address('10.200.0.9');
  assert.deepEqual(entriesIn('IPVS-IPS', { ...change, isNodeAddress }), ['10.200.0.2', '10.96.0.1']);
});

test('SCTP NodePorts are kept by address, the others by port', () => {
  const change = { nodePort: 30001, externalLocal: true };
  assert.deepEqual(entriesIn('NODE-PORT-UDP', { ...change, protocol: 'UDP' }), ['30001']);
  assert.deepEqual(entriesIn('NODE-PORT-LOCAL-UDP', { ...change, protocol: 'UDP' }), ['30001']);
  assert.deepEqual(entriesIn('NODE-PORT-SCTP-HASH', { ...change, protocol: 'SCTP' }), ['10.200.0.2,sctp:30001']);
  assert.deepEqual(entriesIn('NODE-PORT-LOCAL-SCTP-HASH', { ...change, protocol: 'SCTP' }), ['10.200.0.2,sctp:30001']);
  assert.deepEqual(entriesIn('NODE-PORT-TCP', { ...change, nodeAddresses: [] }), []);
});

test('local endpoints are in the hairpin set with the endpoint’s own port', () => {
  const change = { localEndpoints: [realServerKey(address('10.128.0.7'), 8080)], healthCheckNodePort: 32000 };
  assert.deepEqual(entriesIn('LOOP-BACK', change), ['10.128.0.7,tcp:8080,10.128.0.7']);
  assert.deepEqual(entriesIn('HEALTH-CHECK-NODE-PORT', change), ['32000']);
});
