import { type Address, type Family } from '../values/address.js';
import { type ProtectionReason } from '../model/protected-addresses.js';
import { type Topology } from './endpoints.js';

/**
 * What one Service's desired state depends on beyond the Service itself; the same value for every Service of a sync.
 */
export interface DesiredContext {
  readonly scheduler: string;
  readonly topology: Topology;
  readonly families: readonly Family[];
  /** Addresses that serve NodePorts, per family. */
  readonly nodePortAddresses: Readonly<Record<Family, readonly Address[]>>;
  /** Every address on the node's own interfaces. */
  readonly localAddresses: ReadonlySet<Address>;
  /** False where featureGates.AllowServiceExternalIPs is: then spec.externalIPs are not served. */
  readonly allowsExternalIPs: boolean;
  /** Addresses that the node needs elsewhere: no VIP may take them, unless they are local anyway. */
  readonly protectedAddresses: { reason(address: Address): ProtectionReason | undefined };
  /**
   * True: of source ranges that lie in each other the widest alone is needed, since sets of nf_tables take no other.
   */
  readonly widestRangesOnly: boolean;
  /** The node's primary address per family, for "may the node itself use this load balancer?" */
  readonly nodeIP: Readonly<Record<Family, Address | undefined>>;
}
