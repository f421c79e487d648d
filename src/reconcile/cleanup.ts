/**
 * Removes everything that this program or kube-proxy's iptables-based modes made, and nothing else. Can be run twice,
 * and after a run that broke off: each part is recognised by its own traces, and the traces that say whose a virtual
 * server is go last.
 */
import { errorMessage } from '../values/errors.js';
import { type Prefix } from '../values/prefix.js';
import { type RealServerKey, type VirtualServerKey, formatVirtualServer } from '../values/virtual-server.js';
import { OWN_IPSET_ROLES, type IpsetName, allIpsetDefinitions, ipsetName } from '../desired/ipset-definitions.js';
import { type Iptables } from '../kernel/iptables/iptables.js';
import { type IpsetClient, isTemporarySet } from '../kernel/ipset/client.js';
import { IpsetBackend } from '../kernel/ipset/backend.js';
import { IpsetError } from '../kernel/ipset/error.js';
import { type SetBackend } from '../kernel/set-backend.js';
import { type IpvsClient } from '../kernel/ipvs/client.js';
import { type LinkClient } from '../kernel/rtnetlink/client.js';
import { type ChainName, KNOWN_RULES, KUBE_PROXY_IPVS_CHAINS } from '../plan/iptables-known-rules.js';
import { type OwnershipTraces, isExcluded, leftByServiceProxy } from '../plan/ownership.js';
import { removeChains } from '../plan/iptables-rule-diff.js';
import { isIptablesModeChain } from '../plan/iptables-rule-leftovers.js';
import { parseSavedRules } from '../plan/iptables-save.js';
import { type Address, FAMILIES, formatAddress } from '../values/address.js';
import { DUMMY_LINK } from './address-applier.js';
import { readAddresses } from './observe-addresses.js';
import { ownershipTraces } from './observe-kernel.js';
import { joinSets, readPresentSets } from './ipset-keeper.js';

export interface KernelCleanupOptions {
  /** undefined where the kernel has none: then there is nothing of it to be removed. */
  readonly ipvs: IpvsClient | undefined;
  readonly links: LinkClient;
  readonly ipset: IpsetClient | undefined;
  /** Our sets in nf_tables, which say whose a virtual server is as ipsets do. */
  readonly nftSets?: SetBackend | undefined;
  /** One for each backend that the node has: rules may be in either. */
  readonly iptables: readonly Iptables[];
  readonly excludeCIDRs: readonly Prefix[];
  /** Only say what would be removed. */
  readonly dryRun: boolean;
}

/** What was removed, or would be, by name. */
export interface CleanupReport {
  readonly virtualServers: readonly string[];
  readonly addresses: readonly string[];
  readonly chains: readonly string[];
  readonly sets: readonly string[];
  /**
   * Chains that had to stay because somebody else's rules lead to them, emptied but for KUBE-MARK-MASQ; each with these
   * rules.
   */
  readonly kept: readonly string[];
  /** What could not be removed, with the reason. */
  readonly failures: readonly string[];
  /** What hinders the way back to kube-proxy. */
  readonly remarks: readonly string[];
}

/** By table and name. */
const chainId = ({ table, chain }: ChainName): string => `${table} ${chain}`;
const KUBE_PROXY_CHAINS: ReadonlySet<string> = new Set(KUBE_PROXY_IPVS_CHAINS.map(chainId));
const OUR_CHAINS: ReadonlySet<string> = new Set(KNOWN_RULES.chains.map(chainId));

/** Whether a chain is ours or of kube-proxy's IPVS or iptables mode. */
export function isProxyChain(chain: ChainName): boolean {
  return OUR_CHAINS.has(chainId(chain)) || isIptablesModeChain(chain);
}

/** Removes all of it, kube-proxy's iptables mode's chains included. */
export async function cleanup(options: KernelCleanupOptions): Promise<CleanupReport> {
  const failures: string[] = [];
  const { virtualServers, addresses } = await removeTable(options, failures);
  const rules = await removeRules(options, isProxyChain, failures);
  const ours = allIpsetDefinitions();
  const sets = removeSets(options, (name) => ours.has(name as IpsetName) || isTemporarySet(name), failures);
  return { virtualServers, addresses, ...rules, sets, failures, remarks: [] };
}

