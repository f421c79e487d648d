// test-kernel: timeout=600 seconds=35
/**
 * Packets that are not the usual ones, as test/e2e/network/{networking,conntrack,kube_proxy,hostport}.go of Kubernetes
 * have them and a few that its packet filters' own tests have: datagrams in fragments, a smaller MTU on the way (ICMP
 * "fragmentation needed" towards a VIP), segments out of the window, half-closed connections, host ports of a CNI
 * plugin, and a module that nobody asked for.
 */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { run, shell } from './harness/kernel-state.js';
import { NODE } from './harness/lab.js';
import { ROUTER } from './harness/layout.js';
import { patience, waitUntil } from './harness/wait.js';
import { LiveRig } from './live-rig.js';
import { type Place } from './traffic-table.js';
import { namespaceOf, placeAddress } from './traffic-walk.js';
import { clusterIP, loadBalancerIP, NODE4, NODE6, nodePort, podAddress, type ServiceSpec } from './traffic-world.js';

type Family = 4 | 6;
type Kind = 'clusterIP' | 'nodePort' | 'loadBalancer';

const FAMILIES: readonly Family[] = [4, 6];
const exposed = (number: number, name: string, endpoints: readonly string[]): ServiceSpec => ({
  number,
  name,
  endpoints,
  type: 'LoadBalancer',
  loadBalancerIPs: [loadBalancerIP(number, 4), loadBalancerIP(number, 6)],
  protocols: ['TCP', 'UDP'],
});
const NEAR = exposed(40, 'to-near', ['near']);
const FAR = exposed(41, 'to-far', ['far']);
const LOCAL: ServiceSpec = { ...exposed(42, 'local', ['near', 'far']), externalLocal: true };
const SIGNALLING: ServiceSpec = { ...exposed(43, 'signalling', ['near', 'far']), protocols: ['SCTP'] };
const HOST_PORT = 9080;
/** A Service whose own port is the number of somebody's host port. */
const SAME_NUMBER: ServiceSpec = { ...exposed(44, 'same-number', ['near', 'far']), port: HOST_PORT };
/** Whose node port is the number of a host port, by the other protocol. */
const SAME_NODE_PORT: ServiceSpec = { ...exposed(45, 'same-node-port', ['near', 'far']), protocols: ['UDP'] };
const SERVICES = [NEAR, FAR, LOCAL, SIGNALLING, SAME_NUMBER, SAME_NODE_PORT];

let rig: LiveRig;

before(async () => {
  rig = await LiveRig.create(SERVICES, {}, ['TCP', 'UDP']); // a socket of SCTP would load what is looked for below
});

after(async () => {
  console.log(`live packets: ${rig.cases} cases of the table beside the others`);
  await rig.close();
});

function addressOf(spec: ServiceSpec, kind: Kind, family: Family): { address: string; port: number } {
  if (kind === 'nodePort') return { address: family === 4 ? NODE4 : NODE6, port: nodePort(spec.number) };
  const address = kind === 'clusterIP' ? clusterIP(spec.number, family) : loadBalancerIP(spec.number, family);
  return { address, port: spec.port ?? 80 };
}

test('a Service by SCTP does not load the kernel’s sctp: IPVS and the rules know the protocol themselves', async (context) => {
  const isLoaded = (): boolean => /^sctp /m.test(readFileSync('/proc/modules', 'utf8'));
  if (existsSync('/sys/module/sctp') && !isLoaded())
    return context.skip('SKIPPED: sctp is part of this kernel’s image');
  assert.match(await run('ipvsadm', '-Sn'), new RegExp(`-a --sctp-service ${clusterIP(43, 4)}:80 -r`));
  assert.equal(isLoaded(), false);
  await shell('modprobe sctp'); // else it would say nothing that it was not there
  assert.equal(isLoaded(), true);
});

