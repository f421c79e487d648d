import { readFileSync } from 'node:fs';
import { type Logger } from 'pino';
import { type RunCommand } from '../../kernel/command.js';
import { IpsetBackend } from '../../kernel/ipset/backend.js';
import { IpsetClient } from '../../kernel/ipset/client.js';
import { allBackends } from '../../kernel/iptables/all-backends.js';
import { NftClient } from '../../kernel/nftables/client.js';
import { NftSets } from '../../kernel/nftables/sets.js';
import { chainNames, deleteTables, familiesWithTable } from '../../kernel/nftables/tables.js';
import { isModulePresent } from '../../kernel/node/modules.js';
import { type SetBackend } from '../../kernel/set-backend.js';
import { allIpsetDefinitions } from '../../desired/ipset-definitions.js';
import { type OpenNetlinkSocket } from '../../netlink/socket.js';
import { cleanupIptables, isProxyChain } from '../../reconcile/cleanup.js';
import { FAMILIES } from '../../values/address.js';
import { errorMessage } from '../../values/errors.js';
import { NFTABLES_TABLE } from '../../values/nftables.js';

/**
 * What is left of the backend of rules that is not in use: it serves until the other one is complete, and then goes.
 */
export interface Handover {
  /** Its sets, which say whose a virtual server is; undefined when it has none. */
  readonly sets: SetBackend | undefined;
  /** Removes what it has in the kernel; failures are logged. Never rejects. */
  finish(): Promise<void>;
  close(): void;
}

export interface HandoverOptions {
  readonly open: OpenNetlinkSocket;
  readonly run: RunCommand;
  readonly log: Logger;
  /** Whether the kernel has a module; this machine's otherwise. */
  readonly isPresent?: (module: string) => boolean;
  /** The directory of ip_tables_names and ip6_tables_names. */
  readonly procNet?: string;
}

/** Undefined where there is nothing to be taken over. Throws NetlinkError or IpsetError. */
export function handoverTo(rules: 'iptables' | 'nftables', options: HandoverOptions): Handover | undefined {
  return rules === 'iptables' ? fromNftables(options) : fromIptables(options);
}

/**
 * Its sets are there, or chains of ours or kube-proxy's (of its iptables mode too). No program is started to find out.
 */
function fromIptables(options: HandoverOptions): Handover | undefined {
  const { open, run, log, isPresent = isModulePresent(), procNet = '/proc/net' } = options;
  const ipset = isPresent('ip_set') ? openIpset(open) : undefined;
  const all = ipset && new IpsetBackend(ipset);
  const sets = all !== undefined && all.present(allIpsetDefinitions().values()).size > 0 ? all : undefined;
  if (sets === undefined && !mayHaveChains(open, isPresent, procNet)) {
    ipset?.close();
    return undefined;
  }
  return {
    sets,
    close: () => ipset?.close(),
    finish: async () => {
      try {
        const report = await cleanupIptables({ ipset, iptables: await allBackends(run, isPresent) });
        const { chains, sets: removed, kept, failures } = report;
        if (chains.length + removed.length > 0)
          log.info(
            { chains: chains.length, sets: removed.length },
            'rules are in nf_tables: removed those of iptables',
          );
        for (const chain of kept) log.warn(`kept because a rule of somebody else leads to it: ${chain}`);
        for (const failure of failures) log.warn(`not removed: ${failure}`);
      } catch (error) {
        log.warn({ error: errorMessage(error) }, 'the rules of iptables could not be removed');
      }
    },
  };
}

/** Of iptables-nft, a dump tells; where iptables-legacy have a nat table, only iptables-save would. */
function mayHaveChains(open: OpenNetlinkSocket, isPresent: (module: string) => boolean, procNet: string): boolean {
  const hasLegacy = ['ip', 'ip6'].some((family) => {
    try {
      return readFileSync(`${procNet}/${family}_tables_names`, 'latin1').includes('nat');
    } catch {
      return false; // not loaded
    }
  });
  return (
    hasLegacy || (isPresent('nf_tables') && FAMILIES.some((family) => chainNames(open, family).some(isProxyChain)))
  );
}

/** A kernel without module files may have it or not: only using it tells. */
function openIpset(open: OpenNetlinkSocket): IpsetClient | undefined {
  try {
    return new IpsetClient(open);
  } catch {
    return undefined;
  }
}

function fromNftables({ open, log, isPresent = isModulePresent() }: HandoverOptions): Handover | undefined {
  if (!isPresent('nf_tables') || familiesWithTable(open, NFTABLES_TABLE).length === 0) return undefined;
  const client = new NftClient(open, NFTABLES_TABLE);
  return {
    sets: new NftSets(client),
    close: () => client.close(),
    finish: () => {
      try {
        const families = deleteTables(open, NFTABLES_TABLE);
        log.info({ families }, 'rules are in iptables: removed our tables of nf_tables');
      } catch (error) {
        log.warn({ error: errorMessage(error) }, 'our tables of nf_tables could not be removed');
      }
      return Promise.resolve();
    },
  };
}
