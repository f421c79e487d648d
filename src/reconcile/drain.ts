import { type DrainEnd } from '../values/drift.js';
import {
  type RealServerKey,
  type VirtualServerKey,
  realServerKeyLength,
  realServerKeys,
  realServerList,
  virtualServerFamily,
} from '../values/virtual-server.js';
import { type Clock } from '../time/clock.js';
import { type IpvsApplier } from './ipvs-applier.js';
import { type IpvsWriter } from './ipvs-writer.js';
import { READING_SLICE_MS } from '../time/pacer.js';
import { type Between, type Round } from './round.js';

/** A drain is looked at this often at first, ms. */
const POLL_MS = 1000;
/** One this young is looked at by every sync besides. */
const YOUNG_MS = 10_000;
/** One that is older waits for this part of its age: connections that have lasted long are likely to last longer. */
const AGE_PER_POLL = 10;
const MOST_POLL_MS = 60_000;
/** Virtual servers looked at by one poll. */
const MOST_PER_POLL = 500;

/** What drains in one virtual server. */
interface ServerDrains {
  /** Since when, in the clock's milliseconds. */
  readonly since: ReadonlyMap<RealServerKey, number>;
  readonly connections: ReadonlyMap<RealServerKey, number>;
  readonly pollAt: number;
  /** The first of those that may have connections. */
  readonly deadlineAt: number;
}

export interface DrainOptions {
  readonly applier: IpvsApplier;
  readonly clock: Clock;
  /** Milliseconds that a real server may drain; 0: until its last connection has gone, however long that takes. */
  readonly timeout: number;
  readonly onEnd: (how: DrainEnd, count: number) => void;
  /** Connections of each real server of one virtual server, of which about `expected` are applied. */
  readonly connectionsOf: (server: VirtualServerKey, expected: number) => Map<RealServerKey, number>;
}

/**
 * Real servers with weight 0 that live connections still use. Each is deleted when its last connection is gone and the
 * budget allows it (deletion-budget.ts), or at its deadline where there is one. State is the kernel's (the weight), so
 * a restart finds and continues them; only the deadline starts anew. Those that drain for long are looked at ever more
 * rarely, so that many that never end cost next to nothing.
 */
export class DrainTracker {
  readonly #drains = new Map<VirtualServerKey, ServerDrains>();
  #size = 0;
  #pollAt = Infinity;
  #deadlineAt = Infinity;

  constructor(readonly options: DrainOptions) {}

  /** How many real servers drain. */
  get size(): number {
    return this.#size;
  }

