// test-kernel: timeout=600
/**
 * One Service through the changes of its life, as test/e2e/network/{service,loadbalancer}.go of Kubernetes have them:
 * type, ports, protocols, node ports, policies, source ranges, health check port, addresses, labels, re-creation. After
 * each change packets meet what the Service says by then; and while its cluster IP is to be served all along, no
 * request to that fails and no connection is cut.
 */
import assert from 'node:assert/strict';
import { after, before } from 'node:test';
import { type Load } from './harness/agent.js';
import { patience } from './harness/wait.js';
import { type Meets, LiveRig } from './live-rig.js';
import { steps } from './reliability-steps.js';
import { nodeObject, serviceObjects } from './traffic-objects.js';
import { clusterIP, externalIP, loadBalancerIP, type ServiceSpec } from './traffic-world.js';

interface Change {
  readonly name: string;
  /** What is other than before. */
  readonly change: Partial<ServiceSpec>;
  /** The node's own, from now on. */
  readonly zone?: string;
  readonly meets: readonly Meets[];
}

const NUMBER = 40;
const TCP = { name: 'http', port: 80 };
const UDP = { name: 'dns', protocol: 'UDP', port: 80 } as const;
const ADMIN = { name: 'admin', port: 81, target: 8081, nodePort: 30140 };
const LB = [loadBalancerIP(NUMBER, 4), loadBalancerIP(NUMBER, 6)];
const OTHER_LB = [loadBalancerIP(NUMBER + 1, 4), loadBalancerIP(NUMBER + 1, 6)];
const EXTERNAL = [externalIP(NUMBER, 4), externalIP(NUMBER, 6)];
const OUTSIDE_ONLY = ['203.0.113.0/24', 'fd00:203::/64'];
const PODS_ONLY = ['10.128.0.0/24', 'fd00:10:128::/64'];
const HINTED = {
  near: { pod: 'near', forNodes: ['node-0'], forZones: ['zone-a'] },
  far: { pod: 'far', forNodes: ['node-1'], forZones: ['zone-b'] },
};
const MEETS_NEAR: Meets = ['clusterIP TCP', 'client: near as self'];
const MEETS_FAR2: Meets = ['clusterIP TCP', 'client: far2 as self'];
const MEETS_FAR: Meets = ['clusterIP TCP', 'client: far as self'];
const INSIDE: Meets = ['clusterIP TCP', 'client: near far as self', 'node: near far as node'];

let rig: LiveRig;
let load: Load;
let walked: ServiceSpec = { number: NUMBER, name: 'walked', endpoints: ['near', 'far'], ports: [TCP] };
const other: ServiceSpec = {
  number: NUMBER + 10,
  name: 'other',
  endpoints: ['near', 'far'],
  protocols: ['TCP', 'UDP'],
};
const step = steps();

before(async () => {
  rig = await LiveRig.create([walked, other]);
});

after(async () => {
  console.log(`live changes: ${rig.cases} cases`);
  await rig.close();
});

async function make({ change, zone, meets }: Change): Promise<void> {
  if (zone !== undefined) rig.proxy.set(nodeObject(zone));
  walked = { ...walked, ...change };
  await rig.apply(walked);
  await rig.meets({ ...walked, externalIPs: EXTERNAL }, ...meets); // to name them also when it has none
}

