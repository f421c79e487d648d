/**
 * The walk of `explain` against the traffic table: what real packets proved there (test/kernel/traffic.test.ts) is
 * what the walk must say of the
 * same Services.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type ProxyConfig } from '../../../src/config/proxy-config.js';
import { loadConfigDocument } from '../../../src/config/load.js';
import { ruleConfigs } from '../../../src/daemon/rules/rule-configs.js';
import { iptablesRules } from '../../../src/desired/iptables-rules.js';
import { newTouched } from '../../../src/desired/desired-state.js';
import { type IpsetName, allIpsetDefinitions } from '../../../src/desired/ipset-definitions.js';
import { Uplinks } from '../../../src/kernel/node/uplinks.js';
import { ClusterState } from '../../../src/model/cluster-state.js';
import { parseEndpointSlice } from '../../../src/model/endpoint-slice.js';
import { parseNode } from '../../../src/model/node.js';
import { parseService } from '../../../src/model/service.js';
import { type Packet, type PacketWalk, type WalkVerdict, walkPacket } from '../../../src/plan/walk/packet-walk.js';
import { DesiredUpdater } from '../../../src/reconcile/desired-updater.js';
import { type Address, parseAddress } from '../../../src/values/address.js';
import { formatIpsetEntry } from '../../../src/values/ipset.js';
import { type Protocol, isProtocol } from '../../../src/values/protocol.js';
import { PHASES, type Phase } from '../../kernel/traffic-cases.js';
import { formatExpectation } from '../../kernel/traffic-table.js';
import { type Case, casesOf, placeAddress } from '../../kernel/traffic-walk.js';
import { TestCluster } from '../../support/desired-cluster.js';
import { testConfig } from '../../support/test-world.js';
import { nodeObject, serviceObjects } from '../../kernel/traffic-objects.js';
import {
  BRIDGE_ADDRESSES,
  NODE4,
  NODE6,
  NODE_NAME,
  PODS,
  SECOND4,
  SECOND_PORT,
  SERVICES,
  nodePort,
} from '../../kernel/traffic-world.js';

const NODE_SOURCES = [NODE4, NODE6, SECOND4, ...BRIDGE_ADDRESSES];
const UPLINKS = new Uplinks(() => ({ eth0: [{ address: NODE4 }, { address: NODE6 }] }));
const fail = (problem: string): never => assert.fail(problem);
const address = (text: string): Address => parseAddress(text) ?? fail(text);

/** The node and the Services of the traffic laboratory, under the configuration of one phase. */
class World {
  readonly updater: DesiredUpdater;

  private constructor(readonly config: ProxyConfig) {
    const { scheduler, nodePortAddresses: nodePorts, nodeIP } = config;
    const state = new ClusterState();
    const ignored = (): void => undefined;
    this.updater = new DesiredUpdater(
      state,
      { nodeName: NODE_NAME, scheduler, families: [4, 6], nodePorts, nodeIP },
      { conflicts: ignored, refused: ignored },
    );
    state.setNode(parseNode(nodeObject(), fail));
    state.setLocalAddresses(new Set([...NODE_SOURCES, '127.0.0.1', '::1'].map(address)));
    for (const object of SERVICES.flatMap(serviceObjects)) {
      if ((object as { kind: string }).kind === 'Service') state.setService(parseService(object, ignored)!);
      else state.setSlice(parseEndpointSlice(object, NODE_NAME, fail)!);
    }
  }

  static async create(config: Phase['config']): Promise<World> {
    const api = { apiVersion: 'kubeproxy.config.k8s.io/v1alpha1', kind: 'KubeProxyConfiguration', mode: 'ipvs' };
    const world = new World(loadConfigDocument({ ...api, ...config }, 'the table').config);
    await world.updater.updateDirty(newTouched());
    return world;
  }

  walk(one: Case, protocol: Protocol, inputPolicy: 'ACCEPT' | 'DROP'): PacketWalk {
    const { cluster, desired, context } = this.updater;
    const configs = ruleConfigs(this.config, [4, 6], cluster.node, false, UPLINKS);
    const rules = configs.map(iptablesRules).find(({ family }) => family === one.family)!;
    const destination = address(one.address);
    const isFromNode = one.place === 'node';
    const link = { client: 'v-client', bridged: 'cbr0' }[one.place as string] ?? 'eth0';
    const packet: Packet = {
      ...{ protocol, destination, port: one.port, isFromNode },
      isFromPodHere: one.place === 'client' || one.place === 'bridged',
      // The kernel chooses the destination's own address for what the node asks of itself.
      source: isFromNode ? destination : address(placeAddress(one.place, one.family)),
      comesBy: (name) => (name.endsWith('+') ? link.startsWith(name.slice(0, -1)) : link === name),
    };
    const { localAddresses, nodePortAddresses } = context;
    const served = [...nodePortAddresses[4], ...nodePortAddresses[6]];
    const isEverywhere = this.config.nodePortAddresses[one.family].all;
    const servesHealthChecks = (at: Address): boolean => isEverywhere || served.includes(at);
    return walkPacket(packet, { desired, rules, localAddresses, inputPolicy, servesHealthChecks });
  }
}

