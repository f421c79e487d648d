// test-kernel: timeout=600 seconds=70 waits
/**
 * kubeProxyIpvs.estimation: without the kernel's estimates, schedulers that go by connections and drains do what they
 * always do; `auto` switches them off for many real servers where they would stall a CPU, and on again.
 */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { after, before } from 'node:test';
import { scaleCluster, scaleService, scaleSlices } from '../fakes/cluster-generator.js';
import { type Connection } from './harness/agent.js';
import { run } from './harness/kernel-state.js';
import { Lab, ONE, TWO } from './harness/lab.js';
import { waitUntil } from './harness/wait.js';
import { type ServiceSpec, endpointSlice, node, serviceWithEndpoints } from './reliability-objects.js';
import { Rig } from './reliability-rig.js';
import { weights } from './reliability-state.js';
import { steps } from './reliability-steps.js';

const WEB: ServiceSpec = { name: 'web', address: '10.96.0.50', port: 80 };
const SERVER = 'TCP 10.96.0.50:80';
const TARGET = { protocol: 'TCP', address: WEB.address, port: WEB.port, reset: true } as const;
const SWITCH = '/proc/sys/net/ipv4/vs/run_estimation';
const NICE = '/proc/sys/net/ipv4/vs/est_nice';
/** Just above the limit of `auto`. */
const SCALE = { services: 210, endpointsPerService: 100 };

const step = steps();
let lab: Lab;
let rig: Rig;

before(async () => {
  lab = await Lab.withTwoBackends();
  rig = await Rig.create([node(), ...serviceWithEndpoints(WEB, [ONE, TWO])]);
});

after(async () => {
  await rig.close();
  lab.close();
});

const estimating = (): string => readFileSync(SWITCH, 'latin1').trim();
/** Since 6.2 threads do it: then only their priority is lowered. */
const hasThreads = (): boolean => {
  try {
    readFileSync(NICE);
    return true;
  } catch {
    return false;
  }
};

function config(scheduler: string, estimation: string): string {
  return rig.config({ kubeProxyIpvs: { estimation } }, { scheduler, syncPeriod: '2s' });
}

async function open(): Promise<{ readonly by: string; readonly connection: Connection }> {
  const connection = await lab.agent.open('client', TARGET);
  assert.equal(connection.outcome.result, 'answered');
  return { by: connection.outcome.result === 'answered' ? connection.outcome.by : '', connection };
}

/** Open connections by backend, after `count` more. */
async function openMore(held: Map<string, Connection[]>, count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    const { by, connection } = await open();
    held.set(by, [...(held.get(by) ?? []), connection]);
  }
}

const sizes = (held: ReadonlyMap<string, readonly Connection[]>): Record<string, number> =>
  Object.fromEntries([...held].map(([name, connections]): [string, number] => [name, connections.length]).sort());

for (const scheduler of ['lc', 'wlc', 'sed', 'nq'])
  step(`${scheduler} goes by connections with estimation off, and a drain ends with its last one`, async () => {
    await rig.start(config(scheduler, 'off'));
    await waitUntil('estimation off', () => estimating() === '0');
    assert.match(await run('ipvsadm', '-Ln'), new RegExp(`TCP +10\\.96\\.0\\.50:80 ${scheduler}\\b`));
    const held = new Map<string, Connection[]>();
    await openMore(held, 6);
    assert.deepEqual(sizes(held), { one: 3, two: 3 });
    for (const connection of held.get('one')!) await connection.close();
    held.set('one', []);
    await openMore(held, 2);
    assert.deepEqual(sizes(held), { one: 2, two: 3 }, 'to the one that lost its connections');

    rig.set(endpointSlice(WEB, [TWO]));
    await waitUntil('the drain', () => weights(SERVER).includes(`${ONE}:8080=0`));
    for (const connection of held.get('one')!) assert.equal((await connection.ask(30_000)).result, 'answered');
    for (const connection of held.get('one')!) await connection.close();
    await waitUntil('the drain to end', () => weights(SERVER).length === 1);
    for (const connection of held.get('two')!) await connection.close();
    rig.set(endpointSlice(WEB, [ONE, TWO]));
    await waitUntil('both', () => weights(SERVER).length === 2);
    await rig.stop();
  });

step('off is said: in status, in the metrics and by counters that stand still; on puts it right again', async () => {
  await rig.start(config('rr', 'off'));
  await waitUntil('estimation off', () => estimating() === '0');
  await waitUntil('the metric', async () => (await rig.scrape()).text.includes('kubeproxy_ipvs_estimation_running 0'));
  assert.match((await rig.command('status')).output, /IPVS estimation is off .*stand still/);
  await rig.stop();
  await rig.start(config('rr', 'on'));
  await waitUntil('estimation on', () => estimating() === '1');
  await waitUntil('the metric', async () => (await rig.scrape()).text.includes('kubeproxy_ipvs_estimation_running 1'));
  await rig.stop();
});

step(
  'auto: off above 20,000 real servers before Linux 6.2 and on again below; later kernels: lower priority',
  async () => {
    writeFileSync(SWITCH, '1');
    for (const object of scaleCluster(SCALE)) rig.set(object);
    await rig.start(config('rr', 'auto'));
    if (hasThreads()) {
      await waitUntil('the priority', () => readFileSync(NICE, 'latin1').trim() === '19');
      assert.equal(estimating(), '1');
    } else {
      await waitUntil('estimation off', () => estimating() === '0');
      for (let i = 0; i < SCALE.services; i++) {
        const { namespace, name } = scaleService(i).metadata;
        rig.api.delete('services', `${namespace}/${name}`);
        for (const { metadata } of scaleSlices(i, SCALE))
          rig.api.delete('endpointslices', `${metadata.namespace}/${metadata.name}`);
      }
      await waitUntil('estimation on', () => estimating() === '1', 120_000);
    }
    const scrape = await rig.scrape();
    assert.ok(scrape.sum('kubeproxy_ipvs_conntrack_limit') > 0);
    assert.match(scrape.text, /^kubeproxy_ipvs_conntrack_entries \d+$/m);
    assert.match(scrape.text, /^kubeproxy_ipvs_connection_buckets \d+$/m);
  },
);

step('the metric of connections follows the table', async () => {
  const held = new Map<string, Connection[]>();
  await openMore(held, 5);
  await waitUntil('five connections', async () => (await rig.scrape()).sum('kubeproxy_ipvs_connections') >= 5);
  for (const connection of [...held.values()].flat()) await connection.close();
});
