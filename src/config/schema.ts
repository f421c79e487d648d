/**
 * The shape of a KubeProxyConfiguration v1alpha1 (k8s.io/kube-proxy/config/v1alpha1/types.go). Every error text says
 * what is allowed, because it becomes the end of "... is not allowed; allowed: ...". Nulls are dropped before parsing:
 * kubeadm writes `masqueradeBit: null`, which is Go's "not set".
 */
import { STATUS_ACCESS } from '../values/status-access.js';
import * as z from 'zod';
import { type Address, parseAddress } from '../values/address.js';
import { type Prefix, parsePrefix } from '../values/prefix.js';
import { VIP_FORMS } from '../values/vip-form.js';
import { parseGoDuration } from './go-duration.js';
import { AUTO_ON_OFF, type AutoOnOff, EVENTS_MODES, RULES } from './proxy-config.js';

export const API_VERSION = 'kubeproxy.config.k8s.io/v1alpha1';
export const KIND = 'KubeProxyConfiguration';

/** The kernel's schedulers, net/netfilter/ipvs/ip_vs_<name>.c. */
export const SCHEDULERS = [
  'rr',
  'wrr',
  'lc',
  'wlc',
  'lblc',
  'lblcr',
  'dh',
  'sh',
  'mh',
  'sed',
  'nq',
  'fo',
  'ovf',
  'twos',
] as const;

export const LOCAL_MODES = ['ClusterCIDR', 'NodeCIDR', 'BridgeInterface', 'InterfaceNamePrefix'] as const;

/** Whether VIPs are kept off the addresses of all Nodes; auto: in clusters small enough to watch them. */

const MAX_INT32 = 2 ** 31 - 1;

const bool = z.boolean({ error: 'true or false' });
const text = z.string({ error: 'a string' });

function integer(min: number, max: number): z.ZodType<number> {
  const isAllowed = (value: unknown): boolean =>
    Number.isInteger(value) && Number(value) >= min && Number(value) <= max;
  return z.custom<number>(isAllowed, { error: `an integer from ${min} to ${max}` });
}

/** A duration in milliseconds, 0 or more. */
const duration = z.unknown().transform((value, context): number => {
  const parsed = typeof value === 'string' ? parseGoDuration(value) : undefined;
  if (parsed !== undefined && parsed >= 0) return parsed;
  context.addIssue({ code: 'custom', message: 'a duration of 0 or more such as "30s", "1m30s", "100ms", in quotes' });
  return z.NEVER;
});

function oneOf(values: readonly string[]): z.ZodType<string> {
  const isAllowed = (value: unknown): boolean => value === '' || values.includes(value as string);
  return z.custom<string>(isAllowed, { error: `${values.join(', ')}, or empty for ${values[0]}` });
}

const address = z.unknown().transform((value, context): Address | undefined => {
  if (value === '') return undefined;
  const parsed = typeof value === 'string' ? parseAddress(value) : undefined;
  if (parsed !== undefined) return parsed;
  context.addIssue({ code: 'custom', message: 'an IPv4 or IPv6 address such as "0.0.0.0" or "::"' });
  return z.NEVER;
});

const prefix = z.unknown().transform((value, context): Prefix => {
  const parsed = typeof value === 'string' ? parsePrefix(value) : undefined;
  if (parsed !== undefined) return parsed;
  context.addIssue({ code: 'custom', message: 'a CIDR block such as "10.0.0.0/8" or "fd00::/64"' });
  return z.NEVER;
});

const nodePortAddress = z.unknown().transform((value, context): Prefix | 'primary' | 'localhost' | 'all' => {
  if (value === 'primary' || value === 'localhost' || value === 'all') return value;
  const parsed = typeof value === 'string' ? parsePrefix(value) : undefined;
  if (parsed !== undefined) return parsed;
  context.addIssue({ code: 'custom', message: 'a CIDR block such as "10.0.0.0/8", "primary", or "all"' });
  return z.NEVER;
});

/**
 * An interface name or the beginning of one: IFNAMSIZ - 1 bytes, no `/`, no space (dev_valid_name in net/core/dev.c).
 */
const interfaceName = z.custom<string>(
  (value) => typeof value === 'string' && /^[^\s/]{0,15}$/.test(value) && value !== '.' && value !== '..',
  { error: 'an interface name of at most 15 characters without spaces or "/"' },
);

function list<T extends z.ZodType>(item: T): z.ZodArray<T> {
  return z.array(item, { error: 'a list' });
}

