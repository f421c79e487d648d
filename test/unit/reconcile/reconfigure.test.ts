/** A configuration that changes while everything runs: only what differs goes to the kernel. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type ProxyConfig } from '../../../src/config/proxy-config.js';
import { parsePrefix } from '../../../src/values/prefix.js';
import { scaleCluster } from '../../fakes/cluster-generator.js';
import { FaultRig } from '../../support/fault-rig.js';

const SERVICES = 20;

async function running(): Promise<FaultRig> {
  const rig = new FaultRig();
  for (const object of scaleCluster({ services: SERVICES, endpointsPerService: 3 })) rig.core.set(object);
  assert.equal(await rig.sync(), true);
  // The first time the whole configuration counts, and not what the rig's cluster was made with.
  rig.dataPlane.reconfigure({ ...rig.dataPlane.config, oomScoreAdj: 1 });
  assert.equal(await rig.sync(), true);
  return rig;
}

/** What one change of the configuration writes: kernel changes by kind, and runs of iptables-restore. */
async function writtenBy(rig: FaultRig, change: Partial<ProxyConfig>): Promise<Record<string, number>> {
  const [written, restores] = [rig.written.length, rig.iptables.restores];
  rig.dataPlane.reconfigure({ ...rig.dataPlane.config, ...change });
  assert.equal(await rig.sync(), true);
  const counts: Record<string, number> = {};
  for (const what of rig.written.slice(written)) counts[what] = (counts[what] ?? 0) + 1;
  const restored = rig.iptables.restores - restores;
  return restored === 0 ? counts : { ...counts, restored };
}

test('the scheduler: tried out, then one message for each virtual server, once', async () => {
  const rig = await running();
  assert.deepEqual(await writtenBy(rig, { scheduler: 'lc' }), { add: 1, delete: 1, set: SERVICES });
  assert.ok(rig.kernel.ipvs.dump().some((line) => line.includes(' lc ')));
  assert.deepEqual(await writtenBy(rig, { scheduler: 'lc' }), {});
});

test('masqueradeAll: the rules of both families, no message', async () => {
  const rig = await running();
  assert.deepEqual(await writtenBy(rig, { masqueradeAll: true }), { restored: 2 });
  assert.equal(await rig.metric('kubeproxy_ipvs_drift_repaired_total'), 0, 'that is nobody’s doing');
});

test('periods, drain timeout, log level: nothing', async () => {
  const rig = await running();
  const change = { syncPeriodMs: 7000, minSyncPeriodMs: 0, drainTimeoutMs: 5000, logLevel: 'debug' } as const;
  assert.deepEqual(await writtenBy(rig, change), {});
  assert.equal(rig.dataPlane.drains.options.timeout, 5000);
  assert.ok(rig.reconciler.dueIn <= 7000, 'the next verification comes sooner');
});

test('excludeCIDRs: what is in them stays from then on', async () => {
  const rig = await running();
  const excludeCIDRs = { 4: [parsePrefix('10.96.0.0/16')!], 6: [] };
  assert.deepEqual(await writtenBy(rig, { excludeCIDRs }), {});
  const servers = rig.kernel.ipvs.table.size;
  rig.core.delete([...scaleCluster({ services: 1, endpointsPerService: 3 })][0]!);
  await rig.sync();
  assert.equal(rig.kernel.ipvs.table.size, servers, 'the virtual server of a deleted Service');
});

test('nodePortAddresses: the virtual servers of NodePorts come and go, the others are not touched', async () => {
  const rig = await running();
  rig.core.set({
    kind: 'Service',
    metadata: { namespace: 'default', name: 'np', creationTimestamp: '2024-01-01T00:00:00Z' },
    spec: { type: 'NodePort', clusterIP: '10.96.250.1', ports: [{ port: 80, nodePort: 30080 }] },
  });
  assert.equal(await rig.sync(), true);
  const nodePorts = (): string[] => rig.kernel.ipvs.dump().filter((line) => line.includes(':30080 '));
  assert.ok(nodePorts().length > 0);
  const [before, nowhere] = [
    rig.dataPlane.config.nodePortAddresses,
    { all: false, primary: false, cidrs: [parsePrefix('10.99.0.0/16')!] },
  ];
  const gone = await writtenBy(rig, { nodePortAddresses: { ...before, 4: nowhere } });
  assert.deepEqual(nodePorts(), []);
  assert.deepEqual([gone['set'] ?? 0, gone['add'] ?? 0], [0, 0]);
  const back = await writtenBy(rig, { nodePortAddresses: before });
  assert.deepEqual([back['set'] ?? 0, back['delete'] ?? 0, back['add']], [0, 0, gone['delete']]);
  assert.ok(nodePorts().length > 0);
});

test('a scheduler that the kernel lacks is refused, and all is as before', async () => {
  const rig = await running();
  const { config } = rig.dataPlane;
  assert.throws(() => rig.dataPlane.reconfigure({ ...config, scheduler: 'nonsense', masqueradeAll: true }), /nonsense/);
  assert.equal(rig.dataPlane.config, config);
  assert.deepEqual(await writtenBy(rig, {}), {});
});
