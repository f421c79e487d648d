// test-kernel: timeout=600 seconds=75 waits
/**
 * Flows that outlive a change, as test/e2e/network/{conntrack,service,loadbalancer}.go of Kubernetes have them: UDP
 * clients that keep their source port while backends come, go and move, and session affinity that sticks, is switched
 * and times out, by every kind of address.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { type Target } from './harness/agent.js';
import { patience, waitUntil } from './harness/wait.js';
import { LiveRig } from './live-rig.js';
import { namespaceOf, placeAddress } from './traffic-walk.js';
import {
  clusterIP,
  type EndpointSpec,
  loadBalancerIP,
  NODE4,
  NODE6,
  nodePort,
  type ServiceSpec,
} from './traffic-world.js';

type Kind = 'clusterIP' | 'nodePort' | 'loadBalancer';
type Endpoints = readonly (string | EndpointSpec)[];

interface Flow {
  readonly name: string;
  readonly from: 'client' | 'node' | 'outside';
  readonly to: Kind;
  readonly fields?: Partial<ServiceSpec>;
  /** Endpoints one after the other, each with who must answer the flow then; undefined: nobody does. */
  readonly stages: readonly (readonly [endpoints: Endpoints, by: string | undefined, fields?: Partial<ServiceSpec>])[];
}

const UDP = { name: 'dns', protocol: 'UDP', port: 80 } as const;
const MOVED = { ports: [{ ...UDP, target: 8081 }] };
const unready: Endpoints = [{ pod: 'near', ready: false, serving: false }];
const cycle = (first: string, second: string): Flow['stages'] => [
  [[first], first],
  [[second], second],
];
const becomesReady: Flow['stages'] = [
  [unready, undefined],
  [['near'], 'near'],
];

const FLOWS: readonly Flow[] = [
  {
    name: 'ClusterIP, backend replaced on the same node',
    from: 'client',
    to: 'clusterIP',
    stages: cycle('near', 'near2'),
  },
  { name: 'ClusterIP, endpoint not ready yet', from: 'client', to: 'clusterIP', stages: becomesReady },
  {
    name: 'ClusterIP, no endpoint yet',
    from: 'client',
    to: 'clusterIP',
    stages: [
      [[], undefined],
      [['far'], 'far'],
    ],
  },
  { name: 'ClusterIP, the client is the node', from: 'node', to: 'clusterIP', stages: cycle('near', 'far') },
  { name: 'ClusterIP, the client is the node, not ready yet', from: 'node', to: 'clusterIP', stages: becomesReady },
  {
    name: 'ClusterIP, internal policy Local',
    from: 'client',
    to: 'clusterIP',
    fields: { internalLocal: true },
    stages: [
      [['near', 'far'], 'near'],
      [['near2', 'far'], 'near2'],
      [['far'], undefined],
      [['near', 'far'], 'near'],
    ],
  },
  {
    name: 'ClusterIP, scaled to nothing and back',
    from: 'client',
    to: 'clusterIP',
    stages: [
      [['near'], 'near'],
      [[], undefined],
      [['near'], 'near'],
    ],
  },
  {
    name: 'ClusterIP, target port changed',
    from: 'client',
    to: 'clusterIP',
    stages: [
      [['near'], 'near'],
      [['near'], 'near81', MOVED],
    ],
  },
  { name: 'NodePort, same node', from: 'outside', to: 'nodePort', stages: cycle('near', 'near2') },
  { name: 'NodePort, other node', from: 'client', to: 'nodePort', stages: cycle('near', 'far') },
  { name: 'NodePort, the client is the node', from: 'node', to: 'nodePort', stages: cycle('far', 'near') },
  { name: 'NodePort, endpoint not ready yet', from: 'outside', to: 'nodePort', stages: becomesReady },
  {
    name: 'NodePort, target port changed',
    from: 'outside',
    to: 'nodePort',
    stages: [
      [['near'], 'near'],
      [['near'], 'near81', MOVED],
    ],
  },
  {
    name: 'NodePort, external policy Local',
    from: 'outside',
    to: 'nodePort',
    fields: { externalLocal: true },
    stages: cycle('near', 'near2'),
  },
  {
    name: 'NodePort, external policy Local, no endpoint here yet',
    from: 'outside',
    to: 'nodePort',
    fields: { externalLocal: true },
    stages: [
      [['far'], undefined],
      [['far', 'near'], 'near'],
    ],
  },
  { name: 'load balancer IP, same node', from: 'outside', to: 'loadBalancer', stages: cycle('near', 'near2') },
  { name: 'load balancer IP, other node', from: 'outside', to: 'loadBalancer', stages: cycle('near', 'far') },
  { name: 'load balancer IP, the client is a pod', from: 'client', to: 'loadBalancer', stages: cycle('far', 'near') },
  {
    name: 'load balancer IP, external policy Local',
    from: 'outside',
    to: 'loadBalancer',
    fields: { externalLocal: true },
    stages: cycle('near', 'near2'),
  },
];

