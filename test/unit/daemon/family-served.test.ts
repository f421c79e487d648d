/** A family that the node does not serve: how many Services have addresses of it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { unservedServices } from '../../../src/daemon/report/sync-report.js';
import { Metrics } from '../../../src/serve/metrics.js';
import { FAMILIES } from '../../../src/values/address.js';
import { TestCluster } from '../../support/desired-cluster.js';

test('counts Services by the families of their cluster IPs, for families that are left out alone', () => {
  const cluster = new TestCluster();
  cluster.service('dual', { clusterIPs: ['10.96.0.1', 'fd00:96::1'] });
  cluster.service('six', { clusterIP: 'fd00:96::2', clusterIPs: ['fd00:96::2'] });
  cluster.service('four', { clusterIP: '10.96.0.3', externalIPs: ['2001:db8::1'] });
  const counted = (...families: readonly (4 | 6)[]) =>
    FAMILIES.map((family) => unservedServices(families, cluster.state).get(family));
  assert.deepEqual(counted(4, 6), [undefined, undefined]);
  assert.deepEqual(counted(4), [undefined, 2]);
  assert.deepEqual(counted(6), [2, undefined]);
});

test('the gauges', async () => {
  const metrics = new Metrics({ version: '0' });
  metrics.familyServed(4, true, 0);
  metrics.familyServed(6, false, 2);
  const text = await metrics.text();
  metrics.close();
  for (const line of [
    'kubeproxy_ipvs_family_served{ip_family="IPv4"} 1',
    'kubeproxy_ipvs_family_served{ip_family="IPv6"} 0',
    'kubeproxy_ipvs_unserved_services{ip_family="IPv4"} 0',
    'kubeproxy_ipvs_unserved_services{ip_family="IPv6"} 2',
  ])
    assert.ok(text.split('\n').includes(line), line);
});
