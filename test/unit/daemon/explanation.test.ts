/** What `explain` says around the walk of a packet: who asks, what is taken for granted, which differences matter. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type ProxyConfig } from '../../../src/config/proxy-config.js';
import { type Explanation, explanation } from '../../../src/daemon/answer/explanation.js';
import { type DryRun } from '../../../src/daemon/dry-run.js';
import { ruleConfigs } from '../../../src/daemon/rules/rule-configs.js';
import { iptablesRules } from '../../../src/desired/iptables-rules.js';
import { Uplinks } from '../../../src/kernel/node/uplinks.js';
import { parseNode } from '../../../src/model/node.js';
import { parseSavedRules } from '../../../src/plan/iptables-save.js';
import { type Change } from '../../../src/reconcile/change.js';
import { parseAddress } from '../../../src/values/address.js';
import { type Protocol } from '../../../src/values/protocol.js';
import { TestCluster } from '../../support/desired-cluster.js';
import { testConfig } from '../../support/test-world.js';

const ip = (text: string) => parseAddress(text)!;
const INPUT = '*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -m comment --comment "x" -j KUBE-NODE-PORT\nCOMMIT\n';

interface Asked {
  readonly from?: string;
  readonly comesBy?: string;
  readonly protocol?: Protocol;
}

/** A node with Services, found by a dry run to have these rules in filter INPUT and these differences. */
class Node {
  readonly cluster = new TestCluster({ families: [4] });
  saved = INPUT;
  changes: readonly Change[] = [];
  config: ProxyConfig = testConfig();

  constructor() {
    this.cluster.service('web', { type: 'NodePort', ports: [{ port: 80, nodePort: 30_080 }] });
    this.cluster.slice('web', [{ ip: '10.0.0.1', node: 'node-0' }, '10.0.0.2']);
  }

  async ask(to: string, { from, comesBy, protocol = 'TCP' }: Asked = {}): Promise<Explanation> {
    const [address, port] = to.split(':');
    await this.cluster.update();
    const { state, updater } = this.cluster;
    const uplinks = new Uplinks(() => ({ eth0: [{ address: '10.200.0.2' }] }));
    const found = {
      dataPlane: {
        ...{ updater, cluster: state },
        ruleBackend: { savedRules: () => Promise.resolve(parseSavedRules(this.saved)) },
      },
      config: this.config,
      rules: ruleConfigs(this.config, [4], state.node, false, uplinks).map(iptablesRules),
      inspection: { changes: this.changes },
    } as unknown as DryRun;
    const question = { destination: ip(address!), port: Number(port), protocol, comesBy };
    return explanation({ ...question, from: from === undefined ? undefined : ip(from) }, found);
  }
}

describe('who asks', () => {
  const asked = async (from: string | undefined, to = '10.96.0.1:80', node = new Node()): Promise<string> => {
    const { packet } = await node.ask(to, from === undefined ? {} : { from });
    return `${packet.source}: ${packet.from}`;
  };

  test('nobody named is this node, from the address that its kernel chooses', async () => {
    assert.equal(await asked(undefined), '10.96.0.1: this node', 'a VIP is an address of this node');
    assert.equal(await asked(undefined, '10.200.0.2:30080'), '10.200.0.2: this node');
    assert.equal(await asked(undefined, '203.0.113.1:80'), '10.200.0.2: this node');
  });

  test('an address of this node, a loopback one and a VIP are this node', async () => {
    for (const from of ['10.200.0.2', '127.0.0.5', '10.96.0.1']) assert.equal(await asked(from), `${from}: this node`);
  });

  test('an endpoint on this node, and an address of its pod CIDRs, are pods of this node; others are elsewhere', async () => {
    const node = new Node();
    const object = { metadata: { name: 'node-0' }, spec: { podCIDRs: ['10.7.0.0/24'] }, status: { addresses: [] } };
    node.cluster.state.setNode(parseNode(object, assert.fail));
    const from = (address: string): Promise<string> => asked(address, '10.96.0.1:80', node);
    assert.equal(await from('10.0.0.1'), '10.0.0.1: a pod of this node');
    assert.equal(await from('10.7.0.200'), '10.7.0.200: a pod of this node');
    for (const address of ['10.0.0.2', '10.7.1.1', '203.0.113.1'])
      assert.equal(await from(address), `${address}: elsewhere`);
  });

  test('an endpoint behind others of its slice is found, one of the other family is none', async () => {
    const node = new Node();
    const own = (address: string) => ({ ip: address, node: 'node-0' });
    node.cluster.slice('web', ['10.0.0.4', '10.0.0.5', own('10.0.0.6')], { name: 'web-2' });
    node.cluster.slice('web', [own('fd00::1'), 'fd00::2'], { name: 'web-3' });
    assert.equal(await asked('10.0.0.6', '10.96.0.1:80', node), '10.0.0.6: a pod of this node');
    assert.equal(await asked('10.0.0.5', '10.96.0.1:80', node), '10.0.0.5: elsewhere');
  });
});

