import { createServer as createHttpServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import { type AddressInfo, type Socket } from 'node:net';
import { TLSSocket } from 'node:tls';
import { type BodyFault, BodyWriter } from './api-server-body.js';
import { type Disturbance, type Fault, type FaultRule, FaultTable, type RequestKind } from './api-server-faults.js';
import { Pager, writeList } from './api-server-list.js';
import { compileSelector, type Selector } from './api-server-selector.js';
import {
  type ApiObject,
  ApiStore,
  type Backup,
  type Collection,
  RESOURCE_TYPES,
  type Resource,
  type StoreEvent,
} from './api-server-store.js';
import { CA_CERTIFICATE, SERVER_CERTIFICATE, SERVER_KEY } from './api-server-tls.js';
import { Watch, bookmarkLine, errorLine, fullJson, statusJson } from './api-server-watch.js';

export interface ApiServerOptions {
  /** HTTPS with the certificate of api-server-tls.ts. */
  readonly tls?: boolean;
  /** Refuses clients that show no certificate of the test authority (401). */
  readonly requireClientCertificate?: boolean;
  /** Bearer tokens that are accepted; without it everybody is. */
  readonly tokens?: readonly string[];
  /** Adds what objects of a real cluster carry besides: labels, annotations, owners, targetRefs, managedFields. */
  readonly realObjects?: boolean;
  /** Milliseconds between bookmarks; 0, the default, sends them only on `bookmark()`. */
  readonly bookmarkEveryMs?: number;
  /** Pages never hold more than this, whatever `limit` asks. */
  readonly maxPage?: number;
}

/** One request as the server saw it. */
export interface SeenRequest {
  readonly kind: RequestKind | 'get';
  readonly resource: Resource | undefined;
  readonly query: URLSearchParams;
  readonly status: number;
}

/**
 * A list/watch API server for Services, EndpointSlices and Nodes that behaves as the recorded kube-apiserver 1.36 does.
 */
export class FakeApiServer {
  readonly store: ApiStore;
  readonly faults = new FaultTable();
  readonly requests: SeenRequest[] = [];
  readonly watches = new Set<Watch>();
  tokens: Set<string> | undefined;
  /** TCP connections accepted since the start. */
  connections = 0;
  /** How many watches were accepted since the start. */
  watchesStarted = 0;
  /** When watchers began to hear of the last `set`, whose objects were made by then; process.hrtime nanoseconds. */
  publishedAt = 0n;
  #server: Server | undefined;
  #port = 0;
  #host = '127.0.0.1';
  readonly #sockets = new Set<Socket>();
  readonly #pager = new Pager();
  #bookmarks: NodeJS.Timeout | undefined;

  readonly #options: ApiServerOptions;

  constructor(options: ApiServerOptions = {}) {
    this.#options = options;
    this.store = new ApiStore({ realObjects: options.realObjects ?? false });
    this.tokens = options.tokens === undefined ? undefined : new Set(options.tokens);
  }

  get url(): string {
    const host = this.#host.includes(':') ? `[${this.#host}]` : this.#host;
    return `${this.#options.tls === true ? 'https' : 'http'}://${host}:${this.#port}`;
  }

  /** Listens; port 0 takes a free one. Resolves with the URL. */
  async start(port = 0, host = '127.0.0.1'): Promise<string> {
    this.#host = host;
    const server = this.#createServer();
    server.on('connection', (socket: Socket) => {
      this.connections++;
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
    });
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(port, host, resolve);
    });
    this.#server = server;
    this.#port = (server.address() as AddressInfo).port;
    const every = this.#options.bookmarkEveryMs ?? 0;
    if (every > 0) this.#bookmarks = setInterval(() => this.bookmark(), every).unref();
    return this.url;
  }

  async stop(): Promise<void> {
    clearInterval(this.#bookmarks);
    await this.outage();
  }

  /** Closes the listener and every connection; `recover` brings it back on the same port with the same state. */
  async outage(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    if (server === undefined) return;
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
    this.watches.clear();
  }

  async recover(): Promise<void> {
    if (this.#server === undefined) await this.start(this.#port, this.#host);
  }

  /**
   * Creates or replaces objects, and then lets the watchers know; they have their lines before this returns. Returns
   * the last resourceVersion.
   */
  set(...objects: readonly ApiObject[]): number {
    const changes = objects.map((object) => this.store.set(object));
    this.publishedAt = process.hrtime.bigint();
    for (const change of changes) this.#publish(change);
    return this.store.revision;
  }

  /** JSON merge patch (RFC 7386) of an existing object. */
  patch(resource: Resource, key: string, patch: unknown): number {
    const object = this.store.get(resource, key);
    if (object === undefined) throw new RangeError(`no ${resource} ${key}`);
    return this.set(mergePatch(object, patch) as ApiObject);
  }

  /** False when there was no such object. */
  delete(resource: Resource, key: string): boolean {
    const change = this.store.delete(resource, key);
    if (change !== undefined) this.#publish(change);
    return change !== undefined;
  }

  fault(rule: FaultRule): void {
    this.faults.add(rule);
  }

  /** Does something to the running watches of a resource (or all); returns to how many. */
  disturb(how: Disturbance, resource?: Resource): number {
    const hit = [...this.watches].filter(
      (watch) => resource === undefined || watch.collection.type.resource === resource,
    );
    for (const watch of hit) watch.disturb(how);
    for (let i = 0; i < hit.length; i++) this.faults.count(`watch ${how}`);
    return hit.length;
  }

  /** Sends a bookmark to every watch that asked for them. */
  bookmark(): void {
    for (const watch of this.watches) watch.bookmark(this.store.revision);
  }

  /** Forgets the history: watches from before now answer 410, and so do continue tokens. */
  compact(): void {
    this.store.compact();
    this.#pager.forget();
  }

  /**
   * etcd is restored from a backup: versions go backwards. The API server is started anew, and every connection breaks;
   * unless `keepsRunning`: then its watch caches list etcd again and end their watches (startCaching in
   * k8s.io/apiserver/pkg/storage/cacher/cacher.go). Either way the history begins with that list, so that what is older
   * is refused with 410 (getAllEventsSinceLocked in watch_cache.go).
   */
  restore(backup: Backup, keepsRunning = false): void {
    this.store.restore(backup);
    this.#pager.forget();
    if (keepsRunning) for (const watch of this.watches) watch.body.end();
    this.watches.clear();
    if (!keepsRunning) for (const socket of this.#sockets) socket.destroy();
  }

  /** Makes continue tokens answer 410 while watches go on. */
  expireContinueTokens(): void {
    this.#pager.forget();
  }

  #publish(change: { collection: Collection; event: StoreEvent }): void {
    for (const watch of this.watches) if (watch.collection === change.collection) watch.pump();
  }

  #createServer(): Server {
    const listener = (request: IncomingMessage, response: ServerResponse): void => {
      request.resume();
      response.on('error', () => undefined);
      this.#handle(request, response).catch((error: unknown) => response.destroy(error as Error));
    };
    const server =
      this.#options.tls === true
        ? createHttpsServer(
            {
              key: SERVER_KEY,
              cert: SERVER_CERTIFICATE,
              ca: CA_CERTIFICATE,
              requestCert: this.#options.requireClientCertificate === true,
              rejectUnauthorized: false,
            },
            listener,
          )
        : createHttpServer(listener);
    server.on('clientError', (_error, socket) => socket.destroy());
    server.keepAliveTimeout = 0;
    return server;
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = clusterWide(new URL(request.url ?? '/', 'http://fake'));
    const type = RESOURCE_TYPES.find(({ path }) => url.pathname === path || url.pathname.startsWith(`${path}/`));
    const query = url.searchParams;
    const kind = requestKind(query);
    const answer = (status: number, reason: string, message: string, headers: Record<string, string> = {}): void => {
      this.requests.push({ kind, resource: type?.resource, query, status });
      response.writeHead(status, { 'content-type': 'application/json', ...headers });
      response.end(`${statusJson(status, reason, message)}\n`);
    };
    if (!this.#isAuthorized(request)) return answer(401, 'Unauthorized', 'Unauthorized');
    if (type === undefined) return answer(404, 'NotFound', 'the server could not find the requested resource');
    const fault = this.faults.take(type.resource, kind);
    if (fault?.kind === 'drop') return void request.socket.destroy();
    if (fault?.kind === 'hang') return;
    if (fault?.kind === 'status') {
      const headers = fault.retryAfter === undefined ? {} : { 'retry-after': fault.retryAfter };
      return answer(fault.code, fault.reason ?? 'InternalError', `injected ${fault.code}`, headers);
    }
    let selector: Selector;
    try {
      selector = compileSelector(query.get('labelSelector') ?? '', query.get('fieldSelector') ?? '');
    } catch (error) {
      return answer(400, 'BadRequest', (error as Error).message);
    }
    const collection = this.store.collection(type.resource);
    if (url.pathname !== type.path) return this.#get(url, collection, response, answer);
    const context = { query, collection, selector, kind, fault, response, answer };
    return kind === 'list' ? this.#list(context) : this.#watch(context);
  }

  #isAuthorized(request: IncomingMessage): boolean {
    const { socket } = request;
    if (this.#options.requireClientCertificate === true && !(socket instanceof TLSSocket && socket.authorized)) {
      return false;
    }
    const [scheme, token] = (request.headers.authorization ?? '').split(' ');
    return this.tokens === undefined || (scheme === 'Bearer' && this.tokens.has(token ?? ''));
  }

  #get(url: URL, collection: Collection, response: ServerResponse, answer: Answer): void {
    const key = url.pathname.slice(collection.type.path.length + 1);
    const object = collection.objects.get(decodeURIComponent(key));
    if (object === undefined) return answer(404, 'NotFound', `${collection.type.resource} "${key}" not found`);
    response.writeHead(200, { 'content-type': 'application/json' });
    response.end(`${fullJson(collection.type, object)}\n`);
  }

  /**
   * Which version a list has is kube-apiserver's (GetList in k8s.io/apiserver/pkg/storage/cacher/delegator.go):
   * without a version the present one, whatever the watch cache has; with "0" what the cache has, `limit` or not; with
   * another one not older than that, or, when the server does not get there within 3 s, "Too large resource version"
   * (waitUntilFreshAndBlock in watch_cache.go, NewTooLargeResourceVersionError in pkg/storage/errors.go), which is
   * answered here at once.
   */
  async #list({ query, collection, selector, fault, response, answer }: Context): Promise<void> {
    const version = query.get('resourceVersion') ?? '';
    if (Number(version) > this.store.revision)
      return answer(504, 'Timeout', tooLarge(version, this.store.revision), { 'retry-after': '1' });
    const asked = version === '0' ? 0 : Number(query.get('limit') ?? 0);
    const limit = Math.min(asked === 0 ? Infinity : asked, this.#options.maxPage ?? Infinity);
    const token = query.get('continue') ?? '';
    const size = limit === Infinity ? 0 : limit;
    const page =
      token === ''
        ? this.#pager.first(collection.sorted(), selector, {
            revision: this.store.revision,
            limit: size,
            isSelective: query.has('labelSelector') || query.has('fieldSelector'),
          })
        : this.#pager.next(token, size);
    if (page === undefined) return answer(410, 'Expired', EXPIRED_CONTINUE);
    this.requests.push({ kind: 'list', resource: collection.type.resource, query, status: 200 });
    response.writeHead(200, { 'content-type': 'application/json' });
    await writeList(new BodyWriter(response, bodyFault(fault)), collection.type, page, fault?.kind === 'garbage');
  }

  async #watch({ query, collection, selector, kind, fault, response, answer }: Context): Promise<void> {
    const version = query.get('resourceVersion') ?? '';
    const isStreaming = kind === 'watchlist' && fault?.kind !== 'ignoreInitialEvents';
    if (!/^\d*$/.test(version)) return answer(400, 'BadRequest', `invalid resource version ${version}`);
    if (kind === 'watchlist' && query.get('resourceVersionMatch') !== 'NotOlderThan') {
      return answer(422, 'Invalid', 'sendInitialEvents requires setting resourceVersionMatch to NotOlderThan');
    }
    this.requests.push({ kind, resource: collection.type.resource, query, status: 200 });
    response.writeHead(200, { 'content-type': 'application/json' });
    response.flushHeaders();
    const body = new BodyWriter(response, bodyFault(fault));
    if (fault?.kind === 'end') return body.end();
    if (fault?.kind === 'streamError') {
      body.write(errorLine(fault.code, fault.reason, `injected ${fault.code}`));
      return body.end();
    }
    const revision = Number(version);
    if (!isStreaming && revision > 0 && revision < this.store.compactedRevision) {
      body.write(errorLine(410, 'Expired', `too old resource version: ${revision} (${this.store.compactedRevision})`));
      return body.end();
    }
    // Errors after the version was parsed come as an event (Watch in cacher.go).
    if (isStreaming && revision > this.store.revision) {
      body.write(errorLine(504, 'Timeout', tooLarge(version, this.store.revision)));
      return body.end();
    }
    const watch = new Watch(collection, selector, body, query.get('allowWatchBookmarks') === 'true');
    this.#track(watch, query);
    if (fault?.kind === 'garbage') watch.disturb('garbage');
    if (revision > 0 && !isStreaming) return watch.startAfter(revision);
    const { type } = collection;
    await watch.startWithObjects(() => (isStreaming ? bookmarkLine(type, this.store.revision, true) : undefined));
  }

  #track(watch: Watch, query: URLSearchParams): void {
    this.watchesStarted++;
    this.watches.add(watch);
    const seconds = Number(query.get('timeoutSeconds') ?? 0);
    const timer = seconds > 0 ? setTimeout(() => this.#expire(watch), seconds * 1000).unref() : undefined;
    watch.body.response.on('close', () => {
      clearTimeout(timer);
      this.watches.delete(watch);
    });
  }

  #expire(watch: Watch): void {
    watch.bookmark(this.store.revision);
    watch.body.end();
  }
}

