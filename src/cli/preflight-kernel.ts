/** What `preflight` says of the kernel: modules, rules, IPVS. */
import { type ProxyConfig } from '../config/proxy-config.js';
import { type RunCommand } from '../kernel/command.js';
import { type DetectedIptables, detectIptables } from '../kernel/iptables/detect.js';
import { hasScheduler } from '../kernel/ipvs/probe-scheduler.js';
import {
  IPTABLES_MODULES,
  type ModulePaths,
  type ModuleStatus,
  RULE_MODULES,
  findModules,
  isModulePresent,
  loadModules,
  probeModules,
  schedulerModule,
} from '../kernel/node/modules.js';
import { closeKernelClients, openKernelClients } from '../kernel/clients.js';
import { NFTABLES_TABLE } from '../values/nftables.js';
import { type Environment } from '../daemon/environment.js';
import { familySupport, requiredModules, unloadedIptables } from '../daemon/preflight-checks.js';
import { type RulesChoice, chooseRules } from '../daemon/rules/choose-rules.js';
import { type Check, attempt } from './preflight-check.js';

export interface KernelCheckOptions
  extends Pick<ProxyConfig, 'scheduler' | 'rules'>, Pick<Environment, 'openNetlinkSocket'> {
  readonly run: RunCommand;
  /** Where it is looked for modules; this machine's places otherwise. */
  readonly paths?: ModulePaths;
}

/** Loads and uses everything once. */
export async function tryKernelOut(options: KernelCheckOptions): Promise<Check[]> {
  const { run, scheduler, rules, openNetlinkSocket, paths = {} } = options;
  const isPresent = isModulePresent(paths);
  const modules = await probeModules(requiredModules(scheduler, rules), { run, ...paths });
  if (rules !== 'nftables') await loadModules(RULE_MODULES, { run, ...paths });
  let isNftables = rules === 'nftables';
  const chosen = await attempt('rules', async () => {
    const choice = await chooseRules({ rules, run, modules, openNetlinkSocket, isPresent });
    isNftables = choice.iptables === undefined;
    return describeChoice(choice);
  });
  const netlink = await attempt('netlink', async () => {
    const clients = openKernelClients(openNetlinkSocket, isNftables ? NFTABLES_TABLE : undefined);
    try {
      if (!hasScheduler(clients.ipvs, scheduler))
        throw new Error(`the kernel has no IPVS scheduler "${scheduler}": modprobe ${schedulerModule(scheduler)}`);
      return `IPVS ${clients.ipvs.getInfo().version}, scheduler ${scheduler}`;
    } finally {
      closeKernelClients(clients);
    }
  });
  // A kernel without module files may still have everything. Each part was used just now, and that is worth more.
  const works = [...chosen, ...netlink].every(({ state }) => state === 'ok');
  const needed = new Set(requiredModules(scheduler, isNftables ? 'nftables' : 'iptables'));
  const statuses = modules.filter(({ name }) => needed.has(name));
  return [...statuses.map((status) => moduleCheck(status, works)), ...chosen, ...netlink];
}

function moduleCheck({ name, state, fix }: ModuleStatus, works: boolean): Check {
  if (state === 'missing' && works)
    return { name: `module ${name}`, state: 'ok', detail: 'no such module, but what it is for works' };
  return { name: `module ${name}`, state: state === 'missing' ? 'failed' : 'ok', detail: fix ?? state };
}

/** Looks without touching: what is not loaded is not tried. */
export async function lookAtKernel(options: KernelCheckOptions): Promise<Check[]> {
  const { run, scheduler, rules, openNetlinkSocket, paths } = options;
  const isPresent = isModulePresent(paths);
  const lost =
    rules === 'auto' ? findModules(IPTABLES_MODULES, paths).find((one) => isLost(one, isPresent)) : undefined;
  const isNftables = rules === 'nftables' || lost !== undefined;
  const names = requiredModules(scheduler, isNftables ? 'nftables' : 'iptables');
  const checks = findModules(names, paths).map((status): Check => {
    const { name, state, fix } = status;
    const label = `module ${name}`;
    if (state === 'loadable') return { name: label, state: 'todo', detail: 'not loaded; preflight --fix loads it' };
    if (state !== 'missing') return { name: label, state: 'ok', detail: state };
    if (isLost(status, isPresent)) return { name: label, state: 'failed', detail: fix ?? state };
    return { name: label, state: 'ok', detail: `cannot be told (${fix}), taken as built in` };
  });
  if (isNftables) {
    const reason = lost === undefined ? 'configured' : `kube-proxy's IPVS mode could not run here: no ${lost.name}`;
    checks.push({ name: 'rules', state: 'ok', detail: `nftables: ${reason} (not tried)` });
  } else checks.push(...(await lookAtIptables(run, isPresent)));
  const absent = names.filter((name) => !isPresent(name));
  if (absent.length > 0)
    return [...checks, { name: 'netlink', state: 'todo', detail: `not tried: that would load ${absent.join(', ')}` }];
  const netlink = await attempt('netlink', async () => {
    const clients = openKernelClients(openNetlinkSocket, isNftables ? NFTABLES_TABLE : undefined);
    const { version } = clients.ipvs.getInfo();
    closeKernelClients(clients);
    return `IPVS ${version}`;
  });
  return [...checks, ...netlink];
}

function isLost({ name, state }: ModuleStatus, isPresent: (name: string) => boolean): boolean {
  return state === 'missing' && !isPresent(name);
}

async function lookAtIptables(run: RunCommand, isPresent: (module: string) => boolean): Promise<Check[]> {
  let unloaded: string[] = [];
  const checks = await attempt('rules', async () => {
    const detected = await detectIptables(run, { isPresent });
    unloaded = [...new Set(Object.values(unloadedIptables(detected.backend, isPresent)))];
    return `${describeIptables(detected)} (not tried)`;
  });
  if (unloaded.length === 0) return checks;
  const hint = `; ${unloaded.join(', ')} not loaded: preflight --fix loads and tries it`;
  return checks.map((check) => ({ ...check, state: 'todo', detail: check.detail + hint }));
}

function describeIptables(detected: DetectedIptables): string {
  const { backend, version, reason } = detected;
  const { leftOut } = familySupport(detected);
  return [`iptables: ${backend} ${version}: ${reason}`, ...leftOut].join('; ');
}

function describeChoice(choice: RulesChoice): string {
  const { iptables, reason } = choice;
  if (iptables !== undefined) return describeIptables(iptables);
  const { leftOut } = familySupport(choice, '/proc', 'addresses', 'nf_tables');
  return [`nftables: ${reason}`, ...leftOut].join('; ');
}
