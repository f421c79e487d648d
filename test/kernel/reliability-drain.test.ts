// test-kernel: timeout=900 seconds=34 waits
/**
 * Removed endpoints: live connections go on, no new ones come, and the real server goes when they have, across restarts
 * too.
 */
import assert from 'node:assert/strict';
import { after, before } from 'node:test';
import { type Connection, type Target } from './harness/agent.js';
import { ipvsRules, run, shell } from './harness/kernel-state.js';
import { Lab, ONE, TWO } from './harness/lab.js';
import { waitUntil } from './harness/wait.js';
import { type ServiceSpec, endpointSlice, node, serviceWithEndpoints } from './reliability-objects.js';
import { Rig } from './reliability-rig.js';
import { steps } from './reliability-steps.js';
import { boundAddresses, realServers, weights } from './reliability-state.js';

const WEB: ServiceSpec = { name: 'web', address: '10.96.1.1', port: 80 };
const STICKY: ServiceSpec = { name: 'sticky', address: '10.96.1.2', port: 80, affinitySeconds: 600 };
const DNS: ServiceSpec = { name: 'dns', address: '10.96.1.3', port: 53, protocol: 'UDP' };
const SIGNAL: ServiceSpec = { name: 'signal', address: '10.96.1.4', port: 3868, protocol: 'SCTP' };
const BRIEF: ServiceSpec = { name: 'brief', address: '10.96.1.5', port: 80 };
const SERVICES = [WEB, STICKY, DNS, SIGNAL, BRIEF];
/** In excludeCIDRs, on an address that a Service had: its weight 0 must stay whatever drains. */
const FOREIGN = ['-A -t 10.97.0.1:80 -s rr', `-a -t 10.97.0.1:80 -r ${ONE}:8080 -m -w 0`];

const step = steps();
const counts = { asked: 0, requests: 0, failed: 0, cut: 0 };
let lab: Lab;
let rig: Rig;
let config: string;

before(async () => {
  lab = await Lab.withTwoBackends(['TCP', 'UDP', 'SCTP']);
  await shell(
    `modprobe ip_vs; ip link add kube-ipvs0 type dummy; ip addr add 10.97.0.1/32 dev kube-ipvs0; ipvsadm -R <<'END'\n${FOREIGN.join('\n')}\nEND`,
  );
  rig = await Rig.create([node(), ...SERVICES.flatMap((spec) => serviceWithEndpoints(spec, [ONE, TWO]))]);
  config = rig.config({}, { excludeCIDRs: ['10.97.0.0/16'], syncPeriod: '2s' });
});

after(async () => {
  console.log(
    `drain: ${counts.requests} new requests while draining, ${counts.failed} failed; ` +
      `${counts.asked} questions on live connections, ${counts.cut} cut`,
  );
  await rig.close();
  lab.close();
});

function target(spec: ServiceSpec): Target {
  return { protocol: spec.protocol ?? 'TCP', address: spec.address, port: spec.port };
}

function server(spec: ServiceSpec): string {
  return `${spec.protocol ?? 'TCP'} ${spec.address}:${spec.port}`;
}

function setEndpoints(spec: ServiceSpec, ...endpoints: string[]): void {
  rig.set(endpointSlice(spec, endpoints));
}

async function waitForWeights(spec: ServiceSpec, wanted: Record<string, number>): Promise<void> {
  const text = String(Object.entries(wanted).map(([address, weight]) => `${address}:8080=${weight}`));
  await waitUntil(
    `${server(spec)} ${text}`,
    () => String(weights(server(spec))) === text,
    60_000,
    () => `${JSON.stringify([...realServers(server(spec))])}\n${rig.daemon.tail(5)}`,
  );
}

/** A connection to the backend of this name; others that come up on the way are closed. */
async function connectionTo(name: string, spec: ServiceSpec): Promise<Connection> {
  for (let i = 0; i < 4; i++) {
    const connection = await lab.agent.open('client', { ...target(spec), reset: true });
    if (connection.outcome.result === 'answered' && connection.outcome.by === name) return connection;
    await connection.close();
  }
  throw new Error(`no connection to ${name} in four attempts`);
}

async function assertAlive(connection: Connection, name: string): Promise<void> {
  const outcome = await connection.ask(30_000);
  counts.asked++;
  if (outcome.result !== 'answered') counts.cut++;
  assert.deepEqual([outcome.result, outcome.result === 'answered' && outcome.by], ['answered', name]);
}

/** New requests: none fails, and only these backends answer. */
async function assertNewOnlyTo(spec: ServiceSpec, ...names: string[]): Promise<void> {
  const result = await lab.agent.many('client', 20, target(spec));
  counts.requests += 20;
  counts.failed += 20 - result.answered;
  assert.deepEqual([result.failed, Object.keys(result.by).sort()], [{}, names], server(spec));
}

step('TCP: weight 0, the live connection goes on, new ones go elsewhere; re-added: weight 1, nothing cut', async () => {
  await rig.start(config);
  await waitForWeights(WEB, { [ONE]: 1, [TWO]: 1 });
  const connection = await connectionTo('one', WEB);
  setEndpoints(WEB, TWO);
  await waitForWeights(WEB, { [ONE]: 0, [TWO]: 1 });
  await assertNewOnlyTo(WEB, 'two');
  await assertAlive(connection, 'one');
  assert.equal((await rig.scrape()).sum('kubeproxy_ipvs_draining_real_servers'), 1);
  setEndpoints(WEB, ONE, TWO);
  await waitForWeights(WEB, { [ONE]: 1, [TWO]: 1 });
  await assertAlive(connection, 'one');
  await assertNewOnlyTo(WEB, 'one', 'two');
  await connection.close();
});