function section<T extends z.ZodRawShape>(shape: T) {
  return z.strictObject(shape, { error: (issue) => (issue.code === 'invalid_type' ? 'a mapping' : undefined) });
}

const ignored = z.unknown().optional();

const periods = { syncPeriod: duration.optional(), minSyncPeriod: duration.optional() };

const clientConnection = section({
  kubeconfig: text.optional(),
  acceptContentTypes: text.optional(),
  contentType: text.optional(),
  qps: z.number({ error: 'a number' }).optional(),
  burst: integer(0, MAX_INT32).optional(),
});

const iptables = section({
  ...periods,
  masqueradeBit: integer(0, 31).optional(),
  masqueradeAll: bool.optional(),
  localhostNodePorts: bool.optional(),
  snatNodeInternalIP: bool.optional(),
});

const ipvs = section({
  ...periods,
  scheduler: oneOf(SCHEDULERS).optional(),
  excludeCIDRs: list(prefix).optional(),
  strictARP: bool.optional(),
  tcpTimeout: duration.optional(),
  tcpFinTimeout: duration.optional(),
  udpTimeout: duration.optional(),
});

const conntrack = section({
  maxPerCore: integer(0, MAX_INT32).optional(),
  min: integer(0, MAX_INT32).optional(),
  tcpEstablishedTimeout: duration.optional(),
  tcpCloseWaitTimeout: duration.optional(),
  tcpBeLiberal: bool.optional(),
  udpTimeout: duration.optional(),
  udpStreamTimeout: duration.optional(),
});

const logging = section({
  format: oneOf(['text', 'json']).optional(),
  flushFrequency: ignored,
  verbosity: integer(0, MAX_INT32).optional(),
  vmodule: ignored,
  options: ignored,
});

const autoOnOff = z
  // YAML 1.1 parsers, Go's among them, make booleans of on and off.
  .custom<string | boolean>((value) => typeof value === 'boolean' || AUTO_ON_OFF.includes(value as never), {
    error: 'auto, on or off',
  })
  .transform((value) => (value === true ? 'on' : value === false ? 'off' : (value as AutoOnOff)));

/** Ours alone; kube-proxy's lenient decoding ignores it with a warning, so the same ConfigMap serves both. */
const extras = section({
  drainTimeout: duration.optional(),
  relistPeriod: duration.optional(),
  statusAccess: oneOf(STATUS_ACCESS).optional(),
  events: oneOf(EVENTS_MODES).optional(),
  serviceMetrics: integer(0, 1000).optional(),
  acceptServiceTraffic: bool.optional(),
  rules: oneOf(RULES).optional(),
  protectNodeAddresses: autoOnOff.optional(),
  estimation: autoOnOff.optional(),
  vips: oneOf(VIP_FORMS).optional(),
});

export const kubeProxyConfiguration = section({
  apiVersion: text,
  kind: text,
  metadata: ignored,
  featureGates: z.record(z.string(), bool, { error: 'a mapping of feature names to true or false' }).optional(),
  clientConnection: clientConnection.optional(),
  logging: logging.optional(),
  hostnameOverride: text.optional(),
  bindAddress: address.optional(),
  healthzBindAddress: text.optional(),
  metricsBindAddress: text.optional(),
  bindAddressHardFail: bool.optional(),
  enableProfiling: bool.optional(),
  showHiddenMetricsForVersion: text.optional(),
  mode: z
    .custom<string>((value) => value === '' || value === 'ipvs', {
      error: '"ipvs" or empty: this daemon has no other mode; run kube-proxy for iptables or nftables',
    })
    .optional(),
  iptables: iptables.optional(),
  ipvs: ipvs.optional(),
  nftables: ignored,
  winkernel: ignored,
  windowsRunAsService: ignored,
  detectLocalMode: oneOf(LOCAL_MODES).optional(),
  detectLocal: section({
    bridgeInterface: interfaceName.optional(),
    interfaceNamePrefix: interfaceName.optional(),
  }).optional(),
  clusterCIDR: text.optional(),
  nodePortAddresses: list(nodePortAddress).optional(),
  oomScoreAdj: integer(-1000, 1000).optional(),
  conntrack: conntrack.optional(),
  configSyncPeriod: duration.optional(),
  portRange: text.optional(),
  udpIdleTimeout: ignored,
  ...periods,
  kubeProxyIpvs: extras.optional(),
});

export type KubeProxyConfiguration = z.infer<typeof kubeProxyConfiguration>;