/** Places, kinds of address and Services of all that follows: each way through the node's hooks. */
const WAYS: readonly (readonly [Place, ServiceSpec, Kind])[] = [
  ['client', NEAR, 'clusterIP'],
  ['client', FAR, 'clusterIP'],
  ['node', NEAR, 'clusterIP'],
  ['node', FAR, 'nodePort'],
  ['outside', NEAR, 'nodePort'],
  ['outside', FAR, 'loadBalancer'],
  ['outside', LOCAL, 'nodePort'],
  ['outside', LOCAL, 'loadBalancer'],
];
const label = (from: Place, spec: ServiceSpec, kind: Kind): string => `from ${from}, ${spec.name} by ${kind}`;

/**
 * A datagram comes, and its answer repeats it; the first may be lost to what it teaches about the way. An error that
 * stays is the result, too.
 */
async function datagram(from: Place, to: { address: string; port: number }, size: number): Promise<number | string> {
  let got = '';
  let errors = 0;
  return waitUntil(
    `an answer to ${size} bytes from ${from} to ${to.address}`,
    async () => {
      const ask = { protocol: 'UDP', ...to, size, timeout: patience(500) } as const;
      const outcome = await rig.lab.agent.request(namespaceOf(from), ask);
      got = JSON.stringify(outcome);
      if (outcome.result === 'error') return ++errors > 5 ? outcome.errno : undefined;
      return outcome.result === 'answered' ? outcome.token : undefined;
    },
    20_000,
    () => got,
  );
}

/**
 * What becomes of a datagram that is larger than the MTU. By IPv6, and from the node itself, IPVS gets it before it is
 * cut into fragments and refuses it, whatever the route to the VIP says of its MTU (Linux 6.1 to 7.2; kube-proxy's IPVS
 * mode the same): docs/packets.md says so.
 */
const large = (from: Place, family: Family, size: number): number | string =>
  from === 'node' && family === 6 ? 'EMSGSIZE' : size;

for (const [from, spec, kind] of WAYS)
  test(`large requests: ${label(from, spec, kind)}`, async () => {
    for (const family of FAMILIES) {
      const to = addressOf(spec, kind, family);
      for (const size of [2000, 6000]) assert.equal(await datagram(from, to, size), large(from, family, size));
      const outcome = await rig.lab.agent.exchange(namespaceOf(from), {
        ...to,
        up: 100_000,
        down: 100_000,
        timeout: patience(10_000),
      });
      assert.ok(outcome.result === 'answered' && outcome.received >= 100_000, JSON.stringify(outcome));
    }
  });

/** What a machine has learnt about the way to an address. */
async function learntMtu(namespace: string, address: string): Promise<string> {
  return (
    /\bmtu (?:lock )?(\d+)/.exec(await shell(`ip netns exec ${namespace} ip route get ${address}`))?.[1] ?? 'nothing'
  );
}

const MTU = 1400;
test('a smaller MTU behind the router: the backend hears of it by a message to the VIP', async () => {
  const change = (mtu: string): Promise<string> =>
    shell(`
      ip -n ${ROUTER} route change 203.0.113.0/24 dev out0 proto kernel scope link src 203.0.113.1 ${mtu}
      ip -n ${ROUTER} -6 route change fd00:203::/64 dev out0 proto kernel metric 256 ${mtu}`);
  await change(`mtu ${MTU}`);
  try {
    for (const [spec, kind, pod] of [
      [LOCAL, 'loadBalancer', 'near'],
      [LOCAL, 'nodePort', 'near'],
      [NEAR, 'loadBalancer', 'near'],
      [FAR, 'nodePort', 'far'],
      [FAR, 'clusterIP', 'far'],
    ] as const)
      for (const family of FAMILIES) {
        const to = addressOf(spec, kind, family);
        const what = `${label('outside', spec, kind)}, IPv${family}`;
        await shell(`ip -n ${pod} -${family} route flush cache`);
        const outcome = await rig.lab.agent.exchange('outside', {
          ...to,
          up: 10,
          down: 200_000,
          timeout: patience(10_000),
        });
        assert.ok(outcome.result === 'answered' && outcome.received >= 200_000, `${what}: ${JSON.stringify(outcome)}`);
        // Masqueraded, the client is the node as far as the backend knows.
        const peer = spec === LOCAL ? placeAddress('outside', family) : family === 4 ? NODE4 : NODE6;
        assert.equal(await learntMtu(pod, peer), String(MTU), `${what}: it did not come to that`);
        await shell(`ip -n ${pod} -${family} route flush cache`);
        // The answer is longer by some 90 bytes.
        for (const size of [MTU - 100, 2000]) assert.equal(await datagram('outside', to, size), size, what);
      }
  } finally {
    await change('');
  }
});

