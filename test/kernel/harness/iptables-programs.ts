/**
 * The iptables programs that work in the kernel at hand. A kernel may have nf_tables only (new distributions), the
 * legacy tables only (user-mode-linux) or both; where nf_tables is there, its programs are what a node would use.
 */
import { spawnSync } from 'node:child_process';
import { isNftables } from './rules-under-test.js';

export type Backend = 'legacy' | 'nft';

/** Without a suffix: `-save` and `-restore` go behind. `shell` hands both on to scripts. */
export interface Programs {
  readonly IPTABLES: string;
  readonly IP6TABLES: string;
}

let known: Backend | undefined;

/**
 * Found out once per process, by a chain made in a network namespace that is gone at once: listing alone succeeds as
 * well
 * where nf_tables is there without its IPv4 half, as in user-mode-linux.
 */
export function iptablesBackend(): Backend {
  known ??= spawnSync('unshare', ['-n', 'iptables-nft', '-w', '-N', 'PROBE']).status === 0 ? 'nft' : 'legacy';
  return known;
}

export function iptablesPrograms(): Programs {
  const backend = iptablesBackend();
  return { IPTABLES: `iptables-${backend}`, IP6TABLES: `ip6tables-${backend}` };
}

/** Why a test of the xtables lock cannot run here; undefined where it can. The nft programs take no lock, nor do we. */
export function withoutXtablesLock(): string | undefined {
  if (isNftables()) return 'SKIPPED: about iptables, rules in nf_tables have no lock';
  return iptablesBackend() === 'legacy' ? undefined : 'SKIPPED: about iptables-legacy, iptables-nft has no lock';
}