/**
 * Removes only what kube-proxy's IPVS mode does not know and so would leave behind, for the way back without
 * interruption. To be run once kube-proxy has synced: until then the chains it shares with us refer to our sets, which
 * the kernel then refuses to remove (named among the failures).
 */
export async function cleanupOwn(options: KernelCleanupOptions): Promise<CleanupReport> {
  const failures: string[] = [];
  const isOwn = (chain: ChainName): boolean => OUR_CHAINS.has(chainId(chain)) && !KUBE_PROXY_CHAINS.has(chainId(chain));
  const rules = await removeRules(options, isOwn, failures);
  const own = new Set<string>(FAMILIES.flatMap((family) => OWN_IPSET_ROLES.map((role) => ipsetName(family, role))));
  const sets = removeSets(options, (name) => own.has(name), failures);
  const { links, dryRun } = options;
  const routes = dryRun ? links.routes.list().map(({ address }) => address) : removeRoutes(links, failures);
  const addresses = routes.map(formatAddress);
  return { virtualServers: [], addresses, ...rules, sets, failures, remarks: grownSets(options.ipset, own) };
}

/** A set that had to grow: kube-proxy's `ipset create -exist` refuses it, and with it its whole sync. */
function grownSets(ipset: IpsetClient | undefined, own: ReadonlySet<string>): string[] {
  const definitions = allIpsetDefinitions();
  return (ipset?.listSets() ?? [])
    .filter(
      ({ name, maxElements }) => definitions.has(name as IpsetName) && !own.has(name) && (maxElements ?? 0) > 65_536,
    )
    .map(
      ({ name, maxElements }) =>
        `${name} has room for ${maxElements} entries, and kube-proxy, which makes sets for 65536, cannot take it over: ` +
        `run cleanup without --own-only before kube-proxy starts`,
    );
}

async function removeTable(
  { ipvs, links, ipset, nftSets, excludeCIDRs, dryRun }: KernelCleanupOptions,
  failures: string[],
): Promise<Pick<CleanupReport, 'virtualServers' | 'addresses'>> {
  const dummy = links.findLink(DUMMY_LINK);
  const { bound, stale, local } = await readAddresses({ links, vips: 'addresses' }, dummy?.index);
  const traces = ownershipTraces({ bound, stale, local, sets: await presentSets(ipset, nftSets) });
  const left = ipvs === undefined ? [] : serversLeft(ipvs, traces);
  const ours = left.filter((key) => !isExcluded(key, excludeCIDRs));
  if (!dryRun) {
    // Packets stop arriving before nobody answers them: first the link with its addresses, then the virtual servers.
    links.deleteLink(DUMMY_LINK);
    removeRoutes(links, failures);
    if (ipvs !== undefined) deleteServers(ipvs, ours, failures);
  }
  return {
    virtualServers: ours.map(formatVirtualServer),
    addresses: [...new Set([...bound.others, ...stale])].map(formatAddress),
  };
}

/** Returns the addresses of those that were there. */
function removeRoutes(links: LinkClient, failures: string[]): Address[] {
  const { routes } = links;
  const found = routes.list();
  const flush = (): void => {
    for (const { error } of routes.flush()) failures.push(error.message);
  };
  for (const { index, address } of found) if (routes.delete(index, address)) flush();
  flush();
  return found.map(({ address }) => address);
}

type SetsByName = Awaited<ReturnType<typeof readPresentSets>>;

/** Of both, where there are both. */
async function presentSets(ipset: IpsetClient | undefined, nftSets: SetBackend | undefined): Promise<SetsByName> {
  const [first, second] = [
    ipset === undefined ? new Map<never, never>() : await readPresentSets(new IpsetBackend(ipset)),
    nftSets === undefined ? new Map<never, never>() : await readPresentSets(nftSets),
  ];
  return joinSets(first, second);
}

