// test-kernel: timeout=600
/** A configuration file that changes under the running daemon: taken over while connections go on. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { after, before } from 'node:test';
import { type Connection, type Load } from './harness/agent.js';
import { ipvsRules, loadModules, shell } from './harness/kernel-state.js';
import { Lab, ONE, TWO } from './harness/lab.js';
import { OTHER_NODE } from './harness/layout.js';
import { allRules } from './harness/rules-state.js';
import { isNftables } from './harness/rules-under-test.js';
import { patience, waitUntil } from './harness/wait.js';
import { netlinkWrites } from './reliability-netlink.js';
import { type ServiceSpec, node, serviceWithEndpoints } from './reliability-objects.js';
import { Rig } from './reliability-rig.js';
import { steps } from './reliability-steps.js';

const WEB: ServiceSpec = { name: 'web', address: '10.96.1.1', port: 80, nodePort: 30080 };
/** Deleted by and by. */
const OTHERS = Array.from({ length: 30 }, (_, i): ServiceSpec => ({
  name: `other-${i}`,
  address: `10.96.2.${i + 1}`,
  port: 80,
}));
/** Virtual servers: the other Services, and web by its cluster IP and by the NodePort on the node's address. */
const SERVERS = OTHERS.length + 2;
const EXCLUDED = '10.96.2.1';

const step = steps();
let lab: Lab;
let rig: Rig;
let config: string;
let pid: number;
let load: Load;
let connection: Connection;
/** What the file says now. */
let fields: Record<string, unknown> = {};
let ipvs: Record<string, unknown> = { syncPeriod: '60s' };

before(async () => {
  lab = await Lab.withTwoBackends();
  loadModules('ip_vs');
  rig = await Rig.create([
    node(),
    ...serviceWithEndpoints(WEB, [ONE, TWO]),
    ...OTHERS.flatMap((spec) => serviceWithEndpoints(spec, [ONE])),
  ]);
  config = rig.config(fields, ipvs);
  await rig.start(config);
  await rig.waitForRules();
  pid = rig.daemon.pid;
  const vip = { protocol: 'TCP', address: WEB.address, port: 80, timeout: patience(15_000) } as const;
  connection = await lab.agent.open('client', vip);
  load = await lab.agent.load('client', { ...vip, rate: 30, workers: 3, connections: 4, interval: 100 });
});

after(async () => {
  await rig.close();
  lab.close();
});

/** Changes the file, waits until it is taken over and what `isDone` asks, and returns the messages that it took. */
async function change(
  more: { fields?: Record<string, unknown>; ipvs?: Record<string, unknown> },
  isDone: () => boolean | Promise<boolean>,
): Promise<Record<string, number>> {
  fields = { ...fields, ...more.fields };
  ipvs = { ...ipvs, ...more.ipvs };
  const next = rig.config(fields, ipvs);
  const writes = await netlinkWrites(async () => {
    const from = rig.daemon.log.length;
    await shell(`mv ${next} ${config}`);
    await rig.daemon.waitForLog('the takeover', ({ msg }) => msg.includes('was taken over'), 60_000, from);
    await waitUntil('what it is to do', isDone);
  });
  console.log(`${JSON.stringify(more)} wrote ${JSON.stringify(writes)}`);
  const outcome = await connection.ask(30_000);
  assert.equal(outcome.result, 'answered', 'the connection from before');
  const counts = await load.counts();
  assert.deepEqual([counts.failed, counts.lost], [{}, {}], JSON.stringify(counts.first));
  assert.deepEqual([rig.daemon.pid, rig.daemon.exit], [pid, undefined]);
  return writes;
}

const rules = async (text: string): Promise<boolean> => (await allRules(4)).some((line) => line.includes(text));

step('the scheduler: tried out, and one message for each virtual server', async () => {
  const writes = await change({ ipvs: { scheduler: 'lc' } }, async () => {
    const lines = (await ipvsRules()).filter((line) => line.startsWith('-A'));
    return lines.length === SERVERS && lines.every((line) => line.includes('-s lc'));
  });
  assert.deepEqual(writes, { 'ipvs NEW_SERVICE': 1, 'ipvs DEL_SERVICE': 1, 'ipvs SET_SERVICE': SERVERS });
});

