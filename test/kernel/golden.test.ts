// test-kernel: timeout=900 seconds=28
/**
 * The recorded cluster through the fake API server and the shipped daemon into the kernel, compared with what
 * kube-proxy 1.36 made of it.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before } from 'node:test';
import { ipvsRules, kubeIpvs0Addresses, shell } from './harness/kernel-state.js';
import { Lab, NODE } from './harness/lab.js';
import { allSets } from './harness/rules-state.js';
import { isNftables } from './harness/rules-under-test.js';
import { waitUntil } from './harness/wait.js';
import { type ApiObject } from '../fakes/api-server-store.js';
import { type ServiceSpec, endpointSlice, service, serviceWithEndpoints } from './reliability-objects.js';
import { Rig, fixtureCluster, fixtureLines } from './reliability-rig.js';
import { steps } from './reliability-steps.js';
import { connectionCounts, snapshot, weights } from './reliability-state.js';

const PODS = [
  { name: 'client', addresses: ['10.128.0.10'] },
  { name: 'web-near', addresses: ['10.128.0.11'] },
  { name: 'web-far', addresses: ['10.128.1.11'], place: 'other' as const },
  { name: 'dns-near', addresses: ['10.128.0.12'] },
  { name: 'dns-far', addresses: ['10.128.1.12'], place: 'other' as const },
];
const WEB = { protocol: 'TCP', address: '10.96.0.10', port: 80 } as const;
const DNS = { protocol: 'UDP', address: '10.96.0.11', port: 53 } as const;
/** Sets that kube-proxy does not have; README.md says what they are for. */
const OWN_SETS = /^(create|add) KUBE-(6-)?NO-(LOCAL-)?ENDPOINTS /;

const test = steps();
const GOOD: ServiceSpec = { name: 'good', address: '10.96.9.9', port: 80 };
let lab: Lab;
let rig: Rig;
let config: string;

/** API objects that no API server should let through, or that only another version of it would. */
function hostileObjects(): ApiObject[] {
  const make = (name: string, fields: object): ApiObject => ({
    ...(service({ name, address: '10.96.9.1', port: 80 }) as ApiObject),
    ...fields,
  });
  const spec = (fields: object): object => ({
    spec: {
      type: 'ClusterIP',
      clusterIP: '10.96.9.1',
      clusterIPs: ['10.96.9.1'],
      ports: [{ port: 80, protocol: 'TCP' }],
      ...fields,
    },
  });
  const slice = { ...(endpointSlice(GOOD, ['fd00::1', '10.1.1.300', '10.1.1.1; reboot', '']) as ApiObject) };
  const ofGood = { namespace: 'default', labels: { 'kubernetes.io/service-name': 'good' } };
  return [
    make('bad-address', spec({ clusterIP: '10.96.9.1; reboot', clusterIPs: ['10.96.9.1; reboot'] })),
    make('six-in-four', spec({ clusterIP: 'fd00::zz', clusterIPs: ['fd00::zz', '10.96.300.1'] })),
    make('zero-port', spec({ ports: [{ port: 0, protocol: 'TCP' }, { port: 70000, protocol: 'TCP' }, { port: 'x' }] })),
    make('no-ports', spec({ ports: [] })),
    make('null-ports', spec({ ports: null })),
    make('strange-protocol', spec({ ports: [{ port: 80, protocol: 'QUIC' }] })),
    make('no-spec', { spec: null }),
    make('strange-spec', { spec: 'text' }),
    make(
      'strange-affinity',
      spec({
        sessionAffinity: 'ClientIP',
        sessionAffinityConfig: { clientIP: { timeoutSeconds: -1 } },
        clusterIP: '',
        clusterIPs: [],
      }),
    ),
    { ...slice, metadata: { ...ofGood, name: 'bad-slice' } },
    {
      ...slice,
      metadata: { ...ofGood, name: 'fqdn' },
      addressType: 'FQDN',
      endpoints: [{ addresses: ['example.org'] }],
    },
    { ...slice, metadata: { ...ofGood, name: 'null-endpoints' }, endpoints: null, ports: null },
    { ...slice, metadata: { ...ofGood, name: 'strange-endpoints' }, endpoints: ['text', null, { addresses: 7 }] },
    {
      ...slice,
      metadata: { ...ofGood, name: 'bad-port' },
      ports: [
        { name: 'main', port: -1 },
        { name: 'main', port: 1e9 },
      ],
    },
    {
      kind: 'EndpointSlice',
      metadata: { namespace: 'default', name: 'constructor', labels: { 'kubernetes.io/service-name': '__proto__' } },
    },
  ];
}

