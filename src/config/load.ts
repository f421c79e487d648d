import { readFile } from 'node:fs/promises';
import { parseAllDocuments } from 'yaml';
import { errorMessage } from '../values/errors.js';
import { ConfigError, type ConfigProblem } from './errors.js';
import { type ProxyConfig } from './proxy-config.js';
import { type ConfigOverrides, resolveConfig } from './resolve.js';
import { API_VERSION, KIND, type KubeProxyConfiguration, kubeProxyConfiguration } from './schema.js';

export interface LoadedConfig {
  readonly config: ProxyConfig;
  /** One line each: unknown fields with their path, settings without effect. For the log; none of them is fatal. */
  readonly warnings: readonly string[];
}

type Mapping = Record<string, unknown>;

/** Reads and checks a KubeProxyConfiguration file. Throws ConfigError, naming every problem, or that it cannot be read. */
export async function loadConfigFile(path: string, overrides: ConfigOverrides = {}): Promise<LoadedConfig> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    const problem = { path: '', value: undefined, allowed: `a readable file (${errorMessage(error)})` };
    throw new ConfigError(path, [problem], { cause: error });
  }
  return loadConfigText(text, path, overrides);
}

/** Checks a configuration given as YAML or JSON text; `source` names it in messages. Throws ConfigError. */
export function loadConfigText(text: string, source: string, overrides: ConfigOverrides = {}): LoadedConfig {
  const warnings: string[] = [];
  return loadConfigDocument(selectDocument(text, source, warnings), source, overrides, warnings);
}

/**
 * Checks a configuration that is an object already (made from flags, say). `warnings` is added to. Throws ConfigError
 * with all problems at once.
 */
export function loadConfigDocument(
  document: unknown,
  source: string,
  overrides: ConfigOverrides = {},
  warnings: string[] = [],
): LoadedConfig {
  const root = withoutNulls(document);
  checkKind(root, source);
  const { value, problems } = parseLeniently(root, warnings);
  if (value === undefined) throw new ConfigError(source, problems);
  const config = resolveConfig(value, overrides, { problems, warnings });
  if (problems.length > 0) throw new ConfigError(source, problems);
  warnAboutFeatureGates(value, warnings);
  return { config, warnings };
}

function selectDocument(text: string, source: string, warnings: string[]): unknown {
  const documents = parseAllDocuments(text);
  const list = Array.isArray(documents) ? documents : [];
  const broken = list.flatMap((document) => document.errors);
  if (broken.length > 0) {
    const problems = broken.map((error) => ({
      path: '',
      value: undefined,
      allowed: `valid YAML (${firstLine(error)})`,
    }));
    throw new ConfigError(source, problems, { cause: broken[0] });
  }
  const values: unknown[] = list.map((document) => toPlain(document, source)).filter((value) => value != null);
  if (values.length === 1) return values[0];
  const chosen = values.filter((value) => isMapping(value) && value.kind === KIND);
  if (chosen.length !== 1) {
    const allowed = `one ${KIND} document, and there are ${chosen.length} among ${values.length} documents`;
    throw new ConfigError(source, [{ path: '', value: undefined, allowed }]);
  }
  for (const value of values) {
    if (value !== chosen[0]) warnings.push(`a document of another kind is ignored: ${describeKind(value)}`);
  }
  return chosen[0];
}

/** Aliases are resolved here, so a "billion laughs" document is refused here too. */
function toPlain(document: { toJS: () => unknown }, source: string): unknown {
  try {
    return document.toJS();
  } catch (error) {
    const problem = { path: '', value: undefined, allowed: `valid YAML (${errorMessage(error)})` };
    throw new ConfigError(source, [problem], { cause: error });
  }
}

function checkKind(document: unknown, source: string): asserts document is Mapping {
  if (!isMapping(document)) {
    throw new ConfigError(source, [{ path: '', value: document, allowed: `a ${KIND} (a YAML mapping)` }]);
  }
  const problems: ConfigProblem[] = [];
  const hint = document.kind === 'ConfigMap' ? '; give the file inside the ConfigMap, not the ConfigMap' : '';
  if (document.kind !== KIND) problems.push({ path: 'kind', value: document.kind ?? '', allowed: `${KIND}${hint}` });
  if (document.apiVersion !== API_VERSION) {
    problems.push({ path: 'apiVersion', value: document.apiVersion ?? '', allowed: API_VERSION });
  }
  if (problems.length > 0) throw new ConfigError(source, problems);
}

/** Parses strictly, turns unknown fields into warnings as kube-proxy's lenient decoding does, and parses the rest. */
function parseLeniently(
  document: Mapping,
  warnings: string[],
): { value: KubeProxyConfiguration | undefined; problems: ConfigProblem[] } {
  const first = kubeProxyConfiguration.safeParse(document);
  if (first.success) return { value: first.data, problems: [] };
  for (const issue of first.error.issues) {
    if (issue.code !== 'unrecognized_keys') continue;
    const owner = valueAt(document, issue.path) as Mapping;
    for (const key of issue.keys) {
      warnings.push(`unknown field ${formatPath([...issue.path, key])} is ignored`);
      delete owner[key];
    }
  }
  const second = kubeProxyConfiguration.safeParse(document);
  if (second.success) return { value: second.data, problems: [] };
  const problems = second.error.issues.map((issue) => ({
    path: formatPath(issue.path),
    value: valueAt(document, issue.path),
    allowed: issue.message,
  }));
  return { value: undefined, problems };
}

/** Gates that changed IPVS mode in some release; all others of kube-proxy concern other modes or components. */
const HARMLESS_GATES = new Set(['AllAlpha', 'AllBeta', 'SupportIPVSProxyMode', 'IPv6DualStack', 'SCTPSupport']);

function warnAboutFeatureGates(file: KubeProxyConfiguration, warnings: string[]): void {
  for (const gate of Object.keys(file.featureGates ?? {})) {
    if (!HARMLESS_GATES.has(gate)) warnings.push(`featureGates.${gate} is ignored: this daemon has no such gate`);
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

function describeKind(value: unknown): string {
  return isMapping(value) && typeof value.kind === 'string' ? value.kind : 'no kind';
}

function firstLine(error: Error): string {
  return error.message.split('\n', 1)[0]!;
}
