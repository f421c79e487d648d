/**
 * The flags of kube-proxy 1.36 (cmd/kube-proxy/app/options.go) beyond those this program has itself, so that the
 * DaemonSet of kubeadm or EKS needs another image only. Each sets the field of the configuration that it mirrors.
 */
import { Command, InvalidArgumentError, Option } from 'commander';
import { formatBindAddress, parseBindAddress } from '../config/bind-address.js';
import { type ConfigOverrides } from '../config/resolve.js';
import { API_VERSION, KIND } from '../config/schema.js';
import { parseGoBoolean } from './go-flags.js';

type Kind = 'text' | 'number' | 'boolean' | 'list' | 'map';

interface ConfigFlag {
  readonly flag: string;
  /** Where the value goes in a KubeProxyConfiguration. */
  readonly path: string;
  readonly kind: Kind;
}

const CONFIG_FLAGS: readonly ConfigFlag[] = [
  flag('bind-address', 'bindAddress'),
  flag('bind-address-hard-fail', 'bindAddressHardFail', 'boolean'),
  flag('cluster-cidr', 'clusterCIDR'),
  flag('config-sync-period', 'configSyncPeriod'),
  flag('conntrack-max-per-core', 'conntrack.maxPerCore', 'number'),
  flag('conntrack-min', 'conntrack.min', 'number'),
  flag('conntrack-tcp-be-liberal', 'conntrack.tcpBeLiberal', 'boolean'),
  flag('conntrack-tcp-timeout-close-wait', 'conntrack.tcpCloseWaitTimeout'),
  flag('conntrack-tcp-timeout-established', 'conntrack.tcpEstablishedTimeout'),
  flag('conntrack-udp-timeout', 'conntrack.udpTimeout'),
  flag('conntrack-udp-timeout-stream', 'conntrack.udpStreamTimeout'),
  flag('detect-local-mode', 'detectLocalMode'),
  flag('feature-gates', 'featureGates', 'map'),
  flag('healthz-bind-address', 'healthzBindAddress'),
  flag('iptables-masquerade-bit', 'iptables.masqueradeBit', 'number'),
  flag('ipvs-exclude-cidrs', 'ipvs.excludeCIDRs', 'list'),
  flag('ipvs-min-sync-period', 'ipvs.minSyncPeriod'),
  flag('ipvs-scheduler', 'ipvs.scheduler'),
  flag('ipvs-strict-arp', 'ipvs.strictARP', 'boolean'),
  flag('ipvs-sync-period', 'ipvs.syncPeriod'),
  flag('ipvs-tcp-timeout', 'ipvs.tcpTimeout'),
  flag('ipvs-tcpfin-timeout', 'ipvs.tcpFinTimeout'),
  flag('ipvs-udp-timeout', 'ipvs.udpTimeout'),
  flag('kube-api-burst', 'clientConnection.burst', 'number'),
  flag('kube-api-content-type', 'clientConnection.contentType'),
  flag('kube-api-qps', 'clientConnection.qps', 'number'),
  flag('masquerade-all', 'iptables.masqueradeAll', 'boolean'),
  flag('metrics-bind-address', 'metricsBindAddress'),
  flag('nodeport-addresses', 'nodePortAddresses', 'list'),
  flag('oom-score-adj', 'oomScoreAdj', 'number'),
  flag('pod-bridge-interface', 'detectLocal.bridgeInterface'),
  flag('pod-interface-name-prefix', 'detectLocal.interfaceNamePrefix'),
  flag('profiling', 'enableProfiling', 'boolean'),
  flag('proxy-mode', 'mode'),
  flag('show-hidden-metrics-for-version', 'showHiddenMetricsForVersion'),
];

/** Accepted, without effect here; the value says why. */
const IGNORED_FLAGS: Readonly<Record<string, string>> = {
  'iptables-sync-period': 'it concerns the iptables mode',
  'iptables-min-sync-period': 'it concerns the iptables mode',
  'iptables-localhost-nodeports': 'it concerns the iptables mode',
  'proxy-port-range': 'it has no effect in kube-proxy either',
  'boot-id-file': 'it has no effect in kube-proxy either',
  'machine-id-file': 'it has no effect in kube-proxy either',
  'log-flush-frequency': 'log lines are written at once',
  'logging-format': 'the log is JSON',
  'log-json-info-buffer-size': 'log lines are written at once',
  'log-json-split-stream': 'the log goes to standard output',
  'log-text-info-buffer-size': 'log lines are written at once',
  'log-text-split-stream': 'the log goes to standard output',
  logtostderr: 'the log goes to standard output',
  alsologtostderr: 'the log goes to standard output',
  stderrthreshold: 'the log goes to standard output',
  vmodule: 'use --log-level',
};

const IGNORED_BOOLEANS = [
  'iptables-localhost-nodeports',
  'log-json-split-stream',
  'log-text-split-stream',
  'logtostderr',
  'alsologtostderr',
];

/** Deprecated: 0 switches the server off, any other port completes a bind address that has none. */
const PORT_FLAGS = [
  { name: 'healthz-port', field: 'healthzBindAddress' },
  { name: 'metrics-port', field: 'metricsBindAddress' },
] as const;

const BOOLEAN_CONFIG_FLAGS = CONFIG_FLAGS.filter(({ kind }) => kind === 'boolean').map(({ flag }) => flag);

/** Booleans that Go's flag library also accepts as `--name=true`. */
export const BOOLEAN_FLAGS: ReadonlySet<string> = new Set([
  'cleanup',
  'init-only',
  ...IGNORED_BOOLEANS,
  ...BOOLEAN_CONFIG_FLAGS,
]);

