/** Events in the cluster, as `kubectl describe` shows them beside an object. */
import { asArray, asObject, asString } from '../model/json.js';
import { type KubeClient } from './client.js';
import { KubeError } from './errors.js';

/** An Event about one object; `name` is the same whoever writes it, so that the first to come writes for all. */
export interface EventObject {
  /** A DNS label, 63 characters at most. */
  readonly name: string;
  readonly regarding: EventSubject;
  /** CamelCase, one word. */
  readonly reason: string;
  /** For people. */
  readonly note: string;
}

export type EventSubject =
  | { readonly kind: 'Node'; readonly name: string }
  | { readonly kind: 'Service' | 'EndpointSlice'; readonly namespace: string; readonly name: string };

/** `known`: there is such an Event already, by another node perhaps; `gone`: there is no such object any more. */
export type EventOutcome = 'written' | 'known' | 'gone';

/** What the API allows in `note`. */
const NOTE_BYTES = 1024;
const TIMEOUT_MS = 10_000;
const CONTROLLER = 'kube-proxy-ipvs';
const PATHS = {
  Service: ['/api/v1', 'services'],
  EndpointSlice: ['/apis/discovery.k8s.io/v1', 'endpointslices'],
} as const;

export class EventWriter {
  readonly #client: Pick<KubeClient, 'open'>;
  readonly #instance: string;
  readonly #wall: () => number;

  /** `instance` is this node's name. */
  constructor(client: Pick<KubeClient, 'open'>, instance: string, wall: () => number) {
    this.#client = client;
    this.#instance = instance;
    this.#wall = wall;
  }

  /** At most two requests, ten seconds each. Rejects with KubeError. */
  async write(event: EventObject, signal: AbortSignal): Promise<EventOutcome> {
    const { regarding, name, reason, note } = event;
    const uid = await this.#uid(regarding, signal);
    if (uid === undefined) return 'gone';
    // Those of objects without a namespace are in `default`, where kubelet writes and `kubectl describe node` looks.
    const namespace = regarding.kind === 'Node' ? 'default' : regarding.namespace;
    const apiVersion = regarding.kind === 'EndpointSlice' ? 'discovery.k8s.io/v1' : 'v1';
    const body = {
      apiVersion: 'events.k8s.io/v1',
      kind: 'Event',
      metadata: { name, namespace },
      eventTime: new Date(this.#wall()).toISOString().replace('Z', '000Z'),
      ...{ reportingController: CONTROLLER, reportingInstance: this.#instance },
      ...{ type: 'Warning', reason, action: 'Sync', note: cut(note) },
      regarding: { apiVersion, ...regarding, uid },
    };
    const path = `/apis/events.k8s.io/v1/namespaces/${namespace}/events`;
    try {
      await this.#ask({ operation: 'create event', path, query: {}, body }, signal);
      return 'written';
    } catch (error) {
      if (error instanceof KubeError && error.status === 409) return 'known';
      throw error;
    }
  }

  /** `kubectl describe` finds an Event by it; of a Node it is the name, as kubelet has it. */
  async #uid(regarding: EventSubject, signal: AbortSignal): Promise<string | undefined> {
    const { kind, name } = regarding;
    if (kind === 'Node') return name;
    const [api, resource] = PATHS[kind];
    const path = `${api}/namespaces/${regarding.namespace}/${resource}`;
    const query = { fieldSelector: `metadata.name=${name}`, limit: '1' };
    const list = asObject(JSON.parse(await this.#ask({ operation: `list ${resource}`, path, query }, signal)));
    const found = asObject(asArray(list?.['items'])[0]);
    return found === undefined ? undefined : asString(asObject(found['metadata'])?.['uid']);
  }

  async #ask(
    request: Pick<Parameters<KubeClient['open']>[0], 'operation' | 'path' | 'query' | 'body'>,
    signal: AbortSignal,
  ): Promise<string> {
    const chunks: Buffer[] = [];
    for await (const chunk of await this.#client.open({ ...request, signal, idleMs: () => TIMEOUT_MS }))
      chunks.push(chunk);
    return Buffer.concat(chunks).toString('utf8');
  }
}

function cut(note: string): string {
  if (Buffer.byteLength(note) <= NOTE_BYTES) return note;
  // The last character may have been cut in two.
  return `${Buffer.from(note)
    .subarray(0, NOTE_BYTES - 6)
    .toString('utf8')
    .replace(/\uFFFD$/, '')}...`;
}
