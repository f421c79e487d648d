/** Writes what an operator must act on as Events, at a pace that a thousand nodes together may have. */
import { createHash } from 'node:crypto';
import { type Logger } from 'pino';
import { type WallClock, sleep } from '../../time/clock.js';
import { type KubeError } from '../../kube/errors.js';
import { type EventObject, type EventOutcome } from '../../kube/event-writer.js';
import { errorMessage } from '../../values/errors.js';
import { type OperatorFact } from './operator-facts.js';

export interface EventPublisherOptions {
  readonly nodeName: string;
  readonly clock: WallClock;
  readonly log: Pick<Logger, 'warn' | 'debug'>;
  readonly write: (event: EventObject, signal: AbortSignal) => Promise<EventOutcome>;
  /** What is so now, about this node and about objects of the cluster. */
  readonly facts: () => { readonly node: readonly OperatorFact[]; readonly cluster: readonly OperatorFact[] };
}

/** How often the facts are looked at; what passes in between is no case for an operator. */
const LOOK_MS = 30_000;
/** The API server forgets an Event after an hour; what is still so is told again. */
const AGAIN_MS = 60 * 60_000;
/** A fact that all nodes have is told by the first of them; the others come within this time, and find it told. */
const SPREAD_MS = 5 * 60_000;
/** Requests of one node in a look: the rest waits for the next. */
const BUDGET = 5;
/** After a refusal by the API server (no RBAC rule, mostly) nothing is tried for so long. */
const PAUSE_MS = 10 * 60_000;

/**
 * Every node writes Events about itself, each at most once an hour. A fact about a Service is known to every node; its
 * Event has the same name on all, made of what it says, so the API server takes the first and answers the others that
 * it exists: one Event, however many nodes, and their requests are spread over five minutes.
 */
export class EventPublisher {
  readonly #options: EventPublisherOptions;
  readonly #stop = new AbortController();
  /** When an Event is due, by its name, in time of `clock.now`. */
  readonly #due = new Map<string, number>();
  #pausedUntil = 0;
  #running: Promise<void> = Promise.resolve();
  #hasComplained = false;

  constructor(options: EventPublisherOptions) {
    this.#options = options;
  }

  start(): void {
    this.#running = this.#run();
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { clock, log } = this.#options;
    const { signal } = this.#stop;
    for (;;) {
      await sleep(clock, LOOK_MS, signal);
      if (signal.aborted) return;
      try {
        await this.#look();
      } catch (error) {
        log.warn({ error: errorMessage(error) }, 'Events could not be made');
      }
    }
  }

  async #look(): Promise<void> {
    const { clock, facts } = this.#options;
    if (clock.now() < this.#pausedUntil) return;
    const { node, cluster } = facts();
    const now = clock.now();
    const all = [
      ...node.map((fact) => ({ fact, spreadMs: 0 })),
      ...cluster.map((fact) => ({ fact, spreadMs: SPREAD_MS })),
    ].map(({ fact, spreadMs }) => ({ event: eventOf(fact), spreadMs }));
    this.#forget(new Set(all.map(({ event }) => event.name)), now);
    let left = BUDGET;
    for (const { event, spreadMs } of all) {
      const due = this.#due.get(event.name) ?? now + spreadMs * this.#share(event.name);
      this.#due.set(event.name, due);
      if (due > now || left-- <= 0) continue;
      if (!(await this.#write(event))) return;
    }
  }

  /** Whether to go on. */
  async #write(event: EventObject): Promise<boolean> {
    const { clock, log, write } = this.#options;
    try {
      await write(event, this.#stop.signal);
      this.#due.set(event.name, clock.now() + AGAIN_MS * (1 + 0.1 * this.#share(event.name)));
      this.#hasComplained = false;
      return true;
    } catch (error) {
      if (this.#stop.signal.aborted) return false;
      const { retryAfterMs } = error as Partial<KubeError>;
      this.#pausedUntil = clock.now() + Math.max(retryAfterMs ?? 0, PAUSE_MS);
      const text = 'an Event could not be written; nothing but Events is missing, tried again in 10 minutes';
      if (this.#hasComplained) log.debug({ error: errorMessage(error) }, text);
      else log.warn({ error: errorMessage(error) }, text);
      this.#hasComplained = true;
      return false;
    }
  }

  /** Of what is no longer so only the time of its Event is kept, lest one that comes and goes be told each time. */
  #forget(current: ReadonlySet<string>, now: number): void {
    for (const [name, due] of this.#due) if (!current.has(name) && due <= now) this.#due.delete(name);
  }

  /** This node's place among all, for one Event: in [0, 1), the same at every start. */
  #share(name: string): number {
    return parseInt(digest(`${this.#options.nodeName}/${name}`).slice(0, 8), 16) / 2 ** 32;
  }
}

/** Its name is made of what it says, not of who says it nor of how it is put. */
export function eventOf({ regarding, reason, detail, note }: OperatorFact): EventObject {
  const place = regarding.kind === 'Node' ? '' : regarding.namespace;
  const identity = digest([regarding.kind, place, regarding.name, reason, detail].join('\n'));
  return { name: `kube-proxy-ipvs.${identity.slice(0, 20)}`, regarding, reason, note };
}

function digest(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}
