import { type KubeBody } from './client.js';
import { ListSplitter } from './json-splitter.js';
import { type ListEnvelope, parseEnvelope, parseJson } from './wire.js';

/** Sends one request of a list; `query` has its limit and continue token. */
export type OpenPage = (query: Readonly<Record<string, string>>) => Promise<KubeBody>;

/** Notified of what a list brings, as it comes. */
export interface PageReader {
  /** Bytes came. */
  readonly heard: () => void;
  /** One parsed item and the bytes it took; what it returns is waited for. */
  readonly item: (object: unknown, bytes: number) => Promise<void>;
}

/** Reads a consistent list in pages of `limit` (0: in one piece); resolves with its version. Rejects with KubeError. */
export async function readPages(operation: string, limit: number, open: OpenPage, reader: PageReader): Promise<string> {
  const size: Record<string, string> = limit > 0 ? { limit: String(limit) } : {};
  let continueToken = '';
  for (;;) {
    const query = continueToken === '' ? size : { ...size, continue: continueToken };
    const page = await readPage(operation, await open(query), reader);
    if (page.continueToken === '') return page.resourceVersion;
    continueToken = page.continueToken;
  }
}

/** Reads one page to its end; resolves with what it says besides the items. */
export async function readPage(operation: string, body: KubeBody, reader: PageReader): Promise<ListEnvelope> {
  const splitter = new ListSplitter();
  for await (const chunk of body) {
    reader.heard();
    for (const item of splitter.push(chunk)) await reader.item(parseJson(operation, item), item.length);
  }
  return parseEnvelope(operation, splitter.envelope());
}
