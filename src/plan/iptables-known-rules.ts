/**
 * Which chains, and which rules in chains that others share, are this program's or kube-proxy's IPVS mode's:
 * nothing else is ever touched.
 */
import { iptablesRules } from '../desired/iptables-rules.js';
import { takeoverTable } from '../desired/iptables-takeover.js';
import { type RuleTable } from '../desired/iptables-rule-set.js';

/** A chain by table and name. */
export interface ChainName {
  readonly table: string;
  readonly chain: string;
}

/** A rule that leads from a built-in chain to one of ours; `rule` is without `-A CHAIN`. */
export interface KnownJump extends ChainName {
  readonly rule: string;
}

export interface KnownRules {
  /** Chains that are removed when the desired rules lack them. */
  readonly chains: readonly ChainName[];
  /** Jumps that are removed when the desired rules lack them; any other rule stays, wherever it leads. */
  readonly jumps: readonly KnownJump[];
}

/** Chains that kube-proxy 1.36 makes in IPVS mode. */
export const KUBE_PROXY_IPVS_CHAINS: readonly ChainName[] = [
  ...['KUBE-SERVICES', 'KUBE-POSTROUTING', 'KUBE-NODE-PORT', 'KUBE-LOAD-BALANCER', 'KUBE-MARK-MASQ'].map((chain) => ({
    table: 'nat',
    chain,
  })),
  ...[
    'KUBE-FORWARD',
    'KUBE-NODE-PORT',
    'KUBE-PROXY-FIREWALL',
    'KUBE-SOURCE-RANGES-FIREWALL',
    'KUBE-IPVS-FILTER',
    'KUBE-IPVS-OUT-FILTER',
  ].map((chain) => ({ table: 'filter', chain })),
];

/** Jumps of kube-proxy 1.36's IPVS mode that this program has no use for. */
const KUBE_PROXY_IPVS_JUMPS: readonly KnownJump[] = [
  {
    table: 'filter',
    chain: 'FORWARD',
    rule: '-m comment --comment "kube-proxy firewall rules" -j KUBE-PROXY-FIREWALL',
  },
  {
    table: 'filter',
    chain: 'OUTPUT',
    rule: '-m comment --comment "kubernetes ipvs access filter" -j KUBE-IPVS-OUT-FILTER',
  },
];

/** All that this program makes with any configuration. */
const OWN_TABLES: readonly RuleTable[] = [
  ...iptablesRules({
    family: 4,
    masqueradeMark: 1,
    masqueradeAll: false,
    randomFully: false,
    detectLocal: { mode: 'none' },
    acceptServiceTraffic: { nodePortPrefixes: [] },
  }).tables,
  takeoverTable(4),
];

export const OWN_CHAINS: readonly ChainName[] = OWN_TABLES.flatMap(({ name, chains }) =>
  chains.map((chain) => ({ table: name, chain: chain.name })),
);

/** What both families may have of either program. */
export const KNOWN_RULES: KnownRules = {
  chains: [...OWN_CHAINS, ...KUBE_PROXY_IPVS_CHAINS],
  jumps: [
    ...OWN_TABLES.flatMap(({ name, jumps }) => jumps.map(({ chain, rule }) => ({ table: name, chain, rule }))),
    ...KUBE_PROXY_IPVS_JUMPS,
  ],
};
