import { type Logger } from 'pino';
import { FAMILIES } from '../values/address.js';
import { errorMessage } from '../values/errors.js';
import { type ProxyConfig } from '../config/proxy-config.js';
import { NFTABLES_TABLE } from '../values/nftables.js';
import { type RunCommand } from '../kernel/command.js';
import { detectIptables } from '../kernel/iptables/detect.js';
import { isModulePresent } from '../kernel/node/modules.js';
import { familiesWithTable } from '../kernel/nftables/tables.js';
import { systemClock } from '../time/clock.js';
import { type RulesChoice, chooseRules } from './rules/choose-rules.js';
import { DataPlane } from './data-plane.js';
import { type OtherModes } from './rules/rule-backend.js';
import { type Environment } from './environment.js';
import { handoverTo } from './rules/handover.js';
import {
  PreflightError,
  familySupport,
  missingModules,
  probeRequiredModules,
  requireCapabilities,
  requiredModules,
  unloadedIptables,
} from './preflight-checks.js';
import { nftablesMode } from './takeover/leftovers.js';
import { type SyncReporter } from './report/sync-reporter.js';

const ACCEPT_WITHOUT_EFFECT =
  'kubeProxyIpvs.acceptServiceTraffic has no effect with rules in nf_tables: there every table has its say, and a firewall that drops Service traffic has to accept it itself';

export interface OpenDataPlaneOptions {
  readonly config: ProxyConfig;
  readonly nodeName: string;
  readonly environment: Environment;
  readonly log: Logger;
  readonly reporter: SyncReporter;
  readonly run: RunCommand;
}

/** Opens everything that the kernel has to offer; a refusal names the thing and the fix. */
export async function openDataPlane(options: OpenDataPlaneOptions): Promise<DataPlane> {
  requireCapabilities();
  const { config, run, log, environment } = options;
  const { rules } = config;
  const modules = await probeRequiredModules(run, config.scheduler, rules);
  for (const { name, state, fix } of modules)
    if (state === 'missing') log.debug({ module: name, fix }, 'kernel module not found');
  try {
    const choice = await chooseRules({ rules, run, modules, openNetlinkSocket: environment.openNetlinkSocket });
    const { iptables, reason } = choice;
    log.info({ rules: iptables === undefined ? 'nftables' : `iptables (${iptables.backend})`, reason }, 'rules');
    return dataPlaneOf(options, choice, nftablesMode(environment.openNetlinkSocket, log));
  } catch (error) {
    const missing = missingModules(modules);
    const hint = missing === undefined ? '' : `; kernel modules were not found: ${missing}`;
    throw new PreflightError(`${errorMessage(error)}${hint}`, { cause: error });
  }
}

/** The same for looking only: refuses where the kernel would have to load a module for it. */
export async function openDataPlaneToLook(options: OpenDataPlaneOptions): Promise<DataPlane> {
  requireCapabilities();
  const isPresent = isModulePresent();
  const { rules, scheduler } = options.config;
  const hasTable =
    isPresent('nf_tables') && familiesWithTable(options.environment.openNetlinkSocket, NFTABLES_TABLE).length > 0;
  if (rules === 'nftables' || (rules === 'auto' && hasTable)) {
    refuseToLoad(requiredModules(scheduler, 'nftables').filter((name) => !isPresent(name)));
    return dataPlaneOf(options, { iptables: undefined, families: FAMILIES, failures: {} });
  }
  const iptables = await detectIptables(options.run, { isPresent });
  const unloaded = unloadedIptables(iptables.backend, isPresent);
  // A family whose iptables are not loaded is one that the daemon leaves out, unless it is the only one.
  const families = iptables.families.filter((family) => unloaded[family] === undefined);
  const needed = [...requiredModules(scheduler), ...(families.length === 0 ? [unloaded[4]!] : [])];
  refuseToLoad(needed.filter((name) => !isPresent(name)));
  return dataPlaneOf(options, { iptables, families, failures: unloaded });
}

function refuseToLoad(absent: readonly string[]): void {
  if (absent.length === 0) return;
  throw new PreflightError(
    `this only looks, and looking would make the kernel load ${absent.join(', ')}: run preflight --fix on the node first`,
  );
}

function dataPlaneOf(
  options: OpenDataPlaneOptions,
  choice: Omit<RulesChoice, 'reason'>,
  otherModes?: OtherModes,
): DataPlane {
  const { iptables } = choice;
  const rules = iptables === undefined ? 'nftables' : 'iptables';
  const support = familySupport(
    choice,
    '/proc',
    options.config.vips,
    iptables === undefined ? 'nf_tables' : 'iptables',
  );
  for (const line of support.leftOut) options.log.warn(line);
  if (iptables === undefined && options.config.acceptServiceTraffic) options.log.warn(ACCEPT_WITHOUT_EFFECT);
  const { openNetlinkSocket, openOptionSocket, releaseFreedMemory } = options.environment;
  const outside = {
    openNetlinkSocket,
    openOptionSocket,
    releaseFreedMemory,
    runCommand: options.run,
    clock: systemClock,
  };
  return new DataPlane({
    ...options,
    ...{ world: { ...outside, sysctlRoot: '/proc/sys' }, iptables, otherModes, ...support },
    handover: otherModes && handoverTo(rules, { open: openNetlinkSocket, run: options.run, log: options.log }),
  });
}
