/** What kube-proxy 1.36 leaves of its iptables mode in iptables: its own clean-up looks for the same. */
import { type ChainName, KNOWN_RULES, type KnownJump, type KnownRules } from './iptables-known-rules.js';
import { type SavedRules } from './iptables-save.js';

/**
 * One chain for each Service port or endpoint: SVC and SVL its backends, SEP a backend, EXT, FW and (before 1.24) XLB
 * its outside.
 */
const SERVICE_CHAIN = /^KUBE-(SVC|SVL|SEP|EXT|FW|XLB)-/;
const CHAINS: Readonly<Record<string, readonly string[]>> = {
  nat: ['KUBE-SERVICES', 'KUBE-NODEPORTS', 'KUBE-POSTROUTING', 'KUBE-MARK-MASQ', 'KUBE-PROXY-CANARY'],
  filter: [
    ...['KUBE-SERVICES', 'KUBE-EXTERNAL-SERVICES', 'KUBE-FORWARD', 'KUBE-NODEPORTS', 'KUBE-PROXY-FIREWALL'],
    'KUBE-PROXY-CANARY',
  ],
  mangle: ['KUBE-PROXY-CANARY'],
};

const NEW = '-m conntrack --ctstate NEW ';
const JUMPS: readonly KnownJump[] = [
  ...jumps(['INPUT', 'FORWARD'], NEW, 'kubernetes externally-visible service portals', 'KUBE-EXTERNAL-SERVICES'),
  ...jumps(['INPUT'], '', 'kubernetes health check service ports', 'KUBE-NODEPORTS'),
  // From INPUT, too, before 1.19.
  ...jumps(['INPUT', 'FORWARD', 'OUTPUT'], NEW, 'kubernetes service portals', 'KUBE-SERVICES'),
  ...jumps(['INPUT', 'FORWARD', 'OUTPUT'], NEW, 'kubernetes load balancer firewall', 'KUBE-PROXY-FIREWALL'),
];

function jumps(chains: readonly string[], match: string, comment: string, target: string): KnownJump[] {
  const rule = `${match}-m comment --comment "${comment}" -j ${target}`;
  return chains.map((chain) => ({ table: 'filter', chain, rule }));
}

/**
 * Whether kube-proxy's iptables mode makes a chain of this name; kubelet's (KUBE-FIREWALL, KUBE-MARK-DROP, ...) are
 * none of them.
 */
export function isIptablesModeChain({ table, chain }: ChainName): boolean {
  return CHAINS[table]?.includes(chain) === true || (table === 'nat' && SERVICE_CHAIN.test(chain));
}

/** Those that are there. */
export function iptablesModeChains(saved: SavedRules): ChainName[] {
  return [...saved].flatMap(([table, chains]) =>
    [...chains.keys()].map((chain) => ({ table, chain })).filter(isIptablesModeChain),
  );
}

/** Whether kube-proxy's iptables mode translates Services here: its IPVS mode has no chains of single Services. */
export function servesByIptables(saved: SavedRules): boolean {
  return [...(saved.get('nat')?.keys() ?? [])].some((chain) => SERVICE_CHAIN.test(chain));
}

/** What is this program's or kube-proxy's, of whatever mode. */
export function knownRules(saved: SavedRules): KnownRules {
  const left = iptablesModeChains(saved);
  if (left.length === 0) return KNOWN_RULES;
  const known = new Set(KNOWN_RULES.chains.map(({ table, chain }) => `${table} ${chain}`));
  const chains = left.filter(({ table, chain }) => !known.has(`${table} ${chain}`));
  return { chains: [...KNOWN_RULES.chains, ...chains], jumps: [...KNOWN_RULES.jumps, ...JUMPS] };
}
