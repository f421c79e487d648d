import { type ApiRequest } from '../values/api-request.js';
import { type IncomingMessage, request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { type Socket } from 'node:net';
import { asObject, asString } from '../model/json.js';
import { type WallClock, systemClock } from '../time/clock.js';
import { type Connection, Credentials } from './credentials.js';
import { KubeError, parseRetryAfter, toKubeError } from './errors.js';
import { type CredentialOptions } from './kubeconfig.js';

export type Method = 'GET' | 'POST';

export interface KubeClientOptions extends CredentialOptions {
  readonly clock?: WallClock;
  readonly onRequest?: (record: ApiRequest) => void;
  /**
   * Notified of the address of the peer each time that a request has a connection: the API server, or a proxy before
   * it.
   */
  readonly onPeer?: (address: string) => void;
  /** Longest wait for the answer's headers. */
  readonly headerTimeoutMs?: number;
  readonly userAgent?: string;
}

export interface KubeRequest {
  /** `list services`: begins every error message. */
  readonly operation: string;
  readonly path: string;
  readonly query: Readonly<Record<string, string>>;
  /** Makes it a POST of this as JSON. */
  readonly body?: object;
  readonly signal: AbortSignal;
  /** The body fails with reason `Idle` when no byte arrives for this long; asked again as the connection goes on. */
  readonly idleMs: () => number;
}

/** The body of a 2xx answer. Iterate it to its end or return early, which closes the connection. */
export type KubeBody = AsyncGenerator<Buffer, void>;

const MAX_STATUS_BODY = 64 * 1024;
const TLS_ERROR = /^(ERR_SSL|ERR_TLS|CERT_|UNABLE_TO_|SELF_SIGNED|DEPTH_ZERO)/;

/**
 * Requests to the API server, GET and a rare POST, over keep-alive HTTP/1.1, with the credentials of the configuration.
 * Every failure is a KubeError.
 */
export class KubeClient {
  readonly #credentials: Credentials;
  readonly #clock: WallClock;

  readonly #options: KubeClientOptions;

  /** Throws KubeError when there is no usable configuration. */
  constructor(options: KubeClientOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#credentials = new Credentials(options, this.#clock);
  }

  get server(): string {
    return this.#credentials.server;
  }

  /** Names or addresses that connections go to: the API server's, and a proxy's before it. */
  get hosts(): readonly string[] {
    return this.#credentials.hosts;
  }

  close(): void {
    this.#credentials.close();
  }

  /**
   * Sends the request and resolves with the body once 2xx headers are here. A 401 is tried once more with fresh
   * credentials, a kept connection that the server closed meanwhile with a new one.
   */
  async open(request: KubeRequest): Promise<KubeBody> {
    try {
      return await this.#openOnce(request);
    } catch (error) {
      if (!(error instanceof KubeError) || !(error.status === 401 || error.reason === 'StaleConnection')) throw error;
      return this.#openOnce(request);
    }
  }

  async #openOnce(request: KubeRequest): Promise<KubeBody> {
    const connection = await this.#credentials.connection(request.signal);
    request.signal.throwIfAborted();
    const started = this.#clock.now();
    let response: IncomingMessage;
    try {
      response = await this.#send(request, connection);
    } catch (error) {
      this.#record(request, connection, '<error>', started);
      const failure = toKubeError(request.operation, error);
      if (TLS_ERROR.test(failure.reason)) this.#credentials.refresh(connection.generation);
      throw failure;
    }
    const status = response.statusCode ?? 0;
    this.#record(request, connection, String(status), started);
    const body = readBody(response, request, this.#clock);
    if (status >= 200 && status < 300) return body;
    if (status === 401) this.#credentials.refresh(connection.generation);
    throw await this.#statusError(request, response, body);
  }

  #send(request: KubeRequest, { server, headers, agent }: Connection): Promise<IncomingMessage> {
    const query = new URLSearchParams(request.query).toString();
    const path = `${server.pathname.replace(/\/$/, '')}${request.path}${query === '' ? '' : `?${query}`}`;
    const send = server.protocol === 'http:' ? httpRequest : httpsRequest;
    const timeoutMs = this.#options.headerTimeoutMs ?? 30_000;
    return new Promise((resolve, reject) => {
      const outgoing = send({
        host: server.hostname.replace(/^\[|\]$/g, ''),
        port: server.port || (server.protocol === 'http:' ? 80 : 443),
        path,
        method: methodOf(request),
        agent,
        headers: {
          ...{ accept: 'application/json', 'user-agent': this.#options.userAgent ?? 'kube-proxy-ipvs', ...headers },
          ...(request.body === undefined ? {} : { 'content-type': 'application/json' }),
        },
        signal: request.signal,
      });
      const cancel = this.#clock.after(timeoutMs, () =>
        outgoing.destroy(
          new KubeError(request.operation, { reason: 'Timeout', message: `no answer within ${timeoutMs / 1000} s` }),
        ),
      );
      outgoing.on('socket', (socket) => this.#gotSocket(socket));
      outgoing.on('response', (response) => {
        cancel();
        resolve(response);
      });
      outgoing.on('error', (error: NodeJS.ErrnoException) => {
        cancel();
        const isStale = outgoing.reusedSocket && (error.code === 'ECONNRESET' || error.code === 'EPIPE');
        const stale = { reason: 'StaleConnection', message: error.message, cause: error };
        reject(isStale ? new KubeError(request.operation, stale) : error);
      });
      outgoing.end(request.body === undefined ? undefined : JSON.stringify(request.body));
    });
  }

  #gotSocket(socket: Socket): void {
    socket.setKeepAlive(true, 30_000);
    const notifyPeer = (): void => {
      if (socket.remoteAddress !== undefined) this.#options.onPeer?.(socket.remoteAddress);
    };
    if (socket.connecting) socket.once('connect', notifyPeer);
    else notifyPeer();
  }

  #record(request: KubeRequest, connection: Connection, code: string, started: number): void {
    const seconds = (this.#clock.now() - started) / 1000;
    const method = methodOf(request);
    this.#options.onRequest?.({ verb: method, method, host: connection.server.host, code, seconds });
  }

  async #statusError(request: KubeRequest, response: IncomingMessage, body: KubeBody): Promise<KubeError> {
    const status = response.statusCode ?? 0;
    const said = parseStatus(await readStart(body));
    const retryAfterMs = parseRetryAfter(response.headers['retry-after'], this.#clock.wall());
    const message = explain(status, request, said.message || (response.statusMessage ?? ''));
    return new KubeError(request.operation, { status, reason: said.reason, message, retryAfterMs });
  }
}

