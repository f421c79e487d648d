import { type StoredObject } from './api-server-store.js';

export type Selector = (object: StoredObject) => boolean;

/** Compiles labelSelector and fieldSelector query values; throws RangeError on a term that this fake does not know. */
export function compileSelector(labelSelector: string, fieldSelector: string): Selector {
  const terms = [...split(labelSelector).map(labelTerm), ...split(fieldSelector).map(fieldTerm)];
  return (object) => terms.every((term) => term(object));
}

function split(selector: string): string[] {
  return selector === '' ? [] : selector.split(',').map((term) => term.trim());
}

function labelTerm(term: string): Selector {
  const match = /^(!?)([A-Za-z0-9./_-]+)(?:(!=|==|=)([A-Za-z0-9._-]*))?$/.exec(term);
  if (match === null) throw new RangeError(`unable to parse requirement: ${term}`);
  const [, not, label, operator, value] = match;
  if (operator === undefined) return (object) => Object.hasOwn(object.labels, label!) === (not === '');
  return (object) => (object.labels[label!] === value) === (operator !== '!=');
}

function fieldTerm(term: string): Selector {
  const match = /^metadata\.(name|namespace)==?([A-Za-z0-9.-]+)$/.exec(term);
  if (match === null) throw new RangeError(`field label not supported: ${term}`);
  const field = match[1] as 'name' | 'namespace';
  return (object) => object[field] === match[2];
}