describe('by which interface it comes', () => {
  /** Whether backends see an address of the node: pods keep theirs, others on a cluster IP do not. */
  const masquerades = async (node: Node, asked: Asked): Promise<boolean> => {
    const { verdict } = await node.ask('10.96.0.1:80', asked);
    assert.ok(verdict.kind === 'served');
    return verdict.backends.every(({ seenAs }) => seenAs === 'node');
  };

  for (const [mode, name, pods, prefixOnly] of [
    ['BridgeInterface', 'cbr0', 'cbr0', false],
    ['InterfaceNamePrefix', 'veth', 'veth12', true],
  ] as const)
    test(`${mode}: pods are taken to come by theirs, others by another; said, it is as said`, async () => {
      const node = new Node();
      const detectLocal = mode === 'BridgeInterface' ? ({ mode, name } as const) : ({ mode, prefix: name } as const);
      node.config = testConfig({ detectLocal });
      const pod = { from: '10.0.0.1' };
      const other = { from: '203.0.113.1' };
      assert.deepEqual([await masquerades(node, pod), await masquerades(node, other)], [false, true]);
      assert.equal(await masquerades(node, { ...other, comesBy: pods }), false);
      assert.equal(await masquerades(node, { ...pod, comesBy: 'eth0' }), true);
      assert.equal(await masquerades(node, { ...other, comesBy: `${name}7` }), !prefixOnly);
      const notes = async (asked: Asked): Promise<readonly string[]> => (await node.ask('10.96.0.1:80', asked)).notes;
      const said = (not: string): string =>
        `detectLocalMode ${mode}: taken ${not}to come in by an interface of local pods; --interface says it`;
      assert.deepEqual([await notes(pod), await notes(other)], [[said('')], [said('not ')]]);
      assert.deepEqual([await notes({ ...pod, comesBy: pods }), await notes({})], [[], []]);
    });
});

describe('notes', () => {
  test('rules of others in filter INPUT are counted, ours are not', async () => {
    const node = new Node();
    assert.deepEqual((await node.ask('10.96.0.1:80')).notes, []);
    const ours = ['KUBE-IPVS-FILTER', 'KUBE-PROXY-FIREWALL', 'KUBE-NODE-PORT', 'KUBE-IPVS-ACCEPT'];
    const rules = [...ours.map((chain) => `-j ${chain}`), '-j KUBE-FIREWALL', '-s 192.0.2.1/32 -j DROP'];
    node.saved = `*filter\n:INPUT ACCEPT [0:0]\n${rules.map((rule) => `-A INPUT ${rule}\n`).join('')}COMMIT\n`;
    assert.deepEqual((await node.ask('10.96.0.1:80')).notes, [
      'filter INPUT has 2 rules of others, which are not looked into',
    ]);
    node.saved = '';
    assert.deepEqual((await node.ask('10.96.0.1:80')).notes, []);
  });

  test('who claims what another has is said of that address and port alone', async () => {
    const node = new Node();
    const twice = { externalIPs: ['192.0.2.1'] };
    node.cluster.service('early', { clusterIP: '10.96.0.3', ...twice }, { created: '2020-01-01T00:00:00Z' });
    node.cluster.service('late', { clusterIP: '10.96.0.4', ...twice });
    for (const name of ['early', 'late']) node.cluster.slice(name, ['10.0.0.3']);
    const { notes } = await node.ask('192.0.2.1:80', { from: '203.0.113.1' });
    assert.deepEqual(notes, ['default/late claims what default/early has, for one TCP 192.0.2.1:80']);
    assert.deepEqual((await node.ask('10.96.0.1:80')).notes, []);
  });

  test('an address that is refused says so, with the Service that wants it', async () => {
    const node = new Node();
    const protection = { addresses: [ip('192.0.2.9')], reason: 'an address of node node-7' };
    node.cluster.state.protect('nodes', protection);
    node.cluster.service('vip', { clusterIP: '10.96.0.5', externalIPs: ['192.0.2.9', '192.0.2.90'] });
    assert.deepEqual((await node.ask('192.0.2.9:80')).notes, [
      'Service default/vip: externalIP 192.0.2.9 is left out: it is an address of node node-7',
      '192.0.2.9 is an address of Service default/vip, with ports 80/TCP',
    ]);
    assert.deepEqual((await node.ask('192.0.2.90:80')).notes, []);
  });

  test('another port of an address of a Service: which ones it has, ten at most', async () => {
    const node = new Node();
    const ports = Array.from({ length: 12 }, (_, i) => ({ name: `p${i}`, port: 9000 + i }));
    node.cluster.service('many', { clusterIP: '10.96.0.6', externalIPs: ['192.0.2.6'], ports });
    assert.deepEqual((await node.ask('10.96.0.1:81')).notes, [
      '10.96.0.1 is an address of Service default/web, with ports 80/TCP',
    ]);
    const first = Array.from({ length: 10 }, (_, i) => `${9000 + i}/TCP`).join(', ');
    assert.deepEqual((await node.ask('192.0.2.6:1')).notes, [
      `192.0.2.6 is an address of Service default/many, with ports ${first}`,
    ]);
    assert.deepEqual((await node.ask('10.96.0.1:80', { protocol: 'UDP' })).notes, [
      '10.96.0.1 is an address of Service default/web, with ports 80/TCP',
    ]);
    assert.deepEqual((await node.ask('10.96.0.99:80')).notes, []);
  });

  test('twenty are enough', async () => {
    const node = new Node();
    for (let i = 0; i < 30; i++)
      node.cluster.service(`s${i}`, {
        ...{ clusterIP: `10.96.1.${i}`, externalIPs: ['192.0.2.6'] },
        ports: [{ port: 7000 + i }],
      });
    assert.equal((await node.ask('192.0.2.6:1')).notes.length, 20);
  });
});

