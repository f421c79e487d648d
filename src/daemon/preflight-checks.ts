import { existsSync, readFileSync } from 'node:fs';
import { type Family } from '../values/address.js';
import { type RunCommand } from '../kernel/command.js';
import { type ModuleStatus, REQUIRED_MODULES, probeModules, schedulerModule } from '../kernel/node/modules.js';

/** A condition without which the dataPlane cannot work: one line that names the thing and the fix. */
export class PreflightError extends Error {
  override readonly name = 'PreflightError';
}

/** Loads what modprobe can load and reports the state of every module the configuration needs. */
export function probeRequiredModules(run: RunCommand, scheduler: string): Promise<ModuleStatus[]> {
  return probeModules([...REQUIRED_MODULES, schedulerModule(scheduler)], { run });
}

/** The families that this kernel serves; IPv6 may be compiled out or switched off (ipv6.disable=1). */
export function servedFamilies(): readonly Family[] {
  return existsSync('/proc/net/if_inet6') && existsSync('/proc/sys/net/ipv6') ? [4, 6] : [4];
}

/** CAP_NET_ADMIN of include/uapi/linux/capability.h. */
const NET_ADMIN_BIT = 12n;

/** Throws PreflightError when the process may not change the network. */
export function requireNetAdmin(statusPath = '/proc/self/status'): void {
  const [, effective] = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync(statusPath, 'latin1')) ?? [];
  if (effective === undefined || (BigInt(`0x${effective}`) >> NET_ADMIN_BIT) & 1n) return;
  throw new PreflightError(
    'no permission to change the network: CAP_NET_ADMIN is missing (run as root, or add NET_ADMIN to the container)',
  );
}
