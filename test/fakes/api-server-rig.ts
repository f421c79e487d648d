import { type ApiRequest } from '../../src/values/api-request.js';
import { type TestContext } from 'node:test';
import { KubeClient } from '../../src/kube/client.js';
import { Reflector, type ReflectorOptions } from '../../src/kube/reflector.js';
import { SERVICE_SELECTOR } from '../../src/kube/resources.js';
import { parseService, type Service } from '../../src/model/service.js';
import { type FaultRule, type RequestKind } from './api-server-faults.js';
import { type ApiObject } from './api-server-store.js';
import { TestClock, TestSink, until } from './api-server-testing.js';
import { type ApiServerOptions, FakeApiServer } from './api-server.js';

export interface RigOptions {
  readonly objects: readonly ApiObject[];
  readonly server?: ApiServerOptions;
  readonly faults?: readonly FaultRule[];
  readonly reflector?: Partial<ReflectorOptions<Service>>;
  readonly beforeStart?: (server: FakeApiServer) => void;
}

/** A reflector of Services against a fake API server, on a test clock. */
export interface ReflectorRig {
  readonly server: FakeApiServer;
  readonly reflector: Reflector<Service>;
  readonly sink: TestSink<Service>;
  readonly clock: TestClock;
  readonly problems: string[];
  readonly logged: string[];
  readonly records: ApiRequest[];
  readonly idleMs: number;
  readonly listIdleMs: number;
  synced(): Promise<void>;
  /** Waits until a watch is being served; with a kind, until one of that kind was asked for. */
  watching(kind?: RequestKind): Promise<void>;
  requestKinds(): string[];
}

/** Starts both; the test's end stops them. */
export async function startReflector(t: TestContext, options: RigOptions): Promise<ReflectorRig> {
  const server = new FakeApiServer(options.server);
  server.set(...options.objects);
  for (const rule of options.faults ?? []) server.fault(rule);
  options.beforeStart?.(server);
  const clock = new TestClock();
  const [problems, logged, records]: [string[], string[], ApiRequest[]] = [[], [], []];
  const client = new KubeClient({
    master: await server.start(),
    clock,
    headerTimeoutMs: 600_000,
    onRequest: (record) => records.push(record),
  });
  const sink = new TestSink<Service>();
  const [idleMs, listIdleMs] = [400_000, 500_000];
  const reflector = new Reflector<Service>({
    client,
    resource: 'services',
    path: '/api/v1/services',
    labelSelector: SERVICE_SELECTOR,
    parse: parseService,
    keyOf: ({ key }) => key,
    sink,
    clock,
    idleMs,
    listIdleMs,
    onProblem: (key, problem) => problems.push(`${key}: ${problem}`),
    log: {
      info: (_fields, message) => logged.push(message),
      warn: (_fields, message) => logged.push(message),
    },
    ...options.reflector,
  });
  t.after(async () => {
    await reflector.close();
    client.close();
    await server.stop();
  });
  reflector.start();
  return {
    server,
    reflector,
    sink,
    clock,
    problems,
    logged,
    records,
    idleMs,
    listIdleMs,
    synced: () => until('synced', () => sink.syncs === 1),
    watching: (kind) =>
      until('a watch is served', () => {
        const isAsked = kind === undefined || server.requests.some((request) => request.kind === kind);
        return isAsked && server.watches.size === 1;
      }),
    requestKinds: () => server.requests.map(({ kind }) => kind),
  };
}
