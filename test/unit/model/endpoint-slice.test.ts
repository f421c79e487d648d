/** EndpointSlices and Nodes into the compact model, and objects that mean harm. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import {
  LOCAL,
  READY,
  SERVING,
  TERMINATING,
  type EndpointSlice,
  parseEndpointSlice,
} from '../../../src/model/endpoint-slice.js';
import { Interner, SharedValues } from '../../../src/model/intern.js';
import { shown } from '../../../src/model/json.js';
import { type NodeInfo, parseNode } from '../../../src/model/node.js';
import { parseService } from '../../../src/model/service.js';
import { type Address, formatAddress } from '../../../src/values/address.js';
import { formatPrefix } from '../../../src/values/prefix.js';

type Fields = Record<string, unknown>;

const texts = (addresses: readonly Address[]): string[] => addresses.map(formatAddress);

function slice(fields: Fields, nodeName = 'node-0'): { parsed: EndpointSlice | undefined; problems: string[] } {
  const problems: string[] = [];
  const object = {
    metadata: { namespace: 'default', name: 'web-abc', labels: { 'kubernetes.io/service-name': 'web' } },
    addressType: 'IPv4',
    ports: [{ name: '', port: 8080 }],
    endpoints: [{ addresses: ['10.0.0.1'] }],
    ...fields,
  };
  return { parsed: parseEndpointSlice(object, nodeName, (problem) => void problems.push(problem)), problems };
}

/** `address flags` of each endpoint. */
function endpoints({ parsed }: { parsed: EndpointSlice | undefined }): string[] {
  const length = (parsed!.family === 4 ? 4 : 16) + 1;
  const found: string[] = [];
  for (let at = 0; at < parsed!.endpoints.length; at += length) {
    const packed = parsed!.endpoints.slice(at, at + length - 1) as Address;
    found.push(`${formatAddress(packed)} ${parsed!.endpoints.charCodeAt(at + length - 1)}`);
  }
  return found;
}

