// test-kernel: timeout=600 seconds=52 waits
/**
 * What comes between a node and its API server: VIPs on the API server's address, before and after the start; a Node
 * that cannot be listed; a configuration with a typo; an API server that is away. The API server is another host, as on
 * a worker node.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { after, before } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { createInterface } from 'node:readline';
import { type ControlAnswer, type ControlCommand } from '../fakes/api-server-control.js';
import { ROOT } from './harness/agent.js';
import { kubeIpvs0Addresses, shell } from './harness/kernel-state.js';
import { waitUntil } from './harness/wait.js';
import { type ServiceSpec, node, service, serviceWithEndpoints } from './reliability-objects.js';
import { Rig, TOOK_OVER } from './reliability-rig.js';
import { ipvsTable } from './reliability-state.js';
import { steps } from './reliability-steps.js';

const API = '10.200.0.1';
const OTHER = '10.200.0.3';
const PORT = 6443;
const KUBERNETES: ServiceSpec = { name: 'kubernetes', address: '10.96.0.1', port: 443, targetPort: PORT };
const WEB: ServiceSpec = { name: 'web', address: '10.96.1.1', port: 80, nodePort: 30080 };
const POISON: ServiceSpec = { name: 'poison', address: '10.96.1.66', port: 9443, externalIPs: [API, OTHER] };

/** The fake API server as a process on the other host; told what to do over its standard input. */
class RemoteApi {
  readonly #process: ChildProcess;
  readonly #lines: AsyncIterator<string>;

  constructor() {
    const main = `${ROOT}build/test/fakes/api-server-main.js`;
    const args = ['netns', 'exec', 'master', process.execPath, main, '--host', '0.0.0.0', '--port', String(PORT)];
    this.#process = spawn('ip', [...args, '--bookmark-ms', '5000'], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#lines = createInterface({ input: this.#process.stdout! })[Symbol.asyncIterator]();
  }

  async ready(): Promise<void> {
    await this.#lines.next();
  }