step('session affinity does not feed a draining endpoint', async () => {
  const first = await lab.agent.open('client', { ...target(STICKY), reset: true });
  assert.equal(first.outcome.result, 'answered');
  const name = first.outcome.result === 'answered' ? first.outcome.by : '';
  await assertNewOnlyTo(STICKY, name);
  const [gone, left] = name === 'one' ? [ONE, TWO] : [TWO, ONE];
  setEndpoints(STICKY, left);
  await waitUntil('weight 0', () => realServers(server(STICKY)).get(`${gone}:8080`)?.weight === 0);
  await assertNewOnlyTo(STICKY, name === 'one' ? 'two' : 'one');
  await assertAlive(first, name);
  await first.close();
});

step('SCTP: deleted at once, as with kube-proxy; new associations go elsewhere', async () => {
  const connection = await connectionTo('two', SIGNAL);
  setEndpoints(SIGNAL, ONE);
  await waitForWeights(SIGNAL, { [ONE]: 1 });
  await assertNewOnlyTo(SIGNAL, 'one');
  await connection.close();
});

step(
  'kill -9 while draining: the drain goes on after the restart; what is desired again gets its weight back',
  async () => {
    const web = await connectionTo('one', WEB);
    setEndpoints(WEB, TWO);
    await waitForWeights(WEB, { [ONE]: 0, [TWO]: 1 });
    await rig.stop('SIGKILL');
    await rig.start(config);
    await waitForWeights(WEB, { [ONE]: 0, [TWO]: 1 });
    assert.ok((await rig.scrape()).sum('kubeproxy_ipvs_draining_real_servers') >= 1);
    await assertAlive(web, 'one');
    await assertNewOnlyTo(WEB, 'two');
    await rig.stop('SIGKILL');
    setEndpoints(WEB, ONE, TWO);
    await rig.start(config);
    await waitForWeights(WEB, { [ONE]: 1, [TWO]: 1 });
    await assertAlive(web, 'one');
    await web.close();
  },
);

step('the real server is deleted when its last connection is gone', async () => {
  const connection = await connectionTo('one', BRIEF);
  setEndpoints(BRIEF, TWO);
  await waitForWeights(BRIEF, { [ONE]: 0, [TWO]: 1 });
  await assertAlive(connection, 'one');
  await connection.close(); // a reset: IPVS forgets the connection after 10 s, and after a FIN it would be 120 s
  await waitForWeights(BRIEF, { [TWO]: 1 });
  assert.ok((await rig.scrape()).sum('kubeproxy_ipvs_drains_finished_total') >= 1);
});

step('UDP: deleted at once with its conntrack entries; a client with a fixed source port follows', async () => {
  setEndpoints(DNS, ONE);
  await waitForWeights(DNS, { [ONE]: 1 });
  const socket = await lab.agent.open('client', { ...target(DNS), sourcePort: 5005 });
  await assertAlive(socket, 'one');
  const before = await run('conntrack', '-L', '-p', 'udp', '--orig-dst', DNS.address);
  assert.match(before, new RegExp(`sport=5005 .*src=${ONE}`));
  setEndpoints(DNS, TWO);
  await waitForWeights(DNS, { [TWO]: 1 });
  await waitUntil('the conntrack entry gone', async () => {
    const entries = await run('conntrack', '-L', '-p', 'udp', '--orig-dst', DNS.address);
    return !entries.includes(`src=${ONE}`);
  });
  await assertAlive(socket, 'two');
  await socket.close();
});

step('past the deadline the real server goes, whatever is connected', async () => {
  await rig.stop();
  await rig.start(config, '--drain-timeout', '3s');
  setEndpoints(WEB, ONE, TWO);
  await waitForWeights(WEB, { [ONE]: 1, [TWO]: 1 });
  const connection = await connectionTo('two', WEB);
  setEndpoints(WEB, ONE);
  await waitForWeights(WEB, { [ONE]: 1, [TWO]: 0 });
  await assertAlive(connection, 'two');
  await waitForWeights(WEB, { [ONE]: 1 });
  assert.ok((await rig.scrape()).sum('kubeproxy_ipvs_drains_finished_total', { reason: 'deadline' }) >= 1);
  await assertNewOnlyTo(WEB, 'one');
  await connection.close();
});

step(
  "somebody else's virtual server in excludeCIDRs, with weight 0, outlives it all; the address of a Service that is gone does not",
  async () => {
    const foreign = async (): Promise<string[]> => (await ipvsRules()).filter((line) => line.includes('10.97.0.1'));
    assert.deepEqual(await foreign(), FOREIGN);
    assert.ok(!boundAddresses().includes('10.97.0.1'));
    await rig.stop();
    for (let round = 0; round < 2; round++) {
      const { code, output } = await rig.command('cleanup', '--config', config);
      assert.equal(code, 0, output);
      assert.deepEqual(await ipvsRules(), FOREIGN);
      assert.deepEqual(boundAddresses(), []);
    }
  },
);
