/** Services into the compact model: every field that decides packets, and bad ones left out alone. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type Service, isSameService, parseService } from '../../../src/model/service.js';
import { type Address, formatAddress } from '../../../src/values/address.js';
import { formatPrefix } from '../../../src/values/prefix.js';

type Fields = Record<string, unknown>;

const texts = (addresses: readonly Address[]): string[] => addresses.map(formatAddress);

function service(spec: Fields, more: Fields = {}): { parsed: Service | undefined; problems: string[] } {
  const problems: string[] = [];
  const object = {
    metadata: { namespace: 'default', name: 'web', creationTimestamp: '2024-03-01T00:00:10Z' },
    spec: { clusterIP: '10.96.0.1', ports: [{ port: 80 }], ...spec },
    ...more,
  };
  return { parsed: parseService(object, (problem) => void problems.push(problem)), problems };
}

/** A Service of which nothing is reported. */
function good(spec: Fields, more: Fields = {}): Service {
  const { parsed, problems } = service(spec, more);
  assert.deepEqual(problems, []);
  assert.ok(parsed !== undefined);
  return parsed;
}

test('addresses of old objects are read as kube-proxy reads them', () => {
  const status = { loadBalancer: { ingress: [{ ip: '203.000.113.007' }] } };
  const ranges = ['010.0.0.0/08', '::ffff:192.0.2.0/120', '::ffff:198.51.100.1'];
  const parsed = good(
    { externalIPs: ['198.51.100.010', '::ffff:198.51.100.11', '240.0.0.1'], loadBalancerSourceRanges: ranges },
    { status },
  );
  assert.deepEqual(texts(parsed.externalIPs), ['198.51.100.10', '198.51.100.11', '240.0.0.1']);
  assert.deepEqual(texts(parsed.loadBalancerIPs), ['203.0.113.7']);
  assert.deepEqual(parsed.loadBalancerSourceRanges.map(formatPrefix), [
    '10.0.0.0/8',
    '192.0.2.0/24',
    '198.51.100.1/32',
  ]);
});

describe('a Service that is sent again', () => {
  const SPEC = {
    type: 'LoadBalancer',
    clusterIPs: ['10.96.0.1', 'fd00::1'],
    externalIPs: ['198.51.100.1'],
    ports: [
      { name: 'a', port: 80, nodePort: 30080 },
      { name: 'b', port: 443, nodePort: 30443 },
    ],
    sessionAffinity: 'ClientIP',
    externalTrafficPolicy: 'Local',
    healthCheckNodePort: 32000,
    loadBalancerSourceRanges: ['10.0.0.0/8', '192.0.2.0/24'],
  };
  const STATUS = { loadBalancer: { ingress: [{ ip: '203.0.113.1' }] } };
  const known = good(SPEC, { status: STATUS });

  test('is the same as long as all that decides packets is', () => {
    assert.ok(isSameService(known, good(SPEC, { status: STATUS })));
    const unmoved = { selector: { app: 'x' }, allocateLoadBalancerNodePorts: false };
    const labels = { namespace: 'default', name: 'web', creationTimestamp: '2024-03-01T00:00:10Z', labels: { a: 'b' } };
    assert.ok(isSameService(known, good({ ...SPEC, ...unmoved }, { status: STATUS, metadata: labels })));
  });

  const [first, second] = SPEC.ports;
  const changes: [string, Fields, Fields?][] = [
    ['another name', {}, { metadata: { namespace: 'default', name: 'x', creationTimestamp: '2024-03-01T00:00:10Z' } }],
    ['another age', {}, { metadata: { namespace: 'default', name: 'web', creationTimestamp: '2024-03-01T00:00:11Z' } }],
    ['another time of affinity', { sessionAffinityConfig: { clientIP: { timeoutSeconds: 60 } } }],
    ['no affinity', { sessionAffinity: 'None' }],
    ['externalTrafficPolicy', { externalTrafficPolicy: 'Cluster', healthCheckNodePort: 0 }],
    ['internalTrafficPolicy', { internalTrafficPolicy: 'Local' }],
    ['another health check node port', { healthCheckNodePort: 32001 }],
    ['one cluster IP less', { clusterIPs: ['10.96.0.1'] }],
    ['another cluster IP', { clusterIPs: ['10.96.0.1', 'fd00::2'] }],
    ['another external IP', { externalIPs: ['198.51.100.2'] }],
    ['no external IP', { externalIPs: [] }],
    ['another address of its load balancer', {}, { status: { loadBalancer: { ingress: [{ ip: '203.0.113.2' }] } } }],
    ['no address of its load balancer', {}, { status: {} }],
    ['a narrower source range at the same address', { loadBalancerSourceRanges: ['10.0.0.0/16', '192.0.2.0/24'] }],
    ['another source range as wide', { loadBalancerSourceRanges: ['10.0.0.0/8', '192.0.3.0/24'] }],
    ['one source range more', { loadBalancerSourceRanges: ['10.0.0.0/8', '192.0.2.0/24', '192.0.3.0/24'] }],
    ['another port', { ports: [first, { ...second, port: 444 }] }],
    ['another node port', { ports: [first, { ...second, nodePort: 30444 }] }],
    ['another name of a port', { ports: [first, { ...second, name: 'c' }] }],
    ['another protocol', { ports: [first, { ...second, protocol: 'UDP' }] }],
    ['one port less', { ports: [first] }],
  ];
  for (const [what, spec, more] of changes)
    test(`is another with ${what}`, () => {
      const changed = good({ ...SPEC, ...spec }, { status: STATUS, ...more });
      assert.ok(!isSameService(known, changed));
      assert.ok(!isSameService(changed, known));
      assert.ok(isSameService(changed, changed));
    });
});

