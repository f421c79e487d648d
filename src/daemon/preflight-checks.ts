import { existsSync, readFileSync } from 'node:fs';
import { FAMILIES, type Family } from '../values/address.js';
import { type Rules } from '../config/proxy-config.js';
import { type RunCommand } from '../kernel/command.js';
import { type DetectedIptables } from '../kernel/iptables/detect.js';
import {
  type ModuleStatus,
  IPTABLES_MODULES,
  NFTABLES_MODULES,
  REQUIRED_MODULES,
  probeModules,
  schedulerModule,
} from '../kernel/node/modules.js';
import { VIP_LINKS, type VipForm } from '../values/vip-form.js';

/** A condition without which the data plane cannot work: one line that names the thing and the fix. */
export class PreflightError extends Error {
  override readonly name = 'PreflightError';
}

/** The modules that a configuration needs. */
export function requiredModules(scheduler: string, rules: Rules = 'auto'): string[] {
  const ofRules = rules === 'nftables' ? NFTABLES_MODULES : IPTABLES_MODULES;
  return [...REQUIRED_MODULES, ...ofRules, schedulerModule(scheduler)];
}

/** Loads what modprobe can load and reports the state of every module the configuration needs. */
export function probeRequiredModules(run: RunCommand, scheduler: string, rules?: Rules): Promise<ModuleStatus[]> {
  return probeModules(requiredModules(scheduler, rules), { run });
}

/** Modules that are missing, in one short line: what to do once, not the same hint for each. */
export function missingModules(statuses: readonly ModuleStatus[]): string | undefined {
  const missing = statuses.filter(({ state }) => state === 'missing');
  if (missing.length === 0) return undefined;
  const [{ name, fix = '' }] = missing as [ModuleStatus];
  const reason = fix.replaceAll(` ${name}`, '').replace(/^run "modprobe" on the node(: )?/, '');
  const names = missing.map((one) => one.name).join(' ');
  return `run "modprobe -a ${names}" on the node${reason === '' ? '' : ` (${reason})`}`;
}

/**
 * What iptables of a family need of the kernel and it has not loaded yet; empty when they can be used without loading.
 */
export function unloadedIptables(
  backend: DetectedIptables['backend'],
  isPresent: (module: string) => boolean,
): Partial<Record<Family, string>> {
  const modules = backend === 'nft' ? { 4: 'nf_tables', 6: 'nf_tables' } : { 4: 'ip_tables', 6: 'ip6_tables' };
  const unloaded: Partial<Record<Family, string>> = {};
  for (const family of FAMILIES) if (!isPresent(modules[family])) unloaded[family] = modules[family];
  return unloaded;
}

export interface FamilySupport {
  readonly families: readonly Family[];
  /** Families that this node cannot serve: one line each, with the reason. */
  readonly leftOut: readonly string[];
}

/**
 * The families that this node serves, as kube-proxy decides it: those whose rules the kernel takes, and IPv6 only where
 * the kernel has it and lets kube-ipvs0 have addresses of it, or lo routes where VIPs are that. Throws PreflightError
 * when none is left.
 */
export function familySupport(
  { families: usable, failures }: Pick<DetectedIptables, 'families' | 'failures'>,
  procRoot = '/proc',
  vips: VipForm = 'addresses',
  rules: 'iptables' | 'nf_tables' = 'iptables',
): FamilySupport {
  const whyNot = (family: Family): string | undefined => {
    if (!usable.includes(family)) return `its ${rules} do not work: ${failures[family] ?? 'not found'}`;
    return family === 6 ? ipv6Refusal(procRoot, VIP_LINKS[vips]) : undefined;
  };
  const leftOut: string[] = [];
  const families = FAMILIES.filter((family) => {
    const reason = whyNot(family);
    if (reason !== undefined) leftOut.push(`IPv${family} is not served on this node: ${reason}`);
    return reason === undefined;
  });
  if (families.length === 0) throw new PreflightError(`no IP family can be served: ${leftOut.join('; ')}`);
  return { families, leftOut };
}

/** Compiled out, switched off at boot (ipv6.disable=1), or by sysctl: binding an address would be EACCES for ever. */
function ipv6Refusal(procRoot: string, wanted: string): string | undefined {
  const settings = `${procRoot}/sys/net/ipv6/conf`;
  if (!existsSync(`${procRoot}/net/if_inet6`) || !existsSync(settings)) return 'the kernel has no IPv6';
  const link = existsSync(`${settings}/${wanted}`) ? wanted : 'default'; // what a new link begins with
  for (const name of ['all', link])
    if (isOne(`${settings}/${name}/disable_ipv6`)) return `net.ipv6.conf.${name}.disable_ipv6 is 1`;
  return undefined;
}

function isOne(path: string): boolean {
  try {
    return readFileSync(path, 'latin1').trim() === '1';
  } catch {
    return false; // no such link
  }
}

/** Bits of include/uapi/linux/capability.h, and what needs them. */
const CAPABILITIES = [
  { name: 'NET_ADMIN', bit: 12n, needed: 'to change the network' },
  { name: 'NET_RAW', bit: 13n, needed: 'for iptables' },
] as const;

/** Throws PreflightError when the process lacks a capability that all of this needs. */
export function requireCapabilities(statusPath = '/proc/self/status'): void {
  const [, text] = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync(statusPath, 'latin1')) ?? [];
  if (text === undefined) return;
  const effective = BigInt(`0x${text}`);
  const missing = CAPABILITIES.filter(({ bit }) => ((effective >> bit) & 1n) === 0n);
  if (missing.length === 0) return;
  const purposes = missing.map(({ name, needed }) => `CAP_${name} is missing (${needed})`).join(', ');
  const names = missing.map(({ name }) => name).join(' and ');
  throw new PreflightError(`no permission: ${purposes}: run as root, or add ${names} to the container`);
}