function methodOf({ body }: KubeRequest): Method {
  return body === undefined ? 'GET' : 'POST';
}

async function* readBody(response: IncomingMessage, request: KubeRequest, clock: WallClock): KubeBody {
  let lastByteAt = clock.now();
  let cancel = (): void => undefined;
  const watchIdle = (ms: number): void => {
    cancel = clock.after(ms, () => {
      const left = lastByteAt + request.idleMs() - clock.now();
      if (left > 0) return watchIdle(left);
      const message = `no data for ${request.idleMs() / 1000} s, connection given up`;
      response.destroy(new KubeError(request.operation, { reason: 'Idle', message }));
    });
  };
  watchIdle(request.idleMs());
  try {
    for await (const chunk of response as AsyncIterable<Buffer>) {
      lastByteAt = clock.now();
      yield chunk;
    }
  } catch (error) {
    throw toKubeError(request.operation, error);
  } finally {
    cancel();
    response.destroy(); // no effect on a body that was read to its end
  }
}

async function readStart(body: KubeBody): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  try {
    for await (const chunk of body) {
      chunks.push(chunk);
      length += chunk.length;
      if (length > MAX_STATUS_BODY) break;
    }
  } catch {
    // The status code alone says enough.
  }
  return Buffer.concat(chunks).toString('utf8');
}

function parseStatus(text: string): { reason: string; message: string } {
  try {
    const status = asObject(JSON.parse(text));
    if (status?.['kind'] === 'Status') {
      return { reason: asString(status['reason']), message: asString(status['message']) };
    }
  } catch {
    // No JSON: some proxy's HTML page. Its beginning is the best explanation there is.
  }
  return { reason: '', message: text.slice(0, 200).replace(/\s+/g, ' ').trim() };
}

/** A message that names the fix where there is one. */
function explain(status: number, request: KubeRequest, said: string): string {
  if (status === 401) {
    return `401 Unauthorized: the API server does not accept our credentials; check the service account token or the kubeconfig's user (${said})`;
  }
  if (status !== 403) return `HTTP ${status}: ${said}`;
  const match = /^\/(?:api|apis\/([^/]+))\/[^/]+\/(?:namespaces\/[^/]+\/)?([^/]+)/.exec(request.path);
  const rule = `apiGroups: ["${match?.[1] ?? ''}"], resources: ["${match?.[2] ?? request.path}"], verbs: [${request.body === undefined ? '"list", "watch"' : '"create"'}]`;
  return `403 Forbidden: add a rule {${rule}} to the ClusterRole of this service account (deploy/ has it) (${said})`;
}
