// test-kernel: timeout=900
/** What packets do while things change: endpoints, addresses, drains, and another holder of the xtables lock. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { withoutXtablesLock } from './harness/iptables-programs.js';
import { iptablesRules, ipvsRules, shell } from './harness/kernel-state.js';
import { allRules } from './harness/rules-state.js';
import { isNftables } from './harness/rules-under-test.js';
import { type Lab, NODE } from './harness/lab.js';
import { OUTSIDE } from './harness/layout.js';
import { patience, waitUntil } from './harness/wait.js';
import { holdXtablesLock } from './harness/xtables-lock.js';
import { createTrafficLab } from './traffic-lab.js';
import { nodeObject, serviceObjects } from './traffic-objects.js';
import { Proxy } from './traffic-proxy.js';
import { clusterIP, healthPort, NODE4, PODS, type ServiceSpec } from './traffic-world.js';

const BASIC: ServiceSpec = { number: 1, name: 'basic', endpoints: ['near', 'far'], protocols: ['TCP', 'UDP'] };
const PORT: ServiceSpec = { number: 3, name: 'node-port', endpoints: ['near', 'far'], type: 'NodePort' };
const LOCAL: ServiceSpec = {
  number: 6,
  name: 'external-local',
  endpoints: ['near', 'far'],
  type: 'LoadBalancer',
  externalLocal: true,
};
const STICKY: ServiceSpec = { number: 14, name: 'affinity', endpoints: ['near', 'far'], affinitySeconds: 600 };
const SERVICES = [BASIC, PORT, LOCAL, STICKY];
const CONFIG = { clusterCIDR: '10.128.0.0/16,fd00:10:128::/40', ipvs: { syncPeriod: '1h' } };

let lab: Lab;
let proxy: Proxy;

before(async () => {
  lab = await createTrafficLab(PODS.filter((pod) => pod.link !== 'bridge'));
  proxy = await Proxy.create([nodeObject(), ...SERVICES.flatMap(serviceObjects)]);
  await proxy.start(CONFIG);
});

after(async () => {
  await proxy.close();
  lab.close();
});

/**
 * Gives the Service these endpoints and waits until the table shows them (and, draining, perhaps others with weight 0).
 */
async function setEndpoints(service: ServiceSpec, ...endpoints: string[]): Promise<void> {
  proxy.set(...serviceObjects({ ...service, endpoints }));
  const vip = `${clusterIP(service.number, 4)}:`;
  const wanted = endpoints.map((name) => PODS.find((pod) => pod.name === name)!.addresses[0]!).sort();
  const live = async (): Promise<string> => {
    const lines = (await ipvsRules()).filter((line) => line.startsWith(`-a -t ${vip}`) && !line.endsWith('-w 0'));
    return lines
      .map((line) => /-r ([^:]+):/.exec(line)![1]!)
      .sort()
      .join();
  };
  await waitUntil(`${service.name} at ${wanted.join()}`, async () => (await live()) === wanted.join(), 5000, live);
}

async function metric(name: string): Promise<number> {
  const text = await (await fetch('http://127.0.0.1:10249/metrics')).text();
  const lines = text.split('\n').filter((line) => line.startsWith(`${name} `) || line.startsWith(`${name}{`));
  return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' '))), 0);
}

const tcp = (service: ServiceSpec, address = clusterIP(service.number, 4)) =>
  ({ protocol: 'TCP', address, port: 80, timeout: patience(10_000) }) as const;

test('a UDP client with one source port follows when its backend is replaced', async () => {
  await setEndpoints(BASIC, 'near');
  for (const family of [4, 6] as const) {
    const address = clusterIP(1, family);
    const socket = await lab.agent.open('client', { protocol: 'UDP', address, port: 80 });
    assert.equal(socket.outcome.result === 'answered' && socket.outcome.by, 'near');
    await setEndpoints(BASIC, 'far');
    const moved = await waitUntil('an answer of far', async () => {
      const outcome = await socket.ask(200);
      return outcome.result === 'answered' && outcome.by === 'far' ? outcome : undefined;
    });
    assert.equal(moved.by, 'far');
    await socket.close();
    await setEndpoints(BASIC, 'near');
  }
  await setEndpoints(BASIC, 'near', 'far');
});

test('affinity: the next backend after the first drains, while the open connection stays', async () => {
  const connection = await lab.agent.open('client', tcp(STICKY));
  assert.equal(connection.outcome.result, 'answered');
  const first = connection.outcome.result === 'answered' ? connection.outcome.by : '';
  const counts = await lab.agent.many('client', 5, tcp(STICKY));
  assert.deepEqual(counts.by, { [first]: 5 });
  const other = first === 'near' ? 'far' : 'near';
  await setEndpoints(STICKY, other);
  const next = await lab.agent.many('client', 5, tcp(STICKY));
  assert.deepEqual([next.by, next.failed], [{ [other]: 5 }, {}]);
  const kept = await connection.ask();
  assert.equal(kept.result === 'answered' && kept.by, first);
  await connection.close();
  await setEndpoints(STICKY, 'near', 'far');
});

test('health check node port: 200 with the count, 503 when the last local endpoint goes', async () => {
  const health = async (): Promise<string> => {
    const outcome = await lab.agent.http(OUTSIDE, { address: NODE4, port: healthPort(6), path: '/' });
    return outcome.result === 'answered'
      ? `${outcome.status} ${String((JSON.parse(outcome.body) as { localEndpoints: number }).localEndpoints)}`
      : outcome.result;
  };
  await waitUntil('one local endpoint', async () => (await health()) === '200 1', 60_000, health);
  await setEndpoints(LOCAL, 'near', 'near2', 'far');
  await waitUntil('two local endpoints', async () => (await health()) === '200 2', 60_000, health);
  await setEndpoints(LOCAL, 'far');
  await waitUntil('no local endpoint', async () => (await health()) === '503 0', 60_000, health);
  await setEndpoints(LOCAL, 'near', 'far');
});