/** What the walk cannot say, and why. */
function inexpressible(one: Case): string | undefined {
  if (one.way === 'PING' || one.way === 'ARP') return `${one.way}: no connection to a port`;
  if (one.row.feature.includes('hand-made')) return "hand-made host port: a rule that is somebody else's";
  if (one.row.feature.includes('administrator')) return "an administrator's DROP: a rule that is somebody else's";
  return undefined;
}

/** The processes of the laboratory's host (traffic-lab.ts): what listens there answers, else the host refuses. */
function hostAnswers({ way, port }: Case): boolean {
  return way !== 'SCTP' && [2222, nodePort(6), 9022].includes(port);
}

function serverName(at: string, port: number): string {
  if (port === 9022) return 'host';
  if (port === 9023) return 'otherhost';
  const pod = PODS.find(({ addresses }) => addresses.includes(at))?.name ?? fail(`no server ${at}:${port}`);
  return port === SECOND_PORT ? `${pod}81` : pod;
}

/** What the table calls what the walk found; an address of the node as `self` may be called `node` there. */
function inTableWords(one: Case, source: string, verdict: WalkVerdict): string[] {
  const seen = (seenAs: 'client' | 'node'): string[] => {
    if (seenAs === 'node') return ['node'];
    const isNodes = NODE_SOURCES.includes(source);
    return ['self', ...(isNodes ? ['node'] : []), ...(source === one.address ? ['target'] : [])];
  };
  switch (verdict.kind) {
    case 'served': {
      const names = [...new Set(verdict.backends.map((backend) => serverName(backend.address, backend.port)))];
      const [first] = verdict.backends;
      if (verdict.backends.every(({ answersThisWay }) => !answersThisWay)) return ['dropped'];
      assert.equal(new Set(verdict.backends.map(({ seenAs }) => seenAs)).size, 1);
      const isNear = (name: string): boolean => name.startsWith('near');
      const by = [...names.filter(isNear).sort(), ...names.filter((name) => !isNear(name)).sort()].join(' ');
      const how = verdict.persistenceTimeout > 0 ? 'one' : 'any';
      return [...seen(first!.seenAs).map((as) => `${by} as ${as}`), `${how} of ${by}`];
    }
    case 'refused':
    case 'dropped':
      return [verdict.kind];
    case 'host':
      if (verdict.healthCheck !== undefined) {
        const { localEndpoints } = verdict.healthCheck;
        return [`health ${localEndpoints > 0 ? 200 : 503} ${localEndpoints}`];
      }
      return hostAnswers(one) ? seen('client').map((as) => `host as ${as}`) : ['refused'];
    case 'not-ours':
      return ['not-ours'];
  }
}

describe('the walk of a packet says what real packets met', () => {
  const left = new Map<string, number>();
  for (const phase of PHASES)
    test(phase.name, async () => {
      const world = await World.create(phase.config);
      const inputPolicy = phase.name.startsWith('policy DROP') ? 'DROP' : 'ACCEPT';
      const wrong: string[] = [];
      let compared = 0;
      for (const one of casesOf(phase.rows, SERVICES)) {
        const why = inexpressible(one);
        if (why !== undefined) {
          left.set(why, (left.get(why) ?? 0) + 1);
          continue;
        }
        const protocol = isProtocol(one.way) ? one.way : 'TCP';
        const { verdict, steps } = world.walk(one, protocol, inputPolicy);
        const source = one.place === 'node' ? one.address : placeAddress(one.place, one.family);
        const words = inTableWords(one, source, verdict);
        compared++;
        const wanted = formatExpectation(one.expected);
        if (words.includes(wanted)) continue;
        const way = steps.map(({ at, text }) => `    ${at}: ${text}`).join('\n');
        wrong.push(
          `${one.row.feature}: ${one.at} ${one.way} ${one.address}:${one.port} from ${one.place}: wanted ${wanted}, walked to ${words.join(' / ')}\n${way}`,
        );
      }
      assert.equal(wrong.length, 0, `${wrong.length} of ${compared}:\n${wrong.slice(0, 5).join('\n')}`);
    });

  test('what it cannot express is named, and little', () => {
    for (const [why, count] of left) console.log(`not expressible: ${count} cases: ${why}`);
    assert.deepEqual([...left.keys()].sort(), [
      'ARP: no connection to a port',
      'PING: no connection to a port',
      "an administrator's DROP: a rule that is somebody else's",
      "hand-made host port: a rule that is somebody else's",
    ]);
  });
});

