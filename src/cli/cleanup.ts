import { CommandRunner, type RunCommand } from '../kernel/command.js';
import { Iptables } from '../kernel/iptables/iptables.js';
import { IptablesMissingError, detectIptables } from '../kernel/iptables/detect.js';
import { IpsetClient } from '../kernel/ipset/client.js';
import { IpvsClient } from '../kernel/ipvs/client.js';
import { deleteKubeProxyTables, kubeProxyTables } from '../kernel/nftables/tables.js';
import { isModulePresent } from '../kernel/node/modules.js';
import { LinkClient } from '../kernel/rtnetlink/client.js';
import { type CleanupReport, cleanup, cleanupOwn } from '../reconcile/cleanup.js';
import { FAMILIES } from '../values/address.js';
import { errorMessage } from '../values/errors.js';
import { type Environment } from '../daemon/environment.js';
import { loadDaemonConfig } from '../daemon/daemon-options.js';
import { InstanceLock } from '../daemon/instance-lock.js';
import { type CleanupOptions } from './options.js';
import { requireCapabilities } from '../daemon/preflight-checks.js';

/**
 * Removes what this program or kube-proxy made, or (`ownOnly`) what kube-proxy's IPVS mode would leave behind; 1 when
 * something could not be removed, or when a daemon runs, which would put it back. No module is loaded for it: what the
 * kernel does not have holds nothing of ours.
 */
export async function runCleanup(options: CleanupOptions, environment: Environment): Promise<number> {
  const { config } = await loadDaemonConfig(options);
  requireCapabilities();
  const lock = options.dryRun
    ? undefined
    : await InstanceLock.tryAcquire({ peerCredentials: environment.peerCredentials });
  if (!options.dryRun && lock === undefined && !options.force) {
    environment.err(
      'the daemon runs on this node and would put it all back: stop it first, or say --force. Nothing was removed\n',
    );
    return 1;
  }
  const { run } = new CommandRunner();
  const { openNetlinkSocket: open } = environment;
  const isPresent = isModulePresent();
  const ipvs = isPresent('ip_vs') ? new IpvsClient(open) : undefined;
  const ipset = isPresent('ip_set') ? new IpsetClient(open) : undefined;
  const links = new LinkClient(open);
  try {
    const excludeCIDRs = FAMILIES.flatMap((family) => config.excludeCIDRs[family]);
    const { dryRun } = options;
    const parts = { ipvs, ipset, links, iptables: await allBackends(run, isPresent), excludeCIDRs, dryRun };
    const report = options.ownOnly ? await cleanupOwn(parts) : await cleanup(parts);
    const nftables = options.ownOnly || !isPresent('nf_tables') ? NO_TABLES : removeNftables(environment, dryRun);
    return print(
      { ...report, ...nftables, failures: [...report.failures, ...nftables.failures] },
      options,
      environment,
    );
  } finally {
    for (const client of [ipvs, ipset, links]) client?.close();
    lock?.release();
  }
}

type Nftables = Pick<CleanupReport, 'failures'> & { readonly nftables: readonly string[] };
const NO_TABLES: Nftables = { nftables: [], failures: [] };

function removeNftables({ openNetlinkSocket: open }: Environment, dryRun: boolean): Nftables {
  try {
    const families = dryRun ? kubeProxyTables(open) : deleteKubeProxyTables(open);
    return { nftables: families.map((family) => `kube-proxy (IPv${family})`), failures: [] };
  } catch (error) {
    return { nftables: [], failures: [errorMessage(error)] };
  }
}

function print(report: CleanupReport & Nftables, options: CleanupOptions, { out, err }: Environment): number {
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

/** Whichever backend the rules were written with, before an upgrade of the image perhaps. */
async function allBackends(run: RunCommand, isPresent: (module: string) => boolean): Promise<Iptables[]> {
  const found: Iptables[] = [];
  for (const backend of ['legacy', 'nft'] as const) {
    if (backend === 'nft' && !isPresent('nf_tables')) continue;
    try {
      found.push(new Iptables(await detectIptables(run, { backend, isPresent }), run));
    } catch (error) {
      if (!(error instanceof IptablesMissingError)) throw error;
    }
  }
  return found;
}