test('NodePorts follow the node’s addresses as they come and go', async () => {
  const target = { protocol: 'TCP', address: '10.201.0.9', port: 30003, timeout: 200 } as const;
  const answers = async (): Promise<boolean> => (await lab.agent.request('client', target)).result === 'answered';
  assert.equal(await answers(), false);
  const begun = performance.now();
  await shell('ip addr add 10.201.0.9/32 dev eth0');
  await waitUntil('an answer on the new address', answers);
  console.log(`served ${Math.round(performance.now() - begun)} ms after the address came`);
  await shell('ip addr del 10.201.0.9/32 dev eth0');
  await waitUntil('its virtual server to go', async () => !(await ipvsRules()).some((l) => l.includes(' 10.201.0.9:')));
});

test('masqueraded IPv6 traffic to a pod never shows a VIP, which would be the same on every node', async () => {
  const counts = await lab.agent.many(NODE, 4, tcp(BASIC, clusterIP(1, 6)));
  assert.equal(counts.answered, 4);
  const vips = Object.keys(counts.seen).filter((seen) => seen.startsWith('fd00:96::'));
  assert.deepEqual(vips, []);
});

test('an endpoint change starts no process', async () => {
  const processes = await metric('kubeproxy_ipvs_processes_spawned_total');
  for (let i = 0; i < 5; i++) {
    await setEndpoints(BASIC, 'near');
    await setEndpoints(BASIC, 'near', 'far');
  }
  assert.equal((await metric('kubeproxy_ipvs_processes_spawned_total')) - processes, 0);
  // With rules in nf_tables none may have been started at all.
  if (!isNftables()) assert.ok(processes > 0, 'the counter counts nothing');
});

test('the number of rules does not grow with the Services', async () => {
  const kubeRules = async (): Promise<string[]> =>
    [...(await allRules(4)), ...(await allRules(6))].filter((line) => line.includes('KUBE-'));
  const rulesBefore = await kubeRules();
  assert.ok(rulesBefore.some((line) => /-j MASQUERADE --random-fully$|masquerade fully-random$/.test(line)));
  const more = Array.from({ length: 150 }, (_, i): ServiceSpec => {
    return { ...PORT, number: 100 + i, name: `more-${i}`, externalIPs: [`198.51.100.${i + 1}`] };
  });
  proxy.set(...more.flatMap(serviceObjects));
  await waitUntil('all Services', async () => (await ipvsRules()).some((line) => line.includes('10.96.0.249:80 -r')));
  assert.deepEqual(await kubeRules(), rulesBefore);
  for (const spec of more) {
    proxy.api.delete('services', `traffic/${spec.name}`);
    for (const family of [4, 6]) proxy.api.delete('endpointslices', `traffic/${spec.name}-ipv${family}`);
  }
  await waitUntil('they are gone', async () => !(await ipvsRules()).some((line) => line.includes('10.96.0.249:80')));
});

test(
  'while another process holds the xtables lock IPVS changes land, and the rules come after',
  { skip: withoutXtablesLock() ?? false },
  async () => {
    await proxy.stop();
    await proxy.start({ ...CONFIG, ipvs: { syncPeriod: '2s' } });
    await shell('$IPTABLES -t nat -F KUBE-MARK-MASQ'); // so that there is something to write
    const lock = await holdXtablesLock();
    const hasRule = async (): Promise<boolean> =>
      (await iptablesRules(4)).some((line) => line.startsWith('-A KUBE-MARK-MASQ -j MARK'));
    try {
      await waitUntil(
        'the wait to be counted',
        async () => (await metric('kubeproxy_ipvs_xtables_lock_wait_seconds_count')) > 0,
      );
      for (const endpoints of [['near'], ['far'], ['near', 'far']]) {
        const [begun, logged] = [Date.now(), proxy.daemon.log.length];
        await setEndpoints(BASIC, ...endpoints);
        const synced = await proxy.daemon.waitForLog('the sync', (line) => line.msg === 'synced', 60_000, logged);
        console.log(`IPVS followed ${Date.parse(synced.time) - begun} ms after the change, with the lock held`);
      }
      assert.equal(await hasRule(), false);
      assert.equal(lock.isHeld, true, 'the lock was released too early to show anything');
    } finally {
      await lock.release();
    }
    await waitUntil('the rules', hasRule);
    assert.ok((await metric('kubeproxy_ipvs_xtables_lock_wait_seconds_sum')) > 1);
  },
);

for (const scheduler of ['sh', 'mh']) {
  test(`${scheduler}: a drained backend gets no new connection and none is lost`, async () => {
    await proxy.stop();
    await proxy.start({ ...CONFIG, ipvs: { ...CONFIG.ipvs, scheduler } });
    const connection = await lab.agent.open('client', tcp(BASIC));
    assert.equal(connection.outcome.result, 'answered');
    const first = connection.outcome.result === 'answered' ? connection.outcome.by : '';
    const other = first === 'near' ? 'far' : 'near';
    await setEndpoints(BASIC, other);
    const counts = await lab.agent.many('client', 30, tcp(BASIC));
    assert.deepEqual([counts.by, counts.failed], [{ [other]: 30 }, {}]);
    const kept = await connection.ask();
    assert.equal(kept.result === 'answered' && kept.by, first);
    await connection.close();
    await setEndpoints(BASIC, 'near', 'far');
  });
}
