import { type Address } from '../values/address.js';
import { type IpsetEntry } from '../values/ipset.js';
import { type VirtualServerKey } from '../values/virtual-server.js';
import { type Touched } from '../desired/desired-state.js';
import { type IpsetName } from '../desired/ipset-definitions.js';
import { doubledWait } from '../time/backoff.js';
import { type Clock } from '../time/clock.js';
import { type RefusedChange, type RefusedObject, type Retouch, touchAgain } from './failures.js';

/** Refused so often in a row, with the same errno each time, an object is skipped. */
const TRIALS = 3;
/** A skipped object is tried again after this, ms; each time twice as long, up to the most. */
const FIRST_RETRY_MS = 30_000;
const MOST_RETRY_MS = 300_000;

interface Refusal {
  readonly change: RefusedChange;
  /** How often in a row. */
  readonly times: number;
  readonly retryAt: number;
}

type Group = Map<string, Refusal>;

/** Taken out of the books while their objects are tried again. */
export type Trial = ReadonlyMap<string, Refusal>;

/**
 * Objects that the kernel refuses again and again: a backend that is a broadcast address of the node, say. They are the
 * fault of nobody on this node and wait for nothing here, so they are skipped, named, and tried again now and then.
 */
export class KernelRefusals {
  /** By what has to be touched for another try. */
  readonly #groups = new Map<string, Group>();
  readonly #skipped: Record<RefusedObject, number> = { virtual_server: 0, real_server: 0, address: 0, set_entry: 0 };
  #retryAt = Infinity;

  constructor(readonly clock: Clock) {}

  /** How many objects are skipped now. */
  get skipped(): Readonly<Record<RefusedObject, number>> {
    return this.#skipped;
  }

  get skippedCount(): number {
    return Object.values(this.#skipped).reduce((sum, count) => sum + count, 0);
  }

  /** What was said of the first `most` of them. */
  messages(most: number): string[] {
    const found: string[] = [];
    for (const group of this.#groups.values())
      for (const { change, times } of group.values()) {
        if (found.length >= most) return found;
        if (times >= TRIALS) found.push(change.message);
      }
    return found;
  }

  /** Virtual servers that are skipped, or of whose real servers one is. */
  get serversConcerned(): number {
    let count = 0;
    for (const name of this.#groups.keys()) if (name.startsWith('s')) count++;
    return count;
  }

  isServerSkipped(server: VirtualServerKey): boolean {
    return this.#isSkipped(`s${server}`, 'virtual_server');
  }

  isAddressSkipped(address: Address): boolean {
    return this.#isSkipped(`a${address}`, 'address');
  }

  isEntrySkipped(set: IpsetName, entry: IpsetEntry): boolean {
    return this.#isSkipped(`e${set} ${entry}`, 'set_entry');
  }

  *skippedAddresses(): Generator<Address> {
    for (const group of this.#groups.values())
      for (const { change, times } of group.values())
        if (times >= TRIALS && 'address' in change.retouch) yield change.retouch.address;
  }

  /** Milliseconds until one of them should be tried again. */
  get dueIn(): number {
    return Math.max(0, this.#retryAt - this.clock.now());
  }

  /** Touches those that should be tried again. */
  touchDue(touched: Touched): void {
    const now = this.clock.now();
    if (now < this.#retryAt) return;
    this.#retryAt = Infinity;
    for (const group of this.#groups.values())
      for (const { change, retryAt } of group.values()) {
        if (retryAt <= now) touchAgain(touched, change.retouch);
        else this.#retryAt = Math.min(this.#retryAt, retryAt);
      }
  }

  /** What `touched` names is about to be tried: what is not refused again is forgotten. */
  take(touched: Touched): Trial {
    const trial = new Map<string, Refusal>();
    if (this.#groups.size === 0) return trial;
    const take = (name: string): void => {
      for (const [id, refusal] of this.#groups.get(name) ?? []) {
        trial.set(id, refusal);
        this.#count(refusal, -1);
      }
      this.#groups.delete(name);
    };
    for (const server of touched.servers) take(`s${server}`);
    for (const address of touched.addresses) take(`a${address}`);
    for (const [set, entries] of touched.entries) for (const entry of entries) take(`e${set} ${entry}`);
    return trial;
  }

  /** The try broke off: nothing is known. */
  putBack(trial: Trial): void {
    for (const refusal of trial.values()) this.#put(refusal);
  }

  /** A change was refused. `skipped`: for good, `newly`: that is news. */
  refused(change: RefusedChange, trial: Trial): 'waits' | 'on-trial' | 'newly-skipped' | 'skipped' {
    if (!change.isVerdict) return 'waits';
    const before = trial.get(idOf(change));
    const times = before?.change.code === change.code ? before.times + 1 : 1;
    const wait = doubledWait(FIRST_RETRY_MS, MOST_RETRY_MS, times - TRIALS + 1);
    this.#put({ change, times, retryAt: times < TRIALS ? Infinity : this.clock.now() + wait });
    if (times < TRIALS) return 'on-trial';
    return times === TRIALS ? 'newly-skipped' : 'skipped';
  }

  #put(refusal: Refusal): void {
    const name = groupOf(refusal.change.retouch);
    const group: Group = this.#groups.get(name) ?? new Map<string, Refusal>();
    this.#groups.set(name, group);
    const id = idOf(refusal.change);
    const before = group.get(id);
    if (before !== undefined) this.#count(before, -1);
    group.set(id, refusal);
    this.#count(refusal, 1);
    this.#retryAt = Math.min(this.#retryAt, refusal.retryAt);
  }

  #count({ change, times }: Refusal, by: 1 | -1): void {
    if (times >= TRIALS) this.#skipped[change.object] += by;
  }

  #isSkipped(name: string, object: RefusedObject): boolean {
    const group = this.#groups.get(name);
    if (group === undefined) return false;
    for (const { change, times } of group.values()) if (change.object === object && times >= TRIALS) return true;
    return false;
  }
}

function idOf({ object, id }: RefusedChange): string {
  return `${object} ${id}`;
}

function groupOf(retouch: Retouch): string {
  if ('server' in retouch) return `s${retouch.server}`;
  return 'address' in retouch ? `a${retouch.address}` : `e${retouch.set} ${retouch.entry}`;
}