test('every step of every case reads as a sentence, and names the rule that it follows from', async () => {
  const ends = new Set<string>();
  for (const { config, rows } of PHASES) {
    const world = await World.create(config);
    for (const one of casesOf(rows, SERVICES)) if (isProtocol(one.way)) readSteps(world, one, one.way, ends);
  }
  for (const end of ['dropped without a word', 'refused with a TCP reset', 'refused with "port unreachable"'])
    assert.ok(ends.has(end), end);
});

function readSteps(world: World, one: Case, protocol: Protocol, ends: Set<string>): void {
  const { verdict, steps } = world.walk(one, protocol, 'DROP');
  if (verdict.kind === 'served')
    assert.ok(
      steps.some(
        ({ at, text }) =>
          at === 'IPVS' &&
          text.endsWith(
            `: ${verdict.scheduler} chooses among ${verdict.backends.length === 1 ? '1 backend' : `${verdict.backends.length} backends`}` +
              (verdict.persistenceTimeout === 0
                ? ''
                : `, and keeps a client there for ${verdict.persistenceTimeout} s`),
          ),
      ),
      JSON.stringify(steps),
    );
  for (const { at, text, rule } of steps) {
    ends.add(text.replace(/^.*: /, ''));
    assert.doesNotMatch(text, /undefined|KUBE-(?!MARK|LOAD|NODE|SOURCE|SERVICES)/, `${at}: ${text}`);
    if (/^(nat|filter|mangle) KUBE/.test(at)) assert.ok(rule?.includes('-j '), at);
  }
}

test('a step names the entries by which sets hold the packet, as the desired sets have them', async () => {
  const world = await World.create(PHASES[0]!.config);
  const saved = new Map<string, Set<string>>();
  for (const { name, type } of allIpsetDefinitions().values()) {
    const entries = [...world.updater.desired.entries(name as IpsetName).keys()];
    saved.set(name, new Set(entries.map((entry) => formatIpsetEntry(type, entry))));
  }
  const met = new Set<string>();
  for (const one of casesOf(PHASES[0]!.rows, SERVICES)) {
    if (!isProtocol(one.way)) continue;
    for (const { rule = '', entries = [] } of world.walk(one, one.way, 'DROP').steps) {
      const sets = [...rule.matchAll(/(! )?--match-set (\S+)/g)].filter(([, negated]) => negated === undefined);
      assert.deepEqual(
        entries.map(({ set }) => set),
        sets.map(([, , set]) => set),
        rule,
      );
      for (const { set, entry } of entries) {
        assert.ok(saved.get(set)?.has(entry), `${set}: ${entry}`);
        met.add(set);
      }
    }
  }
  assert.ok(met.size >= 6, [...met].join());
});

test('a client that is kept for one second is said to be kept, one that is not kept is not', async () => {
  const cluster = new TestCluster({ families: [4] });
  const affinity = (timeoutSeconds: number) => ({
    ...{ clusterIP: `10.96.0.${timeoutSeconds}`, sessionAffinity: 'ClientIP' },
    sessionAffinityConfig: { clientIP: { timeoutSeconds } },
  });
  for (const seconds of [1, 2]) cluster.service(`kept-${seconds}`, affinity(seconds));
  cluster.service('free', { clusterIP: '10.96.0.9' });
  for (const name of ['kept-1', 'kept-2', 'free']) cluster.slice(name, ['10.0.0.1', '10.0.0.2']);
  await cluster.update();
  const [rules] = ruleConfigs(testConfig(), [4], cluster.state.node, false, UPLINKS).map(iptablesRules);
  const { desired, context } = cluster.updater;
  const said = (last: number): string | undefined => {
    const destination = address(`10.96.0.${last}`);
    const packet: Packet = {
      ...{ protocol: 'TCP', destination, port: 80, source: address('203.0.113.1') },
      ...{ isFromNode: false, isFromPodHere: false, comesBy: () => false },
    };
    const { localAddresses } = context;
    const state = { desired, rules: rules!, localAddresses, inputPolicy: 'ACCEPT', servesHealthChecks: () => false };
    const { steps } = walkPacket(packet, state as Parameters<typeof walkPacket>[1]);
    return steps.find(({ at }) => at === 'IPVS')?.text.replace(/^.*: /, '');
  };
  assert.deepEqual([1, 2, 9].map(said), [
    'rr chooses among 2 backends, and keeps a client there for 1 s',
    'rr chooses among 2 backends, and keeps a client there for 2 s',
    'rr chooses among 2 backends',
  ]);
});
