// test-kernel: timeout=600
/**
 * The switch from kube-proxy's iptables mode, under new connections all the time: its rules serve until everything of
 * ours is in place, and then go, so that nothing fails in between.
 */
import assert from 'node:assert/strict';
import { after, before } from 'node:test';
import { scaleCluster } from '../fakes/cluster-generator.js';
import { iptablesRules, loadModules, shell } from './harness/kernel-state.js';
import { Lab, NODE } from './harness/lab.js';
import { OUTSIDE } from './harness/layout.js';
import { Loads } from './harness/loads.js';
import { patience, waitUntil } from './harness/wait.js';
import { type ServiceSpec, endpointSlice, node, service, serviceWithEndpoints } from './reliability-objects.js';
import { Rig } from './reliability-rig.js';
import { steps } from './reliability-steps.js';
import { weights } from './reliability-state.js';

const [NEAR, FAR] = ['10.128.0.11', '10.128.1.11'];
const WEB: ServiceSpec = { name: 'web', address: '10.96.200.1', port: 80, nodePort: 30080 };
const EMPTY: ServiceSpec = { name: 'empty', address: '10.96.200.2', port: 80 };
/** So many others that the first sync takes a while. */
const OTHERS = { services: 1500, endpointsPerService: 10 };

/**
 * As kube-proxy 1.36 writes them for these two Services without clusterCIDR (EKS): a connection to a cluster IP is not
 * masqueraded then, whoever opens it.
 */
const IPTABLES_MODE = `$IPTABLES-restore --noflush <<'END'
*mangle
:KUBE-PROXY-CANARY - [0:0]
COMMIT
*nat
:KUBE-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-PROXY-CANARY - [0:0]
:KUBE-SVC-LOLE4ISW44XBNF3G - [0:0]
:KUBE-EXT-LOLE4ISW44XBNF3G - [0:0]
:KUBE-SEP-NEAR57KPRZ3JQVEN - [0:0]
:KUBE-SEP-FAR4N57TFCL4MD7Z - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE
-A KUBE-SERVICES -d ${WEB.address}/32 -p tcp -m comment --comment "default/web:main cluster IP" -m tcp --dport 80 -j KUBE-SVC-LOLE4ISW44XBNF3G
-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-NODEPORTS -p tcp -m comment --comment "default/web:main" -m tcp --dport 30080 -j KUBE-EXT-LOLE4ISW44XBNF3G
-A KUBE-EXT-LOLE4ISW44XBNF3G -j KUBE-MARK-MASQ
-A KUBE-EXT-LOLE4ISW44XBNF3G -j KUBE-SVC-LOLE4ISW44XBNF3G
-A KUBE-SVC-LOLE4ISW44XBNF3G -m statistic --mode random --probability 0.5 -j KUBE-SEP-NEAR57KPRZ3JQVEN
-A KUBE-SVC-LOLE4ISW44XBNF3G -j KUBE-SEP-FAR4N57TFCL4MD7Z
-A KUBE-SEP-NEAR57KPRZ3JQVEN -s ${NEAR}/32 -j KUBE-MARK-MASQ
-A KUBE-SEP-NEAR57KPRZ3JQVEN -p tcp -m tcp -j DNAT --to-destination ${NEAR}:8080
-A KUBE-SEP-FAR4N57TFCL4MD7Z -s ${FAR}/32 -j KUBE-MARK-MASQ
-A KUBE-SEP-FAR4N57TFCL4MD7Z -p tcp -m tcp -j DNAT --to-destination ${FAR}:8080
COMMIT
*filter
:KUBE-SERVICES - [0:0]
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-PROXY-CANARY - [0:0]
-A INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
-A INPUT -m comment --comment "kubernetes health check service ports" -j KUBE-NODEPORTS
-A INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES
-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A KUBE-SERVICES -d ${EMPTY.address}/32 -p tcp -m comment --comment "default/empty:main has no endpoints" -m tcp --dport 80 -j REJECT --reject-with icmp-port-unreachable
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
END
`;
const LEFT = /KUBE-(SVC|SEP|EXT)-|KUBE-NODEPORTS|KUBE-EXTERNAL-SERVICES|KUBE-PROXY-CANARY|KUBE-IPVS-TAKEOVER/;

