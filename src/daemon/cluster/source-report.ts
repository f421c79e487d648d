import { type Logger } from 'pino';
import { type Reflector } from '../../kube/reflector.js';
import { type ReflectorState } from '../../kube/reflector-state.js';
import { type SkippedObject, SkippedObjects } from '../../kube/skipped-objects.js';
import { type Metrics } from '../../serve/metrics.js';
import { type ResourceName } from './cluster-feed.js';

/** Problems remembered so that they are not logged again; beyond it some may be. */
const MOST_PROBLEMS = 10_000;

type Watch = Pick<Reflector<unknown>, 'state' | 'heardAt'>;

/** What the sources make known of themselves: the state of the watches, and objects that are left out. */
export class SourceReport {
  readonly #watches = new Map<ResourceName, Watch>();
  readonly #collected = new Map<ResourceName, { lists: number; watches: number }>();
  readonly #problems = new Set<string>();
  readonly #skipped = {
    services: new SkippedObjects('services'),
    endpointslices: new SkippedObjects('endpointslices'),
    nodes: new SkippedObjects('nodes'),
  };

  readonly #metrics: Metrics;
  readonly #log: Logger;
  readonly #startedAt: number;

  /** `startedAt` in Unix milliseconds. */
  constructor(metrics: Metrics, log: Logger, startedAt: number) {
    this.#metrics = metrics;
    this.#log = log;
    this.#startedAt = startedAt;
  }

  addWatch(resource: ResourceName, watch: Watch): void {
    this.#watches.set(resource, watch);
  }

  watches(): ReadonlyMap<ResourceName, ReflectorState> {
    return new Map([...this.#watches].map(([resource, watch]) => [resource, watch.state()]));
  }

  /** When the bytes of the object that is being handed on came, in the clock's milliseconds; undefined: no watch. */
  heardAt(resource: ResourceName): number | undefined {
    return this.#watches.get(resource)?.heardAt;
  }

  /** The last error of every watch of `resources` that has not listed yet. */
  failures(isConcerned: (resource: ResourceName) => boolean): string[] {
    return [...this.watches()].flatMap(([resource, { lastError, isSynced }]) =>
      isSynced || lastError === undefined || !isConcerned(resource) ? [] : [lastError],
    );
  }

  /** The objects that are left out now, or a part of them, because they are malformed. */
  *skipped(): Generator<SkippedObject> {
    for (const objects of Object.values(this.#skipped)) yield* objects;
  }

  /** Where a source writes down the malformed objects of one resource. */
  problemsOf(resource: ResourceName): {
    readonly skipped: SkippedObjects;
    readonly onProblem: (key: string, problem: string) => void;
  } {
    return {
      skipped: this.#skipped[resource],
      onProblem: (key, problem) => this.#noteProblem(resource, key, problem),
    };
  }

  /** Brings the metrics of the watches up to date; called when somebody scrapes. */
  collect(): void {
    const metrics = this.#metrics;
    for (const { resource, size } of Object.values(this.#skipped)) metrics.skippedNow(resource, size);
    for (const [resource, { lists, watches, lastContactAt, lastError }] of this.watches()) {
      const before = this.#collected.get(resource) ?? { lists: 1, watches: 1 };
      const reason = lastError === undefined ? 'ended' : 'failed';
      for (let i = before.lists; i < lists; i++) metrics.relisted(resource, reason);
      for (let i = before.watches; i < watches; i++) metrics.watchRestarted(resource, reason);
      this.#collected.set(resource, { lists: Math.max(lists, 1), watches: Math.max(watches, 1) });
      // An API server that never answered has been silent since the start: no series would be no alert.
      metrics.watchHeard(resource, lastContactAt > 0 ? lastContactAt : this.#startedAt);
    }
  }

  /** One line per object and problem, however often it comes again; each time is counted. */
  #noteProblem(resource: ResourceName, key: string, problem: string): void {
    this.#metrics.objectSkipped(resource, 'malformed');
    const identity = `${resource} ${key} ${problem}`;
    if (this.#problems.has(identity)) return;
    if (this.#problems.size > MOST_PROBLEMS) this.#problems.clear();
    this.#problems.add(identity);
    this.#log.warn({ resource, object: key, problem }, 'part of an object is malformed and left out');
  }
}
