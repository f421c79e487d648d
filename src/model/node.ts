import { type Address, parseAddress } from '../values/address.js';
import { type Prefix, parsePrefix } from '../values/prefix.js';
import { type Report, asArray, asObject, asString, objectMeta } from './json.js';

/** What of this node's Node object decides packets and health. */
export interface NodeInfo {
  readonly name: string;
  /** topology.kubernetes.io/zone; empty when unset */
  readonly zone: string;
  readonly podCIDRs: readonly Prefix[];
  /** InternalIPs first, then ExternalIPs, as kube-proxy chooses the node's primary address. */
  readonly addresses: readonly Address[];
  /**
   * False while the node is being deleted or tainted by the cluster autoscaler: kube-proxy answers 503 then (KEP-3836).
   */
  readonly eligible: boolean;
}

const AUTOSCALER_TAINT = 'ToBeDeletedByClusterAutoscaler';

/** Trims a Node; undefined (reported) without a name. */
export function parseNode(object: unknown, report: Report): NodeInfo | undefined {
  const root = asObject(object) ?? {};
  const meta = objectMeta(root, report);
  if (meta === undefined) return undefined;
  const spec = asObject(root['spec']);
  const podCIDRs = asArray(spec?.['podCIDRs'] ?? (spec?.['podCIDR'] === undefined ? [] : [spec['podCIDR']]));
  const tainted = asArray(spec?.['taints']).some((taint) => asObject(taint)?.['key'] === AUTOSCALER_TAINT);
  return {
    name: asString(meta.metadata['name']),
    zone: asString(asObject(meta.metadata['labels'])?.['topology.kubernetes.io/zone']),
    podCIDRs: podCIDRs.map((text) => parsePrefix(asString(text))).filter((prefix) => prefix !== undefined),
    addresses: nodeAddresses(asArray(asObject(root['status'])?.['addresses'])),
    eligible: meta.metadata['deletionTimestamp'] === undefined && !tainted,
  };
}

function nodeAddresses(values: readonly unknown[]): Address[] {
  const ofType = (type: string): Address[] =>
    values
      .map((value) => asObject(value))
      .filter((entry) => entry?.['type'] === type)
      .map((entry) => parseAddress(asString(entry?.['address'])))
      .filter((address) => address !== undefined);
  return [...ofType('InternalIP'), ...ofType('ExternalIP')];
}
