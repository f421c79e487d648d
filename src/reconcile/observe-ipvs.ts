import {
  type RealServerKey,
  type RealServerList,
  type VirtualServerKey,
  type VirtualServerSettings,
  realServerKeyLength,
  realServerList,
  virtualServerFamily,
} from '../values/virtual-server.js';
import { type Forwarding, type ListedRealServer } from '../kernel/ipvs/message.js';
import { type SeenVirtualServer } from '../kernel/ipvs/observed-table.js';
import { type AppliedVirtualServer, sameSettings } from '../plan/applied.js';

/** A flag no kernel has: settings that carry it equal none of ours, so the virtual server is set anew. */
const UNUSUAL = 0x4000_0000;

/**
 * Sorts real servers into what AppliedVirtualServer tells apart. Tunnels to the other address family, which only a hand
 * can have made, fit in no RealServerList and are left alone.
 */
class Sorter {
  readonly #active: RealServerKey[] = [];
  readonly #draining: RealServerKey[] = [];
  readonly #odd: RealServerKey[] = [];
  readonly #length: number;

  constructor(server: VirtualServerKey) {
    this.#length = realServerKeyLength(virtualServerFamily(server));
  }

  add(key: RealServerKey, forwarding: Forwarding, weight: number): void {
    if (key.length !== this.#length) return;
    if (forwarding !== 'masquerade' || weight < 0 || weight > 1) this.#odd.push(key);
    else (weight === 1 ? this.#active : this.#draining).push(key);
  }

  result(settings: VirtualServerSettings): AppliedVirtualServer {
    return {
      settings,
      realServers: realServerList(this.#active),
      draining: realServerList(this.#draining),
      odd: realServerList(this.#odd),
    };
  }
}

/** A virtual server as a dump of its real servers shows it. */
export function observeVirtualServer(
  key: VirtualServerKey,
  settings: VirtualServerSettings,
  reals: readonly ListedRealServer[],
): AppliedVirtualServer {
  const sorter = new Sorter(key);
  for (const real of reals) sorter.add(real.key, real.forwarding, real.weight);
  return sorter.result(settings);
}

/**
 * A virtual server as a reading of the whole table shows it. When it is just what it is believed to be, the result is
 * `believed` itself, and nothing is made on the way.
 */
export function observeSeen(seen: SeenVirtualServer, believed: AppliedVirtualServer | undefined): AppliedVirtualServer {
  if (believed !== undefined && isAsBelieved(seen, believed)) return believed;
  const sorter = new Sorter(seen.key);
  for (let i = 0; i < seen.count; i++) sorter.add(seen.realServer(i), seen.forwarding(i), seen.weight(i));
  const { settings } = seen;
  return sorter.result(seen.unusual ? { ...settings, flags: settings.flags | UNUSUAL } : settings);
}

/** The kernel has a real server once at most: as many as believed, each of them believed, are all. */
function isAsBelieved(seen: SeenVirtualServer, believed: AppliedVirtualServer): boolean {
  const { realServers, draining } = believed;
  if (seen.unusual || believed.odd !== '' || !sameSettings(seen.settings, believed.settings)) return false;
  const length = realServerKeyLength(virtualServerFamily(seen.key));
  if (seen.count * length !== realServers.length + draining.length) return false;
  let active = 0;
  let guess = 0;
  for (let i = 0; i < seen.count; i++) {
    const weight = seen.weight(i);
    if (seen.forwarding(i) !== 'masquerade' || weight < 0 || weight > 1) return false;
    if (weight === 1) {
      guess = positionOf(seen, i, realServers, length, guess);
      if (guess < 0) return false;
      active++;
      // New real servers go to the head of the kernel's list, and ours were added in their order: the next is the one
      // before.
      guess = guess === 0 ? realServers.length - length : guess - length;
    } else if (positionOf(seen, i, draining, length, 0) < 0) return false;
  }
  return active * length === realServers.length;
}

/** Where in the sorted `list` the real server is, or -1; `guess` is looked at first. */
function positionOf(
  seen: SeenVirtualServer,
  index: number,
  list: RealServerList,
  length: number,
  guess: number,
): number {
  if (guess < list.length && seen.compare(index, list, guess) === 0) return guess;
  let low = 0;
  let high = list.length / length - 1;
  while (low <= high) {
    const middle = (low + high) >> 1;
    const order = seen.compare(index, list, middle * length);
    if (order === 0) return middle * length;
    if (order < 0) high = middle - 1;
    else low = middle + 1;
  }
  return -1;
}
