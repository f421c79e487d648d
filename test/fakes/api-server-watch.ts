import { type BodyWriter } from './api-server-body.js';
import { type Disturbance } from './api-server-faults.js';
import { type Selector } from './api-server-selector.js';
import {
  type Collection,
  type ResourceType,
  type StoreEvent,
  type StoredObject,
  itemJson,
} from './api-server-store.js';

/** Bytes of initial events written between two looks at the peer's back-pressure. */
const BLOCK = 128 * 1024;
/** Older than all that a store makes. */
const OLD_REVISION = 7;

/**
 * One running watch: follows its collection's history and never holds more than the peer can take. What is sent and
 * when is kube-apiserver 1.36's (staging/src/k8s.io/apiserver/pkg/storage/cacher):
 * - a version that the server has not reached is accepted (getAllEventsSinceLocked in watch_cache.go refuses only what
 *   is older than its history), and nothing up to it is sent, bookmarks neither (process in cache_watcher.go: events,
 *   and bookmarks of a watch without initial events, only with a version above the one that was asked for);
 * - bookmarks come about once a minute and 2 s before the end (nextBookmarkTime in cache_watcher.go).
 */
export class Watch {
  #position: number;
  /** Nothing up to this revision is sent. */
  #floor = 0;
  #isWaiting = false;
  #isLive = false;

  readonly #selector: Selector;
  readonly #wantsBookmarks: boolean;

  constructor(
    readonly collection: Collection,
    selector: Selector,
    readonly body: BodyWriter,
    wantsBookmarks: boolean,
  ) {
    this.#selector = selector;
    this.#wantsBookmarks = wantsBookmarks;
    this.#position = collection.historyEnd;
  }

  /** Sends what happened after `revision`, then goes on live. */
  startAfter(revision: number): void {
    const { history, historyStart } = this.collection;
    const first = history.findIndex((event) => event.revision > revision);
    this.#position = first < 0 ? this.collection.historyEnd : historyStart + first;
    this.#floor = revision;
    this.#isLive = true;
    this.pump();
  }

  /** Sends every object as ADDED; then `bookmark` (a whole line) if any; then goes on live. */
  async startWithObjects(bookmark: () => string | undefined): Promise<void> {
    let block = '';
    for (const object of this.collection.sorted()) {
      if (!this.#selector(object)) continue;
      block += eventLine('ADDED', this.collection.type, object);
      if (block.length < BLOCK) continue;
      this.body.write(block);
      block = '';
      await this.body.ready();
      if (!this.body.isOpen) return;
    }
    this.body.write(block);
    this.#isLive = true;
    this.pump();
    while (!this.#isCaughtUp && this.body.isOpen) {
      await this.body.ready();
      this.pump();
    }
    const line = bookmark();
    if (line !== undefined) this.body.write(line);
  }

  /** Writes all events that the peer has not had, as far as back-pressure allows. */
  pump(): void {
    if (!this.#isLive) return;
    while (this.body.isOpen && this.#position < this.collection.historyEnd) {
      if (this.#position < this.collection.historyStart) return this.body.end();
      if (this.body.isBlocked) return this.#pumpLater();
      const event = this.collection.history[this.#position - this.collection.historyStart]!;
      this.#position++;
      const line = event.revision > this.#floor ? this.#line(event) : undefined;
      if (line !== undefined) this.body.write(line);
    }
  }

  bookmark(revision: number): void {
    if (this.#wantsBookmarks && revision > this.#floor && this.#isLive && this.#isCaughtUp && this.body.isOpen) {
      this.body.write(bookmarkLine(this.collection.type, revision, false));
    }
  }

  disturb(how: Disturbance): void {
    const { body } = this;
    if (how === 'reset') body.destroy();
    else if (how === 'end') body.end();
    else if (how === 'freeze') body.freeze();
    else if (how === 'garbage') body.write('{"type":"ADDED","object":{"meta\u0000<html>502 Bad Gateway\n');
    else if (how === 'badObject') body.write('{"type":"ADDED","object":{"kind":"Service","metadata":{"name":7}}}\n');
    else if (how === 'olderBookmark') body.write(bookmarkLine(this.collection.type, OLD_REVISION, false));
    else if (how === 'olderEvent') {
      const [object] = this.collection.sorted();
      if (object !== undefined) body.write(eventLine('MODIFIED', this.collection.type, object, OLD_REVISION));
    } else if (how === 'cutMidLine') {
      body.write('{"type":"ADDED","object":{"kind":"Service","apiVersion":"v1","metadata":{"name":"half');
      body.finishAndClose();
    } else {
      body.write(how === 'error410' ? errorLine(410, 'Expired', 'too old resource version') : INTERNAL_ERROR);
      body.end();
    }
  }

  /** A bookmark promises that everything up to its version was sent. */
  get #isCaughtUp(): boolean {
    return this.#position >= this.collection.historyEnd;
  }

  #pumpLater(): void {
    if (this.#isWaiting) return;
    this.#isWaiting = true;
    void this.body.ready().then(() => {
      this.#isWaiting = false;
      this.pump();
    });
  }

  /**
   * An object that leaves the selector is DELETED, one that enters it ADDED; a DELETED carries the last matching state.
   */
  #line(event: StoreEvent): string | undefined {
    const { before, after, revision } = event;
    const matched = before !== undefined && this.#selector(before);
    const matches = after !== undefined && this.#selector(after);
    if (matches) return eventLine(matched ? 'MODIFIED' : 'ADDED', this.collection.type, after);
    return matched ? eventLine('DELETED', this.collection.type, before, revision) : undefined;
  }
}

function eventLine(type: string, resource: ResourceType, object: StoredObject, revision = object.revision): string {
  return `{"type":"${type}","object":${fullJson(resource, object, revision)}}\n`;
}

/** The object with kind and apiVersion, as a watch or a GET of one object has it. */
export function fullJson(resource: ResourceType, object: StoredObject, revision = object.revision): string {
  return `{"kind":"${resource.kind}","apiVersion":"${resource.apiVersion}",${itemJson(object, revision).slice(1)}`;
}

export function bookmarkLine(type: ResourceType, revision: number, isInitialEnd: boolean): string {
  const annotations = isInitialEnd ? ',"annotations":{"k8s.io/initial-events-end":"true"}' : '';
  const metadata = `{"resourceVersion":"${revision}"${annotations}}`;
  return `{"type":"BOOKMARK","object":{"kind":"${type.kind}","apiVersion":"${type.apiVersion}","metadata":${metadata},${type.emptyFields}}}\n`;
}

export function errorLine(code: number, reason: string, message: string): string {
  return `{"type":"ERROR","object":${statusJson(code, reason, message)}}\n`;
}

export function statusJson(code: number, reason: string, message: string): string {
  return JSON.stringify({ kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Failure', message, reason, code });
}

const INTERNAL_ERROR = errorLine(500, 'InternalError', 'etcdserver: leader changed');
