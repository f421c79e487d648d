import {
  type RealServerKey,
  type RealServerList,
  type VirtualServerKey,
  type VirtualServerSettings,
  realServerKeyLength,
  realServerList,
  virtualServerFamily,
} from '../values/virtual-server.js';
import { type Forwarding, type DumpedRealServer } from '../kernel/ipvs/message.js';
import { type ObservedVirtualServer } from '../kernel/ipvs/observed-table.js';
import { type AppliedVirtualServer, sameSettings } from '../plan/applied.js';

/** A flag no kernel has: settings that carry it equal none of ours, so the virtual server is set anew. */
const MODIFIED = 0x4000_0000;

/**
 * Sorts real servers into the lists of AppliedVirtualServer. Tunnels to the other address family, which only a hand
 * can have made, fit in no RealServerList and are left alone.
 */
class Sorter {
  readonly #active: RealServerKey[] = [];
  readonly #draining: RealServerKey[] = [];
  readonly #modified: RealServerKey[] = [];
  readonly #length: number;

  constructor(server: VirtualServerKey) {
    this.#length = realServerKeyLength(virtualServerFamily(server));
  }

  add(key: RealServerKey, forwarding: Forwarding, weight: number): void {
    if (key.length !== this.#length) return;
    if (forwarding !== 'masquerade' || weight < 0 || weight > 1) this.#modified.push(key);
    else (weight === 1 ? this.#active : this.#draining).push(key);
  }

  result(settings: VirtualServerSettings): AppliedVirtualServer {
    return {
      settings,
      realServers: realServerList(this.#active),
      draining: realServerList(this.#draining),
      modified: realServerList(this.#modified),
    };
  }
}

/** A virtual server as a dump of its real servers shows it. */
export function observeVirtualServer(
  key: VirtualServerKey,
  settings: VirtualServerSettings,
  reals: readonly DumpedRealServer[],
): AppliedVirtualServer {
  const sorter = new Sorter(key);
  for (const real of reals) sorter.add(real.key, real.forwarding, real.weight);
  return sorter.result(settings);
}

/**
 * A virtual server as a reading of the whole table shows it. When it is just as applied, the result is
 * `applied` itself, and nothing is made on the way.
 */
export function observeTableEntry(
  observed: ObservedVirtualServer,
  applied: AppliedVirtualServer | undefined,
): AppliedVirtualServer {
  if (applied !== undefined && isAsApplied(observed, applied)) return applied;
  const sorter = new Sorter(observed.key);
  for (let i = 0; i < observed.count; i++)
    sorter.add(observed.realServer(i), observed.forwarding(i), observed.weight(i));
  const { settings } = observed;
  return sorter.result(observed.modified ? { ...settings, flags: settings.flags | MODIFIED } : settings);
}

/** The kernel has a real server once at most: as many as applied, each of them applied, are all. */
function isAsApplied(observed: ObservedVirtualServer, applied: AppliedVirtualServer): boolean {
  const { realServers, draining } = applied;
  if (observed.modified || applied.modified !== '' || !sameSettings(observed.settings, applied.settings)) return false;
  const length = realServerKeyLength(virtualServerFamily(observed.key));
  if (observed.count * length !== realServers.length + draining.length) return false;
  let active = 0;
  let guess = 0;
  for (let i = 0; i < observed.count; i++) {
    const weight = observed.weight(i);
    if (observed.forwarding(i) !== 'masquerade' || weight < 0 || weight > 1) return false;
    if (weight === 1) {
      guess = positionOf(observed, i, realServers, length, guess);
      if (guess < 0) return false;
      active++;
      // New real servers go to the head of the kernel's list, and ours were added in their order: the next is the one
      // before.
      guess = guess === 0 ? realServers.length - length : guess - length;
    } else if (positionOf(observed, i, draining, length, 0) < 0) return false;
  }
  return active * length === realServers.length;
}

/** Where in the sorted `list` the real server is, or -1; `guess` is looked at first. */
function positionOf(
  observed: ObservedVirtualServer,
  index: number,
  list: RealServerList,
  length: number,
  guess: number,
): number {
  if (guess < list.length && observed.compare(index, list, guess) === 0) return guess;
  let low = 0;
  let high = list.length / length - 1;
  while (low <= high) {
    const middle = (low + high) >> 1;
    const order = observed.compare(index, list, middle * length);
    if (order === 0) return middle * length;
    if (order < 0) high = middle - 1;
    else low = middle + 1;
  }
  return -1;
}