  async tell(command: ControlCommand): Promise<ControlAnswer> {
    this.#process.stdin!.write(`${JSON.stringify(command)}\n`);
    const answer = JSON.parse(String((await this.#lines.next()).value)) as ControlAnswer;
    assert.ok(answer.ok, `${JSON.stringify(command)}: ${answer.error}`);
    return answer;
  }

  async set(...objects: readonly object[]): Promise<void> {
    await this.tell({ op: 'set', objects: objects as never });
  }

  stop(): void {
    this.#process.kill('SIGKILL');
  }
}

const step = steps();
let rig: Rig;
let api: RemoteApi;
let config: string;
let generation = 0;

before(async () => {
  await shell(`
    modprobe -q ipv6 || true; modprobe dummy; modprobe ip_vs
    ip netns add master
    ip link add eth0 type veth peer name m0 netns master
    ip link set eth0 up && ip addr add 10.200.0.2/24 dev eth0
    ip -n master link set lo up && ip -n master link set m0 up
    ip -n master addr add ${API}/24 dev m0 && ip -n master addr add ${OTHER}/24 dev m0
    ip link set lo up`);
  rig = await Rig.create([]);
  api = new RemoteApi();
  await api.ready();
  const other = {
    ...node(),
    metadata: { name: 'node-1' },
    status: { addresses: [{ type: 'InternalIP', address: OTHER }] },
  };
  await api.set(
    node(),
    other,
    ...serviceWithEndpoints(KUBERNETES, [API]),
    ...serviceWithEndpoints(WEB, ['10.128.0.11']),
  );
  useServer(`http://${API}:${PORT}`);
  config = rig.config({}, { syncPeriod: '5s' });
});

after(async () => {
  await rig.close();
  api.stop();
});

function useServer(server: string): void {
  rig.write('kubeconfig', {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'fake', cluster: { server } }],
    users: [{ name: 'fake', user: {} }],
    contexts: [{ name: 'fake', context: { cluster: 'fake', user: 'fake' } }],
    'current-context': 'fake',
  });
}

async function isReachable(address: string): Promise<boolean> {
  try {
    const response = await fetch(`http://${address}:${PORT}/`, { signal: AbortSignal.timeout(5000) });
    return response.status > 0;
  } catch {
    return false;
  }
}

async function boundAddresses(): Promise<string> {
  return (await kubeIpvs0Addresses()).join('\n');
}

/** A Service that is made now gets into the kernel: the daemon hears the API server. */
async function hearsTheServer(): Promise<void> {
  const address = `10.96.2.${++generation}`;
  await api.set(...serviceWithEndpoints({ name: `later-${generation}`, address, port: 80 }, ['10.128.0.12']));
  await waitUntil(
    `TCP ${address}:80`,
    () => ipvsTable().has(`TCP ${address}:80`),
    60_000,
    () => rig.daemon.tail(8),
  );
}

step(
  "external IPs that are the API server's and another node's are refused; the node stays connected to both",
  async () => {
    await rig.start(config);
    await hearsTheServer();
    assert.ok(await isReachable(API));
    await api.set(...serviceWithEndpoints(POISON, ['10.128.0.13']));
    await waitUntil('the poison is served by its cluster IP', () => ipvsTable().has('TCP 10.96.1.66:9443'));
    await hearsTheServer();
    await api.tell({ op: 'disturb', how: 'reset' });
    await hearsTheServer();
    assert.ok((await isReachable(API)) && (await isReachable(OTHER)));
    const bound = await boundAddresses();
    assert.ok(bound.includes('10.96.1.66') && !bound.includes(API) && !bound.includes(OTHER), bound);
    assert.ok(![...ipvsTable().keys()].some((server) => server.includes(API) || server.includes(OTHER)));
    const refusals = rig.daemon.log.filter(
      ({ object, problem }) => object === 'default/poison' && problem !== undefined,
    );
    assert.match(JSON.stringify(refusals), /10\.200\.0\.1 is left out: it is .*API server/);
    assert.match(JSON.stringify(refusals), /10\.200\.0\.3 is left out: it is an address of node node-1/);
    await rig.waitUntilVerified(config);
  },
);

step('a node on which the address is bound already is healed by a start, before anything can be listed', async () => {
  assert.deepEqual(await rig.stop(), { code: 0, signal: null });
  await shell(`ip addr add ${API}/32 dev kube-ipvs0; ip addr add ${OTHER}/32 dev kube-ipvs0`);
  assert.ok(!(await isReachable(API)), 'the node is cut off');
  await rig.start(config);
  const healed = rig.daemon.log.find(({ addresses }) => JSON.stringify(addresses) === JSON.stringify([API]));
  assert.match(healed!.msg, /taken off kube-ipvs0/);
  await hearsTheServer();
  const bound = await boundAddresses();
  assert.ok(!bound.includes(API) && !bound.includes(OTHER), bound);
  assert.ok(bound.includes('10.96.0.1'));
});

step('a daemon that reaches the API server by its cluster IP keeps that one', async () => {
  await rig.stop();
  useServer('http://10.96.0.1:443');
  await rig.start(config);
  assert.ok((await boundAddresses()).includes('inet 10.96.0.1/32'));
  await hearsTheServer();
  await rig.stop();
  await shell(`ip addr add ${API}/32 dev kube-ipvs0`);
  useServer(`http://${API}:${PORT}`);
  await rig.start(config);
  await hearsTheServer();
});

step(
  'a typo in the configuration file is reported and the daemon goes on; a change that can be used ends it',
  async () => {
    const last = (fields: object): void => {
      const text = { apiVersion: 'kubeproxy.config.k8s.io/v1alpha1', kind: 'KubeProxyConfiguration', ...fields };
      rig.write(config.slice(config.lastIndexOf('/') + 1), text);
    };
    const from = rig.daemon.log.length;
    last({ ipvs: { scheduler: 'round-robin' } });
    await rig.daemon.waitForLog('refused', ({ msg }) => msg.includes('refused'), 60_000, from);
    await hearsTheServer();
    assert.equal((await rig.scrape()).sum('kubeproxy_ipvs_config_refused'), 1);
    last({ ipvs: { scheduler: 'lc' }, clientConnection: { kubeconfig: rig.kubeconfig } });
    assert.deepEqual(await rig.daemon.exited, { code: 0, signal: null });
  },
);

step(
  'the Node list fails at a restart: NodePorts on the primary address stay, until the Node comes and after',
  async () => {
    config = rig.config({ nodePortAddresses: ['primary'] }, { syncPeriod: '5s' });
    await rig.start(config);
    const nodePort = 'TCP 10.200.0.2:30080';
    assert.ok(ipvsTable().has(nodePort));
    await rig.stop();
    await api.tell({ op: 'fault', rule: { resource: 'nodes', fault: { kind: 'status', code: 503 } } });
    let missing = 0;
    const watching = setInterval(() => (missing += ipvsTable().has(nodePort) ? 0 : 1), 50);
    const daemon = rig.launch(['--config', config]);
    await daemon.waitForLog('the wait', ({ msg }) => msg.includes('nodePortAddresses "primary"'));
    await sleep(5000); // longer than the wait that there once was
    assert.ok(!daemon.log.some(({ msg }) => msg === TOOK_OVER));
    const { status } = await fetch('http://127.0.0.1:10256/healthz');
    assert.equal(status, 200, 'the kernel serves: nothing for a load balancer to act on');
    assert.equal((await fetch('http://127.0.0.1:10256/readyz')).status, 503);
    const page = await (await fetch('http://127.0.0.1:10249/status.json')).text();
    assert.match(page, /waiting for the Node object node-0/);
    await api.tell({ op: 'clearFaults' });
    await rig.adopt(daemon);
    await hearsTheServer();
    clearInterval(watching);
    assert.equal(missing, 0, 'the virtual server of the NodePort was never gone');
  },
);

step('a second instance answers /livez while it waits for the first', async () => {
  const second = rig.config({ healthzBindAddress: '127.0.0.1:20256', metricsBindAddress: '127.0.0.1:20249' });
  const daemon = rig.launch(['--config', second]);
  await daemon.waitForLog('the wait', ({ msg }) => msg.includes('another instance runs'));
  assert.equal((await fetch('http://127.0.0.1:20256/livez')).status, 200);
  assert.equal((await fetch('http://127.0.0.1:20256/readyz')).status, 503);
  assert.deepEqual(await daemon.stop(), { code: 0, signal: null });
});

step('verify and plan give up on an API server that is away, and say what did not come', async () => {
  await api.tell({ op: 'outage' });
  for (const command of ['verify', 'plan']) {
    const { code, output } = await rig.command(command, '--config', config, '--timeout', '3s');
    assert.equal(code, 1, output);
    assert.match(
      output,
      /gave up after 3 s of waiting for the first lists of services and endpointslices from http:\/\/10\.200\.0\.1:6443/,
    );
    assert.match(output, /ECONNREFUSED/);
  }
  await api.tell({ op: 'recover' });
});

step('manifests: a broken file ends verify with 1, foreign kinds are named', async () => {
  await shell(`mkdir -p ${rig.directory}/manifests`);
  rig.write('manifests/node.json', node());
  rig.write('manifests/web.json', { ...service(WEB) });
  rig.write('manifests/foreign.json', { apiVersion: 'apps/v1', kind: 'Deployment', metadata: { name: 'd' } });
  const foreign = await rig.command('verify', '--config', config, '--manifests', `${rig.directory}/manifests`);
  assert.equal(foreign.code, 2, 'the kernel holds other Services');
  assert.match(foreign.output, /ignored: .*foreign\.json: apps\/v1 Deployment d/);
  await shell(`printf 'kind: [' > ${rig.directory}/manifests/broken.yaml`);
  for (const command of ['verify', 'plan']) {
    const { code, output } = await rig.command(
      command,
      '--config',
      config,
      '--manifests',
      `${rig.directory}/manifests`,
    );
    assert.equal(code, 1, output);
    assert.match(output, /manifests that cannot be read: .*broken\.yaml: document 1/);
  }
});
