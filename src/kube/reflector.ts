import { setImmediate as nextTurn } from 'node:timers/promises';
import { type KubeClient, type KubeBody } from './client.js';
import { Backoff, type KubeClock, sleep, systemClock } from './clock.js';
import { KubeError, toKubeError } from './errors.js';
import { LineSplitter, ListSplitter } from './json-splitter.js';
import { ObjectFeed, type ObjectFeedOptions } from './object-feed.js';
import { type KubeLog } from './sink.js';
import { MALFORMED, parseEnvelope, parseJson, parseWatchLine, type WatchEvent } from './wire.js';

export interface ReflectorOptions<T> extends ObjectFeedOptions<T> {
  readonly client: Pick<KubeClient, 'open'>;
  /** Plural resource name for messages: `services`. */
  readonly resource: string;
  /** `/api/v1/services` */
  readonly path: string;
  readonly labelSelector?: string;
  readonly fieldSelector?: string;
  readonly log: KubeLog;
  readonly clock?: KubeClock;
  /** A watch that is silent for this long is dead; API servers send a bookmark about every minute. */
  readonly idleMs?: number;
  /** The same while a list is on its way. */
  readonly listIdleMs?: number;
  readonly pageSize?: number;
  /** False never tries a streaming list (sendInitialEvents). */
  readonly streaming?: boolean;
}

/** What health and metrics want to know; times in milliseconds since the epoch, 0 for never. */
export interface ReflectorState {
  readonly isSynced: boolean;
  /** Last time that a byte came from a list or watch. */
  readonly lastContactAt: number;
  /** Last time that an object came. */
  readonly lastEventAt: number;
  /** Failures since the last list or watch event that worked. */
  readonly consecutiveFailures: number;
  readonly lastError: string | undefined;
  readonly resourceVersion: string | undefined;
  readonly objects: number;
  readonly lists: number;
  readonly watches: number;
  readonly failures: number;
  readonly malformed: number;
}

/** Bytes of JSON handled before other work gets its turn: about 2 ms. */
const TURN_BYTES = 64 * 1024;
/** A watch that ends sooner than this waits before it is opened again. */
const SHORT_WATCH_MS = 1000;
const LOG_EVERY_MS = 60_000;

/**
 * Keeps a sink equal to one resource of the API server: list (streamed, or in pages), then watch from there on, for ever. Never
 * gives up; after whatever failure it goes on from the last version seen, or lists anew and deletes what is gone.
 */
