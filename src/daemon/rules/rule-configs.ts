import { type Family, familyOf } from '../../values/address.js';
import { type Prefix, hostPrefix, parsePrefix } from '../../values/prefix.js';
import { type LocalDetection, type RuleConfig } from '../../desired/rule-config.js';
import { type ProxyConfig } from '../../config/proxy-config.js';
import { type Uplinks } from '../../kernel/node/uplinks.js';
import { type NodeInfo } from '../../model/node.js';

/** What the rules of every family served depend on: configuration and this node's pod CIDRs and addresses. */
export function ruleConfigs(
  config: ProxyConfig,
  families: readonly Family[],
  node: NodeInfo | undefined,
  randomFully: boolean,
  uplinks: Uplinks,
): RuleConfig[] {
  return families.map((family) => ({
    family,
    masqueradeMark: (1 << config.masqueradeBit) >>> 0,
    masqueradeAll: config.masqueradeAll,
    randomFully,
    detectLocal: localDetection(config, family, node),
    uplinks: uplinks.of(node?.addresses ?? []),
    acceptServiceTraffic: config.acceptServiceTraffic
      ? { nodePortPrefixes: nodePortPrefixes(config, family, node) }
      : undefined,
  }));
}

/** The addresses that may serve NodePorts: those of them that the node has do. */
function nodePortPrefixes({ nodePortAddresses }: ProxyConfig, family: Family, node: NodeInfo | undefined): Prefix[] {
  const { all, primary, cidrs } = nodePortAddresses[family];
  if (all) return [EVERYTHING[family]];
  const own = (node?.addresses ?? []).find((address) => familyOf(address) === family);
  return [...cidrs, ...(primary && own !== undefined ? [hostPrefix(own)] : [])];
}

const EVERYTHING: Readonly<Record<Family, Prefix>> = {
  4: parsePrefix('0.0.0.0/0')!,
  6: parsePrefix('::/0')!,
};

function localDetection({ detectLocal }: ProxyConfig, family: Family, node: NodeInfo | undefined): LocalDetection {
  if (detectLocal.mode === 'BridgeInterface' || detectLocal.mode === 'InterfaceNamePrefix') return detectLocal;
  const cidrs =
    detectLocal.mode === 'ClusterCIDR'
      ? detectLocal.cidrs[family]
      : (node?.podCIDRs ?? []).filter((cidr) => familyOf(cidr.address) === family);
  return cidrs.length === 0 ? { mode: 'none' } : { mode: detectLocal.mode, cidrs };
}
