import { type StatusAccess } from '../values/status-access.js';
import { type ConntrackConfig } from '../values/conntrack-config.js';
import { type Address, familyOf, isUnspecified, parseAddress } from '../values/address.js';
import { type VipForm } from '../values/vip-form.js';
import { type Prefix, formatPrefix, parsePrefix, prefixFamily } from '../values/prefix.js';
import { type NodePortSelection } from '../values/node-port-selection.js';
import { type BindAddress, parseBindAddress } from './bind-address.js';
import { type ConfigProblem } from './errors.js';
import { formatGoDuration } from './go-duration.js';
import {
  type DetectLocal,
  type EventsMode,
  type LogLevel,
  type PerFamily,
  type ProxyConfig,
  type Rules,
} from './proxy-config.js';
import { type KubeProxyConfiguration, SCHEDULERS } from './schema.js';

/** Ports of kube-proxy (k8s.io/kubernetes/pkg/cluster/ports). */
const HEALTHZ_PORT = 10256;
const METRICS_PORT = 10249;
const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
/** What setTimeout and setInterval can hold, 2^31 - 1 ms (24.8 days); anything longer would fire at once. */
export const LONGEST_TIMER_MS = 2 ** 31 - 1;
const ANY_4 = parseAddress('0.0.0.0')!;

/** What the command line says on top of the file; an empty bind address switches that server off. */
export interface ConfigOverrides {
  readonly hostnameOverride?: string | undefined;
  readonly kubeconfig?: string | undefined;
  readonly master?: string | undefined;
  readonly healthzBindAddress?: string | undefined;
  readonly metricsBindAddress?: string | undefined;
  readonly drainTimeoutMs?: number | undefined;
  readonly logLevel?: LogLevel | undefined;
}

/** Where problems and warnings of the cross-field checks go. */
export interface Findings {
  readonly problems: ConfigProblem[];
  readonly warnings: string[];
}

/**
 * Fills in the defaults of kube-proxy 1.36 (pkg/proxy/apis/config/v1alpha1/defaults.go) and checks what spans fields.
 * With problems found the result is meaningless; the caller throws.
 */
export function resolveConfig(file: KubeProxyConfiguration, flags: ConfigOverrides, found: Findings): ProxyConfig {
  const bindAddress = file.bindAddress ?? ANY_4;
  return {
    hostnameOverride: hostname(flags.hostnameOverride ?? file.hostnameOverride, found),
    bindAddress,
    nodeIP: isUnspecified(bindAddress) ? undefined : bindAddress,
    bindAddressHardFail: file.bindAddressHardFail ?? false,
    ...bindAddresses(file, flags, bindAddress, found),
    enableProfiling: file.enableProfiling ?? false,
    statusAccess: (nonEmpty(file.kubeProxyIpvs?.statusAccess) as StatusAccess | undefined) ?? 'loopback',
    events: (nonEmpty(file.kubeProxyIpvs?.events) as EventsMode | undefined) ?? 'none',
    serviceMetrics: file.kubeProxyIpvs?.serviceMetrics ?? 0,
    kubeconfig: nonEmpty(flags.kubeconfig ?? file.clientConnection?.kubeconfig),
    master: nonEmpty(flags.master),
    configSyncPeriodMs: timer('configSyncPeriod', nonZero(file.configSyncPeriod) ?? 15 * MINUTE, found),
    ...syncPeriods(file, found),
    vips: (file.kubeProxyIpvs?.vips ?? 'addresses') as VipForm,
    relistPeriodMs: timer('kubeProxyIpvs.relistPeriod', file.kubeProxyIpvs?.relistPeriod ?? 0, found),
    protectNodeAddresses: file.kubeProxyIpvs?.protectNodeAddresses ?? 'auto',
    // Without estimation the counters of virtual servers stand still.
    estimation: file.kubeProxyIpvs?.estimation ?? (file.kubeProxyIpvs?.serviceMetrics ? 'on' : 'auto'),
    drainTimeoutMs: timer(
      'kubeProxyIpvs.drainTimeout',
      flags.drainTimeoutMs ?? file.kubeProxyIpvs?.drainTimeout ?? 0,
      found,
    ),
    scheduler: nonEmpty(file.ipvs?.scheduler) ?? SCHEDULERS[0],
    excludeCIDRs: splitByFamily(file.ipvs?.excludeCIDRs ?? []),
    strictARP: file.ipvs?.strictARP ?? false,
    allowsExternalIPs: file.featureGates?.AllowServiceExternalIPs ?? true,
    ...ipvsTimeouts(file, found),
    masqueradeAll: file.iptables?.masqueradeAll ?? false,
    masqueradeBit: file.iptables?.masqueradeBit ?? 14,
    detectLocal: detectLocal(file, found),
    nodePortAddresses: nodePortAddresses(file, found),
    acceptServiceTraffic: file.kubeProxyIpvs?.acceptServiceTraffic ?? false,
    rules: (nonEmpty(file.kubeProxyIpvs?.rules) as Rules | undefined) ?? 'auto',
    conntrack: conntrack(file),
    oomScoreAdj: file.oomScoreAdj ?? -999,
    logLevel: flags.logLevel ?? levelOfVerbosity(file.logging?.verbosity ?? 0),
  };
}

