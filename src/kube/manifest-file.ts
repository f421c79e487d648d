import { parseAllDocuments } from 'yaml';
import { type JsonObject, asArray, asObject, asString } from '../model/json.js';
import { errorMessage } from '../values/errors.js';
import { objectKey } from './object-feed.js';
import { type ManifestKind, isSelected, manifestKind, withDefaults } from './manifest-defaults.js';

/** One object of a manifest file, with the API server's defaults. */
export interface ManifestObject {
  readonly kind: ManifestKind;
  readonly key: string;
  readonly object: JsonObject;
}

/** What a file holds; with an `error` it holds nothing that may be used. */
export type ManifestFile =
  { readonly objects: readonly ManifestObject[]; readonly ignored: readonly string[] } | { readonly error: string };

/**
 * Parses a YAML (any number of documents, Lists too) or JSON file. One broken document spoils the whole file, with its index
 * and the reason in `error`: half of a file is not what its author meant. Kinds that are not served are named in `ignored`.
 */
export function parseManifest(text: string): ManifestFile {
  const objects: ManifestObject[] = [];
  const ignored: string[] = [];
  try {
    for (const [index, document] of parseAllDocuments(text).entries()) {
      const [problem] = document.errors;
      if (problem !== undefined) return { error: `document ${index + 1}: ${firstLine(problem.message)}` };
      const value: unknown = document.toJS({ maxAliasCount: 1000 });
      if (value === null || value === undefined) continue; // `---` at the end, or only comments
      const error = addObject(value, '', objects, ignored);
      if (error !== undefined) return { error: `document ${index + 1}: ${error}` };
    }
  } catch (error) {
    return { error: firstLine(errorMessage(error)) };
  }
  return { objects, ignored };
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
  } else if (isSelected(kind, complete)) objects.push({ kind, key, object: complete });
  return undefined;
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