const step = steps();
let lab: Lab;
let rig: Rig;
let loads: Loads;

before(async () => {
  lab = await Lab.create({
    pods: [
      { name: 'client', addresses: ['10.128.0.10'] },
      { name: 'near', addresses: [NEAR] },
      { name: 'far', addresses: [FAR], place: 'other' },
    ],
    // As everywhere, others do not know the way to a cluster IP: an answer to it from another node gets lost.
    servicePrefixes: ['192.0.2.0/24'],
  });
  for (const [name, address] of [
    ['near', NEAR],
    ['far', FAR],
  ] as const)
    await lab.agent.serve(name, { protocol: 'TCP', address, port: 8080, by: name });
  loadModules('ip_vs', 'xt_statistic');
  await shell(IPTABLES_MODE);
  rig = await Rig.create([
    node(),
    ...scaleCluster(OTHERS),
    service(WEB),
    withNodes(endpointSlice(WEB, [NEAR, FAR])),
    ...serviceWithEndpoints(EMPTY, []),
  ]);
  const vip = { protocol: 'TCP', address: WEB.address, port: 80, timeout: patience(15_000) } as const;
  const nodePort = { ...vip, address: '10.200.0.2', port: 30080 };
  const load = { rate: 60, workers: 6, connections: 4, interval: 100 };
  loads = new Loads({
    'a pod': await lab.agent.load('client', { ...vip, ...load }),
    'the node itself': await lab.agent.load(NODE, { ...vip, ...load }),
    'a backend of it': await lab.agent.load('near', { ...vip, ...load, rate: 20 }),
    'outside, by NodePort': await lab.agent.load(OUTSIDE, { ...nodePort, ...load }),
  });
});

after(async () => {
  await rig.close();
  lab.close();
});

/** The node of each endpoint: a backend that reaches itself through the Service is masqueraded on its own node. */
function withNodes(slice: object): object {
  const { endpoints, ...rest } = slice as { endpoints: object[] };
  return { ...rest, endpoints: endpoints.map((one, i) => ({ ...one, nodeName: `node-${i}` })) };
}

step('its rules serve, nobody running', async () => {
  await loads.assertNothingLost('before', 20);
});

step('the start: both backends are served all the time, from everywhere; then its chains are gone', async () => {
  const config = rig.config({ clusterCIDR: '' });
  await rig.start(config);
  await waitUntil('our rules in place of its own', async () => {
    const rules = await iptablesRules(4);
    return !rules.some((line) => LEFT.test(line)) && rules.some((line) => line.includes('KUBE-CLUSTER-IP'));
  });
  await loads.assertNothingLost('the switch', 20);
  assert.equal(weights('TCP 10.96.200.1:80').length, 2);
  const { log } = rig.daemon;
  // Where the first sync ends before the rules have been read, nothing has to be held back.
  const held = log.filter(({ msg }) => msg.includes('iptables mode serves until'));
  assert.ok(held.length <= 1 && held.every(({ families }) => String(families) === '4'), JSON.stringify(held));
  const synced = log.findIndex(({ msg }) => msg.startsWith('took over the kernel state'));
  const written = log.findLastIndex(({ msg }) => msg === 'iptables rules written');
  assert.ok(synced >= 0 && written > synced, rig.daemon.tail(10));
});

step('from then on IPVS answers: what is opened shows in its table', async () => {
  const counts = await loads.counts();
  await loads.waitFor('answers of both backends by way of IPVS', (now, name) =>
    ['near', 'far'].every((by) => (now.by[by] ?? 0) > (counts[name]!.by[by] ?? 0)),
  );
  const outcome = await lab.agent.request('client', { protocol: 'TCP', address: EMPTY.address, port: 80 });
  assert.equal(outcome.result, 'refused');
  assert.match(await shell('ipvsadm -Lcn'), /10\.96\.200\.1:80/);
  const verified = await rig.command('verify', '--config', rig.config({ clusterCIDR: '' }));
  assert.equal(verified.code, 0, JSON.stringify(verified));
});
