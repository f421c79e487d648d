import { type Resource } from './api-server-store.js';

/** Kinds of request that a fault can be limited to; `watchlist` is a watch that asks for sendInitialEvents. */
export type RequestKind = 'list' | 'watch' | 'watchlist';

/**
 * What goes wrong with one request. All of it is plain JSON, so that the stand-alone server takes it over its control
 * port.
 */
export type Fault =
  | { readonly kind: 'status'; readonly code: number; readonly reason?: string; readonly retryAfter?: string }
  /** Closes the connection without an answer. */
  | { readonly kind: 'drop' }
  /** Accepts the request and never answers. */
  | { readonly kind: 'hang' }
  /** Resets the connection after this many bytes of the body. */
  | { readonly kind: 'cut'; readonly bytes: number }
  /** Sends this many bytes of the body, then nothing more, and keeps the connection open. */
  | { readonly kind: 'freeze'; readonly bytes: number }
  /** Sends the body in pieces of `bytes`, one per turn of the event loop. */
  | { readonly kind: 'drip'; readonly bytes: number }
  /** Sends something that is no JSON in place of the first object. */
  | { readonly kind: 'garbage' }
  /** Answers a watch 200 and then one ERROR event. */
  | { readonly kind: 'streamError'; readonly code: number; readonly reason: string }
  /** Ends a watch cleanly before its first event. */
  | { readonly kind: 'end' }
  /** Treats sendInitialEvents as servers do that never heard of it. */
  | { readonly kind: 'ignoreInitialEvents' };

export interface FaultRule {
  readonly resource?: Resource;
  readonly requests?: readonly RequestKind[];
  /** How many matching requests it hits; without it, all until cleared. */
  readonly times?: number;
  readonly fault: Fault;
}

/** What can happen to watches that are running. */
export type Disturbance =
  | 'reset'
  | 'cutMidLine'
  | 'garbage'
  | 'freeze'
  | 'end'
  | 'error410'
  | 'error500'
  | 'badObject'
  /** A bookmark, or an event, of a version from before all others. */
  | 'olderBookmark'
  | 'olderEvent';

/** The faults in force, and how often each kind was injected. */
export class FaultTable {
  #rules: { rule: FaultRule; left: number }[] = [];
  readonly injected = new Map<string, number>();

  add(rule: FaultRule): void {
    this.#rules.push({ rule, left: rule.times ?? Infinity });
  }

  clear(): void {
    this.#rules = [];
  }

  /** The first fault that matches, used up by one. */
  take(resource: Resource, request: RequestKind): Fault | undefined {
    const entry = this.#rules.find(
      ({ rule, left }) =>
        left > 0 &&
        (rule.resource === undefined || rule.resource === resource) &&
        (rule.requests === undefined || rule.requests.includes(request)),
    );
    if (entry === undefined) return undefined;
    entry.left--;
    if (entry.left === 0) this.#rules = this.#rules.filter((other) => other !== entry);
    this.count(entry.rule.fault.kind);
    return entry.rule.fault;
  }

  count(kind: string): void {
    this.injected.set(kind, (this.injected.get(kind) ?? 0) + 1);
  }
}
