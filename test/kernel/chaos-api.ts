/** The API side of the chaos: random objects and everything that an API server and the network before it can do. */
import { type Disturbance, type Fault, type FaultRule } from '../fakes/api-server-faults.js';
import { type FakeApiServer } from '../fakes/api-server.js';
import { type Resource } from '../fakes/api-server-store.js';
import { type ClusterChange, RandomCluster } from '../fakes/cluster-generator-random.js';
import { scaleNode } from '../fakes/cluster-generator.js';
import { type RawObject } from './chaos-oracle.js';
import { pick } from './chaos-vandal.js';

const RESOURCES: readonly Resource[] = ['services', 'endpointslices', 'nodes'];
const DISTURBANCES: readonly Disturbance[] = [
  ...(['reset', 'cutMidLine', 'garbage', 'freeze', 'end', 'error410', 'error500', 'badObject'] as const),
];
const FAULTS: readonly Fault[] = [
  { kind: 'status', code: 429, reason: 'TooManyRequests', retryAfter: '1' },
  { kind: 'status', code: 500 },
  { kind: 'status', code: 503, retryAfter: '1' },
  { kind: 'status', code: 410, reason: 'Expired' },
  { kind: 'drop' },
  { kind: 'hang' },
  { kind: 'cut', bytes: 5000 },
  { kind: 'freeze', bytes: 3000 },
  { kind: 'drip', bytes: 512 },
  { kind: 'garbage' },
  { kind: 'streamError', code: 410, reason: 'Expired' },
  { kind: 'streamError', code: 500, reason: 'InternalError' },
  { kind: 'end' },
  { kind: 'ignoreInitialEvents' },
];

export class ChaosApi {
  readonly #cluster: RandomCluster;
  zone = 'zone-a';

  readonly #server: FakeApiServer;
  readonly #random: () => number;

  constructor(server: FakeApiServer, seed: number, random: () => number) {
    this.#server = server;
    this.#random = random;
    this.#cluster = new RandomCluster({ seed, conflicts: true, badFields: true });
  }

  createCluster(services: number): void {
    this.#setNode();
    for (let i = 0; i < services; i++) this.#apply(this.#cluster.create());
  }

  /** What the API server holds now, labels that the selector leaves out included. */
  objects(resource: 'services' | 'endpointslices'): RawObject[] {
    const { store } = this.#server;
    return [...store.collection(resource).objects.keys()].map((key) => store.get(resource, key) as RawObject);
  }

  /** Random changes of Services, slices and now and then of the Node. */
  events(count: number): void {
    for (let i = 0; i < count; i++) this.#apply(this.#cluster.step());
    if (this.#random() > 0.04) return;
    this.zone = this.zone === 'zone-a' ? 'zone-b' : 'zone-a';
    this.#setNode();
  }

  /** Does something bad and says what. */
  async fault(): Promise<string> {
    const dice = this.#random();
    if (dice < 0.5) {
      const how = pick(DISTURBANCES, this.#random);
      const resource = pick(RESOURCES, this.#random);
      this.#server.disturb(how, resource);
      return `${how} ${resource}`;
    }
    if (dice < 0.6) {
      this.#server.compact();
      this.#server.disturb('reset');
      return 'compact and reset';
    }
    if (dice < 0.7) {
      await this.#server.outage();
      this.events(10);
      await this.#server.recover();
      return 'outage';
    }
    const fault = pick(FAULTS, this.#random);
    const rule: FaultRule = {
      fault,
      resource: pick(RESOURCES, this.#random),
      times: 1 + Math.floor(this.#random() * 2),
    };
    this.#server.fault(rule);
    this.#server.disturb('reset', rule.resource);
    return `${fault.kind}${fault.kind === 'status' ? ` ${fault.code}` : ''} ${rule.resource}`;
  }

  /** No fault any more, and no connection that still suffers from one: half-open ones would last for minutes. */
  async heal(): Promise<void> {
    this.#server.faults.clear();
    await this.#server.outage();
    await this.#server.recover();
  }

  #setNode(): void {
    this.#server.set(scaleNode('node-0', '10.200.0.2', this.zone));
    const addresses = ['10.200.0.2', 'fd00:200::2'].map((address) => ({ type: 'InternalIP', address }));
    this.#server.patch('nodes', 'node-0', { status: { addresses } });
  }

  #apply(changes: readonly ClusterChange[]): void {
    for (const change of changes) {
      if (change.op === 'set') this.#server.set(change.object);
      else this.#server.delete(change.resource, change.key);
    }
  }
}