export class Reflector<T> {
  readonly #feed: ObjectFeed<T>;
  readonly #clock: KubeClock;
  readonly #backoff: Backoff;
  readonly #stop = new AbortController();
  #loop: Promise<void> | undefined;
  /** Where the next watch starts; undefined when a list is needed first. */
  #resourceVersion: string | undefined;
  #useStreaming: boolean;
  /** The next list is in pages, whatever #useStreaming says. */
  #pagedOnce = false;
  /** An event came since the last list: a 410 now is news and not a loop. */
  #hasProgress = false;
  #malformedInARow = 0;
  #openedAt = 0;
  #unspent = TURN_BYTES;
  #lastLogged: { readonly message: string; readonly at: number } | undefined;
  readonly #state = {
    lastContactAt: 0,
    lastEventAt: 0,
    consecutiveFailures: 0,
    lastError: undefined as string | undefined,
    lists: 0,
    watches: 0,
    failures: 0,
    malformed: 0,
  };

  constructor(private readonly options: ReflectorOptions<T>) {
    this.#feed = new ObjectFeed(options);
    this.#clock = options.clock ?? systemClock;
    this.#backoff = new Backoff(this.#clock);
    this.#useStreaming = options.streaming ?? true;
  }

  start(): void {
    this.#loop ??= this.#run();
  }

  /** Aborts whatever is going on; nothing reaches the sink after this resolves. */
  async close(): Promise<void> {
    this.#stop.abort();
    await this.#loop;
  }

  state(): ReflectorState {
    return {
      ...this.#state,
      isSynced: this.#feed.isSynced,
      resourceVersion: this.#resourceVersion,
      objects: this.#feed.size,
    };
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      this.#openedAt = Infinity;
      try {
        if (this.#resourceVersion !== undefined) await this.#watch(this.#resourceVersion);
        else if (this.#useStreaming && !this.#pagedOnce) await this.#streamingList();
        else await this.#pagedList();
      } catch (error) {
        if (!signal.aborted) await sleep(this.#clock, this.#afterFailure(error), signal);
      }
    }
  }

  /** Lists by a watch that begins with all objects (KEP-3157) and simply goes on afterwards. */
  async #streamingList(): Promise<void> {
    this.#beginList();
    const query = { resourceVersionMatch: 'NotOlderThan', sendInitialEvents: 'true' };
    try {
      await this.#follow(await this.#open('watch', this.#watchQuery(query)), false);
    } catch (error) {
      if (this.#resourceVersion !== undefined || !this.#fallsBack(error)) throw error;
    }
  }

  /** True when the server (or something in between) cannot stream a list: the next one goes in pages, at once. */
  #fallsBack(error: unknown): boolean {
    if (!(error instanceof KubeError)) return false;
    if (error.status === 400 || error.status === 422 || error.reason === NOT_STREAMING) this.#useStreaming = false;
    else if (error.status === 403 || error.reason === 'Idle') this.#pagedOnce = true;
    else {
      // It broke off. Whatever cannot carry one long answer may carry short ones: pages next, after the back-off.
      if (error.status === 0) this.#pagedOnce = true;
      return false;
    }
    const fields = { resource: this.options.resource, reason: error.message };
    this.options.log.info(fields, 'no streaming list from this API server, listing in pages');
    return true;
  }

  async #watch(resourceVersion: string): Promise<void> {
    await this.#follow(await this.#open('watch', this.#watchQuery({ resourceVersion })), true);
  }

  /** Applies events until the stream ends; `isCurrent` tells that no initial objects are to come. */
  async #follow(body: KubeBody, isCurrent: boolean): Promise<void> {
    this.#state.watches++;
    this.#openedAt = this.#clock.now();
    const operation = `watch ${this.options.resource}`;
    const lines = new LineSplitter();
    for await (const chunk of body) {
      this.#state.lastContactAt = this.#clock.now();
      for (const line of lines.push(chunk)) {
        const event = parseWatchLine(operation, line);
        if (isCurrent) this.#progressed();
        else isCurrent = this.#isInitialEnd(event, operation);
        this.#apply(event, isCurrent);
        await this.#spend(line.length);
        if (this.#stop.signal.aborted) return;
      }
    }
    if (!isCurrent) throw new KubeError(operation, { reason: 'Incomplete', message: 'ended before its last object' });
    if (this.#clock.now() - this.#openedAt >= SHORT_WATCH_MS) return this.#backoff.reset();
    await sleep(this.#clock, this.#backoff.next(), this.#stop.signal);
  }

  #isInitialEnd(event: WatchEvent, operation: string): boolean {
    if (event.type !== 'bookmark') return false;
    if (!event.isInitialEnd) {
      throw new KubeError(operation, { reason: NOT_STREAMING, message: 'sendInitialEvents was ignored' });
    }
    this.#endList();
    return true;
  }

  #apply(event: WatchEvent, isCurrent: boolean): void {
    if (event.type !== 'bookmark') {
      if (event.type === 'put') this.#feed.put(event.object);
      else this.#feed.remove(event.object);
      this.#state.lastEventAt = this.#state.lastContactAt;
    }
    if (isCurrent && event.resourceVersion !== '') this.#resourceVersion = event.resourceVersion;
  }

  /** A consistent list in pages; when its continue token expires half-way, once more in one piece. */
  async #pagedList(): Promise<void> {
    this.#beginList();
    let resourceVersion: string;
    try {
      resourceVersion = await this.#pages(this.options.pageSize ?? 500);
    } catch (error) {
      if (!(error instanceof KubeError) || !error.isExpired) throw error;
      this.#beginList();
      resourceVersion = await this.#pages(0);
    }
    this.#resourceVersion = resourceVersion;
    this.#pagedOnce = false;
    this.#endList();
  }

  async #pages(limit: number): Promise<string> {
    const size: Record<string, string> = limit > 0 ? { limit: String(limit) } : {};
    let continueToken = '';
    for (;;) {
      const query = continueToken === '' ? size : { ...size, continue: continueToken };
      const page = await this.#page(await this.#open('list', query));
      if (page.continueToken === '') return page.resourceVersion;
      continueToken = page.continueToken;
    }
  }

  async #page(body: KubeBody): Promise<{ resourceVersion: string; continueToken: string }> {
    const operation = `list ${this.options.resource}`;
    const splitter = new ListSplitter();
    for await (const chunk of body) {
      this.#state.lastContactAt = this.#clock.now();
      for (const item of splitter.push(chunk)) {
        this.#feed.put(parseJson(operation, item));
        this.#state.lastEventAt = this.#state.lastContactAt;
        await this.#spend(item.length);
        this.#stop.signal.throwIfAborted();
      }
    }
    return parseEnvelope(operation, splitter.envelope());
  }

  #open(verb: 'list' | 'watch', query: Readonly<Record<string, string>>): Promise<KubeBody> {
    const { path, resource, labelSelector, fieldSelector, client } = this.options;
    const selectors = {
      ...(labelSelector === undefined ? {} : { labelSelector }),
      ...(fieldSelector === undefined ? {} : { fieldSelector }),
    };
    const operation = `${verb} ${resource}`;
    return client.open({
      operation,
      path,
      query: { ...query, ...selectors },
      signal: this.#stop.signal,
      idleMs: () => this.#idleMs,
    });
  }

  /** The jitter (5 to 10 minutes) keeps a thousand nodes from reconnecting in the same second. */
  #watchQuery(start: Readonly<Record<string, string>>): Record<string, string> {
    const timeoutSeconds = String(Math.round(300 * (1 + this.#clock.random())));
    return { watch: '1', allowWatchBookmarks: 'true', timeoutSeconds, ...start };
  }

  get #idleMs(): number {
    if (this.#resourceVersion === undefined) return this.options.listIdleMs ?? 30_000;
    return this.options.idleMs ?? 135_000;
  }

  #beginList(): void {
    this.#state.lists++;
    this.#hasProgress = false;
    this.#feed.beginList();
  }

  #endList(): void {
    this.#feed.endList();
    this.#recovered();
  }

  #progressed(): void {
    this.#hasProgress = true;
    this.#malformedInARow = 0;
    this.#backoff.reset();
    this.#recovered();
  }

  #recovered(): void {
    if (this.#state.consecutiveFailures === 0) return;
    const fields = { resource: this.options.resource, failures: this.#state.consecutiveFailures };
    if (this.#lastLogged !== undefined) this.options.log.info(fields, 'API server answers again');
    this.#lastLogged = undefined;
    this.#state.consecutiveFailures = 0;
    this.#state.lastError = undefined;
  }

  /** Books the failure, decides where to go on, and returns how long to wait in milliseconds. */
  #afterFailure(thrown: unknown): number {
    const error = toKubeError(`watch ${this.options.resource}`, thrown);
    if (this.#clock.now() - this.#openedAt >= SHORT_WATCH_MS) this.#backoff.reset();
    if (error.isExpired) {
      this.#resourceVersion = undefined;
      if (this.#hasProgress) {
        this.options.log.info({ resource: this.options.resource, reason: error.message }, 'history gone, listing anew');
        return 0;
      }
    }
    if (error.reason === MALFORMED) {
      this.#state.malformed++;
      // The same version twice in a row: something about this history cannot be read, a list goes around it.
      if (++this.#malformedInARow >= 2) this.#resourceVersion = undefined;
    }
    this.#state.failures++;
    this.#state.consecutiveFailures++;
    this.#state.lastError = error.message;
    const wait = error.retryAfterMs + this.#backoff.next();
    this.#logFailure(error, wait);
    return wait;
  }

  /** The same failure is logged once a minute, not at every attempt. */
  #logFailure(error: KubeError, waitMs: number): void {
    const now = this.#clock.now();
    if (this.#lastLogged?.message === error.message && now - this.#lastLogged.at < LOG_EVERY_MS) return;
    this.#lastLogged = { message: error.message, at: now };
    const { resource } = this.options;
    const fields = { resource, status: error.status, reason: error.reason, retryInMs: Math.round(waitMs) };
    this.options.log.warn(fields, error.message);
  }

  /** Lets the event loop turn after every TURN_BYTES; most calls cost nothing. */
  async #spend(bytes: number): Promise<void> {
    this.#unspent -= bytes;
    if (this.#unspent > 0) return;
    this.#unspent = TURN_BYTES;
    await nextTurn();
  }
}

/** Reason of a KubeError for a server that does not know sendInitialEvents. */
const NOT_STREAMING = 'NotStreaming';
