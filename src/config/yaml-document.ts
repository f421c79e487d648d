/** The one KubeProxyConfiguration of a YAML or JSON text, and on which line of it a field stands. */
import { type Document, LineCounter, type ParsedNode, isNode, parseAllDocuments } from 'yaml';
import { errorMessage } from '../values/errors.js';
import { ConfigError, type ConfigProblem } from './errors.js';
import { KIND } from './schema.js';

/**
 * Line (from 1) of a field by its path (`ipvs.excludeCIDRs[1]`), or of the nearest field above it that is written down.
 */
export type LineOf = (path: string) => number | undefined;

export interface SelectedDocument {
  readonly value: unknown;
  readonly lineOf: LineOf;
}

/**
 * Parses `text` and picks the KubeProxyConfiguration, with a warning for each document of another kind. Throws
 * ConfigError when the text is no YAML, or when it holds none or several of them.
 */
export function selectDocument(text: string, source: string, warnings: string[]): SelectedDocument {
  const lines = new LineCounter();
  const parsed = parseAllDocuments(text, { lineCounter: lines });
  const documents: Document.Parsed<ParsedNode, true>[] = Array.isArray(parsed) ? parsed : [];
  const broken = documents.flatMap(({ errors }) => errors);
  if (broken.length > 0) {
    const problems = broken.map((error) => wrong(`not valid YAML: ${firstLine(error)}`, error.linePos?.[0].line));
    throw new ConfigError(source, problems, { cause: broken[0] });
  }
  const found = documents
    .map((document) => ({ value: toPlain(document, source), document }))
    .filter(({ value }) => value != null);
  const ours = found.length === 1 ? found : found.filter(({ value }) => kindOf(value) === KIND);
  const [chosen] = ours;
  if (chosen === undefined || ours.length > 1) throw new ConfigError(source, [wrong(miscounted(found, ours))]);
  for (const { value } of found)
    if (value !== chosen.value) warnings.push(`a document of another kind is ignored: ${kindOf(value) ?? 'no kind'}`);
  return { value: chosen.value, lineOf: (path) => lineIn(chosen.document, lines, path) };
}

function miscounted(found: readonly unknown[], ours: readonly unknown[]): string {
  if (found.length === 0) return `it is empty; a ${KIND} is expected`;
  return `it holds ${ours.length === 0 ? 'no' : ours.length} ${KIND}${ours.length > 1 ? 's' : ''}; one is expected`;
}

function wrong(what: string, line?: number): ConfigProblem {
  return { path: '', value: undefined, allowed: what, line };
}

/** Aliases are resolved here, so a "billion laughs" document is refused here too. */
function toPlain(document: { toJS: () => unknown }, source: string): unknown {
  try {
    return document.toJS();
  } catch (error) {
    throw new ConfigError(source, [wrong(`not valid YAML: ${errorMessage(error)}`)], { cause: error });
  }
}

function lineIn(document: Document.Parsed<ParsedNode, true>, lines: LineCounter, path: string): number | undefined {
  const keys = [...path.matchAll(/\[([0-9]+)\]|([^.[]+)/g)].map(([, index, key]) =>
    index === undefined ? key! : Number(index),
  );
  for (; keys.length > 0; keys.pop()) {
    const node = document.getIn(keys, true);
    if (isNode(node) && node.range != null) return lines.linePos(node.range[0]).line;
  }
  return undefined;
}

function kindOf(value: unknown): string | undefined {
  const kind = typeof value === 'object' && value !== null ? (value as { kind?: unknown }).kind : undefined;
  return typeof kind === 'string' ? kind : undefined;
}

function firstLine(error: Error): string {
  return error.message.split('\n', 1)[0]!.replace(/:$/, '');
}
