import { type Family } from '../values/address.js';

/**
 * One chain of ours with all its rules, each without `-A CHAIN`: `-m set --match-set KUBE-CLUSTER-IP dst,dst -j
 * RETURN`.
 */
export interface RuleChain {
  readonly name: string;
  readonly rules: readonly string[];
}

/** A rule of ours in a chain that others share; `rule` is again without `-A CHAIN`. */
export interface JumpRule {
  /** The shared chain: `INPUT`, `PREROUTING`, ... */
  readonly chain: string;
  readonly rule: string;
  readonly position: 'first' | 'last';
}

export interface RuleTable {
  readonly name: string;
  readonly chains: readonly RuleChain[];
  readonly jumps: readonly JumpRule[];
}

/** Everything that this program wants in iptables (family 4) or ip6tables (family 6), as inert data. */
export interface RuleSet {
  readonly family: Family;
  readonly tables: readonly RuleTable[];
}
