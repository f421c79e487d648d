import { CommandRunner, type RunCommand } from '../kernel/command.js';
import { Iptables } from '../kernel/iptables/iptables.js';
import { IptablesMissingError, detectIptables } from '../kernel/iptables/detect.js';
import { cleanup, cleanupOwn } from '../reconcile/cleanup.js';
import { closeKernelClients, openKernelClients } from '../kernel/clients.js';
import { type Environment } from '../daemon/environment.js';
import { loadDaemonConfig } from '../daemon/daemon-options.js';
import { type CleanupOptions } from './options.js';
import { requireNetAdmin, servedFamilies } from '../daemon/preflight-checks.js';

/**
 * Removes what this program or kube-proxy's IPVS mode made, or (`ownOnly`) what kube-proxy would leave behind; 1 when
 * something could not be removed.
 */
export async function runCleanup(options: CleanupOptions, environment: Environment): Promise<number> {
  const { config } = await loadDaemonConfig(options);
  requireNetAdmin();
  const { run } = new CommandRunner();
  const clients = openKernelClients(environment.openNetlinkSocket);
  try {
    const families = servedFamilies();
    const iptables = await allBackends(run);
    const excludeCIDRs = families.flatMap((family) => config.excludeCIDRs[family]);
    const parts = { ...clients, iptables, families, excludeCIDRs };
    const { virtualServers, addresses, sets, chains, kept, failures } = options.ownOnly
      ? { virtualServers: 0, addresses: 0, ...(await cleanupOwn(parts)) }
      : await cleanup(parts);
    const rules = chains ? 'rules removed' : 'no rules';
    environment.out(`removed ${virtualServers} virtual servers, ${addresses} addresses, ${sets} sets, ${rules}\n`);
    for (const chain of kept) environment.out(`kept because a rule of somebody else leads to it: ${chain}\n`);
    for (const failure of failures) environment.err(`not removed: ${failure}\n`);
    return failures.length === 0 ? 0 : 1;
  } finally {
    closeKernelClients(clients);
  }
}

/** Whichever backend the rules were written with, before an upgrade of the image perhaps. */
async function allBackends(run: RunCommand): Promise<Iptables[]> {
  const found: Iptables[] = [];
  for (const backend of ['legacy', 'nft'] as const) {
    try {
      found.push(new Iptables(await detectIptables(run, { backend }), run));
    } catch (error) {
      if (!(error instanceof IptablesMissingError)) throw error;
    }
  }
  return found;
}
