// test-kernel: timeout=300 seconds=29 waits
/**
 * The last backend, and the last one on this node, drain like any other: whoever is connected stays connected,
 * whoever comes anew is refused (or, by policy Local, dropped) at once. Every kind of address, both families, from
 * pods, this node, another one and outside.
 */
import assert from 'node:assert/strict';
import { after, before } from 'node:test';
import { type Connection, type Outcome } from './harness/agent.js';
import { run, shell } from './harness/kernel-state.js';
import { type Lab } from './harness/lab.js';
import { patience, waitUntil } from './harness/wait.js';
import { steps } from './reliability-steps.js';
import { realServers } from './reliability-state.js';
import { createTrafficLab } from './traffic-lab.js';
import { Proxy } from './traffic-proxy.js';
import { type Place } from './traffic-table.js';
import { namespaceOf } from './traffic-walk.js';
import { nodeObject, serviceObjects } from './traffic-objects.js';
import {
  clusterIP,
  externalIP,
  loadBalancerIP,
  NODE4,
  NODE6,
  nodePort,
  PODS,
  podAddress,
  type ServiceSpec,
} from './traffic-world.js';

type Kind = 'clusterIP' | 'externalIP' | 'loadBalancer' | 'nodePort';
const KINDS: readonly Kind[] = ['clusterIP', 'externalIP', 'loadBalancer', 'nodePort'];
const FAMILIES = [4, 6] as const;
type Family = (typeof FAMILIES)[number];

function exposed(number: number, name: string, fields: Partial<ServiceSpec>): ServiceSpec {
  return {
    ...{ number, name, endpoints: ['near'], type: 'LoadBalancer', protocols: ['TCP', 'UDP'] },
    loadBalancerIPs: [loadBalancerIP(number, 4), loadBalancerIP(number, 6)],
    externalIPs: [externalIP(number, 4), externalIP(number, 6)],
    ...fields,
  };
}

const SOLO = exposed(101, 'solo', {});
const STICKY = exposed(102, 'sticky', { affinitySeconds: 600 });
const LOCAL = exposed(103, 'last-local', { endpoints: ['near', 'far'], externalLocal: true, internalLocal: true });
const RANGES = exposed(104, 'ranges', { sourceRanges: ['10.128.0.0/24', 'fd00:10:128::/64'] });
const CONFIG = { clusterCIDR: '10.128.0.0/16,fd00:10:128::/40', ipvs: { syncPeriod: '2s' } };
/** A refusal that comes later than this came from a second attempt: a SYN is sent again after 1 s. */
const AT_ONCE = 800;

const step = steps();
const counts = { asked: 0, cut: 0, tried: 0 };
let lab: Lab;
let proxy: Proxy;

before(async () => {
  lab = await createTrafficLab(PODS.filter((pod) => pod.link !== 'bridge'));
  proxy = await Proxy.create([nodeObject(), ...[SOLO, STICKY, LOCAL, RANGES].flatMap(serviceObjects)]);
  await proxy.start(CONFIG);
});

after(async () => {
  console.log(
    `last backend: ${counts.asked} questions on live connections, ${counts.cut} cut; ${counts.tried} new ones`,
  );
  await proxy.close();
  lab.close();
});

function addressOf(spec: ServiceSpec, kind: Kind, family: Family): { address: string; port: number } {
  const { number } = spec;
  if (kind === 'nodePort') return { address: family === 4 ? NODE4 : NODE6, port: nodePort(number) };
  const of = { clusterIP, externalIP, loadBalancer: loadBalancerIP }[kind];
  return { address: of(number, family), port: 80 };
}

interface Live {
  readonly where: string;
  readonly connection: Connection;
}

/**
 * One connection to `near` from every place at every kind of address in both families; others that come up are
 * closed.
 */
async function connectTo(spec: ServiceSpec, kinds: readonly Kind[], places: readonly Place[]): Promise<Live[]> {
  const live: Live[] = [];
  for (const kind of kinds)
    for (const family of FAMILIES)
      for (const place of places) {
        const where = `${spec.name} ${kind} IPv${family} from ${place}`;
        live.push({ where, connection: await connectOnce(where, spec, kind, family, place) });
      }
  return live;
}

