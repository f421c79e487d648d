/** Events in the cluster: what is told, how often, by whom of a thousand nodes, and what the API server gets. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test, type TestContext } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { startClusterEvents } from '../../../src/daemon/report/cluster-events.js';
import { EventPublisher, eventOf } from '../../../src/daemon/report/event-publisher.js';
import {
  type OperatorFactsOptions,
  type OperatorFact,
  clusterFacts,
  nodeFacts,
} from '../../../src/daemon/report/operator-facts.js';
import { KubeClient } from '../../../src/kube/client.js';
import { KubeError } from '../../../src/kube/errors.js';
import { type EventObject, type EventOutcome, EventWriter } from '../../../src/kube/event-writer.js';
import { systemClock } from '../../../src/time/clock.js';
import { parseAddress } from '../../../src/values/address.js';
import { HandClock } from '../../fakes/hand-clock.js';
import { TestCluster } from '../../support/desired-cluster.js';
import { ReconcileRig } from '../../support/reconcile-rig.js';

const NEVER = new AbortController().signal;
const [MINUTE, HOUR] = [60_000, 3_600_000];
const NOTHING: OperatorFactsOptions = {
  ...{ nodeName: 'node-0', refused: { count: 0, messages: [] }, lostFamilies: new Map(), configProblem: undefined },
  ...{ conflicts: [], refusals: [], skipped: [] },
};
const CONFLICT: OperatorFact = {
  regarding: { kind: 'Service', namespace: 'shop', name: 'late' },
  ...{ reason: 'ServiceClaimConflict', detail: 'shop/early', note: 'shop/early has it' },
};
const REFUSED: OperatorFact = {
  regarding: { kind: 'Node', name: 'node-0' },
  ...{ reason: 'ServiceProxyObjectRefused', detail: '', note: 'the kernel refuses it' },
};

/** Events as etcd keeps them for an hour, with every request. */
class Events {
  readonly requests: { readonly at: number; readonly name: string; readonly outcome: string }[] = [];
  readonly clock = new HandClock();
  readonly warnings: string[] = [];
  failure: Error | undefined;
  readonly #kept = new Map<string, number>();
  readonly #publishers: EventPublisher[] = [];

  publisher(nodeName: string, facts: { node?: readonly OperatorFact[]; cluster?: readonly OperatorFact[] }): void {
    const { clock } = this;
    const publisher = new EventPublisher({
      nodeName,
      clock: {
        now: () => clock.now(),
        wall: () => clock.now(),
        after: (ms, run) => clock.after(ms, run),
        random: () => 0,
      },
      log: { warn: (_fields: object, text: string) => void this.warnings.push(text), debug: () => undefined } as never,
      write: (event) => this.#write(event),
      facts: () => ({ node: facts.node ?? [], cluster: facts.cluster ?? [] }),
    });
    publisher.start();
    this.#publishers.push(publisher);
  }

  outcomes(): Record<string, number> {
    const counts: Record<string, number> = {};
    for (const { outcome } of this.requests) counts[outcome] = (counts[outcome] ?? 0) + 1;
    return counts;
  }

