// test-kernel: timeout=600
/** What one Service may not do to others and to the node, with the shipped daemon: claims, doubles, bad addresses. */
import assert from 'node:assert/strict';
import { after, before } from 'node:test';
import { shell } from './harness/kernel-state.js';
import { waitUntil } from './harness/wait.js';
import { type ServiceSpec, endpointSlice, service, serviceWithEndpoints } from './reliability-objects.js';
import { Rig, fixtureCluster } from './reliability-rig.js';
import { boundAddresses, weights } from './reliability-state.js';
import { steps } from './reliability-steps.js';

const OLD = '2020-01-01T00:00:00Z';
const TENANT = '10.128.0.66';
const VICTIM = '10.128.0.11';
const TENANT_AT_CLUSTER_IP: ServiceSpec = {
  ...{ name: 'tenant', address: '10.96.77.66', port: 80, creationTimestamp: OLD },
  externalIPs: ['10.96.77.10', '10.200.0.2'],
};
const TENANT_AT_NODE_PORT: ServiceSpec = {
  ...TENANT_AT_CLUSTER_IP,
  name: 'tenant-2',
  address: '10.96.77.67',
  port: 30777,
};
const OWNER: ServiceSpec = { name: 'owner', address: '10.96.77.10', port: 80, nodePort: 30777 };
const step = steps();
let rig: Rig;

before(async () => {
  await shell(`
    modprobe -q ipv6 || true; modprobe dummy; modprobe ip_vs
    ip link add eth0 type dummy && ip link set eth0 up && ip addr add 10.200.0.2/24 dev eth0`);
  rig = await Rig.create(fixtureCluster().filter(({ kind }) => kind === 'Node'));
  rig.set(...[TENANT_AT_CLUSTER_IP, TENANT_AT_NODE_PORT].flatMap((spec) => serviceWithEndpoints(spec, [TENANT])));
  await rig.start(rig.config());
});

after(() => rig.close());

async function holds(server: string, expected: readonly string[]): Promise<void> {
  const describe = (): string => `${weights(server).join(' ')}\n${rig.daemon.tail()}`;
  await waitUntil(
    `${server} to have [${expected.join(' ')}]`,
    () => weights(server).join() === expected.join(),
    60_000,
    describe,
  );
}

step('an external IP that nobody else has is served', async () => {
  await holds('TCP 10.96.77.10:80', [`${TENANT}:8080=1`]);
  await holds('TCP 10.200.0.2:30777', [`${TENANT}:8080=1`]);
  assert.ok(boundAddresses().includes('10.96.77.10'));
  assert.ok(!boundAddresses().includes('10.200.0.2'), 'the node has it already');
});

step('a younger Service gets its cluster IP and its NodePort back from older external IPs', async () => {
  rig.set(...serviceWithEndpoints(OWNER, [VICTIM]));
  await holds('TCP 10.96.77.10:80', [`${VICTIM}:8080=1`]);
  await holds('TCP 10.200.0.2:30777', [`${VICTIM}:8080=1`]);
  await holds('TCP 10.96.77.10:30777', []);
  await holds('TCP 10.200.0.2:80', [`${TENANT}:8080=1`]);
  assert.match((await rig.status()).notes, /10\.96\.77\.10.*default\/owner, not default\/tenant/);
  const lines = rig.daemon.log.filter(({ msg }) => /claim the same/.test(msg ?? ''));
  assert.equal(lines.length, 2, 'one per pair of Services');
  const conflicts = (await rig.scrape()).sum('kubeproxy_ipvs_claim_conflicts');
  assert.ok(conflicts >= 2, `${conflicts} conflicts`);
});

step('the same after a restart, whatever the API server lists first', async () => {
  await rig.stop();
  await rig.start(rig.config());
  await holds('TCP 10.96.77.10:80', [`${VICTIM}:8080=1`]);
  await holds('TCP 10.200.0.2:30777', [`${VICTIM}:8080=1`]);
});

step('a Pod that takes over the address of one that terminates is served at once', async () => {
  const slice = endpointSlice(OWNER, [VICTIM]) as { endpoints: object[] };
  const dying = {
    ...{ addresses: ['10.128.0.12'], nodeName: 'node-0' },
    conditions: { ready: false, serving: true, terminating: true },
  };
  const young = { addresses: ['10.128.0.12'], nodeName: 'node-1', conditions: { ready: true } };
  for (const endpoints of [
    [dying, young],
    [young, dying],
  ]) {
    rig.set({ ...slice, endpoints: [dying] });
    await waitUntil('the dying one alone', () => weights('TCP 10.96.77.10:80').includes('10.128.0.12:8080=1'));
    rig.set({ ...slice, endpoints: [...endpoints, ...slice.endpoints] });
    await holds('TCP 10.96.77.10:80', [`${VICTIM}:8080=1`, '10.128.0.12:8080=1']);
  }
  rig.set(slice);
});

step('addresses that the kernel would refuse are left out, and such as old objects have are served', async () => {
  const slice = endpointSlice(OWNER, [
    '255.255.255.255',
    '0.1.2.3',
    '010.128.000.013',
    '::ffff:10.128.0.14',
    '240.0.0.1',
  ]);
  rig.set(slice);
  const expected = ['10.128.0.13:8080=1', '10.128.0.14:8080=1', '240.0.0.1:8080=1'];
  await waitUntil(
    'the usable ones',
    () => expected.every((line) => weights('TCP 10.96.77.10:80').includes(line)),
    60_000,
    () => `${weights('TCP 10.96.77.10:80').join(' ')}\n${rig.daemon.tail()}`,
  );
  assert.ok(!weights('TCP 10.96.77.10:80').some((line) => /^(255|0)\./.test(line)));
  assert.equal((await rig.scrape()).sum('kubeproxy_ipvs_netlink_failures_total'), 0);
  assert.equal((await rig.health()).status, 200);
});

step('the cluster IP goes to the external IP again once its Service is gone', async () => {
  rig.api.delete('services', 'default/owner');
  await waitUntil('the owner to be gone', () => weights('TCP 10.96.77.10:80').join() === `${TENANT}:8080=1`);
});

step('with the feature gate off no external IP is served or bound', async () => {
  await rig.stop();
  await rig.start(rig.config({ featureGates: { AllowServiceExternalIPs: false } }));
  await waitUntil('the external IPs to be gone', () => !boundAddresses().includes('10.96.77.10'));
  assert.deepEqual(boundAddresses(), ['10.96.77.66', '10.96.77.67']);
  rig.set(
    service({ ...TENANT_AT_CLUSTER_IP, externalIPs: ['198.51.100.1'] }),
    service({ ...OWNER, address: '10.96.77.11' }),
  );
  await waitUntil('the new Service', () => boundAddresses().includes('10.96.77.11'));
  assert.ok(!boundAddresses().includes('198.51.100.1'));
});