describe('an EndpointSlice', () => {
  test('keeps addresses, conditions and whose node it is', () => {
    const conditions = [
      undefined,
      {},
      { ready: true, serving: null, terminating: null },
      { ready: false, serving: false },
      { ready: false, serving: true, terminating: true },
      { ready: false },
    ];
    const listed = conditions.map((one, index) => ({
      addresses: [`10.0.0.${index + 1}`],
      conditions: one,
      nodeName: index % 2 === 0 ? 'node-0' : 'node-1',
    }));
    assert.deepEqual(endpoints(slice({ endpoints: listed })), [
      `10.0.0.1 ${READY | SERVING | LOCAL}`,
      `10.0.0.2 ${READY | SERVING}`,
      `10.0.0.3 ${READY | SERVING | LOCAL}`,
      '10.0.0.4 0',
      `10.0.0.5 ${SERVING | TERMINATING | LOCAL}`,
      `10.0.0.6 ${SERVING}`,
    ]);
  });

  test('calls nothing local as long as the node has no name', () => {
    assert.deepEqual(endpoints(slice({ endpoints: [{ addresses: ['10.0.0.1'], nodeName: '' }] }, '')), ['10.0.0.1 3']);
  });

  test('counts only the first address of an endpoint', () => {
    assert.deepEqual(endpoints(slice({ endpoints: [{ addresses: ['10.0.0.1', '10.0.0.2'] }] })), ['10.0.0.1 3']);
  });

  test('keeps ports, hints and the time of its cause', () => {
    const { parsed, problems } = slice({
      metadata: {
        namespace: 'default',
        name: 'web-abc',
        labels: { 'kubernetes.io/service-name': 'web' },
        annotations: { 'endpoints.kubernetes.io/last-change-trigger-time': '2024-03-01T00:00:00.5Z' },
      },
      ports: [
        { name: 'http', port: 8080, protocol: 'TCP' },
        { name: 'dns', port: 53, protocol: 'UDP' },
      ],
      endpoints: [
        {
          addresses: ['10.0.0.1'],
          hints: { forZones: [{ name: 'a' }, { name: 'b' }], forNodes: [{ name: 'node-0' }] },
        },
        { addresses: ['10.0.0.2'] },
      ],
    });
    assert.deepEqual(problems, []);
    assert.deepEqual([parsed!.key, parsed!.service, parsed!.family], ['default/web-abc', 'default/web', 4]);
    assert.deepEqual(parsed!.ports, [
      { name: 'http', protocol: 'TCP', port: 8080 },
      { name: 'dns', protocol: 'UDP', port: 53 },
    ]);
    assert.deepEqual(parsed!.zoneHints, [['a', 'b'], undefined]);
    assert.deepEqual(parsed!.nodeHints, [['node-0'], undefined]);
    assert.equal(parsed!.triggeredAt, Date.parse('2024-03-01T00:00:00.5Z'));
  });

  test('has no hint lists when no endpoint has a hint', () => {
    const empty = { addresses: ['10.0.0.1'], hints: { forZones: [], forNodes: null } };
    const { parsed } = slice({ endpoints: [empty] });
    assert.deepEqual([parsed!.zoneHints, parsed!.nodeHints], [undefined, undefined]);
  });

  test('of IPv6 keeps IPv6', () => {
    assert.deepEqual(endpoints(slice({ addressType: 'IPv6', endpoints: [{ addresses: ['fd00::1'] }] })), ['fd00::1 3']);
  });

  test('that belongs to nobody or has no IP addresses is left out with a reason', () => {
    const cases: [Fields, RegExp][] = [
      [{ addressType: 'FQDN', endpoints: [{ addresses: ['a.example.org'] }] }, /"FQDN"/],
      [{ addressType: undefined }, /addressType undefined/],
      [{ metadata: { namespace: 'default', name: 'web-abc' } }, /service-name is missing/],
      [{ metadata: { namespace: 'default', labels: { 'kubernetes.io/service-name': 'web' } } }, /metadata\.name/],
      [{ metadata: null }, /metadata\.name/],
    ];
    for (const [fields, reason] of cases) {
      const { parsed, problems } = slice(fields);
      assert.equal(parsed, undefined);
      assert.equal(problems.length, 1);
      assert.match(problems[0]!, reason);
    }
  });

  test('loses a bad endpoint or port alone', () => {
    const addresses = ['10.0.0.1', 'fd00::1', '10.0.0', '127.0.0.1', '0.0.0.0', '224.0.0.1', '0.9.9.9'];
    const good = ['10.0.0.2', '::ffff:10.0.0.3', '010.0.0.004'];
    const all = [...addresses, '255.255.255.255', ...good].map((one) => ({ addresses: [one] }));
    const bad = slice({ endpoints: [...all, {}, null, 7, 'x'] });
    assert.deepEqual(endpoints(bad), ['10.0.0.1 3', '10.0.0.2 3', '10.0.0.3 3', '10.0.0.4 3']);
    assert.equal(bad.problems.length, 11);
    const six = ['fe80::1', '::', '::1', 'ff02::1', '::ffff:10.0.0.1', 'fd00::1'].map((one) => ({ addresses: [one] }));
    const bad6 = slice({ addressType: 'IPv6', endpoints: six });
    assert.deepEqual(endpoints(bad6), ['fd00::1 3']);
    assert.equal(bad6.problems.length, 5);
    const ports = slice({ ports: [{ port: 1 }, { port: 0 }, { port: null }, { port: 2, protocol: 'x' }, null] });
    assert.deepEqual(ports.parsed!.ports, [{ name: '', protocol: 'TCP', port: 1 }]);
    assert.equal(ports.problems.length, 4);
  });

  test('keeps hints beside their endpoint when one before it is bad', () => {
    const listed = [
      { addresses: ['bad'], hints: { forZones: [{ name: 'x' }] } },
      { addresses: ['10.0.0.1'], hints: { forZones: [{ name: 'a' }] } },
    ];
    const parsed = slice({ endpoints: listed });
    assert.deepEqual(endpoints(parsed), ['10.0.0.1 3']);
    assert.deepEqual(parsed.parsed!.zoneHints, [['a']]);
  });
});

describe('a Node', () => {
  const parse = (object: unknown): NodeInfo | undefined => parseNode(object, () => undefined);

  test('keeps zone, pod CIDRs and addresses, internal ones first', () => {
    const node = parse({
      metadata: { name: 'node-0', labels: { 'topology.kubernetes.io/zone': 'a' } },
      spec: { podCIDR: '10.128.0.0/24', podCIDRs: ['10.128.0.0/24', 'fd00::/64', 'bad'] },
      status: {
        addresses: [
          { type: 'ExternalIP', address: '192.0.2.1' },
          { type: 'Hostname', address: 'node-0' },
          { type: 'InternalIP', address: '10.200.0.2' },
          { type: 'InternalIP', address: 'nonsense' },
          { type: 'InternalIP', address: 'fd00:200::2' },
        ],
      },
    })!;
    assert.deepEqual([node.name, node.zone, node.eligible], ['node-0', 'a', true]);
    assert.deepEqual(node.podCIDRs.map(formatPrefix), ['10.128.0.0/24', 'fd00::/64']);
    assert.deepEqual(texts(node.addresses), ['10.200.0.2', 'fd00:200::2', '192.0.2.1']);
  });

  test('with podCIDR alone has that one', () => {
    const node = parse({ metadata: { name: 'n' }, spec: { podCIDR: '10.128.0.0/24' } })!;
    assert.deepEqual(node.podCIDRs.map(formatPrefix), ['10.128.0.0/24']);
  });

  test('is not eligible while it is deleted or drained by the autoscaler', () => {
    const eligible = (metadata: Fields, taints: unknown): boolean =>
      parse({ metadata: { name: 'n', ...metadata }, spec: { taints } })!.eligible;
    assert.equal(eligible({}, [{ key: 'other' }]), true);
    assert.equal(eligible({}, [{ key: 'ToBeDeletedByClusterAutoscaler', effect: 'NoSchedule' }]), false);
    assert.equal(eligible({ deletionTimestamp: '2024-03-01T00:00:00Z' }, []), false);
  });

  test('without a name is none', () => {
    assert.equal(parse({ metadata: {} }), undefined);
  });
});

