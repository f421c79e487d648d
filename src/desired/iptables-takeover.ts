/**
 * The one rule for the time in which both this program and another mode of kube-proxy serve: its rules translate what
 * opens a connection before IPVS sees it, and go on doing so until everything of ours is in place. But a client on the
 * node takes the VIP that it asks for as its source as soon as the VIP is bound, and where kube-proxy masquerades
 * nothing (no clusterCIDR, as on EKS) a backend on another node would answer to that.
 */
import { type Family } from '../values/address.js';
import { ipsetName } from './ipset-definitions.js';
import { type RuleTable } from './iptables-rule-set.js';

const CHAIN = 'KUBE-IPVS-TAKEOVER';

export function takeoverTable(family: Family): RuleTable {
  return {
    name: 'nat',
    chains: [{ name: CHAIN, rules: [`! -o lo -m set --match-set ${ipsetName(family, 'IPVS-IPS')} src -j MASQUERADE`] }],
    jumps: [
      {
        chain: 'POSTROUTING',
        rule: `-m comment --comment "kubernetes takeover rules" -j ${CHAIN}`,
        position: 'first',
      },
    ],
  };
}