test('a family that this node does not serve is refused', async () => {
  const node = new Node();
  await assert.rejects(
    node.ask('10.96.0.1:80').then(() => nodeAsked6(node)),
    /this node does not serve IPv6/,
  );
});

async function nodeAsked6(node: Node): Promise<Explanation> {
  const { state, updater } = node.cluster;
  const found = { dataPlane: { updater, cluster: state }, config: node.config, rules: [], inspection: { changes: [] } };
  const question = {
    destination: ip('fd00::1'),
    port: 80,
    protocol: 'TCP',
    from: undefined,
    comesBy: undefined,
  } as const;
  return explanation(question, found as unknown as DryRun);
}

describe('what the kernel has otherwise', () => {
  const action = 'add' as const;
  const server = (address: string, port: number, protocol = 'TCP') => ({ address, port, protocol });
  const rule = { object: 'rule', table: 'nat', chain: 'KUBE-SERVICES', what: 'chain', before: [], after: [] } as const;
  const entry = (set: string, text: string) => ({ action, object: 'set_entry', set, entry: text }) as const;
  const real = { address: '10.0.0.1', port: 8080 };
  const MATTERS: readonly Change[] = [
    { action, object: 'link', link: 'kube-ipvs0' },
    { action, object: 'sysctl', name: 'net.ipv4.ip_forward', before: 0, after: 1 },
    { action, object: 'set', set: 'KUBE-CLUSTER-IP', type: 'hash:ip,port', family: 4 },
    { action, ...rule, family: 4 },
    { action, object: 'address', address: '10.96.0.1', link: 'kube-ipvs0' },
    { action, object: 'virtual_server', virtualServer: server('10.96.0.1', 80) },
    { action, object: 'real_server', virtualServer: server('10.96.0.1', 80), realServer: real },
    entry('KUBE-CLUSTER-IP', '10.96.0.1,tcp:80'),
    entry('KUBE-IPVS-IPS', '10.96.0.1'),
    entry('KUBE-LOOP-BACK', '10.0.0.1,tcp:8080,10.0.0.1'),
  ];
  const OTHERS: readonly Change[] = [
    { action, object: 'set', set: 'KUBE-6-CLUSTER-IP', type: 'hash:ip,port', family: 6 },
    { action, ...rule, family: 6 },
    { action, object: 'address', address: '10.96.0.10', link: 'kube-ipvs0' },
    { action, object: 'virtual_server', virtualServer: server('10.96.0.1', 81) },
    { action, object: 'virtual_server', virtualServer: server('10.96.0.2', 80) },
    { action, object: 'virtual_server', virtualServer: server('10.96.0.1', 80, 'UDP') },
    { action, object: 'virtual_server', virtualServer: { fwmark: 80, family: 4 } },
    { action, object: 'real_server', virtualServer: server('10.96.0.1', 81), realServer: real },
    entry('KUBE-CLUSTER-IP', '10.96.0.1,tcp:8'),
    entry('KUBE-CLUSTER-IP', '10.96.0.1,udp:80'),
    entry('KUBE-LOOP-BACK', '10.0.0.9,tcp:8080,10.0.0.9'),
    entry('KUBE-LOOP-BACK', '10.0.0.1,tcp:808,10.0.0.1'),
    entry('KUBE-NODE-PORT-TCP', '30080'),
    entry('KUBE-NODE-PORT-TCP', '80 '),
  ];

  test('is told where it concerns the packet, and nothing else is', async () => {
    const node = new Node();
    node.changes = [...OTHERS, ...MATTERS];
    const { verdict, kernelDiffers } = await node.ask('10.96.0.1:80', { from: '203.0.113.1' });
    assert.equal(verdict.kind, 'served');
    assert.deepEqual(kernelDiffers, MATTERS);
  });

  test('of a node port its number in the bitmap, and no other', async () => {
    const node = new Node();
    const own = entry('KUBE-NODE-PORT-TCP', '30080');
    node.changes = [own, entry('KUBE-NODE-PORT-TCP', '30081'), entry('KUBE-OTHER', '30080')];
    const { kernelDiffers } = await node.ask('10.200.0.2:30080', { from: '203.0.113.1' });
    assert.deepEqual(kernelDiffers, [own]);
  });
});
