// test-kernel: timeout=600 seconds=44
/**
 * What /metrics counts of packets: those that our rules refuse or drop, by why, and what IPVS forwards, by Service.
 * With real packets, beside the shipped daemon.
 */
import assert from 'node:assert/strict';
import { after, before } from 'node:test';
import { openNetlinkSocket } from '../../native/libc.js';
import { openOptionSocket } from '../../native/option-socket.js';
import { ServiceTrafficReader } from '../../src/daemon/answer/service-traffic.js';
import { CommandRunner } from '../../src/kernel/command.js';
import { detectIptables } from '../../src/kernel/iptables/detect.js';
import { SavedCounters, openRuleCounters } from '../../src/kernel/iptables/rule-counters.js';
import { IpvsClient } from '../../src/kernel/ipvs/client.js';
import { NftRuleCounters } from '../../src/kernel/nftables/rule-counters.js';
import { Metrics } from '../../src/serve/metrics.js';
import { FAMILIES, parseAddress } from '../../src/values/address.js';
import { type VirtualServerKey, addressServerKey } from '../../src/values/virtual-server.js';
import { Lab } from './harness/lab.js';
import { OUTSIDE } from './harness/layout.js';
import { TABLE, nftCounters } from './harness/nftables-state.js';
import { flushChain } from './harness/rules-damage.js';
import { isNftables } from './harness/rules-under-test.js';
import { waitUntil } from './harness/wait.js';
import { type ServiceSpec, endpointSlice, node, service, serviceWithEndpoints } from './reliability-objects.js';
import { type Scrape, Rig } from './reliability-rig.js';
import { steps } from './reliability-steps.js';

const [POD, POD6] = ['10.128.0.11', 'fd00:10:128::11'];
const WEB: ServiceSpec = { name: 'web', address: '10.96.1.1', port: 80, externalIPs: ['192.0.2.1'] };
const WEB6: ServiceSpec = { name: 'web6', address: 'fd00:96::1', port: 80 };
const EMPTY: ServiceSpec = { name: 'empty', address: '10.96.1.2', port: 80 };
const EMPTY6: ServiceSpec = { name: 'empty6', address: 'fd00:96::2', port: 80 };
const LOCAL: ServiceSpec = { name: 'local', address: '10.96.1.3', port: 80, nodePort: 30083 };
const RANGED: ServiceSpec = { name: 'ranged', address: '10.96.1.4', port: 80 };
const RANGED_VIP = '203.0.113.4';
const REFUSED = 'kubeproxy_ipvs_refused_packets_total';
/** Of our filter table, at least; what only accepts has no counterpart in nf_tables. */
const FILTER_CHAINS = isNftables() ? 3 : 5;

const step = steps();
let lab: Lab;
let rig: Rig;

before(async () => {
  lab = await Lab.create({
    pods: [
      { name: 'client', addresses: ['10.128.0.10', 'fd00:10:128::10'] },
      { name: 'pod', addresses: [POD, POD6] },
    ],
  });
  for (const address of [POD, POD6]) await lab.agent.serve('pod', { protocol: 'TCP', address, port: 8080, by: 'pod' });
  rig = await Rig.create([
    node(),
    ...serviceWithEndpoints(WEB, [POD]),
    ...serviceWithEndpoints(WEB6, [POD6]),
    ...[service(EMPTY), service(EMPTY6)],
    ...[changed(LOCAL, { externalTrafficPolicy: 'Local' }), elsewhere(LOCAL)],
    changed(RANGED, { type: 'LoadBalancer', loadBalancerSourceRanges: ['198.51.100.0/24'] }, [{ ip: RANGED_VIP }]),
    endpointSlice(RANGED, [POD]),
  ]);
  await rig.start(rig.config({ kubeProxyIpvs: { serviceMetrics: 2 } }));
  await rig.waitForRules();
});

after(async () => {
  await rig.close();
  lab.close();
});

function changed(spec: ServiceSpec, fields: object, ingress: readonly object[] = []): object {
  const object = service(spec) as { spec: object; status: object };
  return { ...object, spec: { ...object.spec, ...fields }, status: { loadBalancer: { ingress } } };
}

/** An endpoint on another node. */
function elsewhere(spec: ServiceSpec): object {
  const slice = endpointSlice(spec, ['10.129.0.11']) as { endpoints: object[] };
  return { ...slice, endpoints: slice.endpoints.map((one) => ({ ...one, nodeName: 'node-1' })) };
}

