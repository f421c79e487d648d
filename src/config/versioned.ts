/**
 * A checked configuration as the API writes it: KubeProxyConfiguration v1alpha1 in the order of its Go type
 * (k8s.io/kube-proxy/config/v1alpha1/types.go), every default filled in. For `config print`, `--write-config-to` and
 * /configz. What comes out can be loaded again and gives the same configuration.
 */
import { type ConntrackConfig } from '../values/conntrack-config.js';
import { stringify } from 'yaml';
import { formatAddress } from '../values/address.js';
import { type BindAddress, formatBindAddress } from './bind-address.js';
import { formatGoDuration } from './go-duration.js';
import { type LogLevel, type ProxyConfig } from './proxy-config.js';
import { levelOfVerbosity } from './resolve.js';
import { API_VERSION, KIND } from './schema.js';

export type Versioned = Readonly<Record<string, unknown>>;

type Section = Readonly<Record<string, unknown>>;

/** `file` is the checked document as it was written, without what was refused; `config` what became of it. */
export function versionedConfig(file: Section, config: ProxyConfig): Versioned {
  const section = (name: string): Section => (file[name] ?? {}) as Section;
  const gates = section('featureGates');
  return {
    apiVersion: API_VERSION,
    kind: KIND,
    ...(Object.keys(gates).length > 0 ? { featureGates: gates } : {}),
    clientConnection: clientConnection(section('clientConnection'), config),
    logging: logging(section('logging'), config.logLevel),
    hostnameOverride: config.hostnameOverride ?? '',
    bindAddress: formatAddress(config.bindAddress),
    healthzBindAddress: bindAddress(config.healthzBindAddress),
    metricsBindAddress: bindAddress(config.metricsBindAddress),
    bindAddressHardFail: config.bindAddressHardFail,
    enableProfiling: config.enableProfiling,
    showHiddenMetricsForVersion: file.showHiddenMetricsForVersion ?? '',
    mode: 'ipvs',
    iptables: iptables(section('iptables'), config),
    ipvs: ipvs(section('ipvs'), config),
    nftables: { ...NFTABLES, ...section('nftables') },
    winkernel: { ...WINKERNEL, ...section('winkernel') },
    detectLocalMode: config.detectLocal.mode,
    detectLocal: { bridgeInterface: '', interfaceNamePrefix: '', ...section('detectLocal') },
    clusterCIDR: file.clusterCIDR ?? '',
    nodePortAddresses: file.nodePortAddresses ?? null,
    oomScoreAdj: config.oomScoreAdj,
    conntrack: conntrack(config.conntrack),
    configSyncPeriod: formatGoDuration(config.configSyncPeriodMs),
    portRange: file.portRange ?? '',
    kubeProxyIpvs: {
      ...section('kubeProxyIpvs'),
      drainTimeout: formatGoDuration(config.drainTimeoutMs),
      relistPeriod: formatGoDuration(config.relistPeriodMs),
      statusAccess: config.statusAccess,
      events: config.events,
      serviceMetrics: config.serviceMetrics,
      acceptServiceTraffic: config.acceptServiceTraffic,
      rules: config.rules,
      protectNodeAddresses: config.protectNodeAddresses,
      estimation: config.estimation,
      vips: config.vips,
    },
  };
}

/** As YAML. */
export function formatVersionedConfig(document: Versioned): string {
  return stringify(document);
}

const NFTABLES = { masqueradeBit: 14, masqueradeAll: false, syncPeriod: '0s', minSyncPeriod: '0s' };
const WINKERNEL = {
  networkName: '',
  sourceVip: '',
  enableDSR: false,
  rootHnsEndpointName: '',
  forwardHealthCheckVip: false,
};

function clientConnection({ acceptContentTypes, contentType, qps, burst }: Section, config: ProxyConfig): Section {
  return {
    kubeconfig: config.kubeconfig ?? '',
    acceptContentTypes: acceptContentTypes ?? '',
    contentType: contentType === undefined || contentType === '' ? 'application/vnd.kubernetes.protobuf' : contentType,
    qps: qps === undefined || qps === 0 ? 5 : qps,
    burst: burst === undefined || burst === 0 ? 10 : burst,
  };
}

const BUFFER = { infoBufferSize: '0' };
const VERBOSITY: Readonly<Record<LogLevel, number>> = { error: 0, warn: 0, info: 0, debug: 4, trace: 6 };

function logging(file: Section, level: LogLevel): Section {
  const written = typeof file.verbosity === 'number' ? file.verbosity : 0;
  return {
    ...file,
    format: file.format === undefined || file.format === '' ? 'text' : file.format,
    flushFrequency: file.flushFrequency ?? '5s',
    verbosity: levelOfVerbosity(written) === level ? written : VERBOSITY[level],
    options: file.options ?? { text: BUFFER, json: BUFFER },
  };
}

function bindAddress(address: BindAddress | undefined): string {
  return address === undefined ? '' : formatBindAddress(address);
}

function iptables({ localhostNodePorts }: Section, config: ProxyConfig): Section {
  return {
    masqueradeBit: config.masqueradeBit,
    masqueradeAll: config.masqueradeAll,
    localhostNodePorts: localhostNodePorts ?? true,
    syncPeriod: '0s',
    minSyncPeriod: '0s',
  };
}

function ipvs({ excludeCIDRs }: Section, config: ProxyConfig): Section {
  return {
    syncPeriod: formatGoDuration(config.syncPeriodMs),
    minSyncPeriod: formatGoDuration(config.minSyncPeriodMs),
    scheduler: config.scheduler,
    excludeCIDRs: excludeCIDRs ?? null,
    strictARP: config.strictARP,
    tcpTimeout: formatGoDuration(config.ipvsTcpTimeoutMs),
    tcpFinTimeout: formatGoDuration(config.ipvsTcpFinTimeoutMs),
    udpTimeout: formatGoDuration(config.ipvsUdpTimeoutMs),
  };
}

function conntrack(config: ConntrackConfig): Section {
  return {
    maxPerCore: config.maxPerCore,
    min: config.min,
    tcpEstablishedTimeout: formatGoDuration(config.tcpEstablishedTimeoutMs ?? 0),
    tcpCloseWaitTimeout: formatGoDuration(config.tcpCloseWaitTimeoutMs ?? 0),
    tcpBeLiberal: config.tcpBeLiberal,
    udpTimeout: formatGoDuration(config.udpTimeoutMs ?? 0),
    udpStreamTimeout: formatGoDuration(config.udpStreamTimeoutMs ?? 0),
  };
}
