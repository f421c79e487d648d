import { type RealServerKey, type VirtualServerKey, type VirtualServerSettings } from '../../values/virtual-server.js';
import { type Forwarding, type ListedVirtualServer } from './message.js';
import { type SeenVirtualServer } from './observed-table.js';

/** A virtual server put together from a dump; used again for the next one. */
export class ListedView implements SeenVirtualServer {
  key = '' as VirtualServerKey;
  settings: VirtualServerSettings = { scheduler: '', flags: 0, timeout: 0 };
  unusual = false;
  count = 0;
  readonly #realServers: RealServerKey[] = [];
  readonly #weights: number[] = [];
  readonly #forwardings: Forwarding[] = [];

  /** Starts the next virtual server, without real servers yet. */
  begin({ key, settings, unusual }: ListedVirtualServer): void {
    this.key = key;
    this.settings = settings;
    this.unusual = unusual;
    this.count = 0;
  }

  add(realServer: RealServerKey, weight: number, forwarding: Forwarding): void {
    const index = this.count++;
    this.#realServers[index] = realServer;
    this.#weights[index] = weight;
    this.#forwardings[index] = forwarding;
  }

  weight(index: number): number {
    return this.#weights[index]!;
  }

  forwarding(index: number): Forwarding {
    return this.#forwardings[index]!;
  }

  realServer(index: number): RealServerKey {
    return this.#realServers[index]!;
  }

  compare(index: number, list: string, offset: number): number {
    const key = this.#realServers[index]!;
    for (let i = 0; i < key.length; i++) {
      const difference = key.charCodeAt(i) - list.charCodeAt(offset + i);
      if (difference !== 0) return difference;
    }
    return 0;
  }
}
