/** Which of the rules refuse or drop packets, and why: what counters of theirs mean. */
import { type ProxyRules, type Rule } from './rule-model.js';

/**
 * Why a packet that came to a Service's address is refused or dropped: there is no endpoint; there is none on this node
 * and the policy is Local; the client is outside loadBalancerSourceRanges; the port is no Service's, so that a port of
 * the host would be reached by a VIP.
 */
export const REFUSAL_REASONS = ['no_endpoints', 'no_local_endpoints', 'source_range', 'host_port'] as const;
export type RefusalReason = (typeof REFUSAL_REASONS)[number];

export interface RefusalRule {
  /** `filter`, `mangle` */
  readonly table: string;
  readonly chain: string;
  /** The rule's place in its chain, from 0, and how many rules the chain has. */
  readonly index: number;
  readonly count: number;
  readonly reason: RefusalReason;
}

/** In the order of tables, chains and rules. */
export function refusalRules({ tables }: ProxyRules): RefusalRule[] {
  return tables.flatMap(({ name: table, chains }) =>
    chains.flatMap(({ name: chain, rules }) =>
      rules.flatMap((one, index) => {
        const refuses = one.verdict.do === 'drop' || one.verdict.do === 'reject';
        return refuses ? [{ table, chain, index, count: rules.length, reason: reasonOf(one, chain) }] : [];
      }),
    ),
  );
}

function reasonOf({ matches }: Rule, chain: string): RefusalReason {
  const roles = matches.flatMap((match) => (match.of === 'set' ? [match.role] : []));
  if (roles.includes('NO-LOCAL-ENDPOINTS')) return 'no_local_endpoints';
  if (roles.includes('LOAD-BALANCER-FW') || chain === 'KUBE-SOURCE-RANGES-FIREWALL') return 'source_range';
  // What the node itself asks is sent to a port of its own first, and refused there.
  if (roles.includes('NO-ENDPOINTS') || matches.some((match) => match.of === 'tcp-port')) return 'no_endpoints';
  return 'host_port';
}
