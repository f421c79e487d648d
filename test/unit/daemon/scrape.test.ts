/** /metrics: what is counted when somebody asks, of a data plane over a kernel of fakes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Scrape } from '../../../src/daemon/answer/scrape.js';
import { type HealthReport } from '../../../src/serve/health.js';
import { TestCluster } from '../../support/desired-cluster.js';
import { ReconcileRig } from '../../support/reconcile-rig.js';

const RED: HealthReport = {
  ...{ healthy: false, nodeEligible: true, lastUpdated: undefined, families: [] },
  reasons: [{ category: 'rules', summary: 'rules wait' }],
};

async function shop(serviceMetrics: number): Promise<{ rig: ReconcileRig; scrape: Scrape; collected: () => number }> {
  const cluster = new TestCluster({ families: [4] });
  cluster.service('web', { clusterIPs: ['10.96.0.1', 'fd00:96::1'], externalIPs: ['192.0.2.1'] });
  cluster.slice('web', ['10.0.0.1', '10.0.0.2', '10.0.0.3']);
  const rig = new ReconcileRig(cluster, undefined, [], undefined, { serviceMetrics });
  await rig.sync();
  await rig.dataPlane.rules.settled();
  let count = 0;
  const { dataPlane, metrics } = rig;
  const scrape = new Scrape({ dataPlane, metrics, health: { healthz: () => RED }, collect: () => void count++ });
  return { rig, scrape, collected: () => count };
}

function lines(text: string, ...names: string[]): string[] {
  return text.split('\n').filter((line) => names.some((name) => line.startsWith(`kubeproxy_ipvs_${name}`)));
}

test('sizes, health and what the watches know are as of now', async () => {
  const { rig, scrape, collected } = await shop(0);
  const text = await scrape.text();
  assert.equal(collected(), 1);
  assert.deepEqual(lines(text, 'virtual_servers{ip_family="IPv4"', 'real_servers{ip_family="IPv4"', 'bound_'), [
    'kubeproxy_ipvs_virtual_servers{ip_family="IPv4"} 2',
    'kubeproxy_ipvs_real_servers{ip_family="IPv4"} 6',
    ...lines(text, 'bound_'),
  ]);
  assert.ok(lines(text, 'bound_').includes('kubeproxy_ipvs_bound_addresses{ip_family="IPv4"} 2'));
  assert.deepEqual(
    lines(text, 'unhealthy').filter((line) => line.endsWith(' 1')),
    ['kubeproxy_ipvs_unhealthy{category="rules"} 1'],
  );
  assert.deepEqual(lines(text, 'estimation_running'), ['kubeproxy_ipvs_estimation_running 1']);
  assert.deepEqual(lines(text, 'connections '), ['kubeproxy_ipvs_connections 0']);
  assert.ok(lines(text, 'family_served').includes('kubeproxy_ipvs_family_served{ip_family="IPv4"} 1'));
  assert.ok(lines(text, 'unserved').includes('kubeproxy_ipvs_unserved_services{ip_family="IPv4"} 0'));
  rig.cluster.service('other', { clusterIP: '10.96.0.2' });
  await rig.sync();
  assert.ok((await scrape.text()).includes('kubeproxy_ipvs_virtual_servers{ip_family="IPv4"} 3\n'));
  scrape.close();
});

test('each reason why packets are refused is there from the start, at 0', async () => {
  const { scrape } = await shop(0);
  const reasons = lines(await scrape.text(), 'refused_packets_total{ip_family="IPv4"');
  assert.ok(reasons.length >= 4, reasons.join('\n'));
  assert.ok(reasons.every((line) => line.endsWith(' 0')));
  scrape.close();
});

test('what IPVS counts by Service is told where it is asked for, and only there', async () => {
  const one = await shop(1);
  for (const server of one.rig.kernel.ipvs.table.values()) server.statistics = [5n, 50n, 40n, 5000n, 4000n];
  assert.deepEqual(lines(await one.scrape.text(), 'service_connections_total'), [
    'kubeproxy_ipvs_service_connections_total{namespace="default",service="web",protocol="TCP",port="80"} 10',
  ]);
  const directed = (what: string, count: number, direction: string): string =>
    `kubeproxy_ipvs_service_${what}_total{namespace="default",service="web",protocol="TCP",port="80",direction="${direction}"} ${count}`;
  assert.deepEqual(
    lines(await one.scrape.text(), 'service_packets_total', 'service_bytes_total', 'service_ports_cut'),
    [
      ...[directed('packets', 100, 'in'), directed('packets', 80, 'out')],
      ...[directed('bytes', 10_000, 'in'), directed('bytes', 8000, 'out')],
      'kubeproxy_ipvs_service_ports_cut 0',
    ],
  );
  one.scrape.close();
  const none = await shop(0);
  assert.deepEqual(lines(await none.scrape.text(), 'service_'), []);
  none.scrape.close();
});

test('netlink messages are counted by operation, as often as syncs send them', async () => {
  const { rig, scrape } = await shop(0);
  const counted = async (): Promise<number> =>
    lines(await rig.metrics.text(), 'netlink_messages_total').reduce(
      (sum, line) => sum + Number(line.split(' ')[1]),
      0,
    );
  const first = rig.messages;
  assert.ok(first > 0);
  assert.equal(await counted(), first);
  rig.cluster.service('more', { clusterIP: '10.96.0.3' });
  await rig.sync();
  assert.ok(rig.messages > first);
  assert.equal(await counted(), rig.messages);
  scrape.close();
});