before(async () => {
  lab = await Lab.create({ pods: PODS });
  await Promise.all(
    PODS.slice(1).map(({ name, addresses }) => {
      const server = name.startsWith('web')
        ? ({ protocol: 'TCP', port: 8080 } as const)
        : ({ protocol: 'UDP', port: 5353 } as const);
      return lab.agent.serve(name, { ...server, address: addresses[0]!, by: name });
    }),
  );
  rig = await Rig.create(fixtureCluster());
  config = rig.config();
});

after(async () => {
  await rig.close();
  lab.close();
});

test('fixture cluster: virtual servers, addresses, sets and sysctls are what kube-proxy 1.36 programmed', async () => {
  await rig.start(config);
  await rig.waitForRules();
  assert.deepEqual(await ipvsRules(), fixtureLines('kube-proxy-1.36/ipvs.txt').sort());
  const addresses = (await kubeIpvs0Addresses()).filter((address) => !address.startsWith('inet6 fe80:'));
  assert.deepEqual(addresses, fixtureLines('kube-proxy-1.36/kube-ipvs0.txt').sort());
  for (const line of fixtureLines('kube-proxy-1.36/sysctl.txt')) {
    const [name, value] = line.split(' = ');
    const path = `/proc/sys/${name!.replaceAll('.', '/')}`;
    assert.equal(readFileSync(path, 'utf8').trim(), value, name);
  }
  const sets = await allSets();
  const reference = (lines: readonly string[]): string[] => lines.filter((line) => !OWN_SETS.test(line)).sort();
  assert.deepEqual(reference(sets.add), fixtureLines('kube-proxy-1.36/ipset-add.txt').sort());
  const create = sets.create.map((line) => line.replace(/ (hashsize|maxelem|bucketsize|initval) \S+/g, ''));
  assert.deepEqual(reference(create), fixtureLines('kube-proxy-1.36/ipset-create.txt').sort());
  console.log(
    `golden: ${(await ipvsRules()).length} IPVS lines, ${addresses.length} addresses, ${sets.add.length} set entries equal`,
  );
});

test('TCP and UDP requests through cluster IPs reach every backend, from a pod and from the node', async () => {
  for (const place of ['client', NODE]) {
    const web = await lab.agent.many(place, 10, WEB);
    assert.deepEqual([web.failed, web.by], [{}, { 'web-near': 5, 'web-far': 5 }], `TCP from ${place || 'the node'}`);
    const dns = await lab.agent.many(place, 10, DNS);
    assert.deepEqual([dns.failed, dns.by], [{}, { 'dns-near': 5, 'dns-far': 5 }], `UDP from ${place || 'the node'}`);
  }
  console.log('requests: 40 sent, 0 failed');
});

test('an endpoint change reaches the kernel by its event', async () => {
  const slice = rig.api.store.get('endpointslices', 'default/clusterip-basic-1') as unknown as { endpoints: object[] };
  const third = { addresses: ['10.128.1.77'], conditions: { ready: true }, nodeName: 'node-1' };
  const begun = performance.now();
  rig.api.patch('endpointslices', 'default/clusterip-basic-1', { endpoints: [...slice.endpoints, third] });
  const all = ['10.128.0.11:8080=1', '10.128.1.11:8080=1', '10.128.1.77:8080=1'];
  await waitUntil('the added endpoint', () => String(weights('TCP 10.96.0.10:80')) === String(all));
  console.log(`endpoint change: in the kernel after ${Math.round(performance.now() - begun)} ms; syncPeriod is 30 s`);
  rig.api.patch('endpointslices', 'default/clusterip-basic-1', { endpoints: slice.endpoints });
  // It never had a connection: nothing to wait for.
  await waitUntil('the removed endpoint gone', () => weights('TCP 10.96.0.10:80').length === 2);
});