async function connectOnce(
  where: string,
  spec: ServiceSpec,
  kind: Kind,
  family: Family,
  place: Place,
): Promise<Connection> {
  const target = { protocol: 'TCP', ...addressOf(spec, kind, family), reset: true, timeout: patience(3000) } as const;
  let last: Outcome | undefined;
  for (let i = 0; i < 4; i++) {
    const connection = await lab.agent.open(namespaceOf(place), target);
    last = connection.outcome;
    if (last.result === 'answered' && last.by === 'near') return connection;
    await connection.close();
  }
  throw new Error(`${where}: no connection to near; last: ${JSON.stringify(last)}`);
}

/** Asks twice with time in between, so that what a verification might undo is seen, too. */
async function assertAlive(live: readonly Live[]): Promise<void> {
  const cut: string[] = [];
  for (let round = 0; round < 2; round++) {
    for (const { where, connection } of live) {
      const outcome = await connection.ask(3000);
      counts.asked++;
      if (outcome.result !== 'answered' || outcome.by !== 'near') cut.push(`${where}: ${JSON.stringify(outcome)}`);
    }
    if (round === 0) await anotherVerification();
  }
  counts.cut += cut.length;
  assert.deepEqual(cut, []);
}

async function anotherVerification(): Promise<void> {
  const count = async (): Promise<string | undefined> => {
    const text = await (await fetch('http://127.0.0.1:10249/metrics')).text();
    return /^kubeproxy_ipvs_verification_duration_seconds_count (\d+)$/m.exec(text)?.[1];
  };
  const before = await count();
  assert.notEqual(before, undefined);
  await waitUntil('a verification', async () => (await count()) !== before);
}

async function closeAll(live: readonly Live[]): Promise<void> {
  for (const { connection } of live) await connection.close();
}

async function setEndpoints(spec: ServiceSpec, ...endpoints: string[]): Promise<void> {
  proxy.set(...serviceObjects({ ...spec, endpoints }));
  const near = PODS.find(({ name }) => name === 'near')!.addresses;
  for (const [i, address] of [clusterIP(spec.number, 4), clusterIP(spec.number, 6)].entries()) {
    const host = i === 0 ? address : `[${longForm(address)}]`;
    const real = i === 0 ? near[0]! : `[${longForm(near[1]!)}]`;
    const isWanted = endpoints.includes('near');
    await waitUntil(
      `${spec.name} at ${endpoints.join()}`,
      () => (realServers(`TCP ${host}:80`).get(`${real}:8080`)?.weight === 1) === isWanted,
    );
  }
}

/** As /proc/net/ip_vs prints IPv6. */
function longForm(address: string): string {
  const [head = '', tail = ''] = address.split('::');
  const [left, right] = [head.split(':'), tail.split(':')];
  const groups = [...left, ...Array<string>(8 - left.length - right.length).fill('0'), ...right];
  return groups.map((group) => group.padStart(4, '0')).join(':');
}

async function assertNew(
  what: 'refused' | 'timeout',
  spec: ServiceSpec,
  kinds: readonly Kind[],
  places: readonly Place[],
): Promise<void> {
  const wrong: string[] = [];
  for (const kind of kinds)
    for (const family of FAMILIES)
      for (const place of places) {
        const target = {
          protocol: 'TCP',
          ...addressOf(spec, kind, family),
          timeout: what === 'timeout' ? 400 : patience(3000),
        };
        const outcome = await lab.agent.request(namespaceOf(place), target as never);
        counts.tried++;
        const isLate = what === 'refused' && outcome.ms > AT_ONCE;
        if (outcome.result !== what || isLate) wrong.push(`${kind} IPv${family} ${place}: ${JSON.stringify(outcome)}`);
      }
  assert.deepEqual(wrong, [], `${spec.name}: new connections must be ${what}`);
}

const EVERYBODY: readonly Place[] = ['client', 'node', 'other', 'farclient', 'outside'];

step('the last backend drains: connections from everywhere go on, new ones are refused at once', async () => {
  const live = await connectTo(SOLO, KINDS, EVERYBODY);
  await setEndpoints(SOLO);
  await assertAlive(live);
  await assertNew('refused', SOLO, KINDS, EVERYBODY);
  await assertAlive(live);
  await setEndpoints(SOLO, 'near');
  await assertAlive(live);
  await closeAll(live);
});

step('the last backend of a sticky Service drains, and affinity does not feed it', async () => {
  const live = await connectTo(STICKY, KINDS, ['client', 'node', 'outside']);
  await setEndpoints(STICKY);
  await assertAlive(live);
  await assertNew('refused', STICKY, KINDS, ['client', 'node', 'outside']);
  await assertAlive(live);
  await closeAll(live);
});

