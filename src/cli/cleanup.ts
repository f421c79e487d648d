import { CommandRunner } from '../kernel/command.js';
import { allBackends } from '../kernel/iptables/all-backends.js';
import { IpsetClient } from '../kernel/ipset/client.js';
import { IpvsClient } from '../kernel/ipvs/client.js';
import { NftClient } from '../kernel/nftables/client.js';
import { NftSets } from '../kernel/nftables/sets.js';
import { KUBE_PROXY_TABLE, deleteTables, familiesWithTable } from '../kernel/nftables/tables.js';
import { isModulePresent } from '../kernel/node/modules.js';
import { LinkClient } from '../kernel/rtnetlink/client.js';
import { cleanup, cleanupOwn } from '../reconcile/cleanup.js';
import { FAMILIES } from '../values/address.js';
import { errorMessage } from '../values/errors.js';
import { NFTABLES_TABLE } from '../values/nftables.js';
import { type Environment } from '../daemon/environment.js';
import { loadDaemonConfig } from '../daemon/daemon-options.js';
import { InstanceLock } from '../daemon/instance-lock.js';
import { type FullCleanupReport, showCleanup } from './cleanup-text.js';
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
  const nftables = isPresent('nf_tables') ? new NftClient(open, NFTABLES_TABLE) : undefined;
  const nftSets = nftables && new NftSets(nftables);
  const links = new LinkClient(open);
  try {
    const excludeCIDRs = FAMILIES.flatMap((family) => config.excludeCIDRs[family]);
    const { dryRun } = options;
    const iptables = await allBackends(run, isPresent);
    const all = { ipvs, ipset, nftSets, links, iptables, excludeCIDRs, dryRun };
    const report = options.ownOnly ? await cleanupOwn(all) : await cleanup(all);
    const names = options.ownOnly ? [NFTABLES_TABLE] : [NFTABLES_TABLE, KUBE_PROXY_TABLE];
    const tables = isPresent('nf_tables') ? removeNftables(names, environment, dryRun) : NO_TABLES;
    return showCleanup(
      { ...report, ...tables, failures: [...report.failures, ...tables.failures] },
      options,
      environment,
    );
  } finally {
    for (const client of [ipvs, ipset, nftables, links]) client?.close();
    lock?.release();
  }
}

type Nftables = Pick<FullCleanupReport, 'failures' | 'nftables'>;
const NO_TABLES: Nftables = { nftables: [], failures: [] };

function removeNftables(names: readonly string[], { openNetlinkSocket: open }: Environment, dryRun: boolean): Nftables {
  const nftables: string[] = [];
  const failures: string[] = [];
  for (const name of names)
    try {
      const families = dryRun ? familiesWithTable(open, name) : deleteTables(open, name);
      nftables.push(...families.map((family) => `${name} (IPv${family})`));
    } catch (error) {
      failures.push(errorMessage(error));
    }
  return { nftables, failures };
}