describe('a Service with more than a node should hold', () => {
  test('has 256 external IPs and as many load balancer addresses, the first ones, and says so', () => {
    const external = Array.from({ length: 300 }, (_, i) => `198.51.${100 + (i >> 8)}.${i & 255}`);
    const status = { loadBalancer: { ingress: external.map((ip) => ({ ip })) } };
    const { parsed, problems } = service({ externalIPs: [...external, external[0]] }, { status });
    assert.deepEqual(texts(parsed!.externalIPs), external.slice(0, 256));
    assert.deepEqual(texts(parsed!.loadBalancerIPs), external.slice(0, 256));
    assert.deepEqual(problems, [
      'spec.externalIPs: 44 of 300 addresses are left out',
      'status.loadBalancer.ingress: 44 of 300 addresses are left out',
    ]);
    assert.equal(good({ externalIPs: external.slice(0, 256) }).externalIPs.length, 256);
  });

  test('makes no more than 20 reports', () => {
    const { problems } = service({ externalIPs: Array.from({ length: 5000 }, (_, i) => `bad-${i}`) });
    assert.equal(problems.length, 20);
    assert.equal(problems[19], 'there are more problems with this object');
  });
});

describe('a Service', () => {
  test('with nothing but the least has the defaults of the API', () => {
    const parsed = good({});
    assert.deepEqual(
      { ...parsed, clusterIPs: texts(parsed.clusterIPs) },
      {
        key: 'default/web',
        createdAt: Date.parse('2024-03-01T00:00:10Z') / 1000,
        clusterIPs: ['10.96.0.1'],
        externalIPs: [],
        loadBalancerIPs: [],
        loadBalancerSourceRanges: [],
        affinitySeconds: 0,
        externalLocal: false,
        internalLocal: false,
        healthCheckNodePort: 0,
        ports: [{ name: '', protocol: 'TCP', port: 80, nodePort: 0 }],
      },
    );
  });

  test('keeps every field that decides packets', () => {
    const parsed = good(
      {
        type: 'LoadBalancer',
        clusterIPs: ['10.96.0.1', 'fd00::1'],
        externalIPs: ['192.0.2.1', '192.0.2.1', '2001:db8::1'],
        loadBalancerSourceRanges: ['10.0.0.0/8', ' 192.0.2.7 ', 'fd00::/16'],
        sessionAffinity: 'ClientIP',
        sessionAffinityConfig: { clientIP: { timeoutSeconds: 600 } },
        externalTrafficPolicy: 'Local',
        internalTrafficPolicy: 'Local',
        healthCheckNodePort: 31000,
        ports: [
          { name: 'dns', protocol: 'UDP', port: 53, nodePort: 30053 },
          { name: 'sctp', protocol: 'SCTP', port: 99 },
        ],
      },
      { status: { loadBalancer: { ingress: [{ ip: '203.0.113.1' }, { ip: '203.0.113.2', ipMode: 'VIP' }] } } },
    );
    assert.deepEqual(texts(parsed.clusterIPs), ['10.96.0.1', 'fd00::1']);
    assert.deepEqual(texts(parsed.externalIPs), ['192.0.2.1', '2001:db8::1']);
    assert.deepEqual(texts(parsed.loadBalancerIPs), ['203.0.113.1', '203.0.113.2']);
    assert.deepEqual(parsed.loadBalancerSourceRanges.map(formatPrefix), ['10.0.0.0/8', '192.0.2.7/32', 'fd00::/16']);
    assert.deepEqual([parsed.affinitySeconds, parsed.healthCheckNodePort], [600, 31000]);
    assert.deepEqual([parsed.externalLocal, parsed.internalLocal], [true, true]);
    assert.deepEqual(parsed.ports, [
      { name: 'dns', protocol: 'UDP', port: 53, nodePort: 30053 },
      { name: 'sctp', protocol: 'SCTP', port: 99, nodePort: 0 },
    ]);
  });

  test('that has no address to serve is none, without a complaint', () => {
    for (const spec of [
      { clusterIP: 'None' },
      { clusterIP: '' },
      { clusterIP: undefined },
      { type: 'ExternalName', externalName: 'example.org' },
      { type: 'ExternalName', clusterIP: '10.96.0.1' },
    ])
      assert.deepEqual(service(spec), { parsed: undefined, problems: [] });
  });

  test('without a name or spec is left out with a reason', () => {
    assert.match(service({}, { metadata: { namespace: 'default' } }).problems.join(), /metadata\.name/);
    assert.match(service({}, { spec: undefined }).problems.join(), /spec is missing/);
    assert.equal(service({}, { metadata: { namespace: 'default' } }).parsed, undefined);
    assert.equal(service({}, { spec: undefined }).parsed, undefined);
  });

  test('loses a bad field alone, with one reason that names it', () => {
    const cases: [Fields, RegExp, (parsed: Service) => void][] = [
      [
        { clusterIPs: ['10.96.0.1', '10.96.0'] },
        /spec\.clusterIPs: "10\.96\.0"/,
        (parsed) => assert.deepEqual(texts(parsed.clusterIPs), ['10.96.0.1']),
      ],
      [
        { externalIPs: ['127.0.0.1'] },
        /externalIPs: "127\.0\.0\.1"/,
        ({ externalIPs }) => assert.deepEqual(externalIPs, []),
      ],
      [{ externalIPs: ['224.0.0.1'] }, /not a usable unicast/, ({ externalIPs }) => assert.deepEqual(externalIPs, [])],
      [{ externalIPs: ['0.0.0.0'] }, /not a usable unicast/, ({ externalIPs }) => assert.deepEqual(externalIPs, [])],
      [{ externalIPs: ['::1'] }, /not a usable unicast/, ({ externalIPs }) => assert.deepEqual(externalIPs, [])],
      [{ externalIPs: ['0.1.2.3'] }, /not a usable/, ({ externalIPs }) => assert.deepEqual(externalIPs, [])],
      [{ externalIPs: ['255.255.255.255'] }, /not a usable/, ({ externalIPs }) => assert.deepEqual(externalIPs, [])],
      [{ externalIPs: ['fe80::1'] }, /not a usable/, ({ externalIPs }) => assert.deepEqual(externalIPs, [])],
      [{ externalIPs: [{ ip: '1.1.1.1' }] }, /not a usable/, ({ externalIPs }) => assert.deepEqual(externalIPs, [])],
      [{ ports: [{ port: 80 }, { port: 0 }] }, /port 0 is not/, ({ ports }) => assert.equal(ports.length, 1)],
      [{ ports: [{ port: 80 }, { port: 65536 }] }, /port 65536/, ({ ports }) => assert.equal(ports.length, 1)],
      [{ ports: [{ port: 80 }, { port: '81' }] }, /port "81"/, ({ ports }) => assert.equal(ports.length, 1)],
      [{ ports: [{ port: 80 }, { port: 1.5 }] }, /port 1\.5/, ({ ports }) => assert.equal(ports.length, 1)],
      [
        { ports: [{ port: 80 }, { port: 81, nodePort: -1 }] },
        /nodePort -1/,
        ({ ports }) => assert.equal(ports.length, 1),
      ],
      [
        { ports: [{ port: 80 }, { port: 81, protocol: 'ICMP' }] },
        /protocol "ICMP"/,
        ({ ports }) => assert.equal(ports.length, 1),
      ],
      [{ ports: [] }, /no usable port/, ({ ports }) => assert.deepEqual(ports, [])],
      [{ ports: 'none' }, /no usable port/, ({ ports }) => assert.deepEqual(ports, [])],
      [
        { sessionAffinity: 'ClientIP', sessionAffinityConfig: { clientIP: { timeoutSeconds: 86401 } } },
        /timeoutSeconds: 86401/,
        ({ affinitySeconds }) => assert.equal(affinitySeconds, 10800),
      ],
    ];
    for (const [spec, reason, check] of cases) {
      const { parsed, problems } = service(spec);
      assert.equal(problems.length, 1, JSON.stringify(spec));
      assert.match(problems[0]!, reason);
      check(parsed!);
    }
  });

  test('with affinity has the default time, without it none', () => {
    assert.equal(good({ sessionAffinity: 'ClientIP' }).affinitySeconds, 10800);
    assert.equal(good({ sessionAffinityConfig: { clientIP: { timeoutSeconds: 9 } } }).affinitySeconds, 0);
  });

  test('of a load balancer that keeps the packets to itself, or has only a name, gets no address', () => {
    const ingress = (...list: Fields[]): string[] =>
      texts(good({ type: 'LoadBalancer' }, { status: { loadBalancer: { ingress: list } } }).loadBalancerIPs);
    assert.deepEqual(ingress({ ip: '203.0.113.1', ipMode: 'Proxy' }), []);
    assert.deepEqual(ingress({ hostname: 'lb.example.org' }), []);
    assert.deepEqual(ingress({ hostname: 'lb.example.org', ip: '203.0.113.1' }), ['203.0.113.1']);
    assert.deepEqual(ingress({ ip: '203.0.113.1', ipMode: 'Proxy' }, { ip: '203.0.113.2' }), ['203.0.113.2']);
  });

  test('is Local outwards only when it has an outside', () => {
    const policy = { externalTrafficPolicy: 'Local' };
    assert.equal(good(policy).externalLocal, false);
    assert.equal(good({ ...policy, type: 'NodePort' }).externalLocal, true);
    assert.equal(good({ ...policy, externalIPs: ['192.0.2.1'] }).externalLocal, true);
    assert.equal(good({ type: 'NodePort', externalTrafficPolicy: 'Cluster' }).externalLocal, false);
  });

  test('has a health check port only as a load balancer with policy Local', () => {
    const check = { healthCheckNodePort: 31000 };
    assert.equal(good({ ...check, type: 'LoadBalancer', externalTrafficPolicy: 'Local' }).healthCheckNodePort, 31000);
    assert.equal(good({ ...check, type: 'LoadBalancer' }).healthCheckNodePort, 0);
    assert.equal(good({ ...check, type: 'NodePort', externalTrafficPolicy: 'Local' }).healthCheckNodePort, 0);
  });

  test('whose source ranges are all bad stays closed, not open', () => {
    const { parsed, problems } = service({ loadBalancerSourceRanges: ['everybody'] });
    assert.equal(problems.length, 1);
    assert.deepEqual(parsed!.loadBalancerSourceRanges.map(formatPrefix), ['0.0.0.0/32', '::/128']);
  });
});
