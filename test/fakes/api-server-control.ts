import { type Disturbance, type FaultRule } from './api-server-faults.js';
import { type ApiObject, type Resource } from './api-server-store.js';
import { type FakeApiServer } from './api-server.js';
import { scaleCluster, scaleSlices } from './cluster-generator.js';

/** What the stand-alone server can be told, as JSON over its control port or standard input. */
export type ControlCommand =
  | { readonly op: 'set'; readonly object?: ApiObject; readonly objects?: readonly ApiObject[] }
  | { readonly op: 'patch'; readonly resource: Resource; readonly key: string; readonly patch: unknown }
  | { readonly op: 'delete'; readonly resource: Resource; readonly key: string }
  | {
      readonly op: 'generate';
      readonly services: number;
      readonly endpointsPerService: number;
      readonly nodes?: number;
    }
  /** One endpoint of each of these generated Services is replaced: a rolling update. */
  | {
      readonly op: 'move';
      readonly from: number;
      readonly to: number;
      readonly endpointsPerService: number;
      readonly endpoint: number;
      /** A new number makes new addresses. */
      readonly by: number;
    }
  | { readonly op: 'fault'; readonly rule: FaultRule }
  | { readonly op: 'clearFaults' }
  | { readonly op: 'disturb'; readonly how: Disturbance; readonly resource?: Resource }
  | { readonly op: 'bookmark' | 'compact' | 'expireContinueTokens' | 'outage' | 'recover' | 'stats' }
  /** Down, history forgotten, up again. */
  | { readonly op: 'restart' }
  | { readonly op: 'tokens'; readonly tokens: readonly string[] | null };

/**
 * `at` is process.hrtime (CLOCK_MONOTONIC, shared by all processes of a machine) in nanoseconds, taken when the write
 * was out.
 */
export interface ControlAnswer {
  readonly ok: boolean;
  readonly revision: number;
  readonly at: string;
  readonly error?: string;
  readonly [detail: string]: unknown;
}

/** Runs one command; never rejects, a bad command answers `ok: false`. */
export async function control(server: FakeApiServer, command: ControlCommand): Promise<ControlAnswer> {
  try {
    const details = await run(server, command);
    return { ok: true, revision: server.store.revision, at: String(process.hrtime.bigint()), ...details };
  } catch (error) {
    return { ok: false, revision: server.store.revision, at: '0', error: String(error) };
  }
}

async function run(server: FakeApiServer, command: ControlCommand): Promise<object> {
  switch (command.op) {
    case 'set':
      server.set(...(command.object === undefined ? [] : [command.object]), ...(command.objects ?? []));
      return {};
    case 'patch':
      server.patch(command.resource, command.key, command.patch);
      return {};
    case 'delete':
      return { deleted: server.delete(command.resource, command.key) };
    case 'generate':
      for (const object of scaleCluster(command)) server.set(object);
      return {};
    case 'move':
      server.set(...movedSlices(command));
      return { publishedAt: String(server.publishedAt) };
    case 'fault':
      server.fault(command.rule);
      return {};
    case 'clearFaults':
      server.faults.clear();
      return {};
    case 'disturb':
      return { watches: server.disturb(command.how, command.resource) };
    case 'tokens':
      server.tokens = command.tokens === null ? undefined : new Set(command.tokens);
      return {};
    case 'restart':
      await server.outage();
      server.compact();
      await server.recover();
      return {};
    case 'stats':
      return stats(server);
    default:
      return runPlain(server, command.op);
  }
}

function movedSlices(command: Extract<ControlCommand, { op: 'move' }>): ApiObject[] {
  const slices: ApiObject[] = [];
  const scale = { ...command, services: command.to };
  for (let i = command.from; i < command.to; i++) slices.push(...scaleSlices(i, scale, command));
  return slices;
}

async function runPlain(
  server: FakeApiServer,
  op: 'bookmark' | 'compact' | 'expireContinueTokens' | 'outage' | 'recover',
): Promise<object> {
  if (!['bookmark', 'compact', 'expireContinueTokens', 'outage', 'recover'].includes(op)) {
    throw new RangeError(`unknown op ${String(op)}`);
  }
  await server[op]();
  return {};
}

function stats(server: FakeApiServer): object {
  const objects = (resource: Resource): number => server.store.collection(resource).objects.size;
  return {
    services: objects('services'),
    endpointslices: objects('endpointslices'),
    nodes: objects('nodes'),
    watches: [...server.watches].map((watch) => watch.collection.type.resource),
    watchesStarted: server.watchesStarted,
    requests: server.requests.length,
    injected: Object.fromEntries(server.faults.injected),
    rssMb: Math.round(process.memoryUsage().rss / 1e6),
  };
}
