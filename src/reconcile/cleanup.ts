/**
 * Removes everything that this program or kube-proxy's IPVS mode made, and nothing else. Can be run twice, and after a run
 * that broke off: each part is found by its own traces, and the traces that tell whose a virtual server is go last.
 */
import { errorMessage } from '../values/errors.js';
import { type Prefix } from '../values/prefix.js';
import { type RealServerKey, type VirtualServerKey } from '../values/virtual-server.js';
import { OWN_SET_ROLES, type SetName, allSetDefinitions, setName } from '../desired/set-definitions.js';
import { type Iptables } from '../kernel/iptables/iptables.js';
import { type IpsetClient, isTemporarySet } from '../kernel/ipset/client.js';
import { IpsetError } from '../kernel/ipset/error.js';
import { type IpvsClient } from '../kernel/ipvs/client.js';
import { type LinkClient } from '../kernel/rtnetlink/client.js';
import { type ChainName, KNOWN_RULES, KUBE_PROXY_IPVS_CHAINS } from '../plan/known-rules.js';
import { type OwnershipTraces, isExcluded, leftByServiceProxy } from '../plan/ownership.js';
import { removeChains } from '../plan/rule-diff.js';
import { parseSavedRules } from '../plan/rule-save.js';
import { FAMILIES, type Family } from '../values/address.js';
import { DUMMY_LINK } from './address-applier.js';
import { ownershipTraces, readAddresses } from './observer.js';
import { readSets } from './set-keeper.js';

export interface CleanupParts {
  readonly ipvs: IpvsClient;
  readonly links: LinkClient;
  readonly ipset: IpsetClient;
  /** One for each backend that the node has: rules may be in either. */
  readonly iptables: readonly Iptables[];
  readonly families: readonly Family[];
  readonly excludeCIDRs: readonly Prefix[];
}

export interface CleanupReport {
  readonly virtualServers: number;
  readonly addresses: number;
  readonly chains: boolean;
  readonly sets: number;
  /** Chains that had to stay, emptied, because somebody else's rules lead to them; each with these rules. */
  readonly kept: readonly string[];
  /** What could not be removed, with the reason. */
  readonly failures: readonly string[];
}

/** By table and name. */
const chainId = ({ table, chain }: ChainName): string => `${table} ${chain}`;
const KUBE_PROXY_CHAINS: ReadonlySet<string> = new Set(KUBE_PROXY_IPVS_CHAINS.map(chainId));
const OUR_CHAINS: ReadonlySet<string> = new Set(KNOWN_RULES.chains.map(chainId));

export async function cleanup(parts: CleanupParts): Promise<CleanupReport> {
  const failures: string[] = [];
  const { virtualServers, addresses } = await removeTable(parts, failures);
  const rules = await removeRules(parts, (chain) => OUR_CHAINS.has(chainId(chain)), failures);
  const ours = allSetDefinitions();
  const sets = removeSets(parts.ipset, (name) => ours.has(name as SetName) || isTemporarySet(name), failures);
  return { virtualServers, addresses, ...rules, sets, failures };
}

/**
 * Removes only what kube-proxy's IPVS mode does not know and so would leave behind, for the way back without interruption.
 * To be run once kube-proxy has synced: until then the chains it shares with us refer to our sets, which the kernel then
 * refuses to remove (named among the failures).
 */
export async function cleanupOwn(
  parts: Pick<CleanupParts, 'ipset' | 'iptables' | 'families'>,
): Promise<Omit<CleanupReport, 'virtualServers' | 'addresses'>> {
  const failures: string[] = [];
  const isOwn = (chain: ChainName): boolean => OUR_CHAINS.has(chainId(chain)) && !KUBE_PROXY_CHAINS.has(chainId(chain));
  const rules = await removeRules(parts, isOwn, failures);
  const own = new Set<string>(FAMILIES.flatMap((family) => OWN_SET_ROLES.map((role) => setName(family, role))));
  const sets = removeSets(parts.ipset, (name) => own.has(name), failures);
  return { ...rules, sets, failures };
}

async function removeTable(
  { ipvs, links, ipset, excludeCIDRs }: CleanupParts,
  failures: string[],
): Promise<{ virtualServers: number; addresses: number }> {
  const present = new Set(ipset.listSets().map(({ name }) => name));
  const definitions = new Map([...allSetDefinitions()].filter(([name]) => present.has(name)));
  const dummy = links.findLink(DUMMY_LINK);
  const { bound, local } = await readAddresses(links, dummy?.index);
  const traces = ownershipTraces({ bound, local, sets: await readSets(ipset, definitions) });
  const ours = serversLeft(ipvs, traces).filter((key) => !isExcluded(key, excludeCIDRs));
  // Packets stop arriving before nobody answers them: first the link with its addresses, then the virtual servers.
  links.deleteLink(DUMMY_LINK);
  deleteServers(ipvs, ours, failures);
  return { virtualServers: ours.length, addresses: bound.others.size };
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

async function removeRules(
  { iptables, families }: Pick<CleanupParts, 'iptables' | 'families'>,
  isOurs: (chain: ChainName) => boolean,
  failures: string[],
): Promise<Pick<CleanupReport, 'chains' | 'kept'>> {
  let removed = false;
  const kept: string[] = [];
  for (const [tool, family] of iptables.flatMap((one) => families.map((family) => [one, family] as const))) {
    try {
      const { text, busy } = removeChains(parseSavedRules(await tool.save(family)), family, isOurs);
      if (text !== '') {
        await tool.restore(family, text, { deadline: 60_000 });
        removed = true;
      }
      for (const { table, chain, usedBy } of busy)
        kept.push(`IPv${family} ${table} ${chain}, used by ${usedBy.join(', ')}`);
    } catch (error) {
      failures.push(`IPv${family} rules: ${errorMessage(error)}`);
    }
  }
  return { chains: removed, kept };
}

function removeSets(ipset: IpsetClient, isOurs: (name: string) => boolean, failures: string[]): number {
  let removed = 0;
  const present = ipset.listSets().map(({ name }) => name);
  for (const name of present.filter(isOurs)) {
    try {
      if (ipset.destroySet(name)) removed++;
    } catch (error) {
      if (!(error instanceof IpsetError)) throw error;
      failures.push(error.message);
    }
  }
  return removed;
}
