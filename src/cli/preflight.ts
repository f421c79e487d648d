import { type ProxyConfig } from '../config/proxy-config.js';
import { CommandRunner, type RunCommand } from '../kernel/command.js';
import { type DetectedIptables, detectIptables } from '../kernel/iptables/detect.js';
import { hasScheduler } from '../kernel/ipvs/probe-scheduler.js';
import {
  IPTABLES_MODULES,
  type ModuleStatus,
  RULE_MODULES,
  findModules,
  isModulePresent,
  loadModules,
  schedulerModule,
} from '../kernel/node/modules.js';
import { readKernelReleaseText } from '../kernel/node/kernel-release.js';
import { Sysctl } from '../kernel/node/sysctl.js';
import { countRealServers, readTableFill } from '../kernel/node/table-fill.js';
import { closeKernelClients, openKernelClients } from '../kernel/clients.js';
import { EstimationKeeper } from '../reconcile/estimation.js';
import { type DesiredSysctl, ensureSysctls, isRight } from '../reconcile/sysctl-keeper.js';
import { errorMessage } from '../values/errors.js';
import { NFTABLES_TABLE } from '../values/nftables.js';
import { type RulesChoice, chooseRules } from '../daemon/rules/choose-rules.js';
import { type Environment } from '../daemon/environment.js';
import { loadDaemonConfig } from '../daemon/daemon-options.js';
import { type PreflightOptions } from './options.js';
import { type Check, type CheckState } from './preflight-check.js';
import { checkApi } from './preflight-api.js';
import { checkLinks } from './preflight-links.js';
import { checkPorts } from './preflight-ports.js';
import {
  familySupport,
  probeRequiredModules,
  requireCapabilities,
  requiredModules,
  unloadedIptables,
} from '../daemon/preflight-checks.js';
import { describeConnectionTable } from '../daemon/answer/connection-table.js';
import { lookForKubeProxy } from '../daemon/takeover/kube-proxy-signs.js';
import { sysctlsOf } from '../daemon/sysctls.js';

const LABELS: Readonly<Record<CheckState, string>> = { ok: 'ok  ', todo: 'TODO', warn: 'WARN', failed: 'FAIL' };

/**
 * Checks what the daemon needs of the node; with --fix also loads modules and writes sysctls, and tries everything out.
 * Without it nothing is changed, nor anything done that makes the kernel load a module. 1 when a check failed.
 */
export async function runPreflight(options: PreflightOptions, environment: Environment): Promise<number> {
  const { config } = await loadDaemonConfig(options);
  const checks = await checkNode(config, options.fix, environment);
  // What prepares a node has no credentials, and needs none.
  if (!options.fix && options.manifests === undefined)
    checks.push(await checkApi(config, config.hostnameOverride ?? environment.hostname.toLowerCase()));
  const ok = checks.every(({ state }) => state !== 'failed');
  const lines = checks.map(({ name, state, detail }) => `${LABELS[state]} ${name}: ${detail}\n`);
  const found = checks.map(({ name, state, detail }) => ({ name, ok: state !== 'failed', state, detail }));
  environment.out(options.json ? `${JSON.stringify({ ok, checks: found })}\n` : lines.join(''));
  return ok ? 0 : 1;
}

/** One line of preflight each; as `runPreflight`, with the same effect on the node. */
export async function checkNode(config: ProxyConfig, fix: boolean, environment: Environment): Promise<Check[]> {
  const { run } = new CommandRunner();
  const options = { run, scheduler: config.scheduler, rules: config.rules, environment };
  const checks = await attempt('permissions', async () => (requireCapabilities(), 'CAP_NET_ADMIN, CAP_NET_RAW'));
  if (checks.every(({ state }) => state === 'ok')) checks.push(...(await (fix ? tryOut(options) : look(options))));
  const kernel: Check = { name: 'kernel', state: 'ok', detail: `Linux ${readKernelReleaseText().trim()}` };
  return [
    kernel,
    ...checks,
    await checkKubeProxy(config),
    ...(await checkPorts(config)),
    ...checkLinks(config),
    ...checkSysctls(sysctlsOf(config), fix),
    ...checkTables(config, fix),
  ];
}

