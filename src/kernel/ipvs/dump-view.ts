import { type RealServerKey, type VirtualServerKey, type VirtualServerSettings } from '../../values/virtual-server.js';
import { type Forwarding, type DumpedVirtualServer } from './message.js';
import { type ObservedVirtualServer } from './observed-table.js';

/** A virtual server put together from a dump; used again for the next one. */
export class DumpView implements ObservedVirtualServer {
  key = '' as VirtualServerKey;
  settings: VirtualServerSettings = { scheduler: '', flags: 0, timeout: 0 };
  modified = false;
  count = 0;
  readonly #realServers: RealServerKey[] = [];
  readonly #weights: number[] = [];
  readonly #forwardings: Forwarding[] = [];

  /** Starts the next virtual server, without real servers yet. */
  begin({ key, settings, modified }: DumpedVirtualServer): void {
    this.key = key;
    this.settings = settings;
    this.modified = modified;
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