test('malformed and hostile objects are left out, named and counted; the others are served', async () => {
  const before = await ipvsRules();
  rig.set(...hostileObjects(), ...serviceWithEndpoints(GOOD, ['10.128.0.11']));
  await waitUntil('the good Service', () => weights('TCP 10.96.9.9:80').join() === '10.128.0.11:8080=1');
  const lines = (await ipvsRules()).filter((line) => !line.includes(' 10.96.9.9:80 '));
  assert.deepEqual(lines, before);
  const named = rig.daemon.log.filter(({ level, object }) => level === 'warn' && object !== undefined);
  const names = new Set(named.map(({ object }) => String(object)));
  for (const object of ['default/bad-address', 'default/bad-slice', 'default/zero-port', 'default/strange-protocol'])
    assert.ok(names.has(object), `${object} is not among the objects named: ${[...names].join()}`);
  const skipped = (await rig.scrape()).sum('kubeproxy_ipvs_skipped_objects_total');
  assert.ok(skipped >= names.size);
  console.log(`hostile objects: ${hostileObjects().length} sent, ${names.size} named, ${skipped} parts left out`);
  for (const { metadata } of hostileObjects()) {
    rig.api.delete('services', `default/${metadata.name}`);
    rig.api.delete('endpointslices', `default/${metadata.name}`);
  }
});

test('two Services claim one address and port: the older has it, whatever comes first', async () => {
  const claim = (name: string, number: number, created: string): ServiceSpec => ({
    name,
    address: `10.96.9.${number}`,
    port: 80,
    externalIPs: ['198.51.100.99'],
    creationTimestamp: created,
  });
  const younger = claim('younger', 11, '2026-03-01T00:00:00Z');
  const older = claim('older', 12, '2026-02-01T00:00:00Z');
  const served = (): string => weights('TCP 198.51.100.99:80').join();
  rig.set(...serviceWithEndpoints(younger, ['10.128.0.201']));
  await waitUntil('the only one', () => served() === '10.128.0.201:8080=1');
  rig.set(...serviceWithEndpoints(older, ['10.128.0.202']));
  await waitUntil('the older one', () => served() === '10.128.0.202:8080=1');
  assert.deepEqual(weights('TCP 10.96.9.11:80'), ['10.128.0.201:8080=1'], 'its cluster IP is still its own');
  assert.equal((await rig.scrape()).sum('kubeproxy_ipvs_claim_conflicts'), 1);
  assert.ok(rig.daemon.log.some(({ loser }) => loser === 'default/younger'));
  rig.api.delete('services', 'default/older');
  await waitUntil('the younger one again', () => served() === '10.128.0.201:8080=1');
  // Left in place: the restart that follows must come to the same.
  rig.set(...serviceWithEndpoints(older, ['10.128.0.202']));
  await waitUntil('the older one again', () => served() === '10.128.0.202:8080=1');
});

test('kill -9 and start again change nothing, and delete nothing in between', async () => {
  const before = await snapshot();
  let counts = new Map<string, number>();
  // The kernel's estimator brings the counts up to date every two seconds.
  await waitUntil(
    'the counts of all connections',
    async () => ((counts = await connectionCounts()).get('TCP 10.96.0.10:80') ?? 0) >= 20,
    60_000,
  );
  await rig.stop('SIGKILL');
  assert.deepEqual(await snapshot(), before);
  const daemon = await rig.start(config);
  await rig.waitForRules();
  assert.deepEqual(await snapshot(), before);
  assert.deepEqual(await connectionCounts(), counts, 'an entry was removed and added again');
  const {
    msg: _msg,
    ms: _ms,
    level: _level,
    time: _time,
    services: _services,
    ...changes
  } = daemon.log.find(({ msg }) => msg.startsWith('took over'))!;
  assert.deepEqual(changes, {}, 'the first sync after the restart wrote something');
});

test('SIGTERM ends the daemon with exit code 0 and leaves the data plane in place', async () => {
  const before = await snapshot();
  // The bound of 2 s is the promise made to Kubernetes; the kill after it would show as a signal.
  const exit = await rig.daemon.stop('SIGTERM', 2000);
  assert.deepEqual(exit, { code: 0, signal: null });
  assert.deepEqual(await snapshot(), before);
});