test('a smaller MTU between the nodes: the client hears of it as of the VIP', async () => {
  const change = (mtu: string): Promise<string> =>
    shell(
      `ip route change 10.128.1.0/24 via 10.200.0.3 ${mtu}; ip -6 route change fd00:10:128:1::/64 via fd00:200::3 ${mtu}`,
    );
  await change(`mtu ${MTU}`);
  try {
    for (const [from, kind] of [
      ['client', 'clusterIP'],
      ['outside', 'loadBalancer'],
      ['outside', 'nodePort'],
      ['node', 'clusterIP'],
    ] as const)
      for (const family of FAMILIES) {
        const to = addressOf(FAR, kind, family);
        const what = `${label(from, FAR, kind)}, IPv${family}`;
        await shell(`ip -n far -${family} route flush cache`); // or its handshake says what it has learnt before
        const outcome = await rig.lab.agent.exchange(namespaceOf(from), {
          ...to,
          up: 200_000,
          down: 10,
          timeout: patience(10_000),
        });
        assert.equal(outcome.result, 'answered', `${what}: ${JSON.stringify(outcome)}`);
        if (from !== 'node') assert.equal(await learntMtu(namespaceOf(from), to.address), String(MTU), what);
        assert.equal(await datagram(from, to, MTU + 20), large(from, family, MTU + 20), what);
      }
  } finally {
    await change('');
    await shell('ip -n client route flush cache; ip -n client -6 route flush cache; ip -n outside route flush cache');
  }
});

/**
 * A backend that sends segments far out of the window, which conntrack calls INVALID and translates no more: nobody may
 * see the pod's own address, nor reset the connection.
 */
async function outOfWindow(from: 'client' | 'outside', spec: ServiceSpec, pod: string, kind: Kind): Promise<void> {
  const { agent } = rig.lab;
  for (const family of FAMILIES) {
    const to = addressOf(spec, kind, family);
    const connection = await agent.open(from, { protocol: 'TCP', ...to });
    const backend = await agent.tap(pod, { interface: 'eth0', port: 8080 });
    const client = await agent.tap(from, { interface: 'eth0', port: 1 });
    assert.equal((await connection.ask(patience(5000))).result, 'answered');
    for (const offset of [100_000_000, -100_000_000]) {
      await backend.inject(offset);
      const outcome = await connection.ask(patience(5000));
      assert.equal(outcome.result, 'answered', `${label(from, spec, kind)} IPv${family}: ${JSON.stringify(outcome)}`);
    }
    await connection.close();
    const [atBackend, atClient] = [await backend.stop(), await client.stop()];
    const resets = Object.keys({ ...atBackend, ...atClient }).filter((key) => key.endsWith('RST'));
    assert.deepEqual([resets, Object.keys(atClient).sort()], [[], [`in ${to.address}`, `out ${to.address}`]]);
  }
}

test('a segment out of the window: no pod’s own address is seen, and the connection goes on', async () => {
  await outOfWindow('client', NEAR, 'near', 'clusterIP');
  await outOfWindow('client', FAR, 'far', 'clusterIP');
  await outOfWindow('outside', LOCAL, 'near', 'loadBalancer');
});

test('a segment out of the window of a masqueraded connection: it goes on with conntrack.tcpBeLiberal', async () => {
  await rig.restart({ conntrack: { tcpBeLiberal: true } });
  await outOfWindow('outside', NEAR, 'near', 'nodePort');
  await outOfWindow('outside', FAR, 'far', 'loadBalancer');
});