export interface KubeProxyFlags {
  /** A KubeProxyConfiguration made of the flags. */
  readonly document: Record<string, unknown>;
  /** Which servers the flags switch off; a configuration cannot say that. */
  readonly off: Pick<ConfigOverrides, 'healthzBindAddress' | 'metricsBindAddress'>;
  /** Flags given that set a field of the configuration. */
  readonly used: readonly string[];
  /** One line per flag that has no effect. */
  readonly warnings: readonly string[];
}

/**
 * Adds the flags, hidden from the help (they are many, and a configuration file says the same; `help flags` lists
 * them).
 */
export function addKubeProxyFlags(command: Command): void {
  for (const { flag: name, kind } of CONFIG_FLAGS) {
    if (kind === 'boolean') addBoolean(command, name);
    else command.addOption(new Option(`--${name} <value>`).hideHelp().argParser(PARSERS[kind]));
  }
  for (const name of Object.keys(IGNORED_FLAGS)) {
    if (IGNORED_BOOLEANS.includes(name)) addBoolean(command, name);
    else command.addOption(new Option(`--${name} <value>`).hideHelp());
  }
  for (const { name } of PORT_FLAGS) command.addOption(new Option(`--${name} <port>`).hideHelp().argParser(parsePort));
}

/** What `help flags` prints: each flag with the field of the configuration that it sets, or why it does nothing. */
export function describeKubeProxyFlags(): string {
  const rows: [name: string, meaning: string][] = [
    ...CONFIG_FLAGS.map(({ flag: name, path }): [string, string] => [name, `sets ${path}`]),
    ...PORT_FLAGS.map(({ name, field }): [string, string] => [name, `0 switches the server of ${field} off`]),
    ...Object.entries(IGNORED_FLAGS).map(([name, why]): [string, string] => [name, `is ignored: ${why}`]),
  ];
  const width = Math.max(...rows.map(([name]) => name.length));
  return rows
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, meaning]) => `  --${name.padEnd(width)}  ${meaning}\n`)
    .join('');
}

/** Reads what addKubeProxyFlags added; `values` are commander's, by camel-cased name. */
export function readKubeProxyFlags(values: Readonly<Record<string, unknown>>): KubeProxyFlags {
  const document: Record<string, unknown> = { apiVersion: API_VERSION, kind: KIND };
  const used: string[] = [];
  for (const { flag: name, path } of CONFIG_FLAGS) {
    const value = values[camelCase(name)];
    if (value === undefined) continue;
    used.push(name);
    set(document, path.split('.'), value);
  }
  const warnings = Object.entries(IGNORED_FLAGS)
    .filter(([name]) => values[camelCase(name)] !== undefined)
    .map(([name, why]) => `--${name} is ignored: ${why}`);
  const off: { -readonly [field in keyof KubeProxyFlags['off']]: KubeProxyFlags['off'][field] } = {};
  for (const { name, field } of PORT_FLAGS) {
    const port = values[camelCase(name)] as number | undefined;
    if (port !== undefined) used.push(name);
    if (port === 0 || document[field] === '') off[field] = '';
    else if (port !== undefined && typeof document[field] === 'string')
      document[field] = withPort(document[field], port);
  }
  return { document, off, used, warnings };
}

function flag(name: string, path: string, kind: Kind = 'text'): ConfigFlag {
  return { flag: name, path, kind };
}

function addBoolean(command: Command, name: string): void {
  command.addOption(new Option(`--${name}`).hideHelp()).addOption(new Option(`--no-${name}`).hideHelp());
}

/**
 * From the text of a flag and what was given before it. Malformed values stay as they are: the schema refuses them with
 * the field's path and what is allowed.
 */
const PARSERS: Readonly<Record<Exclude<Kind, 'boolean'>, (text: string, previous: unknown) => unknown>> = {
  text: (text) => text,
  number: (text) => (text.trim() !== '' && Number.isFinite(Number(text)) ? Number(text) : text),
  // pflag's StringSlice: a repeated flag adds to what the others gave.
  list: (text, previous: unknown) => [...((previous as string[] | undefined) ?? []), ...splitList(text)],
  map: (text, previous: unknown) => ({ ...(previous as object | undefined), ...parseMap(text) }),
};

function splitList(text: string): string[] {
  return text === '' ? [] : text.split(',').map((item) => item.trim());
}

function parseMap(text: string): Record<string, unknown> {
  const pairs = splitList(text).map((pair) => {
    const [key = '', value = ''] = pair.split('=', 2).map((part) => part.trim());
    return [key, parseGoBoolean(value) ?? value] as const;
  });
  return Object.fromEntries(pairs);
}

function parsePort(text: string): number {
  const port = /^[0-9]{1,5}$/.test(text) ? Number(text) : Infinity;
  if (port > 65535) throw new InvalidArgumentError('It is a port, or 0 to switch the server off.');
  return port;
}

/** A bind address that names no port gets this one; others stay as they are. */
function withPort(address: string, port: number): string {
  const parsed = parseBindAddress(address, port);
  return parsed === undefined ? address : formatBindAddress(parsed);
}

function set(target: Record<string, unknown>, path: readonly string[], value: unknown): void {
  const [key = '', ...rest] = path;
  if (rest.length === 0) target[key] = value;
  else set((target[key] ??= {}) as Record<string, unknown>, rest, value);
}

/** `cluster-cidr` -> `clusterCidr`, as commander names its attributes. */
function camelCase(name: string): string {
  return name.replace(/-([a-z])/g, (_match, letter: string) => letter.toUpperCase());
}