const flowService = (flow: Flow, index: number): ServiceSpec => ({
  number: 60 + index,
  name: `flow-${index}`,
  type: 'LoadBalancer',
  loadBalancerIPs: [loadBalancerIP(60 + index, 4), loadBalancerIP(60 + index, 6)],
  ports: [UDP],
  ...flow.fields,
  endpoints: flow.stages[0]![0],
});

const exposed = (number: number, name: string): ServiceSpec => ({
  number,
  name,
  endpoints: ['near', 'far'],
  type: 'LoadBalancer',
  loadBalancerIPs: [loadBalancerIP(number, 4), loadBalancerIP(number, 6)],
  protocols: ['TCP', 'UDP'],
});
const SWITCHED = exposed(90, 'switched');
const SWITCHED_LOCAL: ServiceSpec = {
  ...exposed(91, 'switched-local'),
  endpoints: ['near', 'near2', 'far'],
  externalLocal: true,
};
/** In seconds; UDP connections of IPVS last for one second here (see `before`), TCP's after a reset for ten. */
const AFFINITY = 3;
const TIMED: ServiceSpec = { ...exposed(92, 'timed'), affinitySeconds: AFFINITY };
const TIMED_TCP: ServiceSpec = { ...exposed(93, 'timed-tcp'), affinitySeconds: AFFINITY };
const TIMED_BY_TCP = [
  ['client', 'clusterIP', 4],
  ['client', 'clusterIP', 6],
  ['outside', 'nodePort', 4],
  ['outside', 'loadBalancer', 6],
] as const;
const ROLLED = exposed(94, 'rolled');
const ROLLED_LOCAL: ServiceSpec = { ...exposed(95, 'rolled-local'), externalLocal: true };

let rig: LiveRig;
const tcpAtFirst: string[] = [];

before(async () => {
  rig = await LiveRig.create(
    [...FLOWS.map(flowService), SWITCHED, SWITCHED_LOCAL, TIMED, TIMED_TCP, ROLLED, ROLLED_LOCAL],
    {
      ipvs: { udpTimeout: '1s' },
    },
  );
  // First of all, since it takes a minute: see the last test.
  for (const [from, kind, family] of TIMED_BY_TCP)
    tcpAtFirst.push(await sticksTo(target(TIMED_TCP, kind, 'TCP', family), from));
});

after(async () => {
  console.log(`live flows: ${rig.cases} cases of the table beside the flows`);
  await rig.close();
});

function target(spec: ServiceSpec, kind: Kind, protocol: 'TCP' | 'UDP', family: 4 | 6): Target {
  const address =
    kind === 'clusterIP'
      ? clusterIP(spec.number, family)
      : kind === 'loadBalancer'
        ? loadBalancerIP(spec.number, family)
        : family === 4
          ? NODE4
          : NODE6;
  return {
    protocol,
    address,
    port: kind === 'nodePort' ? nodePort(spec.number) : 80,
    reset: true,
    timeout: patience(5000),
  };
}

for (const [index, flow] of FLOWS.entries()) {
  test(`UDP from one source port: ${flow.name}`, async () => {
    let spec = flowService(flow, index);
    for (const [stage, [endpoints, by, fields]] of flow.stages.entries()) {
      spec = { ...spec, endpoints, ...fields };
      if (stage > 0) await rig.apply(spec);
      for (const family of [4, 6] as const) {
        // As a client that never gives up: the same source port all along, through refusals and silence.
        const ask = { ...target(spec, flow.to, 'UDP', family), sourcePort: 45_000 + index, timeout: patience(200) };
        let got = '';
        await waitUntil(
          `IPv${family}: ${by ?? 'no answer'}`,
          async () => {
            const outcome = await rig.lab.agent.request(namespaceOf(flow.from), ask);
            got = outcome.result === 'answered' ? outcome.by : outcome.result;
            return by === undefined ? outcome.result !== 'answered' : got === by;
          },
          30_000,
          () => got,
        );
        // It stays so.
        const more = await rig.lab.agent.many(namespaceOf(flow.from), 3, {
          ...ask,
          timeout: by === undefined ? patience(50) : patience(5000),
        });
        assert.deepEqual(more.by, by === undefined ? {} : { [by]: 3 });
      }
    }
  });
}

test('affinity is switched on and off on a live Service, by each kind of address', async () => {
  const everywhere = 'clusterIP,nodePort,loadBalancer TCP,UDP';
  const external = 'nodePort,loadBalancer TCP,UDP';
  for (const affinitySeconds of [undefined, 600, undefined, 600] as const) {
    const [spec, local] = [SWITCHED, SWITCHED_LOCAL].map((one) =>
      affinitySeconds === undefined ? one : { ...one, affinitySeconds },
    ) as [ServiceSpec, ServiceSpec];
    await rig.apply(spec, local);
    if (affinitySeconds === undefined) {
      await rig.meets(
        spec,
        [everywhere, 'outside node: near far as node'],
        ['clusterIP TCP,UDP', 'client: near far as self'],
      );
      await rig.meets(local, [external, 'outside client: near near2 as self']);
    } else {
      await rig.meets(spec, [everywhere, 'outside client node: one of near far']);
      await rig.meets(local, [external, 'outside client: one of near near2']);
    }
  }
});

