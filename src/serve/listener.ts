import { type RequestListener, type Server, createServer } from 'node:http';
import { type AddressInfo } from 'node:net';
import { ServeError } from './errors.js';

/** What the servers need of a logger; pino fits. */
export interface ServeLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

export interface ListenerOptions {
  /** Names the server in messages: `health server`. */
  readonly name: string;
  /** IP address as text. 0.0.0.0 and :: both mean every address of both families, as in Go and so in kube-proxy. */
  readonly host: string;
  /** 0 lets the kernel choose (tests). */
  readonly port: number;
  readonly handler: RequestListener;
  readonly log: ServeLog;
  /** What to do about a port that is in use, for the message. */
  readonly fix?: string;
  /** True: a failed bind rejects `start` instead of being tried again. */
  readonly hardFail?: boolean;
  /** Time until the first retry, doubled each time up to the second figure; milliseconds. */
  readonly retryMs?: readonly [first: number, longest: number];
}

/**
 * One HTTP server on one address that keeps trying to bind. Requests are small GETs from probes and scrapers, so slow
 * or oversized ones are cut off early. `start` settles after the first attempt; `close` ends everything at once.
 */
export class Listener {
  readonly #options: ListenerOptions;
  #server: Server | undefined;
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
  async start(): Promise<void> {
    try {
      await this.#listen();
    } catch (error) {
      const failure = this.#describe(error as NodeJS.ErrnoException);
      if (this.#options.hardFail === true) throw failure;
      this.#planRetry(failure);
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#retry);
    const server = this.#server;
    this.#server = undefined;
    if (server === undefined) return;
    await new Promise<void>((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
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
    const server = createServer(
      { requestTimeout: 10_000, headersTimeout: 5_000, keepAliveTimeout: 65_000, maxHeaderSize: 16_384 },
      this.#options.handler,
    );
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen({ host, port: this.#options.port, backlog: 128 }, () => {
        server.off('error', reject);
        resolve();
      });
    });
    server.on('error', (error) => this.#options.log.warn({ error: error.message }, `${this.#options.name} failed`));
    this.#server = server;
    if (this.#closed) await this.close();
  }

  #planRetry(failure: ServeError): void {
    if (this.#closed) return;
    const [first, longest] = this.#options.retryMs ?? [1000, 30_000];
    const delay = Math.min(longest, first * 2 ** this.#failures);
    // One line for the first failure; a port that stays taken must not fill the log.
    if (this.#failures++ === 0) {
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
