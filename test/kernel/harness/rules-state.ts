/**
 * Rules and sets wherever the daemon under test keeps them (`rulesUnderTest`), and everybody else's: what a test looks
 * at that is the same for both backends.
 */
import { ipsets, iptablesRules } from './kernel-state.js';
import { nftRules, nftSets } from './nftables-state.js';
import { isNftables } from './rules-under-test.js';
import { waitUntil } from './wait.js';

/** ipsets, and our sets in nf_tables as `ipset save` would write them. */
export async function allSets(): Promise<{ create: string[]; add: string[] }> {
  const saved = await ipsets();
  if (!isNftables()) return saved;
  const own = await nftSets();
  return { create: [...saved.create, ...own.create].sort(), add: [...saved.add, ...own.add].sort() };
}

/** The daemon's own sets alone, where it keeps them: ipsets, ours or not, or those of our tables. */
export async function ownSets(): Promise<{ create: string[]; add: string[] }> {
  return isNftables() ? nftSets() : ipsets();
}

/** What iptables-save prints, and our chains and rules in nf_tables. */
export async function allRules(family: 4 | 6): Promise<string[]> {
  const saved = await iptablesRules(family);
  return isNftables() ? [...saved, ...(await nftRules(family))] : saved;
}

/** Waits for the daemon's own rules, which are written beside the first sync, IPv6 after IPv4. */
export async function waitForOwnRules(isInNftables = isNftables()): Promise<void> {
  const chains = isInNftables
    ? ['filter-KUBE-PROXY-FIREWALL', 'nat-KUBE-POSTROUTING', 'mangle-KUBE-IPVS-OUT-FILTER']
    : ['KUBE-FORWARD', 'KUBE-POSTROUTING', 'KUBE-IPVS-OUT-FILTER'];
  await waitUntil('the rules', async () => {
    const rules = isInNftables ? await nftRules(6) : await iptablesRules(6);
    return chains.every((chain) => rules.some((line) => line.startsWith(`-A ${chain} `)));
  });
}