/** klog's -v as a log level: kube-proxy's usual `--v=2` is our info. */
export function levelOfVerbosity(verbosity: number): LogLevel {
  if (verbosity >= 6) return 'trace';
  return verbosity >= 4 ? 'debug' : 'info';
}

function hostname(text: string | undefined, { problems }: Findings): string | undefined {
  if (text === undefined || text === '') return undefined;
  const name = text.trim().toLowerCase();
  if (name === '') problems.push({ path: 'hostnameOverride', value: text, allowed: 'a node name, or empty' });
  return name;
}

function bindAddresses(
  file: KubeProxyConfiguration,
  flags: ConfigOverrides,
  bindAddress: Address,
  { problems }: Findings,
): Pick<ProxyConfig, 'healthzBindAddress' | 'metricsBindAddress'> {
  const isIPv4 = familyOf(bindAddress) === 4;
  const parse = (path: 'healthzBindAddress' | 'metricsBindAddress', host: string, port: number) => {
    if (flags[path] === '') return undefined;
    const text = nonEmpty(flags[path] ?? file[path]);
    const parsed: BindAddress | undefined = text === undefined ? { host, port } : parseBindAddress(text, port);
    if (parsed === undefined) {
      problems.push({ path, value: text, allowed: 'IP:port such as "0.0.0.0:10256" or "[::]:10256", port 1 to 65535' });
    }
    return parsed;
  };
  return {
    healthzBindAddress: parse('healthzBindAddress', isIPv4 ? '0.0.0.0' : '::', HEALTHZ_PORT),
    metricsBindAddress: parse('metricsBindAddress', isIPv4 ? '127.0.0.1' : '::1', METRICS_PORT),
  };
}

/** kube-proxy takes durations up to 292 years, so one that no timer can hold is cut, not refused. */
function timer(path: string, milliseconds: number, { warnings }: Findings): number {
  if (milliseconds <= LONGEST_TIMER_MS) return milliseconds;
  const [given, longest] = [milliseconds, LONGEST_TIMER_MS].map(formatGoDuration);
  warnings.push(`${path}: ${given} is longer than a timer can be; ${longest} is used`);
  return LONGEST_TIMER_MS;
}

function syncPeriods(
  file: KubeProxyConfiguration,
  found: Findings,
): Pick<ProxyConfig, 'syncPeriodMs' | 'minSyncPeriodMs'> {
  const { problems, warnings } = found;
  for (const field of ['syncPeriod', 'minSyncPeriod'] as const) {
    const [top, nested] = [nonZero(file[field]), nonZero(file.ipvs?.[field])];
    if (top !== undefined && nested !== undefined && top !== nested) {
      warnings.push(`${field} at the top level differs from ipvs.${field}; the top level is used`);
    }
  }
  const syncPeriodMs = nonZero(file.syncPeriod) ?? nonZero(file.ipvs?.syncPeriod) ?? 30 * SECOND;
  const minSyncPeriodMs = file.minSyncPeriod ?? file.ipvs?.minSyncPeriod ?? 0;
  if (minSyncPeriodMs > syncPeriodMs) {
    const path = file.minSyncPeriod === undefined ? 'ipvs.minSyncPeriod' : 'minSyncPeriod';
    const [value, longest] = [minSyncPeriodMs, syncPeriodMs].map(formatGoDuration);
    problems.push({ path, value, allowed: `at most syncPeriod, which is ${longest}` });
  }
  return {
    syncPeriodMs: timer('syncPeriod', syncPeriodMs, found),
    minSyncPeriodMs: timer('minSyncPeriod', minSyncPeriodMs, found),
  };
}

function ipvsTimeouts(
  file: KubeProxyConfiguration,
  { problems }: Findings,
): Pick<ProxyConfig, 'ipvsTcpTimeoutMs' | 'ipvsTcpFinTimeoutMs' | 'ipvsUdpTimeoutMs'> {
  const read = (field: 'tcpTimeout' | 'tcpFinTimeout' | 'udpTimeout'): number => {
    const milliseconds = file.ipvs?.[field] ?? 0;
    if (milliseconds > 0 && milliseconds < SECOND) {
      problems.push({
        path: `ipvs.${field}`,
        value: formatGoDuration(milliseconds),
        allowed: '0s (leave as it is), 1s or more',
      });
    }
    return milliseconds;
  };
  return {
    ipvsTcpTimeoutMs: read('tcpTimeout'),
    ipvsTcpFinTimeoutMs: read('tcpFinTimeout'),
    ipvsUdpTimeoutMs: read('udpTimeout'),
  };
}