/** Its cluster IP by TCP is served before, during and after each. */
const SERVED_ALL_ALONG: readonly Change[] = [
  { name: 'ClusterIP', change: {}, meets: [INSIDE, ['nodePort TCP', 'client node outside: refused']] },
  {
    name: 'ClusterIP -> NodePort with TCP and UDP on one port',
    change: { type: 'NodePort', ports: [TCP, UDP] },
    meets: [
      ['nodePort TCP,UDP', 'client node outside: near far as node'],
      ['clusterIP UDP', 'client: near far as self'],
    ],
  },
  {
    name: 'a port is added',
    change: { ports: [TCP, UDP, ADMIN] },
    meets: [
      ['clusterIP TCP :81', 'client: near81 far81 as self'],
      ['nodePort TCP :30140', 'outside: near81 far81 as node'],
      ['nodePort TCP,UDP', 'outside: near far as node'],
    ],
  },
  {
    name: 'the port is removed',
    change: { ports: [TCP, UDP] },
    meets: [
      ['clusterIP TCP :81', 'client node: refused'],
      ['nodePort TCP :30140', 'client node outside: refused'],
      ['nodePort TCP,UDP', 'outside: near far as node'],
    ],
  },
  {
    name: 'a protocol is removed from a port: it stops, the other stays',
    change: { ports: [TCP] },
    meets: [
      INSIDE,
      ['clusterIP,nodePort UDP', 'client outside: refused'],
      ['nodePort TCP', 'outside: near far as node'],
    ],
  },
  {
    name: 'the NodePort is changed',
    change: { ports: [{ ...TCP, nodePort: 30141 }] },
    meets: [
      ['nodePort TCP', 'client node outside: refused'],
      ['nodePort TCP :30141', 'client node outside: near far as node'],
    ],
  },
  {
    name: 'NodePort -> LoadBalancer, with a UDP port again',
    change: { type: 'LoadBalancer', loadBalancerIPs: LB, ports: [TCP, UDP] },
    meets: [
      ['loadBalancer TCP,UDP', 'client node outside: near far as node'],
      ['nodePort TCP,UDP', 'client node outside: near far as node'],
      ['nodePort TCP :30141', 'client outside: refused'],
    ],
  },
  {
    name: 'source ranges are set',
    change: { sourceRanges: OUTSIDE_ONLY },
    meets: [
      ['loadBalancer TCP,UDP', 'outside: near far as node', 'client node: dropped'],
      ['nodePort TCP', 'client: near far as node'],
    ],
  },
  {
    name: 'source ranges are changed',
    change: { sourceRanges: PODS_ONLY },
    meets: [['loadBalancer TCP,UDP', 'client: near far as node', 'outside node: dropped']],
  },
  {
    name: 'source ranges are cleared',
    change: { sourceRanges: [] },
    meets: [['loadBalancer TCP,UDP', 'client node outside: near far as node']],
  },
  {
    name: 'external policy Cluster -> Local: the health check port opens, the source is kept',
    change: { externalLocal: true },
    meets: [
      ['nodePort HTTP', 'outside client: health 200 1'],
      ['nodePort,loadBalancer TCP,UDP', 'outside client: near as self', 'node: near as node'],
      INSIDE,
    ],
  },
  {
    name: 'external policy Local -> Cluster: the health check port closes',
    change: { externalLocal: false },
    meets: [
      ['nodePort HTTP', 'outside client: refused'],
      ['nodePort,loadBalancer TCP,UDP', 'outside client: near far as node'],
    ],
  },
  {
    name: 'external policy Cluster -> Local again, and no endpoint here',
    change: { externalLocal: true, endpoints: ['far'] },
    meets: [
      ['nodePort HTTP', 'outside client: health 503 0'],
      ['nodePort TCP,UDP', 'outside: dropped', 'client: far as self', 'node: far as target'],
      ['loadBalancer TCP,UDP', 'outside: dropped', 'client: far as self', 'node: far as node'],
    ],
  },
  {
    name: 'the only local endpoint is terminating: served, and told to the load balancer',
    change: { endpoints: [{ pod: 'near', ready: false, serving: true, terminating: true }, 'far'] },
    meets: [
      ['nodePort HTTP', 'outside: health 503 0'],
      ['nodePort,loadBalancer TCP,UDP', 'outside: near as self'],
      ['clusterIP TCP', 'client: far as self'],
    ],
  },
  {
    name: 'a local endpoint is back',
    change: { endpoints: ['near', 'far'] },
    meets: [
      ['nodePort HTTP', 'outside: health 200 1'],
      ['nodePort,loadBalancer TCP,UDP', 'outside: near as self'],
      INSIDE,
    ],
  },
  {
    name: 'internal policy Cluster -> Local',
    change: { internalLocal: true },
    meets: [['clusterIP TCP,UDP', 'client: near as self', 'node: near as node']],
  },
  {
    name: 'internal policy Local -> Cluster',
    change: { internalLocal: false },
    meets: [INSIDE, ['clusterIP UDP', 'client: near far as self']],
  },
  {
    name: 'both policies Cluster',
    change: { externalLocal: false },
    meets: [
      ['nodePort,loadBalancer TCP,UDP', 'outside: near far as node'],
      ['nodePort HTTP', 'outside: refused'],
    ],
  },
  {
    name: 'no node ports for the load balancer any more',
    change: { withoutNodePorts: true },
    meets: [
      ['nodePort TCP,UDP', 'client node outside: refused'],
      ['loadBalancer TCP,UDP', 'client node outside: near far as node'],
    ],
  },
  {
    name: 'node ports for the load balancer again',
    change: { withoutNodePorts: false },
    meets: [['nodePort,loadBalancer TCP,UDP', 'client node outside: near far as node']],
  },
  {
    name: 'external IPs are added',
    change: { externalIPs: EXTERNAL },
    meets: [['externalIP TCP,UDP', 'client node outside: near far as node']],
  },
  {
    name: 'the load balancer’s IP is another',
    change: { loadBalancerIPs: OTHER_LB },
    meets: [['loadBalancer,externalIP TCP,UDP', 'client outside: near far as node']],
  },
  {
    name: 'LoadBalancer -> ClusterIP: nothing but the cluster IP is served',
    change: { type: 'ClusterIP' },
    meets: [
      ['loadBalancer TCP,UDP', 'client node outside: unserved'],
      ['nodePort TCP,UDP', 'client node outside: refused'],
      ['externalIP TCP', 'outside: near far as node'],
      INSIDE,
    ],
  },
  {
    name: 'external IPs are removed',
    change: { externalIPs: [] },
    meets: [['externalIP TCP,UDP', 'client node outside: unserved'], INSIDE],
  },
];

