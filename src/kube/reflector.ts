import { type Log } from '../values/log.js';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { type KubeBody, type KubeClient } from './client.js';
import { Backoff } from '../time/backoff.js';
import { type WallClock, sleep, systemClock } from '../time/clock.js';
import { KubeError, toKubeError } from './errors.js';
import { LineSplitter } from './json-splitter.js';
import { type PageReader, readPage, readPages } from './list-pages.js';
import { ObjectFeed, type ObjectFeedOptions } from './object-feed.js';
import { ReflectorBook, type ReflectorState } from './reflector-state.js';
import { isOlderVersion } from './resource-version.js';
import { MALFORMED, parseWatchLine, type WatchEvent } from './wire.js';

export interface ReflectorOptions<T> extends ObjectFeedOptions<T> {
  readonly client: Pick<KubeClient, 'open'>;
  /** Plural resource name for messages: `services`. */
  readonly resource: string;
  /** `/api/v1/services` */
  readonly path: string;
  readonly labelSelector?: string;
  readonly fieldSelector?: string;
  readonly log: Log;
  readonly clock?: WallClock;
  /** A watch that is silent for this long is dead; API servers send a bookmark about every minute. */
  readonly idleMs?: number;
  /** The same while a list is on its way. */
  readonly listIdleMs?: number;
  readonly pageSize?: number;
  /**
   * The watch is given up for a list after this long, and up to half as long again so that nodes do not list together;
   * 0, the default: never. For a history that went backwards and on beyond what was seen of it, which nothing shows.
   */
  readonly relistMs?: number;
  /** False never tries a streaming list (sendInitialEvents). */
  readonly streaming?: boolean;
}

/** Bytes of JSON handled before other work gets its turn: about 2 ms. */
const TURN_BYTES = 64 * 1024;
/** A watch that ends sooner than this waits before it is opened again. */
const SHORT_WATCH_MS = 1000;
/** After a silent watch every node asks for the current version within this long, not all at once. */
const SILENCE_SPREAD_MS = 5000;

/**
 * Reasons of KubeErrors of our own: a server that does not know sendInitialEvents; one whose history went backwards.
 */
const NOT_STREAMING = 'NotStreaming';
const WENT_BACK = 'WentBack';

/**
 * Keeps a sink equal to one resource of the API server: list (streamed, or in pages), then watch from there on, for
 * ever. Never gives up; after whatever failure it goes on from the last version seen, or lists anew and deletes what is
 * gone. A server whose versions went backwards (etcd restored from a backup) is listed anew.
 */
export class Reflector<T> {
  readonly #feed: ObjectFeed<T>;
  readonly #clock: WallClock;
  readonly #backoff: Backoff;
  readonly #book: ReflectorBook;
  readonly #stop = new AbortController();
  #loop: Promise<void> | undefined;
  /** Where the next watch starts; undefined when a list is needed first. */
  #resourceVersion: string | undefined;
  /** The last watch stayed silent: dead, or waiting for a version that the server is never to reach. */
  #isDoubtful = false;
  #useStreaming: boolean;
  /** By the clock, when the next list is due whatever the watch says. */
  #relistAt = Infinity;
  /** The next list is in pages, whatever #useStreaming says. */
  #pagedOnce = false;
  /** An event came since the last list: a 410 now is news, no failure. */
  #hasProgress = false;
  #malformedInARow = 0;
  #unspent = TURN_BYTES;

  readonly #options: ReflectorOptions<T>;