type Answer = (status: number, reason: string, message: string, headers?: Record<string, string>) => void;

interface Context {
  readonly query: URLSearchParams;
  readonly collection: Collection;
  readonly selector: Selector;
  readonly kind: RequestKind;
  readonly fault: Fault | undefined;
  readonly response: ServerResponse;
  readonly answer: Answer;
}

function tooLarge(asked: string, current: number): string {
  return `Too large resource version: ${asked}, current: ${current}`;
}

const EXPIRED_CONTINUE =
  'The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter.';

/** A list of one namespace, `/v1/namespaces/NS/services`, as the list of all with a field selector. */
function clusterWide(url: URL): URL {
  const [, before, namespace, resource] = /^(.*\/v1)\/namespaces\/([^/]+)\/([^/]+)$/.exec(url.pathname) ?? [];
  if (namespace === undefined) return url;
  url.pathname = `${before}/${resource}`;
  url.searchParams.set('fieldSelector', `metadata.namespace=${namespace}`);
  return url;
}

function requestKind(query: URLSearchParams): RequestKind {
  const watch = query.get('watch');
  if (watch !== '1' && watch !== 'true') return 'list';
  return query.get('sendInitialEvents') === 'true' ? 'watchlist' : 'watch';
}

function bodyFault(fault: Fault | undefined): BodyFault {
  if (fault?.kind === 'cut') return { cutAfter: fault.bytes };
  if (fault?.kind === 'freeze') return { freezeAfter: fault.bytes };
  return fault?.kind === 'drip' ? { drip: fault.bytes } : {};
}

function mergePatch(target: unknown, patch: unknown): unknown {
  if (typeof patch !== 'object' || patch === null || Array.isArray(patch)) return patch;
  const isObject = typeof target === 'object' && target !== null && !Array.isArray(target);
  const merged: Record<string, unknown> = isObject ? { ...target } : {};
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) delete merged[name];
    else merged[name] = mergePatch(merged[name], value);
  }
  return merged;
}
