import { type ConntrackConfig } from '../values/conntrack-config.js';
import { type StatusAccess } from '../values/status-access.js';
import { type Address, type Family } from '../values/address.js';
import { type NodePortSelection } from '../values/node-port-selection.js';
import { type Prefix } from '../values/prefix.js';
import { type VipForm } from '../values/vip-form.js';
import { type BindAddress } from './bind-address.js';

export type PerFamily<T> = Readonly<Record<Family, T>>;

/** How traffic from this node's own pods is distinguished from the rest, so that only the rest is masqueraded. */
export type DetectLocal =
  /** Families without a CIDR cannot tell: nothing is masqueraded for being "from outside". */
  | { readonly mode: 'ClusterCIDR'; readonly cidrs: PerFamily<readonly Prefix[]> }
  /** The CIDRs come from this node's spec.podCIDRs. */
  | { readonly mode: 'NodeCIDR' }
  | { readonly mode: 'BridgeInterface'; readonly name: string }
  | { readonly mode: 'InterfaceNamePrefix'; readonly prefix: string };

/** Where the rules beside the IPVS table go; `auto`: iptables where kube-proxy's IPVS mode could run, else nftables. */
export type Rules = 'auto' | 'iptables' | 'nftables';
export const RULES: readonly Rules[] = ['auto', 'iptables', 'nftables'];

/** Not `off` and `on`, which YAML 1.1 takes for booleans. */
export type EventsMode = 'none' | 'node' | 'all';
export const EVENTS_MODES: readonly EventsMode[] = ['none', 'node', 'all'];

export type AutoOnOff = 'auto' | 'on' | 'off';
export const AUTO_ON_OFF: readonly AutoOnOff[] = ['auto', 'on', 'off'];

export type LogLevel = 'trace' | 'debug' | 'info' | 'warn' | 'error';
export const LOG_LEVELS: readonly LogLevel[] = ['trace', 'debug', 'info', 'warn', 'error'];

/** A checked configuration with kube-proxy 1.36's defaults filled in. All durations in milliseconds. */
export interface ProxyConfig {
  /** Lower-cased; undefined: use the host's name. */
  readonly hostnameOverride: string | undefined;
  /** Its family is that of the default bind addresses. */
  readonly bindAddress: Address;
  /** bindAddress unless that is 0.0.0.0 or ::; then the Node object has the node's address of that family. */
  readonly nodeIP: Address | undefined;
  readonly bindAddressHardFail: boolean;
  /** undefined: no health server. */
  readonly healthzBindAddress: BindAddress | undefined;
  /** undefined: no metrics server. */
  readonly metricsBindAddress: BindAddress | undefined;
  readonly enableProfiling: boolean;
  /** Who gets /status and /configz on the metrics address. */
  readonly statusAccess: StatusAccess;
  /** Events written into the cluster: about this Node alone, or about Services, too. */
  readonly events: EventsMode;
  /** So many ports of Services have metrics of their own; 0: none. */
  readonly serviceMetrics: number;

  /** undefined: in-cluster configuration. */
  readonly kubeconfig: string | undefined;
  /** API server address that overrides the kubeconfig's. */
  readonly master: string | undefined;
  readonly configSyncPeriodMs: number;

  readonly syncPeriodMs: number;
  /** 0: every change is synced at once. */
  readonly minSyncPeriodMs: number;
  /** 0: a removed endpoint keeps its connections for as long as they last. */
  readonly drainTimeoutMs: number;
  /** How often everything is listed anew, whatever the watches say; 0: never, as kube-proxy. */
  readonly relistPeriodMs: number;
  /** Whether VIPs are kept off the addresses of all Nodes; `auto`: in clusters small enough to watch them. */
  readonly protectNodeAddresses: AutoOnOff;
  /** Whether the kernel may estimate rates for every virtual and real server. */
  readonly estimation: AutoOnOff;
  /** Whether VIPs are addresses of kube-ipvs0 or local routes. */
  readonly vips: VipForm;

  readonly scheduler: string;
  readonly excludeCIDRs: PerFamily<readonly Prefix[]>;
  readonly strictARP: boolean;
  /** featureGates.AllowServiceExternalIPs: false and spec.externalIPs of Services are left out. */
  readonly allowsExternalIPs: boolean;
  /** IPVS connection timeouts; 0 leaves the kernel's value. The kernel counts in seconds. */
  readonly ipvsTcpTimeoutMs: number;
  readonly ipvsTcpFinTimeoutMs: number;
  readonly ipvsUdpTimeoutMs: number;

  readonly masqueradeAll: boolean;
  /** Bit number in the packet mark, 0 to 31. */
  readonly masqueradeBit: number;
  readonly detectLocal: DetectLocal;
  /** Whether Service traffic is accepted against an INPUT policy DROP; kube-proxy leaves it to the policy. */
  readonly acceptServiceTraffic: boolean;
  /** Where the rules beside the IPVS table are written. */
  readonly rules: Rules;
  readonly nodePortAddresses: PerFamily<NodePortSelection>;

  readonly conntrack: ConntrackConfig;
  readonly oomScoreAdj: number;
  readonly logLevel: LogLevel;
}
