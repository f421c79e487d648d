/** What changed of late, kept as data: words are made of it when somebody asks. */
import { type RealServerKey, formatRealServer, formatVirtualServer } from '../../values/virtual-server.js';
import { formatAddress } from '../../values/address.js';
import { type Conflict } from '../../desired/conflict-pairs.js';
import { type DriftEntry } from '../../reconcile/drift.js';

/** Kept of each sort in one event; the counts go on. */
export const NAMED = 10;

/** `gone`: no slice names it any more; `left-out`: it is ready, but not chosen for this node. */
export type LossReason = 'gone' | 'not-ready' | 'terminating' | 'left-out';

export interface EndpointLoss {
  readonly real: RealServerKey;
  readonly reason: LossReason;
}

export type EventDetail =
  | { readonly kind: 'service-added' | 'service-removed'; readonly service: string; readonly virtualServers: number }
  | {
      readonly kind: 'service-changed';
      readonly service: string;
      /** Virtual servers. */
      readonly added: number;
      readonly removed: number;
    }
  | {
      readonly kind: 'endpoints';
      readonly service: string;
      /** The first ten of each. */
      readonly gained: readonly RealServerKey[];
      readonly lost: readonly EndpointLoss[];
      readonly gainedCount: number;
      readonly lostCount: number;
    }
  | { readonly kind: 'repaired'; readonly repairs: readonly DriftEntry[] }
  | { readonly kind: 'refused'; readonly service: string; readonly text: string }
  | { readonly kind: 'conflict'; readonly conflict: Conflict }
  | { readonly kind: 'failed' | 'skipped'; readonly messages: readonly string[]; readonly count: number }
  | { readonly kind: 'started'; readonly virtualServers: number };

export interface RingEvent {
  /** Unix milliseconds. */
  readonly at: number;
  /** From 1 on, without gaps. */
  readonly sequence: number;
  readonly detail: EventDetail;
}

/** The last `capacity` events; an event costs what it holds, whatever went before. */
export class EventRing {
  readonly #events: RingEvent[] = [];
  #sequence = 0;

  constructor(readonly capacity = 1000) {}

  /** How many there have been, those that are forgotten included. */
  get total(): number {
    return this.#sequence;
  }

  add(detail: EventDetail, at: number): void {
    const event = { at, sequence: ++this.#sequence, detail };
    this.#events[(event.sequence - 1) % this.capacity] = event;
  }

  /** From the oldest to the newest, of those not older than `since` (Unix milliseconds). */
  *list(since = -Infinity): Generator<RingEvent> {
    const oldest = Math.max(1, this.#sequence - this.capacity + 1);
    for (let sequence = oldest; sequence <= this.#sequence; sequence++) {
      const event = this.#events[(sequence - 1) % this.capacity]!;
      if (event.at >= since) yield event;
    }
  }

  /** From the newest to the oldest. */
  *newest(): Generator<RingEvent> {
    for (let sequence = this.#sequence; sequence > Math.max(0, this.#sequence - this.capacity); sequence--)
      yield this.#events[(sequence - 1) % this.capacity]!;
  }
}

const REASONS: Readonly<Record<LossReason, string>> = {
  gone: 'removed',
  'not-ready': 'not ready',
  terminating: 'terminating',
  'left-out': 'left out here by policy, hints or port',
};

/** Connections of a backend that still drains; 0 when none does. */
export type DrainingConnections = (service: string, real: RealServerKey) => number;

/** `shop/web lost 10.1.2.3:8080: not ready; 3 connections drain`. */
export function eventText(detail: EventDetail, draining: DrainingConnections): string {
  switch (detail.kind) {
    case 'service-added':
      return `Service ${detail.service} added: ${count(detail.virtualServers, 'virtual server')}`;
    case 'service-removed':
      return `Service ${detail.service} removed: ${count(detail.virtualServers, 'virtual server')}`;
    case 'service-changed':
      return `Service ${detail.service} changed: ${count(detail.added, 'virtual server')} added, ${detail.removed} removed`;
    case 'endpoints':
      return endpointsText(detail, draining);
    case 'repaired':
      return `repaired: ${detail.repairs.map(repairText).join('; ')}`;
    case 'refused':
      return `refused of ${detail.service}: ${detail.text}`;
    case 'conflict':
      return conflictText(detail.conflict);
    case 'failed':
      return `failed and tried again: ${listed(detail.messages, detail.count)}`;
    case 'skipped':
      return `the kernel keeps refusing, skipped: ${listed(detail.messages, detail.count)}`;
    case 'started':
      return `took over the kernel state: ${count(detail.virtualServers, 'virtual server')}`;
  }
}

function conflictText({ winner, loser, example }: Conflict): string {
  return `conflict: ${loser} does not get ${formatClaimed(example)}, which ${winner} has`;
}

/** What two Services claim. */
export function formatClaimed(example: Conflict['example']): string {
  return 'server' in example ? formatVirtualServer(example.server) : formatAddress(example.clusterIP);
}

function endpointsText(detail: Extract<EventDetail, { kind: 'endpoints' }>, draining: DrainingConnections): string {
  const { service, gained, lost, gainedCount, lostCount } = detail;
  const parts: string[] = [];
  if (gainedCount > 0) parts.push(`gained ${listed(gained.map(formatRealServer), gainedCount)}`);
  const losses = lost.map(({ real, reason }) => {
    const connections = draining(service, real);
    const left = connections === 0 ? '' : `; ${count(connections, 'connection')} drain${connections === 1 ? 's' : ''}`;
    return `${formatRealServer(real)}: ${REASONS[reason]}${left}`;
  });
  if (lostCount > 0) parts.push(`lost ${listed(losses, lostCount)}`);
  return `${service} ${parts.join('; ')}`;
}

function repairText({ object, kind, count: number, names }: DriftEntry): string {
  return `${number} ${kind} ${object} (${listed(names.slice(0, 3), number)})`;
}

function listed(names: readonly string[], total: number): string {
  return `${names.join(', ')}${total > names.length ? ` and ${total - names.length} more` : ''}`;
}

function count(number: number, what: string): string {
  return `${number} ${what}${number === 1 ? '' : 's'}`;
}