step('masqueradeAll: the rules, and no message to IPVS or the sets', async () => {
  const [clusterIP, fromPods] = isNftables()
    ? [
        '-A nat-KUBE-SERVICES ip daddr . meta l4proto . th dport @KUBE-CLUSTER-IP counter jump nat-KUBE-MARK-MASQ',
        '-A nat-KUBE-SERVICES ip saddr 10.128.0.0/9 ip saddr != @KUBE-IPVS-IPS ',
      ]
    : [
        '-A KUBE-SERVICES -m set --match-set KUBE-CLUSTER-IP dst,dst -j KUBE-MARK-MASQ',
        '-A KUBE-SERVICES -s 10.128.0.0/9',
      ];
  assert.ok(await rules(fromPods));
  const writes = await change(
    { fields: { iptables: { masqueradeAll: true } } },
    async () => (await rules(clusterIP)) && !(await rules(fromPods)),
  );
  // The rules themselves go through netlink only where they are in nf_tables.
  const others = Object.keys(writes).filter((kind) => !(isNftables() && /^nftables (NEW|DEL)RULE$/.test(kind)));
  assert.deepEqual(others, []);
  assert.equal((await rig.scrape()).sum('kubeproxy_ipvs_drift_repaired_total'), 0, 'no drift');
});

step('syncPeriod: nothing is written, and what is meddled with is repaired at the new pace', async () => {
  assert.deepEqual(await change({ ipvs: { syncPeriod: '2s' } }, () => true), {});
  await shell(`ipvsadm -D -t ${OTHERS[5]!.address}:80`);
  await waitUntil('the repair', async () => (await rig.scrape()).drift('virtual_server', 'missing') === 1, 20_000);
  await change({ ipvs: { syncPeriod: '60s' } }, () => true);
});

step('nodePortAddresses: the NodePort goes and comes, and nothing else is touched', async () => {
  const nodePort = { protocol: 'TCP', address: '10.200.0.2', port: 30080, timeout: patience(5000) } as const;
  const isServed = async (): Promise<boolean> => (await ipvsRules()).some((line) => line.includes('10.200.0.2:30080'));
  assert.equal((await lab.agent.request(OTHER_NODE, nodePort)).result, 'answered');
  const gone = await change({ fields: { nodePortAddresses: ['10.201.0.0/16'] } }, async () => !(await isServed()));
  assert.equal((await lab.agent.request(OTHER_NODE, nodePort)).result, 'refused');
  const back = await change({ fields: { nodePortAddresses: ['10.200.0.0/16'] } }, isServed);
  assert.equal((await lab.agent.request(OTHER_NODE, nodePort)).result, 'answered');
  assert.equal(gone['ipvs DEL_SERVICE'], 1);
  assert.equal(back['ipvs NEW_SERVICE'], 1);
  for (const writes of [gone, back]) {
    assert.equal(writes['ipvs SET_SERVICE'] ?? 0, 0);
    assert.ok(Object.values(writes).reduce((sum, count) => sum + count, 0) <= 8, JSON.stringify(writes));
  }
});

step('excludeCIDRs: what is in them stays when its Service goes, and goes when they no longer say so', async () => {
  const isServed = async (address: string): Promise<boolean> =>
    (await ipvsRules()).some((line) => line.includes(`${address}:80 `));
  await change({ ipvs: { excludeCIDRs: [`${EXCLUDED}/32`] } }, () => true);
  rig.api.delete('services', 'default/other-0');
  rig.api.delete('services', 'default/other-1');
  await waitUntil('the other one to go', async () => !(await isServed(OTHERS[1]!.address)));
  assert.ok(await isServed(EXCLUDED));
});

step('a scheduler that the kernel lacks is refused, and a change of the metrics address ends the process', async () => {
  const from = rig.daemon.log.length;
  writeFileSync(config, await shell(`cat ${rig.config(fields, { ...ipvs, scheduler: 'twos' })}`));
  const { error } = await rig.daemon.waitForLog('refused', ({ msg }) => msg.includes('is refused'), 60_000, from);
  assert.match(String(error), /no IPVS scheduler "twos"/);
  assert.match((await rig.status()).notes, /twos/);
  const shown = (await (await fetch('http://127.0.0.1:10249/configz')).json()) as Record<string, { ipvs: object }>;
  assert.deepEqual(
    [shown['kubeproxy.config.k8s.io']!.ipvs].map((block) => (block as { scheduler: string }).scheduler),
    ['lc'],
  );
  assert.equal((await connection.ask(30_000)).result, 'answered');
  writeFileSync(config, await shell(`cat ${rig.config({ ...fields, metricsBindAddress: '127.0.0.1:10299' }, ipvs)}`));
  assert.deepEqual(await rig.daemon.exited, { code: 0, signal: null });
});
