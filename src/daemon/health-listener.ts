import { type RequestListener } from 'node:http';
import { type BindAddress } from '../config/bind-address.js';
import { Listener, type ListenerOptions } from '../serve/listener.js';

export interface HealthListenerOptions extends Pick<ListenerOptions, 'log' | 'retryMs'> {
  /** undefined: no health server. */
  readonly address: BindAddress | undefined;
  readonly hardFail: boolean;
  /** Answers until `serve` is called. */
  readonly beginning: RequestListener;
}

/**
 * The health server, which listens from the first moment: waiting for another instance and looking at 50,000 old
 * iptables rules may take longer than a liveness probe waits for a port.
 */
export class HealthListener {
  #handler: RequestListener;
  #listener: Listener | undefined;

  readonly #options: HealthListenerOptions;

  constructor(options: HealthListenerOptions) {
    this.#options = options;
    this.#handler = options.beginning;
  }

  /** The port that it listens on, undefined while it does not. */
  get port(): number | undefined {
    return this.#listener?.port;
  }

  /** Listens, or goes on trying: until the lock is ours, another instance may well have the port. */
  async start(): Promise<void> {
    this.#listener = this.#make(false);
    await this.#listener?.start();
  }

  /** From now on a port that cannot be had is an error, where the configuration wants that. Rejects with ServeError. */
  async insist(): Promise<void> {
    if (!this.#options.hardFail || this.port !== undefined) return;
    await this.#listener?.close();
    this.#listener = this.#make(true);
    await this.#listener?.start();
  }

  /** Answers from now on. */
  serve(handler: RequestListener): void {
    this.#handler = handler;
  }

  async close(): Promise<void> {
    await this.#listener?.close();
  }

  #make(hardFail: boolean): Listener | undefined {
    const { address, log, retryMs } = this.#options;
    if (address === undefined) return undefined;
    return new Listener({
      name: 'health server',
      ...address,
      handler: (request, response) => this.#handler(request, response),
      log,
      fix: 'end the process that uses it (kube-proxy?), or set healthzBindAddress',
      hardFail,
      ...(retryMs === undefined ? {} : { retryMs }),
    });
  }
}
