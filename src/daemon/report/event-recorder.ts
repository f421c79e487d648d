import { type Logger } from 'pino';
import { errorMessage } from '../../values/errors.js';
import { type Conflict } from '../../desired/conflict-pairs.js';
import { type DesiredService } from '../../desired/service.js';
import { type EndpointSlice } from '../../model/endpoint-slice.js';
import { type Drift } from '../../reconcile/drift.js';
import { type SyncRecord } from '../../reconcile/sync-record.js';
import {
  type DrainingConnections,
  type EventDetail,
  EventRing,
  NAMED,
  type RingEvent,
  eventText,
} from './event-ring.js';
import { RepairLog } from './repair-log.js';
import { systemClock } from '../../time/clock.js';
import { serviceEvents } from './service-change.js';

/** Of one sync: the ring is for other things, too. */
const MAX_CONFLICTS = 20;
/** Of what one sync began to skip. */
const MAX_NAMED = 5;

/** What of an event a reader gets; the keys are part of the interface. */
export interface ReportedEvent {
  readonly sequence: number;
  readonly at: Date;
  readonly kind: EventDetail['kind'];
  readonly service: string | undefined;
  readonly text: string;
}

export interface EventsReport {
  /** Since the daemon's start; the oldest are forgotten. */
  readonly total: number;
  readonly events: readonly ReportedEvent[];
}

/**
 * Writes down what changes, for `events`, `status` and the log at debug level. Makes words only for somebody who
 * reads them.
 */
export class EventRecorder {
  readonly ring = new EventRing();
  readonly repairs = new RepairLog();
  /** Asked when an event is read. */
  draining: DrainingConnections = () => 0;
  #lastFailure = '';

  constructor(
    readonly log: Pick<Logger, 'isLevelEnabled' | 'debug'>,
    readonly now: () => number = () => systemClock.wall(),
  ) {}

  /** In steps, as a Service may be large. */
  *serviceChanged(
    service: string,
    before: DesiredService | undefined,
    after: DesiredService | undefined,
    slices: readonly EndpointSlice[],
  ): Generator<void, void> {
    for (const event of yield* serviceEvents(service, before, after, slices)) this.add(event);
  }

  repaired(drift: Drift): void {
    if (drift.counts.size === 0) return;
    const repairs = [...drift.counts.values()];
    this.repairs.note(repairs, this.now());
    this.add({ kind: 'repaired', repairs: repairs.map((one) => ({ ...one, names: one.names.slice(0, NAMED) })) });
  }

  /** After every sync, also after one that broke off; `virtualServers`: how many there are now. */
  syncEnded({ error, failures, newlySkipped, adopted, drift, ok }: SyncRecord, virtualServers: number): void {
    if (error !== undefined) this.syncBrokeOff(error);
    else {
      const count = newlySkipped.length;
      if (count > 0) this.add({ kind: 'skipped', messages: newlySkipped.slice(0, MAX_NAMED), count });
      if (adopted) this.add({ kind: 'started', virtualServers });
    }
    if (failures.length > 0) this.failed(failures.map(({ message }) => message));
    this.repaired(drift);
    if (ok) this.succeeded();
  }

  syncBrokeOff(error: unknown): void {
    this.failed([errorMessage(error)]);
  }

  conflicts(pairs: readonly Conflict[]): void {
    for (const conflict of pairs.slice(0, MAX_CONFLICTS)) this.add({ kind: 'conflict', conflict });
  }

  /** The same failure, tried again and again, is one event. */
  failed(messages: readonly string[]): void {
    const identity = `${messages.length} ${messages[0]}`;
    if (identity === this.#lastFailure) return;
    this.#lastFailure = identity;
    this.add({ kind: 'failed', messages: messages.slice(0, 3), count: messages.length });
  }

  succeeded(): void {
    this.#lastFailure = '';
  }

  add(detail: EventDetail): void {
    this.ring.add(detail, this.now());
    if (!this.log.isLevelEnabled('debug')) return;
    const service = serviceOf(detail);
    this.log.debug(
      { event: detail.kind, ...(service && { service }) },
      eventText(detail, () => 0),
    );
  }

  /** From the newest on, of one Service or of all, at most `most`. */
  latest(service: string | undefined, most: number): ReportedEvent[] {
    const found: ReportedEvent[] = [];
    for (const event of this.ring.newest()) {
      if (found.length >= most) break;
      if (service === undefined || serviceOf(event.detail) === service) found.push(this.#reported(event));
    }
    return found;
  }

  /** From the oldest to the newest, of those not older than `sinceMs` milliseconds. */
  report(sinceMs = Infinity): EventsReport {
    const events: ReportedEvent[] = [];
    for (const event of this.ring.list(this.now() - sinceMs)) events.push(this.#reported(event));
    return { total: this.ring.total, events };
  }

  #reported({ at, sequence, detail }: RingEvent): ReportedEvent {
    return {
      ...{ sequence, at: new Date(at), kind: detail.kind, service: serviceOf(detail) },
      text: eventText(detail, this.draining),
    };
  }
}

function serviceOf(detail: EventDetail): string | undefined {
  return 'service' in detail ? detail.service : undefined;
}