  /**
   * Milliseconds until they should be looked at again: no change of the cluster reports that the last connection ended.
   */
  get dueIn(): number {
    if (this.#drains.size === 0) return Infinity;
    return Math.max(POLL_MS, this.#pollAt - this.options.clock.now());
  }

  /** Drains, at most so many, with the milliseconds left, for the status page; Infinity without a deadline. */
  list(most = Infinity): { server: VirtualServerKey; real: RealServerKey; msLeft: number }[] {
    const now = this.options.clock.now();
    const listed: { server: VirtualServerKey; real: RealServerKey; msLeft: number }[] = [];
    for (const [server, { since }] of this.#drains)
      for (const [real, start] of since) {
        if (listed.length >= most) return listed;
        listed.push({ server, real, msLeft: Math.max(0, this.#deadline(start) - now) });
      }
    return listed;
  }

  /** Active plus inactive connections of a draining real server when last looked at. */
  connections(server: VirtualServerKey, real: RealServerKey): number {
    return this.#drains.get(server)?.connections.get(real) ?? 0;
  }

  /** Takes note of what drains in `server` now; those that drained before go on as they were. */
  note(server: VirtualServerKey): void {
    const { applier, clock } = this.options;
    const before = this.#drains.get(server);
    const draining = applier.applied.get(server)?.draining ?? '';
    if (draining === '') {
      if (before === undefined) return;
      // A virtual server that is gone took its draining real servers along.
      if (applier.applied.has(server)) this.#countRestored(before.since, []);
      this.#set(server, undefined);
      return;
    }
    const now = clock.now();
    const keys = realServerKeys(draining, virtualServerFamily(server));
    if (before !== undefined) this.#countRestored(before.since, keys);
    const since = new Map<RealServerKey, number>();
    let deadlineAt = Infinity;
    for (const real of keys) {
      const start = before?.since.get(real) ?? now;
      since.set(real, start);
      deadlineAt = Math.min(deadlineAt, this.#deadline(start));
    }
    const connections = before?.connections ?? new Map<RealServerKey, number>();
    this.#set(server, { since, connections, pollAt: now, deadlineAt });
  }

  /**
   * Deletes what has drained, as much of it as the budget allows, and what is past its deadline, of those that are due;
   * what the kernel refuses of it goes into `round`. `between` is called now and then, when nothing is queued for the
   * kernel: it may apply changes. Throws NetlinkError when the table cannot be read.
   */
  async poll(round: Round, between?: Between): Promise<void> {
    const { applier, clock } = this.options;
    const now = clock.now();
    if (now < this.#pollAt || (!this.#hasBudget() && now < this.#deadlineAt)) return;
    const due = this.#takeDue(now);
    const writer = applier.writer(round);
    const pacer = round.record.stop.pacer(1, READING_SLICE_MS);
    let isThrough = false;
    try {
      for (const [server, drains] of due) {
        if (!this.#hasBudget() && now < drains.deadlineAt) continue;
        if (this.#drains.get(server) === drains) this.#pollServer(server, drains, now, writer);
        if (!pacer.isDue) continue;
        writer.flush();
        await pacer.yieldIfDue();
        await between?.();
      }
      isThrough = this.#hasBudget();
    } finally {
      writer.flush();
      if (!isThrough) this.#pollAt = now;
    }
  }

  #hasBudget(): boolean {
    return this.options.applier.budget.left(this.#size) > 0;
  }

  /**
   * Those that are to be looked at now: all at whose deadline something still had connections, of the others as many as
   * a poll can see to. From here on #pollAt and #deadlineAt are those of the rest.
   */
  #takeDue(now: number): [VirtualServerKey, ServerDrains][] {
    const due: [VirtualServerKey, ServerDrains][] = [];
    const most = Math.min(MOST_PER_POLL, this.options.applier.budget.left(this.#size));
    const isDeadline = this.#deadlineAt <= now;
    let [pollAt, deadlineAt] = [Infinity, Infinity];
    for (const entry of this.#drains) {
      const [, drains] = entry;
      if (drains.deadlineAt <= now || (drains.pollAt <= now && due.length < most)) {
        due.push(entry);
        continue;
      }
      pollAt = Math.min(pollAt, drains.pollAt);
      deadlineAt = Math.min(deadlineAt, drains.deadlineAt);
      if (pollAt <= now && !isDeadline) break; // the rest waits, however many they are
    }
    this.#pollAt = pollAt;
    if (isDeadline || pollAt > now) this.#deadlineAt = deadlineAt;
    return due;
  }

  #pollServer(server: VirtualServerKey, drains: ServerDrains, now: number, writer: IpvsWriter): void {
    const { applier, connectionsOf } = this.options;
    const applied = applier.applied.get(server);
    if (applied === undefined) {
      this.#set(server, undefined);
      return;
    }
    const expected = applied.realServers.length + applied.draining.length;
    const connections = connectionsOf(server, expected / realServerKeyLength(virtualServerFamily(server)));
    const { left, isShort, deadlineAt } = this.#deleteDone(server, drains.since, connections, now, writer);
    if (left.size < drains.since.size)
      applier.applied.set(server, { ...applied, draining: realServerList([...left.keys()]) });
    const pollAt = isShort ? now : this.#nextPoll(left, now);
    this.#set(server, left.size === 0 ? undefined : { since: left, connections, pollAt, deadlineAt });
  }

  /** Deletes what is idle, within the budget, and what has connections past its deadline. */
  #deleteDone(
    server: VirtualServerKey,
    since: ReadonlyMap<RealServerKey, number>,
    connections: ReadonlyMap<RealServerKey, number>,
    now: number,
    writer: IpvsWriter,
  ): { left: ReadonlyMap<RealServerKey, number>; isShort: boolean; deadlineAt: number } {
    const left = new Map<RealServerKey, number>();
    let isShort = false;
    let deadlineAt = Infinity;
    for (const [real, start] of since) {
      const isThere = connections.has(real);
      const isIdle = (connections.get(real) ?? 0) === 0;
      const deadline = this.#deadline(start);
      if (isThere && !(isIdle ? this.#hasBudget() : deadline <= now)) {
        left.set(real, start);
        if (isIdle) isShort = true;
        else deadlineAt = Math.min(deadlineAt, deadline);
        continue;
      }
      this.options.onEnd(isIdle ? 'idle' : 'deadline', 1);
      if (isThere) writer.deleteRealServer(server, real);
    }
    return { left, isShort, deadlineAt };
  }

  #nextPoll(since: ReadonlyMap<RealServerKey, number>, now: number): number {
    let [youngest, deadline] = [0, Infinity];
    for (const start of since.values()) {
      youngest = Math.max(youngest, start);
      deadline = Math.min(deadline, this.#deadline(start));
    }
    const age = now - youngest;
    if (age < YOUNG_MS) return now;
    return Math.min(deadline, now + Math.min(age / AGE_PER_POLL, MOST_POLL_MS));
  }

  #deadline(start: number): number {
    const { timeout } = this.options;
    return timeout === 0 ? Infinity : start + timeout;
  }

  /** The last one noted is the last to be looked at: with more than one poll takes, each has its turn. */
  #set(server: VirtualServerKey, drains: ServerDrains | undefined): void {
    this.#size -= this.#drains.get(server)?.since.size ?? 0;
    this.#drains.delete(server);
    if (drains === undefined) return;
    this.#size += drains.since.size;
    this.#drains.set(server, drains);
    this.#pollAt = Math.min(this.#pollAt, drains.pollAt);
    this.#deadlineAt = Math.min(this.#deadlineAt, drains.deadlineAt);
  }

  #countRestored(before: ReadonlyMap<RealServerKey, number>, left: readonly RealServerKey[]): void {
    const present = new Set(left);
    const restored = [...before.keys()].filter((real) => !present.has(real)).length;
    if (restored > 0) this.options.onEnd('restored', restored);
  }
}
