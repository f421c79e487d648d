import { asObject, asString } from '../model/json.js';
import { errorMessage } from '../values/errors.js';
import { type SkippedObjects } from './skipped-objects.js';
import { type ObjectParser, type ObjectProblem, type ResourceSink } from './sink.js';

export interface ObjectFeedOptions<T> {
  readonly parse: ObjectParser<T>;
  readonly sink: ResourceSink<T>;
  readonly onProblem: ObjectProblem;
  /** Kept equal to what is malformed at present. */
  readonly skipped?: SkippedObjects;
  /** The value's own key string, when it holds an equal one: 50,000 strings are then kept once, not twice. */
  readonly keyOf?: (value: T) => string;
}

/** Raw objects in, values into the sink; remembers only the keys, to find what a new list no longer holds. */
export class ObjectFeed<T> {
  /** Key to the number of the list that last held it. */
  readonly #known = new Map<string, number>();
  #list = 0;
  #isSynced = false;

  readonly #options: ObjectFeedOptions<T>;

  constructor(options: ObjectFeedOptions<T>) {
    this.#options = options;
  }

  get isSynced(): boolean {
    return this.#isSynced;
  }

  get size(): number {
    return this.#known.size;
  }

  beginList(): void {
    this.#list++;
    this.#options.sink.replaceStart();
  }

  /** Deletes what the list that began last did not hold. */
  endList(): void {
    for (const [key, list] of this.#known) if (list !== this.#list) this.#forget(key);
    this.#options.skipped?.endList(this.#list);
    this.#options.sink.replaceEnd();
    if (this.#isSynced) return;
    this.#isSynced = true;
    this.#options.sink.synced();
  }

  /** The object exists. One that cannot be parsed is reported, and no longer known if it was. */
  put(object: unknown): void {
    const key = objectKey(object);
    if (key !== undefined) this.#options.skipped?.forget(key);
    const value = this.#parse(key, object);
    if (value === undefined) {
      if (key !== undefined) this.#forget(key);
      return;
    }
    const owned = this.#options.keyOf?.(value) ?? key!;
    this.#known.set(owned, this.#list);
    this.#options.sink.upsert(owned, value);
  }

  /** The object is in this list, unchanged since it was put; true when it is known. */
  keep(key: string): boolean {
    const isKnown = this.#known.has(key);
    if (isKnown) this.#known.set(key, this.#list);
    this.#options.skipped?.keep(key, this.#list);
    return isKnown;
  }

  /** The object is gone. */
  remove(object: unknown): void {
    const key = objectKey(object);
    if (key === undefined) this.#options.onProblem('(unnamed)', 'metadata.name is missing');
    else {
      this.#options.skipped?.forget(key);
      this.#forget(key);
    }
  }

  #forget(key: string): void {
    if (this.#known.delete(key)) this.#options.sink.delete(key);
  }

  #parse(key: string | undefined, object: unknown): T | undefined {
    if (key === undefined) {
      this.#options.onProblem('(unnamed)', 'metadata.name is missing');
      return undefined;
    }
    const report = (problem: string): void => {
      this.#options.skipped?.add(key, problem, this.#list);
      this.#options.onProblem(key, problem);
    };
    try {
      return this.#options.parse(object, report);
    } catch (error) {
      report(`cannot be parsed: ${errorMessage(error)}`);
      return undefined;
    }
  }
}

/** `namespace/name`, or `name` of a cluster-scoped object; undefined without a name. */
export function objectKey(object: unknown): string | undefined {
  const metadata = asObject(asObject(object)?.['metadata']);
  const name = asString(metadata?.['name']);
  const namespace = asString(metadata?.['namespace']);
  if (name === '') return undefined;
  return namespace === '' ? name : `${namespace}/${name}`;
}