  constructor(options: ReflectorOptions<T>) {
    this.#options = options;
    this.#feed = new ObjectFeed(options);
    this.#clock = options.clock ?? systemClock;
    this.#backoff = new Backoff(this.#clock);
    this.#book = new ReflectorBook(options.resource, this.#clock, options.log);
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

  /** When the bytes of the object that is being handed to the sink came, in the clock's milliseconds. */
  get heardAt(): number | undefined {
    return this.#book.heardAt;
  }

  state(): ReflectorState {
    return {
      ...this.#book.state(),
      isSynced: this.#feed.isSynced,
      resourceVersion: this.#resourceVersion,
      objects: this.#feed.size,
    };
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      try {
        if (this.#clock.now() >= this.#relistAt) this.#relist();
        const version = this.#resourceVersion;
        if (version !== undefined && this.#isDoubtful) await this.#checkHistory(version);
        else if (version !== undefined) await this.#watch(version);
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
      await this.#follow(await this.#open('watch', this.#watchQuery(query)), undefined);
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
    this.#book.info(error.message, 'no streaming list from this API server, listing in pages');
    return true;
  }

  async #watch(resourceVersion: string): Promise<void> {
    await this.#follow(await this.#open('watch', this.#watchQuery({ resourceVersion })), resourceVersion);
  }

  /** Applies events until the stream ends; without a version, initial objects come first. */
  async #follow(body: KubeBody, version: string | undefined): Promise<void> {
    this.#book.watches++;
    const openedAt = this.#clock.now();
    let isCurrent = version !== undefined;
    const lines = new LineSplitter();
    for await (const chunk of body) {
      this.#book.heard();
      for (const line of lines.push(chunk)) {
        const event = parseWatchLine(this.#operation('watch'), line);
        if (isCurrent) this.#progressed(event);
        else isCurrent = this.#isInitialEnd(event);
        this.#apply(event, isCurrent);
        await this.#spend(line.length);
        if (this.#stop.signal.aborted) return;
      }
    }
    if (!isCurrent) throw this.#error('Incomplete', 'ended before its last object');
    if (this.#clock.now() - openedAt >= SHORT_WATCH_MS) return;
    await sleep(this.#clock, this.#backoff.next(), this.#stop.signal);
  }

  #isInitialEnd(event: WatchEvent): boolean {
    if (event.type !== 'bookmark') return false;
    if (!event.isInitialEnd) throw this.#error(NOT_STREAMING, 'sendInitialEvents was ignored');
    this.#endList();
    return true;
  }

  #apply(event: WatchEvent, isCurrent: boolean): void {
    if (event.type !== 'bookmark') {
      if (event.type === 'put') this.#feed.put(event.object);
      else this.#feed.remove(event.object);
      this.#book.gotObject();
    }
    if (isCurrent && event.resourceVersion !== '') this.#resourceVersion = event.resourceVersion;
  }

  /**
   * A real API server accepts a watch from a version that it has not reached and sends nothing until it has, bookmarks
   * neither. So after a silent watch the current version is asked for, by the shortest list there is.
   */
  async #checkHistory(known: string): Promise<void> {
    const nobody: PageReader = { heard: () => this.#book.heard(), item: () => Promise.resolve() };
    const { resourceVersion } = await readPage(
      this.#operation('list'),
      await this.#open('list', { limit: '1' }),
      nobody,
    );
    if (isOlderVersion(resourceVersion, known)) throw this.#wentBack(resourceVersion, known);
    this.#isDoubtful = false;
  }

  /** A consistent list in pages; when its continue token expires half-way, once more in one piece. */
  async #pagedList(): Promise<void> {
    this.#beginList();
    let resourceVersion: string;
    try {
      resourceVersion = await this.#readPages(this.#options.pageSize ?? 500);
    } catch (error) {
      if (!(error instanceof KubeError) || !error.isExpired) throw error;
      this.#beginList();
      resourceVersion = await this.#readPages(0);
    }
    this.#resourceVersion = resourceVersion;
    this.#pagedOnce = false;
    this.#endList();
  }

  #readPages(limit: number): Promise<string> {
    return readPages(this.#operation('list'), limit, (query) => this.#open('list', query), {
      heard: () => this.#book.heard(),
      item: async (object, bytes) => {
        this.#feed.put(object);
        this.#book.gotObject();
        await this.#spend(bytes);
        this.#stop.signal.throwIfAborted();
      },
    });
  }

  #open(verb: 'list' | 'watch', query: Readonly<Record<string, string>>): Promise<KubeBody> {
    const { path, labelSelector, fieldSelector, client, listIdleMs = 30_000, idleMs = 135_000 } = this.#options;
    const selectors = {
      ...(labelSelector === undefined ? {} : { labelSelector }),
      ...(fieldSelector === undefined ? {} : { fieldSelector }),
    };
    return client.open({
      operation: this.#operation(verb),
      path,
      query: { ...query, ...selectors },
      signal: this.#stop.signal,
      idleMs: () => (verb === 'list' || this.#resourceVersion === undefined ? listIdleMs : idleMs),
    });
  }

  /** The jitter (5 to 10 minutes) keeps a thousand nodes from reconnecting in the same second. */
  #watchQuery(start: Readonly<Record<string, string>>): Record<string, string> {
    const timeoutSeconds = String(Math.round(300 * (1 + this.#clock.random())));
    return { watch: '1', allowWatchBookmarks: 'true', timeoutSeconds, ...start };
  }

  #beginList(): void {
    this.#book.lists++;
    this.#hasProgress = false;
    this.#isDoubtful = false;
    this.#feed.beginList();
  }

  /** Looked at between two watches, of which each ends after ten minutes at the latest. */
  #relist(): void {
    this.#book.info('kubeProxyIpvs.relistPeriod is over', 'listing anew');
    this.#relistAt = Infinity;
    this.#resourceVersion = undefined;
  }

  #endList(): void {
    const { relistMs = 0 } = this.#options;
    if (relistMs > 0) this.#relistAt = this.#clock.now() + relistMs * (1 + this.#clock.random() / 2);
    this.#feed.endList();
    this.#book.worked();
  }