step('while its cluster IP is served: traffic begins', async () => {
  load = await rig.lab.agent.load('client', {
    protocol: 'TCP',
    address: clusterIP(NUMBER, 4),
    port: 80,
    timeout: patience(15_000),
    rate: 20,
    workers: 2,
    connections: 4,
    reset: true,
  });
});

for (const change of SERVED_ALL_ALONG) step(change.name, () => make(change));

step('while its cluster IP is served: no request has failed, no connection was cut', async () => {
  const counts = await load.stop();
  console.log(`live changes: ${counts.sent} requests and ${counts.asked} questions on ${counts.held} connections`);
  assert.deepEqual([counts.failed, counts.lost, counts.held], [{}, {}, 4], JSON.stringify(counts.first));
  assert.ok(counts.sent > 50 && counts.answered === counts.sent, JSON.stringify(counts));
});

const SERVED_AND_NOT: readonly Change[] = [
  {
    name: 'the port is changed',
    change: { type: 'NodePort', ports: [{ ...TCP, port: 85 }] },
    meets: [
      ['clusterIP TCP', 'client node: refused'],
      ['clusterIP TCP :85', 'client: near far as self'],
      ['nodePort TCP', 'outside: near far as node'],
    ],
  },
  {
    name: 'the target port is changed',
    change: { ports: [{ ...TCP, target: 8081 }] },
    meets: [
      ['clusterIP TCP', 'client: near81 far81 as self'],
      ['nodePort TCP', 'outside: near81 far81 as node'],
    ],
  },
  {
    name: 'scaled to nothing',
    change: { ports: [TCP, UDP], endpoints: [] },
    meets: [['clusterIP,nodePort TCP,UDP', 'client node outside: refused']],
  },
  {
    name: 'endpoints that are not ready yet',
    change: { endpoints: [{ pod: 'near', ready: false, serving: false }] },
    meets: [['clusterIP,nodePort TCP,UDP', 'client node: refused']],
  },
  {
    name: 'scaled up again',
    change: { endpoints: ['near', 'far'] },
    meets: [INSIDE, ['nodePort TCP,UDP', 'client node outside: near far as node']],
  },
  {
    name: 'NodePort -> ExternalName',
    change: { type: 'ExternalName' },
    meets: [
      ['clusterIP TCP,UDP', 'client node: unserved'],
      ['nodePort TCP,UDP', 'client node outside: refused'],
    ],
  },
  {
    name: 'ExternalName -> ClusterIP',
    change: { type: 'ClusterIP' },
    meets: [INSIDE, ['nodePort TCP', 'client outside: refused']],
  },
  {
    name: 'ClusterIP -> ExternalName',
    change: { type: 'ExternalName' },
    meets: [['clusterIP TCP,UDP', 'client node: unserved']],
  },
  {
    name: 'ExternalName -> NodePort',
    change: { type: 'NodePort' },
    meets: [INSIDE, ['nodePort TCP,UDP', 'client node outside: near far as node']],
  },
  {
    name: 'labelled service-proxy-name: another proxy’s',
    change: { labels: { 'service.kubernetes.io/service-proxy-name': 'somebody' } },
    meets: [
      ['clusterIP TCP', 'client node: unserved'],
      ['nodePort TCP', 'client node outside: refused'],
    ],
  },
  {
    name: 'the label is taken off',
    change: { labels: {} },
    meets: [INSIDE, ['nodePort TCP', 'outside: near far as node']],
  },
  {
    name: 'slices labelled headless: they are nobody’s endpoints',
    change: { sliceLabels: { 'service.kubernetes.io/headless': '' } },
    meets: [['clusterIP,nodePort TCP', 'client node: refused']],
  },
  {
    name: 'slices without that label, the Service with it: only slices are asked for it',
    change: { sliceLabels: {}, labels: { 'service.kubernetes.io/headless': '' } },
    meets: [INSIDE, ['nodePort TCP', 'outside: near far as node']],
  },
  { name: 'hints for this node', change: { endpoints: [HINTED.near, HINTED.far] }, meets: [MEETS_NEAR] },
  {
    name: 'hints: the endpoint of this node becomes unavailable',
    change: { endpoints: [{ ...HINTED.near, ready: false, serving: false }, HINTED.far] },
    meets: [MEETS_FAR],
  },
  { name: 'hints: it is back', change: { endpoints: [HINTED.near, HINTED.far] }, meets: [MEETS_NEAR] },
  {
    name: 'hints: none is for this node, one for its zone: that one',
    change: {
      endpoints: [
        { ...HINTED.far, forZones: ['zone-a'] },
        { ...HINTED.far, pod: 'far2' },
      ],
    },
    meets: [MEETS_FAR, ['clusterIP TCP', 'node: far as node']],
  },
  { name: 'hints: as a node of the other zone sees them', change: {}, zone: 'zone-b', meets: [MEETS_FAR2] },
  {
    name: 'hints: none is for this node or its zone: all',
    ...{ change: {}, zone: 'zone-c' },
    meets: [['clusterIP TCP', 'client: far far2 as self']],
  },
  { name: 'hints: the node is back in its zone', change: {}, zone: 'zone-a', meets: [MEETS_FAR] },
  { name: 'hints are taken away', change: { endpoints: ['near', 'far'] }, meets: [INSIDE] },
];
for (const change of SERVED_AND_NOT) step(change.name, () => make(change));