function detectLocal(file: KubeProxyConfiguration, found: Findings): DetectLocal {
  const mode = nonEmpty(file.detectLocalMode) ?? 'ClusterCIDR';
  if (mode === 'NodeCIDR') return { mode };
  if (mode === 'BridgeInterface') return { mode, name: required('bridgeInterface') };
  if (mode === 'InterfaceNamePrefix') return { mode, prefix: required('interfaceNamePrefix') };
  return { mode: 'ClusterCIDR', cidrs: clusterCIDRs(file.clusterCIDR ?? '', found) };

  function required(field: 'bridgeInterface' | 'interfaceNamePrefix'): string {
    const name = file.detectLocal?.[field] ?? '';
    const allowed = `an interface name of 1 to 15 characters, because detectLocalMode is ${mode}`;
    if (name === '') found.problems.push({ path: `detectLocal.${field}`, value: name, allowed });
    return name;
  }
}

function clusterCIDRs(text: string, { problems, warnings }: Findings): PerFamily<readonly Prefix[]> {
  if (text.trim() === '') {
    warnings.push(
      'clusterCIDR is empty while detectLocalMode is ClusterCIDR: traffic from outside the cluster to cluster IPs is not masqueraded',
    );
    return { 4: [], 6: [] };
  }
  const prefixes = text.split(',').map((part) => parsePrefix(part.trim()));
  const valid = prefixes.filter((prefix) => prefix !== undefined);
  const families = new Set(valid.map(prefixFamily));
  if (valid.length !== prefixes.length || families.size !== valid.length) {
    const allowed =
      'one CIDR block, or one of each family separated by a comma, such as "10.244.0.0/16,fd00:10:244::/56"';
    problems.push({ path: 'clusterCIDR', value: text, allowed });
  }
  return splitByFamily(valid);
}

function nodePortAddresses(
  file: KubeProxyConfiguration,
  { problems, warnings }: Findings,
): PerFamily<NodePortSelection> {
  const entries = file.nodePortAddresses ?? [];
  const first = entries.indexOf('primary');
  if (first >= 0 && entries.length > 1) {
    const allowed = "'primary' alone, or CIDR blocks without it";
    problems.push({ path: `nodePortAddresses[${first}]`, value: 'primary', allowed });
  }
  if (entries.includes('localhost')) {
    warnings.push('nodePortAddresses: "localhost" has no effect: IPVS does not serve NodePorts on loopback addresses');
  }
  const cidrs = splitByFamily(entries.filter((entry) => typeof entry === 'object'));
  const primary = entries.includes('primary');
  // A family that the list says nothing about is served on all its addresses (kube-proxy's NewNodePortAddresses).
  const select = (list: readonly Prefix[]): NodePortSelection => ({
    all: entries.includes('all') || (!primary && list.length === 0),
    primary,
    cidrs: list,
  });
  return { 4: select(cidrs[4]), 6: select(cidrs[6]) };
}

function conntrack(file: KubeProxyConfiguration): ConntrackConfig {
  const section = file.conntrack ?? {};
  return {
    maxPerCore: section.maxPerCore ?? 32 * 1024,
    min: section.min ?? 128 * 1024,
    // An explicit 0s leaves the kernel's value, an absent field means kube-proxy's default.
    tcpEstablishedTimeoutMs: nonZero(section.tcpEstablishedTimeout ?? 24 * HOUR),
    tcpCloseWaitTimeoutMs: nonZero(section.tcpCloseWaitTimeout ?? HOUR),
    tcpBeLiberal: section.tcpBeLiberal ?? false,
    udpTimeoutMs: nonZero(section.udpTimeout),
    udpStreamTimeoutMs: nonZero(section.udpStreamTimeout),
  };
}

function splitByFamily(prefixes: readonly Prefix[]): PerFamily<readonly Prefix[]> {
  const unique = [...new Map(prefixes.map((prefix) => [formatPrefix(prefix), prefix])).values()];
  return {
    4: unique.filter((prefix) => prefixFamily(prefix) === 4),
    6: unique.filter((prefix) => prefixFamily(prefix) === 6),
  };
}

function nonEmpty(text: string | undefined): string | undefined {
  return text === '' ? undefined : text;
}

/** Go cannot tell 0 from "not set" in most duration fields, so kube-proxy treats them alike. */
function nonZero(value: number | undefined): number | undefined {
  return value === 0 ? undefined : value;
}