  #progressed({ resourceVersion }: WatchEvent): void {
    const known = this.#resourceVersion;
    if (known !== undefined && isOlderVersion(resourceVersion, known)) throw this.#wentBack(resourceVersion, known);
    this.#hasProgress = true;
    this.#malformedInARow = 0;
    this.#book.worked();
  }

  /** Books the failure, decides where to go on, and returns how long to wait in milliseconds. */
  #afterFailure(thrown: unknown): number {
    const error = toKubeError(this.#operation('watch'), thrown);
    let wait = error.retryAfterMs + this.#backoff.next();
    if (error.isExpired || error.reason === WENT_BACK) {
      this.#resourceVersion = undefined;
      if (error.isExpired && this.#hasProgress) {
        this.#book.info(error.message, 'history gone, listing anew');
        return wait;
      }
    }
    if (error.reason === 'Idle' && this.#resourceVersion !== undefined) {
      this.#isDoubtful = true;
      wait += this.#clock.random() * SILENCE_SPREAD_MS;
    }
    if (error.reason === MALFORMED) {
      this.#book.malformed++;
      // The same version twice in a row: something about this history cannot be read, a list goes around it.
      if (++this.#malformedInARow >= 2) this.#resourceVersion = undefined;
    }
    this.#book.failed(error, wait);
    return wait;
  }

  #wentBack(version: string, known: string): KubeError {
    const message = `history went backwards, from version ${known} to ${version} (etcd restored from a backup?): listing anew`;
    return this.#error(WENT_BACK, message);
  }

  #error(reason: string, message: string): KubeError {
    return new KubeError(this.#operation('watch'), { reason, message });
  }

  #operation(verb: 'list' | 'watch'): string {
    return `${verb} ${this.#options.resource}`;
  }

  /** Lets the event loop turn after every TURN_BYTES; most calls cost nothing. */
  async #spend(bytes: number): Promise<void> {
    this.#unspent -= bytes;
    if (this.#unspent > 0) return;
    this.#unspent = TURN_BYTES;
    await nextTurn();
  }
}
