import { parseAllDocuments } from 'yaml';
import { type JsonObject, asArray, asObject, asString } from '../model/json.js';
import { errorMessage } from '../values/errors.js';
import { objectKey } from './object-feed.js';
import { type ManifestKind, isSelected, manifestKind, withDefaults } from './manifest-defaults.js';

/** One object of a manifest file, with the API server's defaults. */
export interface ManifestObject {
  readonly kind: ManifestKind;
  readonly key: string;
  /**
   * The object as JSON, without managedFields: a text takes a fifth of the memory of a tree, and equal texts are equal
   * objects.
   */
  readonly json: string;
}

/** What a file holds; with an `error` it holds nothing that may be used. */
export type ManifestFile =
  { readonly objects: readonly ManifestObject[]; readonly ignored: readonly string[] } | { readonly error: string };

/**
 * Parses a YAML (any number of documents, Lists too) or JSON file. One broken document spoils the whole file, with its
 * index and the reason in `error`: half of a file is not what its author meant. Kinds that are not served are named in
 * `ignored`.
 */
export function parseManifest(text: string): ManifestFile {
  const objects: ManifestObject[] = [];
  const ignored: string[] = [];
  try {
    for (const [index, value] of documents(text).entries()) {
      if (value === null || value === undefined) continue; // `---` at the end, or only comments
      const error = addObject(value, '', objects, ignored);
      if (error !== undefined) return { error: `document ${index + 1}: ${error}` };
    }
  } catch (error) {
    return { error: firstLine(errorMessage(error)) };
  }
  return { objects, ignored };
}

/**
 * All of a cluster as JSON (`kubectl get -o json`) is tens of megabytes: the YAML parser would take minutes and
 * gigabytes.
 */
const MAX_YAML_THAT_LOOKS_LIKE_JSON = 1024 * 1024;

/** The documents' values. Throws for text that is neither JSON nor YAML, with the document's number. */
function documents(text: string): unknown[] {
  if (/^\s*[[{]/.test(text)) {
    try {
      return [JSON.parse(text)];
    } catch (error) {
      // YAML's flow style begins like JSON; nobody writes a megabyte of it.
      if (text.length > MAX_YAML_THAT_LOOKS_LIKE_JSON) throw error;
    }
  }
  return parseAllDocuments(text).map((document, index) => {
    const [problem] = document.errors;
    if (problem !== undefined) throw new SyntaxError(`document ${index + 1}: ${firstLine(problem.message)}`);
    return document.toJS({ maxAliasCount: 1000 }) as unknown;
  });
}

/** Adds an object, or each item of a List; returns what is wrong with it. */
function addObject(value: unknown, listKind: string, objects: ManifestObject[], ignored: string[]): string | undefined {
  const given = asObject(value);
  if (given === undefined) return 'not an object';
  const object = listKind === '' ? given : { ...inherited(listKind), ...given };
  const kindName = asString(object['kind']);
  if (kindName === '') return 'kind is missing';
  if (kindName.endsWith('List')) {
    const items = asArray(object['items']);
    const itemKind = kindName.slice(0, -'List'.length);
    for (const [index, item] of items.entries()) {
      const error = addObject(item, itemKind, objects, ignored);
      if (error !== undefined) return `item ${index + 1}: ${error}`;
    }
    return undefined;
  }
  const kind = manifestKind(object);
  if (kind === undefined) {
    ignored.push(`${asString(object['apiVersion'])} ${kindName} ${objectKey(object) ?? '(unnamed)'}`);
    return undefined;
  }
  const complete = withDefaults(kind, object);
  const key = objectKey(complete);
  if (key === undefined) return `${kindName}: metadata.name is missing`;
  if (kind === 'Service' && lacksClusterIP(complete)) {
    ignored.push(`v1 Service ${key}: no spec.clusterIP, and nothing here allocates one`);
  } else if (isSelected(kind, complete))
    objects.push({ kind, key, json: JSON.stringify(complete, withoutManagedFields) });
  return undefined;
}

function withoutManagedFields(name: string, value: unknown): unknown {
  return name === 'managedFields' ? undefined : value;
}

function lacksClusterIP(service: JsonObject): boolean {
  const spec = asObject(service['spec']);
  return asString(spec?.['clusterIP']) === '' && spec?.['type'] !== 'ExternalName';
}

/** Items of a ServiceList, as an API server answers it, have neither kind nor apiVersion. */
function inherited(kind: string): JsonObject {
  return { kind, apiVersion: kind === 'EndpointSlice' ? 'discovery.k8s.io/v1' : 'v1' };
}

function firstLine(text: string): string {
  return text.split('\n', 1)[0]!;
}