step(
  'the last local backend drains under both policies Local: new ones are dropped, refused or go elsewhere',
  async () => {
    const outside: readonly Place[] = ['outside', 'other'];
    const external: readonly Kind[] = ['externalIP', 'loadBalancer', 'nodePort'];
    const live = [
      ...(await connectTo(LOCAL, external, [...outside, 'client'])),
      ...(await connectTo(LOCAL, ['clusterIP'], ['client', 'node'])),
    ];
    await setEndpoints(LOCAL, 'far');
    await assertAlive(live);
    await assertNew('timeout', LOCAL, external, ['outside']);
    await assertNew('refused', LOCAL, ['clusterIP'], ['client', 'node', 'outside']);
    for (const kind of external) {
      const target = { protocol: 'TCP', ...addressOf(LOCAL, kind, 4) } as const;
      assert.deepEqual((await lab.agent.many('client', 4, target)).by, { far: 4 }, kind);
    }
    await assertAlive(live);
    await closeAll(live);
    await setEndpoints(LOCAL, 'near', 'far');
  },
);

step('source ranges: who was let in stays connected while the last backend drains; who was not stays out', async () => {
  const live = await connectTo(RANGES, ['loadBalancer'], ['client']);
  await assertNew('timeout', RANGES, ['loadBalancer'], ['outside']);
  await setEndpoints(RANGES);
  await assertAlive(live);
  await assertNew('refused', RANGES, ['loadBalancer'], ['client']);
  await assertNew('timeout', RANGES, ['loadBalancer'], ['outside']);
  await closeAll(live);
});

step('a SYN from the port of a connection that conntrack still believes in is refused at once', async () => {
  await shell('ip netns exec client $IPTABLES -A OUTPUT -p tcp --tcp-flags RST RST -j DROP');
  await shell('ip netns exec client $IPTABLES -A OUTPUT -p tcp --tcp-flags FIN FIN -j DROP');
  const target = {
    protocol: 'TCP',
    address: clusterIP(101, 4),
    port: 80,
    sourcePort: 40404,
    timeout: patience(3000),
  } as const;
  const connection = await lab.agent.open('client', { ...target, reset: true });
  assert.equal(connection.outcome.result, 'answered');
  await setEndpoints(SOLO);
  await connection.close(); // the reset never leaves the pod: a client that lost its power
  const entries = await run('conntrack', '-L', '-p', 'tcp', '--orig-dst', target.address);
  assert.match(entries, /ESTABLISHED .*sport=40404/);
  const outcome = await lab.agent.request('client', target);
  assert.equal(outcome.result, 'refused', JSON.stringify(outcome));
  assert.ok(outcome.ms < AT_ONCE, JSON.stringify(outcome));
  await shell('ip netns exec client $IPTABLES -F OUTPUT');
  await setEndpoints(SOLO, 'near');
});

step('a draining connection outlives its conntrack entry', async () => {
  const live = await connectTo(SOLO, ['clusterIP'], ['client']);
  await setEndpoints(SOLO);
  const flows = [clusterIP(101, 4), clusterIP(101, 6)].map((address, i) =>
    run('conntrack', '-D', '-f', i === 0 ? 'ipv4' : 'ipv6', '-p', 'tcp', '--orig-dst', address),
  );
  for (const flow of flows) assert.match(await flow, /sport=/);
  await assertAlive(live);
  await closeAll(live);
  await setEndpoints(SOLO, 'near');
});

step('UDP: the last backend goes at once, and who used it is refused at its next datagram', async () => {
  for (const place of ['client', 'node', 'outside'] as const) {
    await setEndpoints(SOLO, 'near');
    const target = { protocol: 'UDP', ...addressOf(SOLO, 'loadBalancer', 4), sourcePort: 5005 } as const;
    const socket = await lab.agent.open(namespaceOf(place), target);
    assert.equal(socket.outcome.result, 'answered', place);
    proxy.set(...serviceObjects({ ...SOLO, endpoints: [] }));
    await waitUntil(
      `UDP from ${place} refused`,
      async () => {
        const { result, ...rest } = await socket.ask(300);
        const isOwn = place === 'node' && 'errno' in rest && rest.errno === 'EPERM';
        return result === 'refused' || isOwn;
      },
      30_000,
    );
    await socket.close();
  }
  assert.equal(realServers(`UDP ${clusterIP(101, 4)}:80`).get(`${podAddress('near', 4)}:8080`), undefined);
});