/** One that runs on is no fault of the node: on the day of the switch it is still there. */
async function checkKubeProxy(config: ProxyConfig): Promise<Check> {
  const name = 'kube-proxy';
  const signs = await lookForKubeProxy({ ...config, ownPorts: new Set() });
  if (signs.length === 0) return { name, state: 'ok', detail: 'none is seen (its process only with hostPID)' };
  const seen = signs.map(({ text }) => text).join('; ');
  return { name, state: 'warn', detail: `runs on this node: ${seen}; take it off before the daemon starts` };
}

interface CheckOptions {
  readonly run: RunCommand;
  readonly scheduler: string;
  readonly rules: ProxyConfig['rules'];
  readonly environment: Environment;
}

/** Loads and uses everything once. */
async function tryOut({ run, scheduler, rules, environment }: CheckOptions): Promise<Check[]> {
  const { openNetlinkSocket } = environment;
  const modules = await probeRequiredModules(run, scheduler, rules);
  if (rules !== 'nftables') await loadModules(RULE_MODULES, { run });
  let isNftables = rules === 'nftables';
  const chosen = await attempt('rules', async () => {
    const choice = await chooseRules({ rules, run, modules, openNetlinkSocket });
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
async function look({ run, scheduler, rules, environment }: CheckOptions): Promise<Check[]> {
  const isPresent = isModulePresent();
  const lost = rules === 'auto' ? findModules(IPTABLES_MODULES).find((one) => isLost(one, isPresent)) : undefined;
  const isNftables = rules === 'nftables' || lost !== undefined;
  const names = requiredModules(scheduler, isNftables ? 'nftables' : 'iptables');
  const checks = findModules(names).map((status): Check => {
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
    const clients = openKernelClients(environment.openNetlinkSocket, isNftables ? NFTABLES_TABLE : undefined);
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

function checkSysctls(desired: readonly DesiredSysctl[], fix: boolean): Check[] {
  const sysctl = new Sysctl();
  const name = ({ name: one }: DesiredSysctl): string => `sysctl ${one}`;
  if (fix) {
    const { changed, failures } = ensureSysctls(sysctl, desired, 'start');
    return [
      ...changed.map((text): Check => ({ name: `sysctl ${text}`, state: 'ok', detail: 'set' })),
      ...failures.map(({ desired: one, message }): Check => {
        return { name: name(one), state: one.required ? 'failed' : 'ok', detail: message };
      }),
    ];
  }
  return desired.map((one): Check => {
    try {
      const current = sysctl.readNumber(one.name);
      if (isRight(one, current, 'start')) return { name: name(one), state: 'ok', detail: String(current) };
      const is = current === undefined ? 'not there yet' : String(current);
      return { name: name(one), state: 'todo', detail: `${is}, must be ${one.value}; preflight --fix sets it` };
    } catch (error) {
      return { name: name(one), state: one.required ? 'failed' : 'ok', detail: errorMessage(error) };
    }
  });
}

/** What the kernel spends on IPVS by itself: never a reason to fail. */
function checkTables({ estimation: mode }: Pick<ProxyConfig, 'estimation'>, fix: boolean): Check[] {
  const connections = describeConnectionTable(readTableFill());
  const checks: Check[] = [{ name: 'IPVS connection table', state: 'ok', detail: connections }];
  const sysctl = new Sysctl();
  // What there is by now: an earlier run's, or kube-proxy's. A new node has none, and may never have many.
  const realServers = countRealServers();
  const { isRunning, note } = fix
    ? new EstimationKeeper(sysctl, mode).ensure(realServers)
    : { isRunning: sysctl.readNumber('net.ipv4.vs.run_estimation') !== 0, note: undefined };
  const state = `${mode}: ${isRunning === false ? 'off' : 'on'}, with ${realServers} real servers`;
  checks.push({ name: 'IPVS estimation', state: 'ok', detail: note ?? state });
  return checks;
}

async function attempt(name: string, check: () => Promise<string>): Promise<Check[]> {
  try {
    return [{ name, state: 'ok', detail: await check() }];
  } catch (error) {
    return [{ name, state: 'failed', detail: errorMessage(error) }];
  }
}
