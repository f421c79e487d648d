import { type BodyWriter } from './api-server-body.js';
import { type Selector } from './api-server-selector.js';
import { type ResourceType, type StoredObject, itemJson } from './api-server-store.js';

const BLOCK = 128 * 1024;
const MAX_SNAPSHOTS = 16;

interface Snapshot {
  readonly isSelective: boolean;
  readonly revision: number;
  readonly objects: readonly StoredObject[];
}

/** One page of a list: what to send, and how to get the next one. */
export interface Page {
  readonly revision: number;
  readonly objects: readonly StoredObject[];
  readonly continueToken: string;
  /** Items after this page; undefined where a selector was given, as a real API server has it. */
  readonly remaining: number | undefined;
}

/** Consistent paged lists: every page of one list shows the same revision, until its snapshot is forgotten. */
export class Pager {
  readonly #snapshots = new Map<string, Snapshot>();
  #serial = 0;

  /** The first page. */
  first(
    all: readonly StoredObject[],
    selector: Selector,
    options: { readonly revision: number; readonly limit: number; readonly isSelective: boolean },
  ): Page {
    const { revision, limit, isSelective } = options;
    return this.#page({ revision, isSelective, objects: all.filter(selector) }, '', 0, limit);
  }

  /** A later page; undefined when the token has expired or is none of ours. */
  next(token: string, limit: number): Page | undefined {
    const [id = '', start = ''] = Buffer.from(token, 'base64url').toString('latin1').split(':');
    const snapshot = this.#snapshots.get(id);
    return snapshot === undefined ? undefined : this.#page(snapshot, id, Number(start), limit);
  }

  /** Makes every continue token answer 410 Expired, as compaction does. */
  forget(): void {
    this.#snapshots.clear();
  }

  #page(snapshot: Snapshot, id: string, start: number, limit: number): Page {
    const end = limit > 0 ? start + limit : snapshot.objects.length;
    const objects = snapshot.objects.slice(start, end);
    if (end >= snapshot.objects.length)
      return { revision: snapshot.revision, objects, continueToken: '', remaining: undefined };
    const key = id === '' ? this.#remember(snapshot) : id;
    const continueToken = Buffer.from(`${key}:${end}`, 'latin1').toString('base64url');
    const remaining = snapshot.isSelective ? undefined : snapshot.objects.length - end;
    return { revision: snapshot.revision, objects, continueToken, remaining };
  }

  #remember(snapshot: Snapshot): string {
    const id = `s${++this.#serial}`;
    this.#snapshots.set(id, snapshot);
    const oldest = this.#snapshots.keys().next().value;
    if (this.#snapshots.size > MAX_SNAPSHOTS && oldest !== undefined) this.#snapshots.delete(oldest);
    return id;
  }
}

/** Writes a list body block by block, waiting for the peer in between. */
export async function writeList(body: BodyWriter, type: ResourceType, page: Page, isGarbage: boolean): Promise<void> {
  const remaining = page.remaining === undefined ? '' : `,"remainingItemCount":${page.remaining}`;
  const token = page.continueToken === '' ? '' : `,"continue":"${page.continueToken}"${remaining}`;
  let block = `{"kind":"${type.kind}List","apiVersion":"${type.apiVersion}","metadata":{"resourceVersion":"${page.revision}"${token}},"items":[`;
  if (isGarbage) block += '{"metadata":{"name":<html>';
  let separator = '';
  for (const object of page.objects) {
    block += separator + itemJson(object);
    separator = ',';
    if (block.length < BLOCK) continue;
    body.write(block);
    block = '';
    await body.ready();
    if (!body.isOpen) return;
  }
  body.write(`${block}]}\n`);
  body.end();
}
