/** What `cleanup` prints. */
import { type Environment } from '../daemon/environment.js';
import { type CleanupReport } from '../reconcile/cleanup.js';
import { type CleanupOptions } from './options.js';

/** With the tables of nf_tables, by name and family. */
export interface FullCleanupReport extends CleanupReport {
  readonly nftables: readonly string[];
}

/** Says what was removed, or would be; 1 when something could not be. */
export function showCleanup(
  report: FullCleanupReport,
  options: Pick<CleanupOptions, 'dryRun' | 'json'>,
  { out, err }: Pick<Environment, 'out' | 'err'>,
): number {
  const { virtualServers, addresses, sets, chains, kept, nftables, failures, remarks } = report;
  if (options.json) out(`${JSON.stringify({ dryRun: options.dryRun, ...report })}\n`);
  else {
    const rules = chains.length > 0 ? `${chains.length} chains` : 'no rules';
    const counts = `${virtualServers.length} virtual servers, ${addresses.length} addresses, ${sets.length} sets, ${rules}`;
    const tables = nftables.length === 0 ? '' : `, ${nftables.length} nftables tables`;
    out(`${options.dryRun ? 'would remove' : 'removed'} ${counts}${tables}\n`);
    const names = { 'virtual server': virtualServers, address: addresses, set: sets, chain: chains, table: nftables };
    if (options.dryRun)
      for (const [what, list] of Object.entries(names)) for (const name of list) out(`  ${what} ${name}\n`);
    for (const chain of kept) out(`kept because a rule of somebody else leads to it: ${chain}\n`);
    for (const failure of failures) err(`not removed: ${failure}\n`);
    for (const remark of remarks) err(`${remark}\n`);
  }
  return failures.length === 0 ? 0 : 1;
}
