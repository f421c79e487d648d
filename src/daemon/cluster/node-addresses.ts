import { type Log } from '../../values/log.js';
import { type Address } from '../../values/address.js';
import { errorMessage } from '../../values/errors.js';
import { type KubeClient } from '../../kube/client.js';
import { Backoff } from '../../time/backoff.js';
import { type WallClock, sleep } from '../../time/clock.js';
import { type Reflector } from '../../kube/reflector.js';
import { countNodes, watchAllNodes } from '../../kube/resources.js';
import { type NodeInfo, parseNode } from '../../model/node.js';
import { type Protection } from '../../model/protected-addresses.js';

export type ProtectNodeAddresses = 'auto' | 'on' | 'off';

export interface NodeAddressOptions {
  readonly mode: ProtectNodeAddresses;
  /** This node: its own addresses are left to what serves them. */
  readonly nodeName: string;
  readonly client: Pick<KubeClient, 'open'>;
  /** ClusterState.protect, and what follows from it. */
  readonly protect: (source: string, protection: Protection | undefined) => void;
  readonly clock: WallClock;
  readonly log: Log;
}

/** `auto` watches the Nodes of clusters up to this size: every node hears of every other's heartbeats, N x N in all. */
export const MOST_NODES = 250;
/** A cluster that grows to this size while it is watched is watched no longer. */
const GROWN = 2 * MOST_NODES;

/**
 * Protects the addresses of all other Nodes: a VIP that takes one cuts this node off from that one. With `auto` the
 * Nodes are counted by a list of one object; a large cluster is spared the watch.
 */
export class NodeAddresses {
  readonly #stop = new AbortController();
  #loop: Promise<void> | undefined;
  #reflector: Reflector<NodeInfo> | undefined;
  readonly #protected = new Map<string, string>();
  #notifyReady = (): void => undefined;
  /** The addresses are protected, or are not going to be, or the API server does not say. */
  readonly ready = new Promise<void>((resolve) => (this.#notifyReady = resolve));

  readonly #options: NodeAddressOptions;

  constructor(options: NodeAddressOptions) {
    this.#options = options;
  }

  start(): void {
    if (this.#options.mode === 'off') this.#notifyReady();
    else this.#loop ??= this.#run();
  }

  async close(): Promise<void> {
    this.#stop.abort();
    this.#notifyReady();
    await this.#loop;
    await this.#reflector?.close();
  }

  async #run(): Promise<void> {
    if (this.#options.mode === 'auto' && !(await this.#isSmall())) return this.#notifyReady();
    if (this.#stop.signal.aborted) return;
    const { client, log, clock } = this.#options;
    this.#reflector = watchAllNodes({
      client,
      clock,
      log,
      parse: (object) => parseNode(object, () => undefined),
      onProblem: () => undefined,
      sink: {
        replaceStart: () => undefined,
        upsert: (name, node) => this.#put(name, node),
        delete: (name) => this.#remove(name),
        replaceEnd: () => undefined,
        synced: () => this.#notifyReady(),
      },
    });
    this.#reflector.start();
  }

  /** Asks until there is an answer; a list of one, so that a thousand nodes that start at once do no harm. */
  async #isSmall(): Promise<boolean> {
    const { client, clock, log } = this.#options;
    const { signal } = this.#stop;
    const backoff = new Backoff(clock);
    while (!signal.aborted) {
      try {
        const count = await countNodes(client, signal);
        const isSmall = count <= MOST_NODES;
        const text = isSmall ? 'their addresses are protected' : 'too many to watch their addresses';
        log.info({ nodes: count, most: MOST_NODES }, `Nodes counted: ${text}`);
        return isSmall;
      } catch (error) {
        log.info({ error: errorMessage(error) }, 'Nodes could not be counted');
        this.#notifyReady();
        await sleep(clock, backoff.next(), signal);
      }
    }
    return false;
  }

  #put(name: string, { addresses }: NodeInfo): void {
    // Nodes change every few minutes, their addresses hardly ever.
    const identity = addresses.join();
    if (name === this.#options.nodeName || this.#protected.get(name) === identity) return;
    this.#protected.set(name, identity);
    this.#protect(name, addresses);
    if (this.#options.mode === 'auto' && this.#protected.size > GROWN) this.#giveUp();
  }

  #remove(name: string): void {
    if (this.#protected.delete(name)) this.#options.protect(`node ${name}`, undefined);
  }

  /** The cluster has grown far beyond what was counted. */
  #giveUp(): void {
    const { log, protect } = this.#options;
    log.info({ nodes: this.#protected.size }, 'too many Nodes by now to watch their addresses');
    void this.#reflector?.close();
    for (const name of this.#protected.keys()) protect(`node ${name}`, undefined);
    this.#protected.clear();
  }

  #protect(name: string, addresses: readonly Address[]): void {
    this.#options.protect(`node ${name}`, { addresses, reason: `an address of node ${name}` });
  }
}