test('a bad configuration or another mode is refused with exit code 1, and nothing is touched', async () => {
  const before = await snapshot();
  const wrong: [Record<string, unknown>, RegExp][] = [
    [{ mode: 'iptables' }, /mode.*iptables/],
    [{ clusterCIDR: '10.0.0.0/99' }, /clusterCIDR.*10\.0\.0\.0\/99/],
    [{ ipvs: { scheduler: 'best' } }, /ipvs\.scheduler.*best/],
    [{ ipvs: { syncPeriod: 'soon' } }, /ipvs\.syncPeriod.*soon/],
  ];
  const outcomes = await Promise.all(wrong.map(([fields]) => rig.command('--config', rig.config(fields))));
  for (const [i, { code, output }] of outcomes.entries()) {
    assert.equal(code, 1, output);
    assert.match(output.replaceAll('\n', ' '), wrong[i]![1]);
  }
  assert.deepEqual(await snapshot(), before);
});

test('the way back: when kube-proxy has written its chains, cleanup --own-only removes what it does not know', async () => {
  const before = await snapshot();
  const table = await ipvsRules();
  const own = /NO-(LOCAL-)?ENDPOINTS/;
  if (isNftables()) {
    // All of ours is in tables of our own: kube-proxy makes its sets anew, for the objects that there are by now.
    await shell(`ipset restore <<'END'\n${before.sets.filter((line) => !own.test(line)).join('\n')}\nEND`);
  } else {
    const early = await rig.command('cleanup', '--own-only', '--config', config);
    assert.equal(early.code, 1, 'our sets are in use while the shared chains are still ours');
    assert.match(early.output, /not removed: .*NO-ENDPOINTS/);
  }
  // kube-proxy declares its chains, which empties them, and fills them again.
  await shell(`
    $IPTABLES-restore --noflush < test/fixtures/kube-proxy-1.36/iptables.txt
    $IP6TABLES-restore --noflush < test/fixtures/kube-proxy-1.36/ip6tables.txt`);
  const { code, output } = await rig.command('cleanup', '--own-only', '--config', config);
  assert.equal(code, 0, output);
  const after = await snapshot();
  assert.deepEqual(await ipvsRules(), table);
  assert.deepEqual(after.addresses, before.addresses);
  assert.deepEqual(
    after.sets,
    before.sets.filter((line) => !own.test(line)),
  );
  const rules = [...after.rules4, ...after.rules6].join('\n');
  assert.doesNotMatch(rules, /KUBE-IPVS-ACCEPT|NO-ENDPOINTS|NO-LOCAL-ENDPOINTS/);
  assert.match(rules, /-A KUBE-SERVICES .*KUBE-CLUSTER-IP/);
});

test('cleanup removes all of ours and nothing of others, and can be run twice', async () => {
  await shell(`
    ip link add other0 type dummy && ip addr add 10.99.9.9/32 dev other0
    ipvsadm -A -t 10.99.9.9:80 -s wlc && ipvsadm -a -t 10.99.9.9:80 -r 10.128.0.11:8080 -m -w 7
    ipset create mine hash:ip && ipset add mine 192.0.2.99
    $IPTABLES -w -t filter -N MINE && $IPTABLES -w -A MINE -m set --match-set mine src -j ACCEPT
    $IPTABLES -w -I INPUT -j MINE && $IPTABLES -w -t nat -A POSTROUTING -s 192.0.2.99 -j MASQUERADE`);
  for (const round of ['first', 'second']) {
    const { code, output } = await rig.command('cleanup', '--config', config);
    assert.equal(code, 0, output);
    assert.deepEqual(
      await ipvsRules(),
      ['-A -t 10.99.9.9:80 -s wlc', '-a -t 10.99.9.9:80 -r 10.128.0.11:8080 -m -w 7'],
      round,
    );
    const { sets, rules4, rules6, addresses } = await snapshot();
    assert.deepEqual([addresses, sets], [[], ['create mine hash:ip family inet', 'add mine 192.0.2.99']], round);
    const rules = rules4.filter((line) => line.startsWith('-A'));
    assert.deepEqual(rules.sort(), [
      '-A INPUT -j MINE',
      '-A MINE -m set --match-set mine src -j ACCEPT',
      '-A POSTROUTING -s 192.0.2.99/32 -j MASQUERADE',
    ]);
    assert.deepEqual(
      [...rules4, ...rules6].filter((line) => line.includes('KUBE')),
      [],
    );
  }
});
