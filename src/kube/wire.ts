import { asArray, asObject, asString } from '../model/json.js';
import { errorMessage } from '../values/errors.js';
import { KubeError } from './errors.js';

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;

/** One line of a watch, taken apart. */
export type WatchEvent =
  | { readonly type: 'put'; readonly object: unknown; readonly resourceVersion: string }
  | { readonly type: 'remove'; readonly object: unknown; readonly resourceVersion: string }
  | { readonly type: 'bookmark'; readonly resourceVersion: string; readonly isInitialEnd: boolean };

/** Reason of a KubeError for bytes that are not what an API server sends. */
export const MALFORMED = 'Malformed';

/** Parses one line; throws KubeError for an ERROR event (with the Status in it) and for anything that is no event. */
export function parseWatchLine(operation: string, line: Buffer): WatchEvent {
  const event = asObject(parseJson(operation, line));
  const object = event?.['object'];
  const metadata = asObject(asObject(object)?.['metadata']);
  const resourceVersion = asString(metadata?.['resourceVersion']);
  switch (event?.['type']) {
    case 'ADDED':
    case 'MODIFIED':
      return { type: 'put', object, resourceVersion };
    case 'DELETED':
      return { type: 'remove', object, resourceVersion };
    case 'BOOKMARK': {
      const annotations = asObject(metadata?.['annotations']);
      return { type: 'bookmark', resourceVersion, isInitialEnd: annotations?.['k8s.io/initial-events-end'] === 'true' };
    }
    case 'ERROR':
      throw statusError(operation, object);
    default:
      throw new KubeError(operation, { reason: MALFORMED, message: `not a watch event: ${excerpt(line)}` });
  }
}

/** What is left of a list when its items are cut out. */
export interface ListEnvelope {
  readonly resourceVersion: string;
  /** Empty on the last page. */
  readonly continueToken: string;
  /** How many items come after this page, where the server says so: without selectors. */
  readonly remainingItemCount: number | undefined;
}

/**
 * Reads the envelope. Anything but a List with items is refused: a proxy's `200 {"status":"ok"}` must not read as an
 * empty cluster.
 */
export function parseEnvelope(operation: string, bytes: Buffer): ListEnvelope {
  const list = asObject(parseJson(operation, bytes));
  const metadata = asObject(list?.['metadata']);
  const resourceVersion = asString(metadata?.['resourceVersion']);
  const hasItems = list !== undefined && Object.hasOwn(list, 'items') && asArray(list['items']).length === 0;
  if (!asString(list?.['kind']).endsWith('List') || !hasItems || resourceVersion === '') {
    throw new KubeError(operation, { reason: MALFORMED, message: `not a list: ${excerpt(bytes)}` });
  }
  const remaining = metadata?.['remainingItemCount'];
  const remainingItemCount = typeof remaining === 'number' && remaining >= 0 ? remaining : undefined;
  return { resourceVersion, continueToken: asString(metadata?.['continue']), remainingItemCount };
}

export function parseJson(operation: string, bytes: Buffer): unknown {
  try {
    return JSON.parse(textWithoutManagedFields(bytes));
  } catch (error) {
    const message = `malformed JSON (${errorMessage(error).slice(0, 100)}): ${excerpt(bytes)}`;
    throw new KubeError(operation, { reason: MALFORMED, message, cause: error });
  }
}

function statusError(operation: string, object: unknown): KubeError {
  const status = asObject(object);
  const code = typeof status?.['code'] === 'number' ? status['code'] : 500;
  const seconds = asObject(status?.['details'])?.['retryAfterSeconds'];
  return new KubeError(operation, {
    status: code,
    reason: asString(status?.['reason']),
    message: `server ended the watch: ${asString(status?.['message']) || code}`,
    retryAfterMs: typeof seconds === 'number' ? Math.min(Math.max(seconds, 0), 300) * 1000 : 0,
  });
}

function excerpt(bytes: Buffer): string {
  return JSON.stringify(bytes.subarray(0, 80).toString('utf8'));
}

const MANAGED_FIELDS = Buffer.from('"managedFields":[');

/**
 * The JSON text with an empty metadata.managedFields: nobody here reads it, and it is a third of the bytes and half of
 * the parser's time. The pattern cannot begin inside of a string, where its quotes would be escaped.
 */
function textWithoutManagedFields(bytes: Buffer): string {
  const found = bytes.indexOf(MANAGED_FIELDS);
  if (found < 0) return bytes.toString('utf8');
  const start = found + MANAGED_FIELDS.length;
  const end = endOfArray(bytes, start);
  return end < 0 ? bytes.toString('utf8') : bytes.toString('utf8', 0, start) + bytes.toString('utf8', end);
}

/** Index of the `]` that closes the array whose elements begin at `start`; -1 when it never closes. */
function endOfArray(bytes: Buffer, start: number): number {
  let depth = 1;
  for (let i = start; i < bytes.length; i++) {
    const byte = bytes[i];
    if (byte === QUOTE) {
      for (i++; i < bytes.length && bytes[i] !== QUOTE; i++) if (bytes[i] === BACKSLASH) i++;
    } else if (byte === OPEN_BRACKET || byte === OPEN_BRACE) depth++;
    else if ((byte === CLOSE_BRACKET || byte === CLOSE_BRACE) && --depth === 0) return byte === CLOSE_BRACKET ? i : -1;
  }
  return -1;
}
