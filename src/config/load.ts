import { readFile } from 'node:fs/promises';
import { errorMessage } from '../values/errors.js';
import { ConfigError, type ConfigProblem } from './errors.js';
import { type ProxyConfig } from './proxy-config.js';
import { type ConfigOverrides, resolveConfig } from './resolve.js';
import { API_VERSION, KIND, type KubeProxyConfiguration, kubeProxyConfiguration } from './schema.js';
import { type Versioned, versionedConfig } from './versioned.js';
import { type LineOf, selectDocument } from './yaml-document.js';

export interface LoadedConfig {
  readonly config: ProxyConfig;
  /** The same as a KubeProxyConfiguration v1alpha1 with every default filled in, ready for JSON or YAML. */
  readonly document: Versioned;
  /** One line each: unknown fields with their path, settings without effect. For the log; none of them is fatal. */
  readonly warnings: readonly string[];
}

/** A configuration with the text that it was made of. */
export interface LoadedConfigFile extends LoadedConfig {
  readonly content: string;
}

type Mapping = Record<string, unknown>;

/**
 * Reads and checks a KubeProxyConfiguration file. Throws ConfigError, naming every problem, or that it cannot be read.
 */
export async function loadConfigFile(path: string, overrides: ConfigOverrides = {}): Promise<LoadedConfigFile> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    const problem = { path: '', value: undefined, allowed: `it cannot be read: ${errorMessage(error)}` };
    throw new ConfigError(path, [problem], { cause: error });
  }
  return { ...loadConfigText(text, path, overrides), content: text };
}

/** Checks a configuration given as YAML or JSON text; `source` names it in messages. Throws ConfigError. */
export function loadConfigText(text: string, source: string, overrides: ConfigOverrides = {}): LoadedConfig {
  const warnings: string[] = [];
  const { value, lineOf } = selectDocument(text, source, warnings);
  return load(value, { source, overrides, warnings, lineOf });
}

/**
 * Checks a configuration that is an object already (made from flags, say). Throws ConfigError with all problems at
 * once.
 */
export function loadConfigDocument(document: unknown, source: string, overrides: ConfigOverrides = {}): LoadedConfig {
  return load(document, { source, overrides, warnings: [], lineOf: () => undefined });
}

interface Loading {
  readonly source: string;
  readonly overrides: ConfigOverrides;
  /** Is added to. */
  readonly warnings: string[];
  readonly lineOf: LineOf;
}

function load(document: unknown, { source, overrides, warnings, lineOf }: Loading): LoadedConfig {
  const refuse = (problems: readonly ConfigProblem[]): never => {
    const placed = problems.map((problem) => ({ ...problem, line: lineOf(problem.path) }));
    placed.sort((a, b) => (a.line ?? 0) - (b.line ?? 0));
    throw new ConfigError(source, placed, { warnings });
  };
  const root = withoutNulls(document);
  const misfits = kindProblems(root);
  if (misfits.length > 0) refuse(misfits);
  const { value, problems } = parseLeniently(root as Mapping, warnings, lineOf);
  const crossed: ConfigProblem[] = [];
  const config = resolveConfig(value, overrides, { problems: crossed, warnings });
  problems.push(...crossed.filter((problem) => !follows(problem, problems)));
  if (problems.length > 0) refuse(problems);
  warnAboutFeatureGates(value, warnings);
  return { config, document: versionedConfig(root as Mapping, config), warnings };
}

function kindProblems(document: unknown): ConfigProblem[] {
  if (!isMapping(document)) return [{ path: '', value: document ?? '', allowed: `a ${KIND} (a YAML mapping)` }];
  const problems: ConfigProblem[] = [];
  const hint = document.kind === 'ConfigMap' ? '; give the file inside the ConfigMap, not the ConfigMap' : '';
  if (document.kind !== KIND) problems.push({ path: 'kind', value: document.kind ?? '', allowed: `${KIND}${hint}` });
  if (document.apiVersion !== API_VERSION) {
    problems.push({ path: 'apiVersion', value: document.apiVersion ?? '', allowed: API_VERSION });
  }
  return problems;
}

