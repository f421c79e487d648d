/**
 * True when `version` is older than `known`: both are decimal integers of any size, which Kubernetes promises for its
 * own resources (KEP-5504). Anything else cannot be compared and is not older.
 */
export function isOlderVersion(version: string, known: string): boolean {
  if (!DECIMAL.test(version) || !DECIMAL.test(known)) return false;
  return version.length === known.length ? version < known : version.length < known.length;
}

const DECIMAL = /^(?:0|[1-9]\d*)$/;