/** Which endpoints there are, the real servers of those that are ours beyond doubt say. */
function serversLeft(ipvs: IpvsClient, traces: OwnershipTraces): VirtualServerKey[] {
  const keys = ipvs.listVirtualServers().servers.map(({ key }) => key);
  const certain = keys.filter((key) => leftByServiceProxy(key, traces, () => false));
  const realsOf = (key: VirtualServerKey): RealServerKey[] => ipvs.listRealServers(key).map((real) => real.key);
  let endpoints: ReadonlySet<RealServerKey> | undefined;
  const servesEndpoints = (key: VirtualServerKey): boolean => {
    endpoints ??= new Set(certain.flatMap(realsOf));
    const reals = realsOf(key);
    return reals.length > 0 && reals.every((real) => endpoints!.has(real));
  };
  return keys.filter((key) => leftByServiceProxy(key, traces, () => servesEndpoints(key)));
}

function deleteServers(ipvs: IpvsClient, servers: readonly VirtualServerKey[], failures: string[]): void {
  const flush = (): void => {
    for (const { error } of ipvs.flush()) failures.push(error.message);
  };
  for (const server of servers) if (ipvs.deleteVirtualServer(server)) flush();
  flush();
}

/**
 * Removes the chains and then the sets of iptables and ipset, ours and kube-proxy's: what is left when the rules have
 * moved to nf_tables. Chains that rules of others lead to stay, as in `cleanup`.
 */
export async function cleanupIptables(
  options: Pick<KernelCleanupOptions, 'iptables' | 'ipset'>,
): Promise<Pick<CleanupReport, 'chains' | 'kept' | 'sets' | 'failures'>> {
  const failures: string[] = [];
  const rules = await removeRules({ ...options, dryRun: false }, isProxyChain, failures);
  const ours = allIpsetDefinitions();
  const isOurs = (name: string): boolean => ours.has(name as IpsetName) || isTemporarySet(name);
  const sets = removeSets({ ...options, dryRun: false }, isOurs, failures);
  return { ...rules, sets, failures };
}

async function removeRules(
  { iptables, dryRun }: Pick<KernelCleanupOptions, 'iptables' | 'dryRun'>,
  isOurs: (chain: ChainName) => boolean,
  failures: string[],
): Promise<Pick<CleanupReport, 'chains' | 'kept'>> {
  const removed: string[] = [];
  const kept: string[] = [];
  for (const [tool, family] of iptables.flatMap((one) => FAMILIES.map((family) => [one, family] as const))) {
    try {
      const saved = parseSavedRules(await tool.save(family));
      const { text, busy } = removeChains(saved, family, isOurs);
      if (text !== '' && !dryRun) await tool.restore(family, text, { deadline: 60_000 });
      const users = new Map(busy.map(({ table, chain, usedBy }) => [`${table} ${chain}`, usedBy]));
      for (const [table, chains] of saved)
        for (const chain of chains.keys()) {
          if (!isOurs({ table, chain })) continue;
          const name = `IPv${family} ${table} ${chain} (${tool.tools.backend})`;
          const usedBy = users.get(`${table} ${chain}`);
          if (usedBy === undefined) removed.push(name);
          else kept.push(`${name}, used by ${usedBy.join(', ')}`);
        }
    } catch (error) {
      failures.push(`IPv${family} rules: ${errorMessage(error)}`);
    }
  }
  return { chains: removed, kept };
}

function removeSets(
  { ipset, dryRun }: Pick<KernelCleanupOptions, 'ipset' | 'dryRun'>,
  isOurs: (name: string) => boolean,
  failures: string[],
): string[] {
  const present = (ipset?.listSets() ?? []).map(({ name }) => name).filter(isOurs);
  if (dryRun) return present;
  return present.filter((name) => {
    try {
      return ipset!.destroySet(name);
    } catch (error) {
      if (!(error instanceof IpsetError)) throw error;
      failures.push(error.message);
      return false;
    }
  });
}