/**
 * Parses strictly; turns unknown fields into warnings as kube-proxy's lenient decoding does and wrong values into
 * problems, and leaves both out, so that what is right of the document is checked further.
 */
function parseLeniently(
  document: Mapping,
  warnings: string[],
  lineOf: LineOf,
): { value: KubeProxyConfiguration; problems: ConfigProblem[] } {
  const problems: ConfigProblem[] = [];
  // Every round leaves out at least one field, so this ends; two rounds do.
  for (;;) {
    const parsed = kubeProxyConfiguration.safeParse(document);
    if (parsed.success) return { value: parsed.data, problems };
    const refused = new Map<string, readonly PropertyKey[]>();
    for (const issue of parsed.error.issues) {
      const isUnknown = issue.code === 'unrecognized_keys';
      for (const keys of isUnknown ? issue.keys.map((key) => [...issue.path, key]) : [issue.path]) {
        const path = formatPath(keys);
        if (refused.has(path)) continue;
        refused.set(path, keys);
        if (isUnknown) warnings.push(unknownField(path, lineOf(path)));
        else problems.push({ path, value: valueAt(document, keys), allowed: issue.message });
      }
    }
    // From the back, so that the places in a list stay those that were reported.
    for (const keys of [...refused.values()].reverse()) leaveOut(document, keys);
  }
}

function unknownField(path: string, line: number | undefined): string {
  return `unknown field ${path} is ignored${line === undefined ? '' : ` (line ${line})`}`;
}

function leaveOut(document: Mapping, path: readonly PropertyKey[]): void {
  const owner = valueAt(document, path.slice(0, -1)) as Mapping | unknown[] | undefined;
  const key = path.at(-1)!;
  if (Array.isArray(owner)) owner.splice(key as number, 1);
  else if (owner !== undefined) delete owner[key as string];
}

/** What a check across fields says of a default that stands in for a wrong value is no problem of its own. */
const RESTS_ON: Readonly<Record<string, readonly string[]>> = {
  minSyncPeriod: ['syncPeriod', 'ipvs.syncPeriod'],
  'ipvs.minSyncPeriod': ['syncPeriod', 'ipvs.syncPeriod', 'minSyncPeriod'],
  clusterCIDR: ['detectLocalMode'],
  'detectLocal.bridgeInterface': ['detectLocalMode', 'detectLocal'],
  'detectLocal.interfaceNamePrefix': ['detectLocalMode', 'detectLocal'],
};

function follows({ path }: ConfigProblem, problems: readonly ConfigProblem[]): boolean {
  return problems.some((other) => other.path === path || RESTS_ON[path]?.includes(other.path) === true);
}

/** Gates that are heeded, or that ask nothing of this program. */
const KNOWN_GATES = new Set([
  ...['AllAlpha', 'AllBeta', 'AllowServiceExternalIPs'],
  ...['SupportIPVSProxyMode', 'IPv6DualStack', 'SCTPSupport'],
]);

function warnAboutFeatureGates(file: KubeProxyConfiguration, warnings: string[]): void {
  for (const gate of Object.keys(file.featureGates ?? {})) {
    if (!KNOWN_GATES.has(gate)) warnings.push(`featureGates.${gate} is ignored: this daemon has no such gate`);
  }
}

function withoutNulls(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutNulls);
  if (!isMapping(value)) return value;
  const kept = Object.entries(value).filter(([, field]) => field != null);
  return Object.fromEntries(kept.map(([key, field]) => [key, withoutNulls(field)]));
}

function valueAt(root: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>((value, key) => (value as Record<PropertyKey, unknown> | undefined)?.[key], root);
}

function formatPath(path: readonly PropertyKey[]): string {
  let text = '';
  for (const key of path) text += typeof key === 'number' ? `[${key}]` : `${text === '' ? '' : '.'}${String(key)}`;
  return text;
}

function isMapping(value: unknown): value is Mapping {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
