/** Metrics by Service from what IPVS counts: added up by port, the busiest ones, each scrape in place of the last. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ServiceTrafficReader } from '../../../src/daemon/answer/service-traffic.js';
import { Metrics } from '../../../src/serve/metrics.js';
import { formatVirtualServer } from '../../../src/values/virtual-server.js';
import { TestCluster } from '../../support/desired-cluster.js';
import { ReconcileRig } from '../../support/reconcile-rig.js';

async function shop(): Promise<ReconcileRig> {
  const cluster = new TestCluster({ families: [4] });
  cluster.service('web', {
    externalIPs: ['192.0.2.1'],
    ports: [
      { name: 'a', port: 80 },
      { name: 'b', port: 443 },
    ],
  });
  cluster.service('idle', { clusterIP: '10.96.0.2' });
  const rig = new ReconcileRig(cluster);
  await rig.sync();
  const counted: Record<string, readonly bigint[]> = {
    'TCP 10.96.0.1:80': [5n, 50n, 40n, 5000n, 4000n],
    'TCP 192.0.2.1:80': [2n, 20n, 10n, 2000n, 1000n],
    'TCP 10.96.0.1:443': [3n, 30n, 20n, 2n ** 40n, 7n],
  };
  for (const [key, server] of rig.kernel.ipvs.table)
    server.statistics = counted[formatVirtualServer(key)] ?? [0n, 0n, 0n, 0n, 0n];
  return rig;
}

test('addresses of a Service with the same port are one; the busiest are told, the others counted', async () => {
  const rig = await shop();
  const reader = new ServiceTrafficReader(rig.kernel.open, rig.dataPlane, 2);
  const { ports, cut } = (await reader.read(0))!;
  assert.equal(cut, 1);
  assert.deepEqual(ports, [
    {
      ...{ namespace: 'default', service: 'web', protocol: 'TCP', port: 80, connections: 7 },
      ...{ inPackets: 70, outPackets: 50, inBytes: 7000, outBytes: 5000 },
    },
    {
      ...{ namespace: 'default', service: 'web', protocol: 'TCP', port: 443, connections: 3 },
      ...{ inPackets: 30, outPackets: 20, inBytes: 2 ** 40, outBytes: 7 },
    },
  ]);
});

test('a series that is told no more is gone; two scrapers share a read; a kernel that refuses is asked again', async () => {
  const rig = await shop();
  const reader = new ServiceTrafficReader(rig.kernel.open, rig.dataPlane, 1000);
  const metrics = new Metrics({ version: '0.0.0' });
  const lines = async (now: number): Promise<string[]> => {
    const traffic = await reader.read(now);
    if (traffic !== undefined) metrics.serviceTraffic(traffic.ports, traffic.cut);
    const name = 'kubeproxy_ipvs_service_connections_total{';
    return (await metrics.text()).split('\n').filter((line) => line.startsWith(name));
  };
  const web = (count: number, port: number): string =>
    `kubeproxy_ipvs_service_connections_total{namespace="default",service="web",protocol="TCP",port="${port}"} ${count}`;
  const first = await lines(0);
  assert.ok(first.includes(web(7, 80)) && first.includes(web(3, 443)));
  const before = rig.kernel.ipvs.commands.get(4);
  await lines(100);
  assert.equal(rig.kernel.ipvs.commands.get(4), before, 'nothing was read');
  rig.cluster.service('web', { ports: [{ name: 'b', port: 443 }] });
  await rig.sync();
  assert.deepEqual(
    (await lines(10_000)).filter((line) => line.includes('"web"')),
    [web(3, 443)],
  );
  rig.kernel.ipvs.loaded = false;
  const sockets = rig.kernel.openSockets;
  assert.equal(await reader.read(20_000), undefined);
  assert.equal(rig.kernel.openSockets, sockets - 1, 'its socket is closed');
  rig.kernel.ipvs.loaded = true;
  assert.ok((await reader.read(30_000)) !== undefined);
  assert.equal(rig.kernel.openSockets, sockets);
  metrics.close();
});
