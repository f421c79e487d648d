/**
 * Where a source of API objects (the API server, or a directory of manifests) delivers its compact values. Calls are
 * synchronous and come from one source at a time.
 */
export interface ResourceSink<T> {
  /** A full list begins. May come again without a `replaceEnd`: the list broke off and starts anew. */
  replaceStart(): void;
  /** The object is there, new or changed. Objects of a list that are already known come again. */
  upsert(key: string, value: T): void;
  /** The object is gone, left the selector, or is no longer usable. Only for keys that were upserted. */
  delete(key: string): void;
  /** The list is complete; deletes for what it no longer holds came just before. */
  replaceEnd(): void;
  /** Called once, after the first complete list: from here on what the sink holds is the cluster's state. */
  synced(): void;
}

/** Names the object and what is wrong with it; the rest of the object, or the other objects, go on. */
export type ObjectProblem = (key: string, problem: string) => void;

/** Trims a raw API object; undefined when it is of no use (reported when that is the object's fault). */
export type ObjectParser<T> = (object: unknown, report: (problem: string) => void) => T | undefined;