function refused(scrape: Scrape): Record<string, number> {
  const of = (ip_family: string) =>
    ['no_endpoints', 'no_local_endpoints', 'source_range', 'host_port'].map((reason) => [
      `${ip_family} ${reason}`,
      scrape.sum(REFUSED, { ip_family, reason }),
    ]);
  return Object.fromEntries([...of('IPv4'), ...of('IPv6')]) as Record<string, number>;
}

/** Scrapes until the counters have grown by at least so much since `before`; by how much they grew. */
async function growth(before: Record<string, number>, least: Record<string, number>): Promise<Record<string, number>> {
  let grown: Record<string, number> = {};
  await waitUntil(
    `refused packets: ${JSON.stringify(least)}`,
    async () => {
      const now = refused(await rig.scrape());
      grown = Object.fromEntries(Object.entries(now).map(([key, count]) => [key, count - before[key]!]));
      return Object.entries(least).every(([key, count]) => grown[key]! >= count);
    },
    60_000,
    () => JSON.stringify(grown),
  );
  return grown;
}

const tcp = (address: string, port = 80) => ({ protocol: 'TCP' as const, address, port, timeout: 700 });

step('packets that are refused or dropped are counted by family and reason, and no others', async () => {
  const before = refused(await rig.scrape());
  const { agent } = lab;
  const results = [
    await agent.many('client', 5, tcp(EMPTY.address)),
    await agent.many('client', 3, tcp(EMPTY6.address)),
    await agent.many('', 2, tcp(EMPTY.address)),
    await agent.many('client', 4, tcp(WEB.address, 81)),
    await agent.many('client', 2, tcp(RANGED_VIP)),
    await agent.many(OUTSIDE, 2, tcp('10.200.0.2', LOCAL.nodePort)),
    await agent.many('client', 7, tcp(WEB.address)),
  ];
  assert.deepEqual(
    results.map(({ failed, answered }) => ({ ...failed, ...(answered > 0 && { answered }) })),
    [{ refused: 5 }, { refused: 3 }, { refused: 2 }, { refused: 4 }, { timeout: 2 }, { timeout: 2 }, { answered: 7 }],
  );
  const grown = await growth(before, {
    ...{ 'IPv4 no_endpoints': 5, 'IPv6 no_endpoints': 3, 'IPv4 host_port': 6 },
    ...{ 'IPv4 source_range': 2, 'IPv4 no_local_endpoints': 2 },
  });
  // The node's own two were sent to a port of the VIP that is no Service's, and are refused as such.
  // A refused connection is one packet; one that is dropped may have been sent twice.
  assert.deepEqual(
    { ...grown, 'IPv4 source_range': 2, 'IPv4 no_local_endpoints': 2 },
    {
      ...{ 'IPv4 no_endpoints': 5, 'IPv4 no_local_endpoints': 2, 'IPv4 source_range': 2, 'IPv4 host_port': 6 },
      ...{ 'IPv6 no_endpoints': 3, 'IPv6 no_local_endpoints': 0, 'IPv6 source_range': 0, 'IPv6 host_port': 0 },
    },
  );
});

step('a chain that is emptied and written anew counts on: the sum never falls', async () => {
  const before = refused(await rig.scrape());
  await rig.behindItsBack(
    `${flushChain(4, 'filter', 'KUBE-PROXY-FIREWALL')}; ${flushChain(4, 'filter', 'KUBE-IPVS-FILTER')}`,
  );
  await waitUntil('the rules to be repaired', async () => (await rig.scrape()).drift('rule', 'changed') > 0, 90_000);
  const between = refused(await rig.scrape());
  for (const [key, count] of Object.entries(before))
    assert.ok(between[key]! >= count, `${key}: ${count} to ${between[key]}`);
  await lab.agent.many('client', 2, tcp(EMPTY.address));
  const grown = await growth(between, { 'IPv4 no_endpoints': 2 });
  assert.equal(grown['IPv4 no_endpoints'], 2);
});

