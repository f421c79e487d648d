import { type Log } from '../../values/log.js';
import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';
import { type Address, isLoopback, parseAddress } from '../../values/address.js';
import { errorMessage } from '../../values/errors.js';
import { type WallClock, sleep } from '../../time/clock.js';
import { type Protection } from '../../model/protected-addresses.js';
import { RememberedAddresses } from './remembered-addresses.js';

export interface ApiServerAddressOptions {
  /** Names or addresses that requests go to: the API server's, and a proxy's before it. */
  readonly hosts: readonly string[];
  /** ClusterState.protect, and what follows from it. */
  readonly protect: (source: string, protection: Protection) => void;
  readonly clock: WallClock;
  readonly log: Log;
  /** All addresses of a name; the system's resolver otherwise. */
  readonly resolve?: (name: string) => Promise<readonly string[]>;
}

/** Names are looked up again every 5 to 10 minutes. */
const RESOLVE_EVERY_MS = 300_000;
/**
 * An API server that is being upgraded takes itself out of default/kubernetes, and its name may not resolve meanwhile.
 */
const KEEP_MS = 24 * 3_600_000;

/**
 * Protects the addresses by which this node reaches the API server: what its name resolves to, the peers of
 * connections, and the endpoints of default/kubernetes. A VIP on one of them would cut the node off for good.
 */
export class ApiServerAddresses {
  readonly #resolved: RememberedAddresses;
  readonly #peers: RememberedAddresses;
  readonly #endpoints: RememberedAddresses;
  /** They come when they change, not when they are in use. */
  #currentEndpoints: readonly Address[] = [];
  readonly #stop = new AbortController();
  #loop: Promise<void> | undefined;

  readonly #options: ApiServerAddressOptions;

  constructor(options: ApiServerAddressOptions) {
    this.#options = options;
    const now = (): number => options.clock.now();
    [this.#resolved, this.#peers, this.#endpoints] = [
      new RememberedAddresses(KEEP_MS, now),
      new RememberedAddresses(KEEP_MS, now),
      new RememberedAddresses(KEEP_MS, now),
    ];
  }

  /** Looks the names up and protects what they mean; resolves with all addresses known. Never rejects. */
  async resolve(): Promise<readonly Address[]> {
    const found = await Promise.all(this.#options.hosts.map((host) => this.#lookUp(host)));
    if (this.#resolved.see(usable(found.flat()))) this.#protectResolved();
    return this.#resolved.addresses;
  }

  /** Looks the names up now and then. */
  start(): void {
    this.#loop ??= this.#run();
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.#loop;
  }

  /** A connection to the API server has this peer. */
  sawPeer(text: string): void {
    if (this.#peers.see(usable([text]))) this.#protectPeers();
  }

  /** The addresses that the EndpointSlices of default/kubernetes hold now. */
  sawEndpoints(addresses: readonly Address[]): void {
    this.#currentEndpoints = addresses;
    if (this.#endpoints.see(addresses)) this.#protectEndpoints();
  }

  async #run(): Promise<void> {
    const { clock } = this.#options;
    const { signal } = this.#stop;
    while (!signal.aborted) {
      await this.resolve();
      this.#endpoints.see(this.#currentEndpoints);
      // Peers are seen again at each connection, which a watch makes every ten minutes at the latest.
      if (this.#resolved.forgetOld()) this.#protectResolved();
      if (this.#peers.forgetOld()) this.#protectPeers();
      if (this.#endpoints.forgetOld()) this.#protectEndpoints();
      await sleep(clock, RESOLVE_EVERY_MS * (1 + clock.random()), signal);
    }
  }

  async #lookUp(host: string): Promise<readonly string[]> {
    if (isIP(host) !== 0) return [host];
    try {
      return await (this.#options.resolve ?? allAddresses)(host);
    } catch (error) {
      this.#options.log.info({ host, error: errorMessage(error) }, "the API server's name could not be resolved");
      return [];
    }
  }

  #protectResolved(): void {
    this.#protect('api-server', this.#resolved, 'the API server that is configured', true);
  }

  #protectPeers(): void {
    this.#protect('api-server-peers', this.#peers, 'the peer of a connection to the API server', true);
  }

  #protectEndpoints(): void {
    this.#protect('api-server-endpoints', this.#endpoints, 'an API server (endpoint of default/kubernetes)', false);
  }

  #protect(source: string, { addresses }: RememberedAddresses, reason: string, mayBeClusterIP: boolean): void {
    this.#options.protect(source, { addresses, reason, mayBeClusterIP });
  }
}

async function allAddresses(name: string): Promise<readonly string[]> {
  return (await lookup(name, { all: true })).map(({ address }) => address);
}

/** Loopback addresses can be nobody's VIP. */
function usable(texts: readonly string[]): readonly Address[] {
  const plain = texts.map((text) => parseAddress(text.replace(/^::ffff:(?=\d+\.)/i, '').replace(/%.*$/, '')));
  return plain.filter((address) => address !== undefined && !isLoopback(address)) as Address[];
}