  async close(): Promise<void> {
    await Promise.all(this.#publishers.map((publisher) => publisher.close()));
  }

  #write({ name }: EventObject): Promise<EventOutcome> {
    const at = this.clock.now();
    const isKnown = (this.#kept.get(name) ?? -Infinity) > at;
    const outcome = this.failure !== undefined ? 'failed' : isKnown ? 'known' : 'written';
    this.requests.push({ at, name, outcome });
    if (this.failure !== undefined) return Promise.reject(this.failure);
    if (!isKnown) this.#kept.set(name, at + HOUR);
    return Promise.resolve(outcome as EventOutcome);
  }
}

async function eventsOf(t: TestContext): Promise<Events> {
  const events = new Events();
  t.after(() => events.close());
  return Promise.resolve(events);
}

describe('EventPublisher', () => {
  test('a thousand nodes write one Event about a Service, and spread their requests over five minutes', async (t) => {
    const events = await eventsOf(t);
    for (let i = 0; i < 1000; i++) events.publisher(`node-${i}`, { cluster: [CONFLICT] });
    await events.clock.advance(7 * MINUTE);
    assert.deepEqual(events.outcomes(), { written: 1, known: 999 });
    const most = Math.max(
      ...Array.from({ length: 14 }, (_, i) => events.requests.filter(({ at }) => Math.floor(at / 30_000) === i).length),
    );
    assert.ok(most < 200, `${most} requests within 30 s`);
  });

  test('a fact about the node is told at once, and again after an hour if it is still so', async (t) => {
    const events = await eventsOf(t);
    let node: OperatorFact[] = [];
    events.publisher('node-0', {
      get node() {
        return node;
      },
    });
    await events.clock.advance(10 * MINUTE);
    assert.deepEqual(events.requests, []);
    node = [REFUSED];
    await events.clock.advance(MINUTE);
    assert.deepEqual(events.outcomes(), { written: 1 });
    // It comes and goes, and says other things: no further Event.
    for (let i = 0; i < 10; i++) {
      node = i % 2 === 0 ? [] : [{ ...REFUSED, note: `another ${i}` }];
      await events.clock.advance(MINUTE);
    }
    assert.deepEqual(events.outcomes(), { written: 1 });
    await events.clock.advance(70 * MINUTE);
    assert.deepEqual(events.outcomes(), { written: 2 });
  });

  test('a node asks for five Events in half a minute at most', async (t) => {
    const events = await eventsOf(t);
    const node = Array.from({ length: 23 }, (_, i) => ({ ...REFUSED, detail: String(i) }));
    events.publisher('node-0', { node });
    await events.clock.advance(40_000);
    assert.deepEqual(events.outcomes(), { written: 5 });
    await events.clock.advance(5 * MINUTE);
    assert.deepEqual(events.outcomes(), { written: 23 });
  });

  test('refused by the API server: one warning, ten minutes of silence, and nothing else is met', async (t) => {
    const events = await eventsOf(t);
    events.failure = new KubeError('create event', { status: 403, reason: 'Forbidden', message: 'no' });
    events.publisher('node-0', { node: [REFUSED], cluster: [CONFLICT] });
    await events.clock.advance(9 * MINUTE);
    assert.deepEqual(events.outcomes(), { failed: 1 });
    await events.clock.advance(30 * MINUTE);
    assert.equal(events.requests.length, 4);
    assert.equal(events.warnings.length, 1);
    events.failure = undefined;
    await events.clock.advance(11 * MINUTE);
    assert.deepEqual(events.outcomes(), { failed: 4, written: 2 });
  });

  test('facts that cannot be had are told, and the next look may succeed', async (t) => {
    const events = await eventsOf(t);
    let isBroken = true;
    events.publisher('node-0', {
      get node() {
        if (isBroken) throw new Error('a bug');
        return [REFUSED];
      },
    });
    await events.clock.advance(MINUTE);
    assert.deepEqual([events.requests.length, events.warnings.length], [0, 2]);
    isBroken = false;
    await events.clock.advance(MINUTE);
    assert.deepEqual(events.outcomes(), { written: 1 });
  });
});

describe('facts', () => {
  const texts = (facts: readonly OperatorFact[]): string[] =>
    facts.map(({ regarding, reason, note }) => {
      const place = regarding.kind === 'Node' ? '' : `${regarding.namespace}/`;
      return `${regarding.kind} ${place}${regarding.name} ${reason}: ${note}`;
    });

  test('of the node: what the kernel refuses, aggregated, a lost family, a refused configuration', () => {
    assert.deepEqual(nodeFacts(NOTHING), []);
    const messages = ['a', 'b', 'c', 'd'];
    const lostFamilies = new Map([[6, 'IPv6 is not served on this node: no ip6tables']] as const);
    const found = nodeFacts({ ...NOTHING, refused: { count: 9, messages }, lostFamilies, configProblem: 'line 3' });
    assert.deepEqual(texts(found), [
      'Node node-0 ServiceProxyObjectRefused: the kernel refuses, and traffic to it is not served here: a; b; c and 6 more ' +
        '(`kube-proxy-ipvs status` on the node has all)',
      'Node node-0 ServiceProxyFamilyLost: IPv6 is not served on this node: no ip6tables',
      'Node node-0 ServiceProxyConfigRefused: line 3',
    ]);
  });

  test('of the cluster: conflicts, addresses that are refused, malformed objects; fifty of each at most', () => {
    const clusterIP = parseAddress('10.96.0.9')!;
    const found = clusterFacts({
      ...NOTHING,
      conflicts: [{ winner: 'shop/early', loser: 'shop/late', example: { clusterIP } }],
      refusals: [['shop/vip', [{ text: '192.0.2.1 is the address of Node node-7' }, { text: 'another' }]]],
      skipped: [
        { resource: 'services', key: 'shop/bad', problem: 'spec.clusterIPs: no address' },
        { resource: 'endpointslices', key: 'shop/bad-1', problem: 'a port' },
        { resource: 'nodes', key: 'node-0', problem: 'an address' },
      ],
    });
    assert.deepEqual(texts(found), [
      'Service shop/late ServiceClaimConflict: 10.96.0.9 is claimed by shop/early, too, which serves it; this Service does not',
      'Service shop/vip ServiceAddressRefused: 192.0.2.1 is the address of Node node-7 (and 1 more)',
      'Service shop/bad ServiceObjectSkipped: malformed, and left out in whole or in part: spec.clusterIPs: no address',
      'EndpointSlice shop/bad-1 ServiceObjectSkipped: malformed, and left out in whole or in part: a port',
    ]);
    const refusals = Array.from(
      { length: 900 },
      (_, i): OperatorFactsOptions['refusals'] extends Iterable<infer T> ? T : never => [`a/${i}`, [{ text: 'x' }]],
    );
    assert.equal(clusterFacts({ ...NOTHING, refusals }).length, 50);
  });

  test('the name of an Event is that of the fact, whoever writes it and however it is put', () => {
    const { name } = eventOf(CONFLICT);
    assert.match(name, /^kube-proxy-ipvs\.[0-9a-f]{20}$/);
    assert.equal(eventOf({ ...CONFLICT, note: 'otherwise' }).name, name);
    const others = [
      { ...CONFLICT, detail: 'shop/other' },
      { ...CONFLICT, reason: 'Another' },
      { ...CONFLICT, regarding: { ...CONFLICT.regarding, name: 'x' } },
    ];
    for (const other of others) assert.notEqual(eventOf(other).name, name);
  });
});

/** An API server that holds one Service and takes Events as kube-apiserver 1.36 validates them. */
async function eventServer(
  t: TestContext,
): Promise<{ writer: EventWriter; bodies: EventBody[]; asked: string[]; url: string }> {
  const [bodies, asked]: [EventBody[], string[]] = [[], []];
  const server = createServer((request, response) => {
    const { method = '', url = '' } = request;
    asked.push(`${method} ${url}`);
    let text = '';
    request.on('data', (chunk: Buffer) => (text += chunk.toString()));
    request.on('end', () => {
      const answer = (status: number, body: object): void => {
        response.writeHead(status, { 'content-type': 'application/json' });
        response.end(JSON.stringify(body));
      };
      if (method === 'GET') {
        const items = url.includes('name%3Dlate') ? [{ metadata: { name: 'late', uid: 'uid-7' } }] : [];
        return answer(200, { kind: 'ServiceList', items });
      }
      const event = JSON.parse(text) as EventBody;
      const [, namespace] = /^\/apis\/events\.k8s\.io\/v1\/namespaces\/([^/]+)\/events$/.exec(url) ?? [];
      const problem = invalid(event, namespace, request.headers['content-type']);
      if (problem !== undefined) return answer(422, { kind: 'Status', message: problem });
      if (bodies.some(({ metadata }) => metadata.name === event.metadata.name)) return answer(409, { kind: 'Status' });
      bodies.push(event);
      answer(201, event);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const url = `http://127.0.0.1:${port}`;
  const client = new KubeClient({ master: url });
  t.after(() => {
    client.close();
    server.close();
    server.closeAllConnections();
  });
  return { writer: new EventWriter(client, 'node-0', () => Date.parse('2026-11-26T08:00:00.5Z')), bodies, asked, url };
}

interface EventBody {
  readonly metadata: { readonly name: string; readonly namespace: string };
  readonly regarding: Readonly<Record<string, string>>;
  readonly [field: string]: unknown;
}

/** pkg/apis/core/validation/events.go: what a new Event of events.k8s.io/v1 has to have. */
function invalid(event: EventBody, namespace: string | undefined, type: string | undefined): string | undefined {
  const { metadata, regarding } = event;
  if (type !== 'application/json') return 'the content type';
  if (namespace === undefined || metadata.namespace !== namespace) return 'metadata.namespace';
  const about = regarding['namespace'] ?? '';
  if (about === '' ? !['default', 'kube-system'].includes(namespace) : about !== namespace)
    return 'regarding.namespace';
  if (!/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/.test(event['eventTime'] as string)) return 'eventTime';
  for (const [field, longest] of [
    ['reportingController', 63],
    ['reportingInstance', 128],
    ['action', 128],
    ['reason', 128],
  ] as const) {
    const value = event[field];
    if (typeof value !== 'string' || value === '' || value.length > longest) return field;
  }
  if (Buffer.byteLength(event['note'] as string) > 1024) return 'note';
  return ['Normal', 'Warning'].includes(event['type'] as string) ? undefined : 'type';
}

describe('EventWriter', () => {
  test('writes what the API server takes, of a Service with its uid; the second is known', async (t) => {
    const { writer, bodies, asked } = await eventServer(t);
    assert.equal(await writer.write(eventOf(CONFLICT), NEVER), 'written');
    assert.equal(await writer.write(eventOf(CONFLICT), NEVER), 'known');
    assert.deepEqual(bodies[0]!.regarding, { apiVersion: 'v1', ...CONFLICT.regarding, uid: 'uid-7' });
    assert.equal(asked[0], 'GET /api/v1/namespaces/shop/services?fieldSelector=metadata.name%3Dlate&limit=1');
    assert.equal(asked.length, 4);
  });

  test('of a Node where kubectl looks for it, with a note that is cut to what is allowed', async (t) => {
    const { writer, bodies } = await eventServer(t);
    assert.equal(await writer.write(eventOf({ ...REFUSED, note: 'ü'.repeat(2000) }), NEVER), 'written');
    assert.equal(bodies[0]!.metadata.namespace, 'default');
    assert.deepEqual(bodies[0]!.regarding, { apiVersion: 'v1', kind: 'Node', name: 'node-0', uid: 'node-0' });
    assert.match(bodies[0]!['note'] as string, /^ü{500,}\.\.\.$/);
  });

  test('of an object that is gone nothing is written', async (t) => {
    const { writer, bodies } = await eventServer(t);
    const gone = { ...CONFLICT, regarding: { ...CONFLICT.regarding, name: 'gone' } } as OperatorFact;
    assert.equal(await writer.write(eventOf(gone), NEVER), 'gone');
    assert.deepEqual(bodies, []);
  });
});

function kubeconfigOf(t: TestContext, server: string): string {
  const directory = mkdtempSync(join(tmpdir(), 'cluster-events-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const document = {
    clusters: [{ name: 'c', cluster: { server } }],
    users: [{ name: 'u', user: {} }],
    contexts: [{ name: 'x', context: { cluster: 'c', user: 'u' } }],
    'current-context': 'x',
  };
  const file = join(directory, 'kubeconfig');
  writeFileSync(file, JSON.stringify(document));
  return file;
}

test('what the data plane knows becomes Events: a conflict, a lost family, a malformed object', async (t) => {
  const { bodies, url } = await eventServer(t);
  const cluster = new TestCluster();
  const twice = { externalIPs: ['192.0.2.1'] };
  cluster.service('early', { clusterIP: '10.96.0.2', ...twice }, { created: '2023-01-01T00:00:00Z' });
  cluster.service('late', { clusterIP: '10.96.0.3', clusterIPs: ['10.96.0.3', 'fd00:96::3'], ...twice });
  for (const name of ['early', 'late']) cluster.slice(name, ['10.0.0.3']);
  const rig = new ReconcileRig(cluster);
  await rig.sync();
  const { updater, options } = rig.dataPlane;
  const hand = new HandClock();
  const clock = { ...systemClock, now: () => hand.now(), after: (ms: number, run: () => void) => hand.after(ms, run) };
  const kubeconfig = kubeconfigOf(t, url);
  const told = (
    events: 'none' | 'node' | 'all',
    manifests?: string,
    way: { master?: string; kubeconfig?: string } = { master: url },
  ) =>
    startClusterEvents(
      {
        ...{ cluster: rig.dataPlane.cluster, updater },
        options: {
          ...options,
          ...{ nodeName: 'node-0', families: [4], leftOut: ['IPv6 is not served on this node: no ip6tables'] },
          config: { ...options.config, events, master: undefined, kubeconfig: undefined, ...way },
        },
      },
      {
        skipped: () => [{ resource: 'services', key: 'default/late', problem: 'spec.ports[1]: no port' }],
        ...{ manifests, configProblem: () => undefined, onRequest: () => undefined, clock },
      },
    );
  const settled = async (count: number): Promise<string[]> => {
    for (let i = 0; i < 600 && bodies.length < count; i++) {
      await hand.advance(1000);
      await pause(20);
    }
    return bodies
      .map(({ regarding, reason }) => `${regarding['kind']} ${regarding['name']} ${reason as string}`)
      .sort();
  };
  assert.equal(told('none'), undefined);
  assert.equal(told('all', '/manifests'), undefined, 'without an API server there is nobody to tell');
  const node = told('node')!;
  assert.deepEqual(await settled(1), ['Node node-0 ServiceProxyFamilyLost']);
  await node.close();
  const all = told('all', undefined, { kubeconfig })!;
  assert.deepEqual(await settled(3), [
    'Node node-0 ServiceProxyFamilyLost',
    'Service late ServiceClaimConflict',
    'Service late ServiceObjectSkipped',
  ]);
  await all.close();
});