/** The backend that answers four requests, all of them. */
async function sticksTo(to: Target, from: 'client' | 'outside' | 'node'): Promise<string> {
  const counts = await rig.lab.agent.many(namespaceOf(from), 4, to);
  assert.deepEqual([counts.failed, Object.keys(counts.by).length], [{}, 1], JSON.stringify(counts));
  return Object.keys(counts.by)[0]!;
}

/** The kernel remembers where this client belongs: a connection entry without the client's port. */
function isRemembered({ protocol, address, port }: Target, client: string): boolean {
  const lines = readFileSync('/proc/net/ip_vs_conn', 'latin1').split('\n');
  return lines.some((line) => {
    const [proto, from, fromPort, to, toPort] = line.trim().split(/ +/);
    const isTemplate = proto === protocol && fromPort === '0000' && parseInt(toPort!, 16) === port;
    return isTemplate && isAddress(from!, client) && isAddress(to!, address);
  });
}

/** `0A800001` or an IPv6 address in whatever notation. */
function isAddress(text: string, address: string): boolean {
  if (!address.includes(':')) return text === Buffer.from(address.split('.').map(Number)).toString('hex').toUpperCase();
  const url = `http://[${text}]`;
  return URL.canParse(url) && new URL(url).hostname === `[${address}]`;
}

test('affinity times out by UDP, by each kind of address: the next request goes on to the next backend', async () => {
  const kinds = ['clusterIP', 'nodePort', 'loadBalancer'] as const;
  await Promise.all(
    kinds.flatMap((kind) =>
      ([4, 6] as const).map(async (family) => {
        const to = target(TIMED, kind, 'UDP', family);
        const first = await sticksTo(to, 'outside');
        const client = placeAddress('outside', family);
        assert.equal(isRemembered(to, client), true, 'the test does not see what the kernel remembers');
        await waitUntil(`${kind} IPv${family} to be forgotten`, () => !isRemembered(to, client));
        const next = await sticksTo(to, 'outside');
        assert.notEqual(next, first);
      }),
    ),
  );
});

/** Pods of a rolling update: new ones get ready, old ones terminate and still serve, then are gone. */
const goes = (pod: string): EndpointSpec => ({ pod, ready: false, serving: true, terminating: true });
const ROLL: readonly Endpoints[] = [
  ['near', 'far'],
  ['near', 'far', 'near2'],
  [goes('near'), 'far', 'near2'],
  ['far', 'near2'],
  ['near2', 'far2', goes('far')],
  ['near2', 'far2'],
];
/** There is one here all the time, if only one that terminates. */
const ROLL_LOCAL: readonly Endpoints[] = [
  ['near', 'far'],
  [goes('near'), 'far'],
  ['near2', goes('near'), 'far'],
  ['near2', 'far'],
  ['near2', 'near', 'far2'],
  [goes('near2'), 'near'],
];

async function roll(spec: ServiceSpec, stages: readonly Endpoints[]): Promise<void> {
  const { agent } = rig.lab;
  const to = { ...target(spec, 'loadBalancer', 'TCP', 4), timeout: patience(15_000) };
  const load = await agent.load('outside', { ...to, rate: 30, workers: 3, connections: 6 });
  const answered = async (): Promise<number> => (await load.counts()).answered;
  for (const endpoints of [...stages, ...stages]) {
    await rig.apply({ ...spec, endpoints });
    const before = await answered();
    await waitUntil('ten more requests', async () => (await answered()) >= before + 10);
  }
  const counts = await load.stop();
  console.log(`${spec.name}: ${counts.sent} requests by ${JSON.stringify(counts.by)}, ${counts.asked} questions`);
  assert.deepEqual([counts.failed, counts.lost, counts.held], [{}, {}, 6], JSON.stringify(counts.first));
  assert.equal(counts.answered, counts.sent);
  assert.ok(Object.keys(counts.by).length >= 2, JSON.stringify(counts.by));
}

test('rolling update by load balancer IP, external policy Cluster: no request fails, no connection is cut', () =>
  roll(ROLLED, ROLL));

test('rolling update by load balancer IP, external policy Local: no request fails, no connection is cut', () =>
  roll(ROLLED_LOCAL, ROLL_LOCAL));

test('affinity times out by TCP, once its connections have gone: IPVS looks again after a minute', async () => {
  await Promise.all(
    TIMED_BY_TCP.map(async ([from, kind, family], index) => {
      const to = target(TIMED_TCP, kind, 'TCP', family);
      const client = placeAddress(from, family);
      await waitUntil(`${kind} IPv${family} to be forgotten`, () => !isRemembered(to, client), 150_000);
      assert.notEqual(await sticksTo(to, from), tcpAtFirst[index], `${kind} IPv${family}`);
    }),
  );
});