test('no object makes a parser throw, and what comes out is well-formed', () => {
  const leaf = fc.oneof(
    fc.constantFrom(
      '10.0.0.1',
      'fd00::1',
      'IPv4',
      'IPv6',
      'TCP',
      'None',
      'LoadBalancer',
      'ClientIP',
      'Local',
      '',
      '10.0.0.0/8',
    ),
    fc.jsonValue({ maxDepth: 1 }),
    fc.integer(),
  );
  const names = [
    'metadata',
    'spec',
    'status',
    'name',
    'namespace',
    'labels',
    'clusterIP',
    'clusterIPs',
    'externalIPs',
    'ports',
  ];
  const more = [
    'port',
    'nodePort',
    'protocol',
    'addressType',
    'endpoints',
    'addresses',
    'conditions',
    'hints',
    'forZones',
  ];
  const last = [
    'kubernetes.io/service-name',
    'loadBalancer',
    'ingress',
    'ip',
    'taints',
    'podCIDRs',
    'type',
    'sessionAffinity',
  ];
  const tree = fc.letrec<{ node: unknown }>((tie) => ({
    node: fc.oneof(
      { maxDepth: 5 },
      leaf,
      fc.array(tie('node'), { maxLength: 3 }),
      fc.dictionary(fc.constantFrom(...names, ...more, ...last), tie('node'), { maxKeys: 8 }),
    ),
  })).node;
  const named = fc.record({
    metadata: fc.record({
      name: fc.constant('x'),
      namespace: fc.constant('n'),
      labels: fc.constant({ 'kubernetes.io/service-name': 'x' }),
    }),
    addressType: fc.constantFrom('IPv4', 'IPv6', 'FQDN'),
    endpoints: tree,
    ports: tree,
    spec: tree,
    status: tree,
  });
  const report = (problem: string): void => assert.ok(problem.length < 300);
  fc.assert(
    fc.property(fc.oneof(tree, named), (object) => {
      const parsed = parseService(object, report);
      for (const one of parsed?.ports ?? []) assert.ok(one.port >= 1 && one.port <= 65535);
      for (const one of parsed?.clusterIPs ?? []) assert.ok(one.length === 4 || one.length === 16);
      const packed = parseEndpointSlice(object, 'node-0', report);
      if (packed !== undefined) assert.equal(packed.endpoints.length % (packed.family === 4 ? 5 : 17), 0);
      if (packed?.zoneHints !== undefined) assert.equal(packed.zoneHints.length, endpoints({ parsed: packed }).length);
      parseNode(object, report);
    }),
    { numRuns: 1500 },
  );
});

test('shared values are bounded by their cost, and equal what was given', () => {
  const interner = new Interner(6);
  for (const text of ['a', 'b', 'c', 'a', 'c', 'too long to keep', 'd']) assert.equal(interner.intern(text), text);
  assert.equal(interner.size, 1, 'what does not fit makes it begin anew');
  const shared = new SharedValues<object>(1000);
  for (let i = 0; i < 10_000; i++) {
    const made = shared.get(`list ${i % 40}`, 100, () => ({ i }));
    assert.ok(shared.size <= 10);
    assert.equal(
      shared.get(`list ${i % 40}`, 100, () => ({ i })),
      made,
      'known while there is room',
    );
  }
});

test('slices share the lists of ports and zones that they have in common, and no more of them than some megabytes', () => {
  const slice = (name: string): EndpointSlice => {
    const endpoints = [{ addresses: ['10.0.0.1'], hints: { forZones: [{ name }] } }];
    const metadata = { namespace: 'n', name: 'x', labels: { 'kubernetes.io/service-name': 'x' } };
    const object = { metadata, addressType: 'IPv4', ports: [{ name, port: 80 }], endpoints };
    return parseEndpointSlice(object, 'node-0', assert.fail)!;
  };
  const first = slice('a');
  assert.equal(slice('a').ports, first.ports, 'one list');
  assert.equal(slice('a').zoneHints![0], first.zoneHints![0], 'one list');
  // Each is counted as more than 128 bytes, so that 62,500 fill the 8 MB; by its text alone it would have a dozen.
  for (let i = 0; i < 63_000; i++) slice(`b${i}`);
  assert.notEqual(slice('a').ports, first.ports, 'forgotten, for there were too many others');
  assert.notEqual(slice('a').zoneHints![0], first.zoneHints![0], 'forgotten, for there were too many others');
  assert.deepEqual(slice('a'), first);
});

test('bad values are shown short', () => {
  assert.equal(shown(undefined), 'undefined');
  assert.equal(shown({ a: 1 }), '{"a":1}');
  assert.equal(shown('x'.repeat(500)).length, 80);
});