step('deleted: nothing is served; another Service on the same pods goes on', async () => {
  const both: Meets = ['clusterIP TCP,UDP', 'client: near far as self'];
  await rig.meets(other, both);
  await rig.remove(walked, 'slices stay');
  await rig.meets(
    walked,
    ['clusterIP TCP,UDP', 'client node: unserved'],
    ['nodePort TCP,UDP', 'client outside: refused'],
  );
  await rig.meets(other, both);
});

step('created again with the same name and address', async () => {
  await rig.apply(walked);
  await rig.meets(walked, INSIDE, ['nodePort TCP,UDP', 'client node outside: near far as node']);
});

step('deleted and created with another address, in one moment', async () => {
  const { api } = rig.proxy;
  api.delete('services', `traffic/${walked.name}`);
  const before = walked;
  walked = { ...walked, number: NUMBER + 2 };
  await rig.apply(walked);
  await rig.meets(walked, INSIDE, ['nodePort TCP,UDP', 'client outside: near far as node']);
  await rig.meets(before, ['clusterIP TCP,UDP', 'client node: unserved'], ['nodePort TCP', 'outside: refused']);
});

step('one Service takes over the address and port of another that is deleted in the same moment', async () => {
  const heir: ServiceSpec = { ...walked, name: 'heir', endpoints: ['near2'] };
  rig.proxy.set(...serviceObjects(heir));
  await rig.remove(walked, 'with its slices');
  await rig.meets(heir, ['clusterIP TCP,UDP', 'client: near2 as self'], ['nodePort TCP,UDP', 'outside: near2 as node']);
  const after: ServiceSpec = { ...walked, name: 'after', number: NUMBER + 3, type: 'ClusterIP' };
  await rig.remove(heir, 'with its slices');
  await rig.apply(after);
  await rig.meets(heir, ['nodePort TCP', 'outside: refused']);
  await rig.meets(after, INSIDE);
  await rig.meets(other, ['clusterIP TCP,UDP', 'client: near far as self']);
});