test('a connection that only one side has closed: conntrack keeps it for an hour, as configured', async () => {
  const to = addressOf(NEAR, 'clusterIP', 4);
  const server = { protocol: 'TCP', address: podAddress('near', 4), port: 8080 } as const;
  const connection = await rig.lab.agent.open('client', { protocol: 'TCP', ...to });
  assert.equal(connection.outcome.result, 'answered');
  await rig.lab.agent.unserve('near', server); // closes its side
  try {
    const line = await waitUntil('CLOSE_WAIT', async () =>
      (await run('conntrack', '-L', '-p', 'tcp', '--state', 'CLOSE_WAIT'))
        .split('\n')
        .find((one) => one.includes(`dst=${to.address} `) && one.includes(`src=${podAddress('client', 4)} `)),
    );
    const seconds = Number(line.trim().split(/ +/)[2]);
    assert.ok(seconds > 3500 && seconds <= 3600, line);
  } finally {
    await connection.close();
    await rig.lab.agent.serve('near', { ...server, by: 'near' });
  }
});

/** What the portmap plugin writes for host ports of pods: chains of its own, for every local address. */
function portmap(ways: readonly (readonly [protocol: 'tcp' | 'udp', port: number, pod: string])[]): string {
  const both = FAMILIES.map((family) => {
    const iptables = `${family === 4 ? '$IPTABLES' : '$IP6TABLES'} -w -t nat`;
    const local = '-m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT';
    return [
      `${iptables} -N CNI-HOSTPORT-SETMARK; ${iptables} -A CNI-HOSTPORT-SETMARK -j MARK --set-xmark 0x2000/0x2000`,
      `${iptables} -N CNI-HOSTPORT-MASQ; ${iptables} -A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE`,
      `${iptables} -I POSTROUTING 1 -j CNI-HOSTPORT-MASQ`,
      `${iptables} -N CNI-HOSTPORT-DNAT; ${iptables} -A PREROUTING ${local}; ${iptables} -A OUTPUT ${local}`,
      ...ways.flatMap(([protocol, port, pod]) => {
        const address = podAddress(pod, family);
        const match = `${iptables} -A CNI-HOSTPORT-DNAT -p ${protocol} --dport ${port}`;
        const to = family === 4 ? `${address}:8080` : `[${address}]:8080`;
        return [`${match} -s ${address} -j CNI-HOSTPORT-SETMARK`, `${match} -j DNAT --to-destination ${to}`];
      }),
    ].join('\n');
  });
  return both.join('\n');
}

test('host ports of a CNI plugin beside ours: each gets what is its own', async () => {
  await shell(
    portmap([
      ['tcp', HOST_PORT, 'near2'],
      ['udp', HOST_PORT, 'near2'],
      ['tcp', nodePort(SAME_NODE_PORT.number), 'near2'],
    ]),
  );
  const served = (): Promise<void> =>
    rig.meets(
      SAME_NUMBER,
      ['clusterIP TCP,UDP', 'client: near far as self', 'node outside: near far as node'],
      ['loadBalancer TCP,UDP', 'client node outside: near far as node'],
      ['node TCP,UDP', 'client outside: near2 as self'],
      ['nodePort TCP,UDP', 'client node outside: near far as node'],
    );
  await served();
  await rig.meets(
    SAME_NODE_PORT,
    ['nodePort UDP', 'client node outside: near far as node'],
    ['nodePort TCP', 'client outside: near2 as self'],
  );
  await rig.meets(LOCAL, ['loadBalancer TCP,UDP', 'outside: near as self']);
  assert.equal(
    (await rig.lab.agent.request(NODE, { protocol: 'TCP', address: NODE4, port: HOST_PORT })).result,
    'answered',
  );
  // A restart writes our rules again; theirs stay where they are, and what they serve.
  await rig.restart();
  await served();
});