step('the counters that are read without a program are those that iptables-save and nft print', async () => {
  const { run } = new CommandRunner();
  const tools = await detectIptables(run, { probe: true });
  const counters = isNftables()
    ? new NftRuleCounters(openNetlinkSocket, TABLE)
    : openRuleCounters(tools, openOptionSocket, run);
  console.log(`rule counters: ${isNftables() ? TABLE : tools.backend}, read anew after ${counters.keepMs} ms`);
  const saved = isNftables() ? { read: nftCounters } : new SavedCounters(tools, run);
  for (const family of FAMILIES)
    for (const table of ['filter', 'mangle']) {
      const ours = ([chain]: [string, unknown]): boolean => chain.startsWith('KUBE-');
      const read = async (from: Pick<typeof counters, 'read'>) =>
        [...((await from.read(family, table)) ?? [])].filter(ours).sort(([a], [b]) => (a < b ? -1 : 1));
      const [direct, printed] = [await read(counters), await read(saved)];
      assert.ok(
        direct.length >= (table === 'filter' ? FILTER_CHAINS : 1),
        `${family} ${table}: ${direct.length} chains`,
      );
      // Rules without a verdict on what passes meanwhile: only those of quiet chains are compared by number.
      assert.deepEqual(
        direct.map(([chain, rules]) => [chain, rules.length]),
        printed.map(([chain, rules]) => [chain, rules.length]),
      );
      const quiet = (all: typeof direct) => all.filter(([chain]) => chain === 'KUBE-SOURCE-RANGES-FIREWALL');
      assert.equal(quiet(direct).length, table === 'filter' ? 1 : 0);
      assert.deepEqual(quiet(direct), quiet(printed));
      if (family === 4) assert.ok(table !== 'filter' || quiet(direct)[0]![1].some((packets) => packets > 0));
    }
  counters.close();
});

step(
  'connections, packets and bytes are told of the busiest ports of Services, and how many are left out',
  async () => {
    await lab.agent.many('client', 4, tcp(WEB6.address));
    let scrape = await rig.scrape();
    const of = (name: string, service: string, more = {}): number =>
      scrape.sum(`kubeproxy_ipvs_service_${name}_total`, {
        namespace: 'default',
        service,
        protocol: 'TCP',
        port: '80',
        ...more,
      });
    await waitUntil(
      'connections by Service',
      async () => {
        scrape = await rig.scrape();
        return of('connections', 'web6') === 4;
      },
      60_000,
      () => scrape.text,
    );
    assert.equal(of('connections', 'web'), 7);
    for (const service of ['web', 'web6'])
      for (const direction of ['in', 'out']) {
        assert.ok(of('packets', service, { direction }) >= 4 * 3, `${service} ${direction}`);
        assert.ok(of('bytes', service, { direction }) >= of('packets', service, { direction }) * 40);
      }
    assert.equal(of('connections', 'empty'), 0);
    assert.equal(scrape.text.match(/^kubeproxy_ipvs_service_connections_total\{/gm)?.length, 2);
    assert.ok(scrape.sum('kubeproxy_ipvs_service_ports_cut') >= 4);
  },
);

step('what a scrape by Service costs at 10,000 virtual servers', async () => {
  const client = new IpvsClient(openNetlinkSocket);
  const owners = new Map<VirtualServerKey, { service: string }>();
  for (let i = 0; i < 10_000; i++) {
    const key = addressServerKey('TCP', parseAddress(`10.97.${i >> 8}.${i & 255}`)!, 80);
    owners.set(key, { service: `shop/web-${i}` });
    if (client.addVirtualServer(key, { scheduler: 'rr', flags: 0, timeout: 0 })) assert.deepEqual(client.flush(), []);
  }
  assert.deepEqual(client.flush(), []);
  const updater = { desired: { virtualServers: owners } } as never;
  for (const most of [100, 1000]) {
    const metrics = new Metrics({ version: '0.0.0' });
    const reader = new ServiceTrafficReader(openNetlinkSocket, { updater }, most);
    let turns = 0;
    let isDone = false;
    const count = (): void => {
      turns++;
      if (!isDone) setImmediate(count);
    };
    setImmediate(count);
    const cpu = process.cpuUsage();
    const start = performance.now();
    const traffic = (await reader.read(0))!;
    const read = performance.now() - start;
    metrics.serviceTraffic(traffic.ports, traffic.cut);
    const text = await metrics.text();
    isDone = true;
    const { user, system } = process.cpuUsage(cpu);
    assert.deepEqual([traffic.ports.length, traffic.cut], [most, 10_000 - most]);
    assert.ok(turns > 100, `${turns} turns`);
    console.log(
      `a scrape with ${most} of 10,000: read in ${read.toFixed(0)} ms, ${(performance.now() - start).toFixed(0)} ms in all, ` +
        `${((user + system) / 1000).toFixed(0)} ms of CPU, ${turns} turns, ${text.length} bytes`,
    );
    reader.close();
    metrics.close();
  }
  client.close();
});
