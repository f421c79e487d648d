import { type DrainEnd } from '../values/drift.js';
import {
  type RealServerKey,
  type VirtualServerKey,
  realServerKeyLength,
  realServerKeys,
  realServerList,
  virtualServerFamily,
} from '../values/virtual-server.js';
import { type IpvsClient } from '../kernel/ipvs/client.js';
import { type Clock } from './clock.js';
import { type IpvsApplier } from './ipvs-applier.js';
import { type IpvsWriter } from './ipvs-writer.js';
import { Pacer } from './pacer.js';
import { type Round } from './round.js';

const POLL_MS = 1000;

/**
 * Real servers with weight 0 that live connections still use. Each is deleted when its last connection is gone, or at
 * its deadline. State is the kernel's (the weight), so a restart finds and continues them; only the deadline starts
 * anew.
 */
export class DrainTracker {
  readonly #connections = new Map<VirtualServerKey, ReadonlyMap<RealServerKey, number>>();
  readonly #deadlines = new Map<VirtualServerKey, Map<RealServerKey, number>>();

  constructor(
    readonly applier: IpvsApplier,
    readonly clock: Clock,
    /** Milliseconds a real server may drain. */
    readonly timeout: number,
    readonly onEnd: (how: DrainEnd, count: number) => void = () => undefined,
    /** Connections of each real server of one virtual server, which is believed to have `expected` of them. */
    readonly connectionsOf = netlinkConnections(applier.client),
  ) {}

  /** How many real servers drain. */
  get size(): number {
    let size = 0;
    for (const reals of this.#deadlines.values()) size += reals.size;
    return size;
  }

  /**
   * Milliseconds until they should be looked at again: no change of the cluster tells that the last connection ended.
   */
  get dueIn(): number {
    return this.#deadlines.size === 0 ? Infinity : POLL_MS;
  }

  /** Every drain with the milliseconds left, for the status page. */
  list(): { server: VirtualServerKey; real: RealServerKey; msLeft: number }[] {
    const now = this.clock.now();
    return [...this.#deadlines].flatMap(([server, reals]) =>
      [...reals].map(([real, deadline]) => ({ server, real, msLeft: Math.max(0, deadline - now) })),
    );
  }

  /** Active plus inactive connections of a draining real server when last looked at. */
  connections(server: VirtualServerKey, real: RealServerKey): number {
    return this.#connections.get(server)?.get(real) ?? 0;
  }

  /** Takes note of what drains in `server` now; keeps the deadlines of those that drained before. */
  note(server: VirtualServerKey): void {
    const draining = this.applier.applied.get(server)?.draining ?? '';
    if (draining === '') {
      // A virtual server that is gone took its draining real servers along.
      if (this.applier.applied.has(server)) this.#countRestored(this.#deadlines.get(server), []);
      this.#deadlines.delete(server);
      this.#connections.delete(server);
      return;
    }
    const before = this.#deadlines.get(server);
    const deadline = this.clock.now() + this.timeout;
    const keys = realServerKeys(draining, virtualServerFamily(server));
    this.#countRestored(before, keys);
    this.#deadlines.set(server, new Map(keys.map((real) => [real, before?.get(real) ?? deadline])));
  }

  #countRestored(before: ReadonlyMap<RealServerKey, number> | undefined, left: readonly RealServerKey[]): void {
    if (before === undefined) return;
    const restored = [...before.keys()].filter((real) => !left.includes(real)).length;
    if (restored > 0) this.onEnd('restored', restored);
  }

  /**
   * Deletes what has drained or is past its deadline; what the kernel refuses of it goes into `round`. Throws
   * NetlinkError when the table cannot be read.
   */
  async poll(round: Round): Promise<void> {
    const writer = this.applier.writer(round);
    const pacer = new Pacer();
    try {
      for (const [server, deadlines] of [...this.#deadlines]) {
        this.#pollServer(server, deadlines, writer);
        await pacer.breathe();
      }
    } finally {
      writer.flush();
    }
  }

  #pollServer(server: VirtualServerKey, deadlines: Map<RealServerKey, number>, writer: IpvsWriter): void {
    const applied = this.applier.applied.get(server);
    if (applied === undefined) {
      this.#deadlines.delete(server);
      return;
    }
    const now = this.clock.now();
    const expected = applied.realServers.length + applied.draining.length;
    const length = realServerKeyLength(virtualServerFamily(server));
    const connections = this.connectionsOf(server, expected / length);
    this.#connections.set(server, connections);
    const done = [...deadlines].filter(([real, deadline]) => deadline <= now || (connections.get(real) ?? 0) === 0);
    if (done.length === 0) return;
    for (const [real] of done) {
      deadlines.delete(real);
      this.onEnd((connections.get(real) ?? 0) === 0 ? 'idle' : 'deadline', 1);
    }
    const left = realServerList([...deadlines.keys()]);
    const present = done.map(([real]) => real).filter((real) => connections.has(real));
    for (const real of present) writer.deleteRealServer(server, real);
    this.applier.applied.set(server, { ...applied, draining: left });
    this.note(server);
  }
}

type ConnectionsOf = (server: VirtualServerKey, expected: number) => Map<RealServerKey, number>;

function netlinkConnections(client: IpvsClient): ConnectionsOf {
  return (server) =>
    new Map(
      client.listRealServers(server).map((real) => [real.key, real.activeConnections + real.inactiveConnections]),
    );
}
