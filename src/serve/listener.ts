import { type Log } from '../values/log.js';
import { type RequestListener, type Server, createServer } from 'node:http';
import { type AddressInfo, type Socket } from 'node:net';
import { doubledWait } from '../time/backoff.js';
import { ServeError } from './errors.js';

export interface ListenerOptions {
  /** Names the server in messages: `health server`. */
  readonly name: string;
  /** IP address as text. 0.0.0.0 and :: both mean every address of both families, as in Go and so in kube-proxy. */
  readonly host: string;
  /** 0 lets the kernel choose (tests). */
  readonly port: number;
  readonly handler: RequestListener;
  readonly log: Log;
  /** What to do about a port that is in use, for the message. */
  readonly fix?: string;
  /** True: a failed bind rejects `start` instead of being tried again. */
  readonly hardFail?: boolean;
  /** Time until the first retry, doubled each time up to the second figure; milliseconds. */
  readonly retryMs?: readonly [first: number, longest: number];
}

const LIMITS = {
  requestTimeout: 10_000,
  headersTimeout: 5_000,
  keepAliveTimeout: 65_000,
  connectionsCheckingInterval: 5_000,
  maxHeaderSize: 16_384,
};

/** Connections that one listener keeps; each costs some 8 KB and its share of the event loop. */
export const MAX_CONNECTIONS = 512;

/**
 * One HTTP server on one address that keeps trying to bind. Requests are small GETs from probes and scrapers, so slow
 * or oversized ones are cut off early, and of too many connections the ones that were silent longest go: a flood must
 * not lock the next probe out. `start` settles after the first attempt; `close` ends everything at once.
 */
export class Listener {
  readonly #options: ListenerOptions;
  #server: Server | undefined;
  /** Those that asked last are last. */
  readonly #sockets = new Set<Socket>();
  #attempt: Promise<void> = Promise.resolve();
  #retry: NodeJS.Timeout | undefined;
  #closed = false;
  #failures = 0;

  constructor(options: ListenerOptions) {
    this.#options = options;
  }

  /** The port that it listens on, undefined while it does not. */
  get port(): number | undefined {
    return (this.#server?.address() as AddressInfo | null | undefined)?.port;
  }

  /** Resolves when listening or when a retry is planned; rejects with ServeError only under hardFail. */
  start(): Promise<void> {
    this.#attempt = this.#try();
    return this.#attempt;
  }

  /** Resolves when nothing listens any more and every connection is cut; an attempt under way is waited for. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#retry);
    await this.#attempt.catch(() => undefined);
    await this.#end();
  }

  async #try(): Promise<void> {
    try {
      await this.#listen();
    } catch (error) {
      const failure = this.#describe(error as NodeJS.ErrnoException);
      if (this.#options.hardFail === true) throw failure;
      this.#planRetry(failure);
    }
  }

  async #end(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    if (server === undefined) return;
    await new Promise<void>((resolve) => {
      server.close(() => resolve());
      // Not only those that HTTP knows of: one that never sent a byte would hold the port's clients, too.
      for (const socket of this.#sockets) socket.destroy();
    });
  }

  async #listen(): Promise<void> {
    const { name, host, port, log } = this.#options;
    const isWildcard = host === '0.0.0.0' || host === '::';
    try {
      await this.#bind(isWildcard ? '::' : host);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      // A kernel without IPv6 has no :: to listen on.
      if (!isWildcard || (code !== 'EAFNOSUPPORT' && code !== 'EADDRNOTAVAIL')) throw error;
      await this.#bind('0.0.0.0');
    }
    if (this.#failures > 0) log.info({ host, port }, `${name} is listening after ${this.#failures} failed attempts`);
    this.#failures = 0;
  }

  async #bind(host: string): Promise<void> {
    const server = createServer(LIMITS, this.#options.handler);
    server.on('connection', (socket) => this.#admit(socket));
    server.on('request', ({ socket }) => this.#noteActivity(socket));
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen({ host, port: this.#options.port, backlog: 128 }, () => {
        server.off('error', reject);
        resolve();
      });
    });
    server.on('error', (error) => this.#options.log.warn({ error: error.message }, `${this.#options.name} failed`));
    this.#server = server;
    if (this.#closed) await this.#end();
  }

  #admit(socket: Socket): void {
    this.#sockets.add(socket);
    socket.once('close', () => this.#sockets.delete(socket));
    if (this.#sockets.size <= MAX_CONNECTIONS) return;
    const [quietest] = this.#sockets;
    this.#sockets.delete(quietest!);
    quietest!.destroy();
  }

  #noteActivity(socket: Socket): void {
    if (!this.#sockets.delete(socket)) return;
    this.#sockets.add(socket);
  }

  #planRetry(failure: ServeError): void {
    if (this.#closed) return;
    const [first, longest] = this.#options.retryMs ?? [1000, 30_000];
    const delay = doubledWait(first, longest, ++this.#failures);
    // One line for the first failure; a port that stays taken must not fill the log.
    if (this.#failures === 1) {
      this.#options.log.warn({ code: failure.code }, `${failure.message}; retrying until it succeeds`);
    }
    this.#retry = setTimeout(() => void this.start(), delay);
    this.#retry.unref();
  }

  #describe(error: NodeJS.ErrnoException): ServeError {
    const { name, host, port, fix } = this.#options;
    const address = host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
    return new ServeError(name, address, error.code ?? error.message, {
      cause: error,
      fix: error.code === 'EADDRINUSE' ? fix : undefined,
    });
  }
}
