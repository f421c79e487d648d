/**
 * The flags of kube-proxy 1.36 (cmd/kube-proxy/app/options.go) beyond those this program has itself, so that the
 * DaemonSet of kubeadm or EKS needs another image only. Each sets the field of the configuration that it mirrors.
 */
import { Command, Option } from 'commander';
import { API_VERSION, KIND } from '../config/schema.js';

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
  'healthz-port': 'use --healthz-bind-address',
  'metrics-port': 'use --metrics-bind-address',
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

/** Booleans that Go's flag library also accepts as `--name=true`. */
export const BOOLEAN_FLAGS: ReadonlySet<string> = new Set([
  'cleanup',
  'init-only',
  ...IGNORED_BOOLEANS,
  ...CONFIG_FLAGS.filter(({ kind }) => kind === 'boolean').map(({ flag }) => flag),
]);

export interface KubeProxyFlags {
  /** A KubeProxyConfiguration made of the flags. */
  readonly document: Record<string, unknown>;
  /** Flags given that set a field of the configuration. */
  readonly used: readonly string[];
  /** One line per flag that has no effect. */
  readonly warnings: readonly string[];
}

/** Adds the flags, hidden from the help (they are many, and a configuration file says the same). */
export function addKubeProxyFlags(command: Command): void {
  const add = (name: string, isBoolean: boolean): void => {
    command.addOption(new Option(isBoolean ? `--${name}` : `--${name} <value>`).hideHelp());
  };
  for (const { flag: name, kind } of CONFIG_FLAGS) add(name, kind === 'boolean');
  for (const name of Object.keys(IGNORED_FLAGS)) add(name, IGNORED_BOOLEANS.includes(name));
}

/** Reads what addKubeProxyFlags added; `values` are commander's, by camel-cased name. */
export function readKubeProxyFlags(values: Readonly<Record<string, unknown>>): KubeProxyFlags {
  const document: Record<string, unknown> = { apiVersion: API_VERSION, kind: KIND };
  const used: string[] = [];
  for (const { flag: name, path, kind } of CONFIG_FLAGS) {
    const value = values[camelCase(name)];
    if (value === undefined) continue;
    used.push(name);
    set(document, path.split('.'), typeof value === 'string' ? convert(value, kind) : value);
  }
  const warnings = Object.entries(IGNORED_FLAGS)
    .filter(([name]) => values[camelCase(name)] !== undefined)
    .map(([name, why]) => `--${name} is ignored: ${why}`);
  return { document, used, warnings };
}

function flag(name: string, path: string, kind: Kind = 'text'): ConfigFlag {
  return { flag: name, path, kind };
}

/** Malformed values stay as they are: the schema refuses them with the field's path and what is allowed. */
function convert(text: string, kind: Kind): unknown {
  if (kind === 'number') return text.trim() !== '' && Number.isFinite(Number(text)) ? Number(text) : text;
  if (kind === 'list') return text === '' ? [] : text.split(',').map((item) => item.trim());
  if (kind !== 'map') return text;
  const pairs = text.split(',').map((pair) => pair.split('=', 2));
  return Object.fromEntries(pairs.map(([key = '', value = '']) => [key.trim(), BOOLEANS[value.trim()] ?? value]));
}

const BOOLEANS: Readonly<Record<string, boolean>> = { true: true, false: false };

function set(target: Record<string, unknown>, path: readonly string[], value: unknown): void {
  const [key = '', ...rest] = path;
  if (rest.length === 0) target[key] = value;
  else set((target[key] ??= {}) as Record<string, unknown>, rest, value);
}

/** `cluster-cidr` -> `clusterCidr`, as commander names its attributes. */
function camelCase(name: string): string {
  return name.replace(/-([a-z])/g, (_match, letter: string) => letter.toUpperCase());
}
