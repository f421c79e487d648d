import { writeFileSync } from 'node:fs';
import { type Logger } from 'pino';
import { FAMILIES } from '../values/address.js';
import { errorMessage } from '../values/errors.js';
import { type LoadedConfig, type LoadedConfigFile } from '../config/load.js';
import { type ProxyConfig } from '../config/proxy-config.js';
import { NFTABLES_TABLE } from '../values/nftables.js';
import { CommandRunner, type RunCommand } from '../kernel/command.js';
import { detectIptables } from '../kernel/iptables/detect.js';
import { isModulePresent } from '../kernel/node/modules.js';
import { familiesWithTable } from '../kernel/nftables/tables.js';
import { systemClock } from '../time/clock.js';
import { type HealthReport, healthHandler } from '../serve/health.js';
import { Metrics } from '../serve/metrics.js';
import { startClusterEvents } from './report/cluster-events.js';
import { type RulesChoice, chooseRules } from './rules/choose-rules.js';
import { ConfigChange } from './config-change.js';
import { DataPlane } from './data-plane.js';
import { type OtherModes } from './rules/rule-backend.js';
import { hasEarlierState } from './takeover/earlier-state.js';
import { type Environment } from './environment.js';
import { handoverTo } from './rules/handover.js';
import { HealthListener } from './health-listener.js';
import { InstanceLock, holderName } from './instance-lock.js';
import { type DaemonOptions, loadDaemonConfig } from './daemon-options.js';
import {
  PreflightError,
  familySupport,
  missingModules,
  probeRequiredModules,
  requireCapabilities,
  requiredModules,
  unloadedIptables,
} from './preflight-checks.js';
import { lookForKubeProxy } from './takeover/kube-proxy-signs.js';
import { KubeProxyWatch } from './takeover/kube-proxy-watch.js';
import { releaseAddresses } from './takeover/release-addresses.js';
import { nftablesMode } from './takeover/leftovers.js';
import { Servers } from './servers.js';
import { Sources } from './cluster/sources.js';
import { SyncReporter } from './report/sync-reporter.js';

const ACCEPT_WITHOUT_EFFECT =
  'kubeProxyIpvs.acceptServiceTraffic has no effect with rules in nf_tables: there every table has its say, and a firewall that drops Service traffic has to accept it itself';

/**
 * Runs the daemon until SIGTERM or a changed configuration file; resolves to the exit code. Nothing is touched before
 * the configuration is valid, and the health server listens from then on.
 */
export async function runDaemon(options: DaemonOptions, environment: Environment): Promise<number> {
  const loaded = await loadDaemonConfig(options);
  const log = environment.logger(loaded.config.logLevel);
  for (const warning of [...options.warnings, ...loaded.warnings]) log.warn(warning);
  const metrics = new Metrics({ version: environment.version, ...environment.build });
  const { stop, configChange } = await watchForEnd(options, loaded, environment, log, metrics);
  const health = startupHealth(loaded.config, metrics, log);
  let lock: InstanceLock | undefined;
  try {
    await health.start();
    lock = await InstanceLock.acquire(
      (holder) => log.warn(`another instance runs on this node (${holderName(holder)}): waiting until it ends`),
      stop,
      { peerCredentials: environment.peerCredentials },
    );
    await health.insist();
    await serve({ options, loaded, environment, log, metrics, health, configChange, stop });
    return 0;
  } catch (error) {
    if (stop.aborted) return 0;
    throw error;
  } finally {
    configChange?.close();
    await health.close();
    lock?.release();
  }
}

interface ServeParts {
  readonly options: DaemonOptions;
  readonly loaded: LoadedConfig;
  readonly environment: Environment;
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly health: HealthListener;
  readonly configChange: ConfigChange | undefined;
  readonly stop: AbortSignal;
}

async function serve(parts: ServeParts): Promise<void> {
  const { options, loaded, environment, log, metrics, health, configChange, stop } = parts;
  const { config, document } = loaded;
  const nodeName = config.hostnameOverride ?? environment.hostname.toLowerCase();
  const reporter = new SyncReporter(metrics, log);
  const commands = new CommandRunner(environment.startProgram);
  const run: RunCommand = (command, args, more) => {
    metrics.processSpawned(command);
    return commands.run(command, args, more);
  };
  const dataPlane = await openDataPlane({ config, nodeName, environment, log, reporter, run });
  dataPlane.prepare();
  setOomScore(config.oomScoreAdj, log);
  const sources = new Sources(dataPlane, {
    manifests: options.manifests,
    onReady: () => dataPlane.start(),
  });
  const kubeProxy = new KubeProxyWatch({
    look: () => lookForKubeProxy({ ...config, ownPorts: servers.ports }),
    areTablesBack: () => dataPlane.options.otherModes?.isBack() === true,
    clock: systemClock,
    log,
    metrics,
  });
  reporter.afterRules = (outcome) => kubeProxy.rulesChecked(outcome);
  const notes = (): string[] => [
    ...(kubeProxy.note === undefined ? [] : [kubeProxy.note]),
    ...(dataPlane.options.leftOut ?? []),
    ...(configChange?.problem === undefined ? [] : [configChange.problem]),
    ...sources.notes,
  ];
  const servers = new Servers({ dataPlane, sources, document, environment, health, notes });
  let events: { close(): Promise<void> } | undefined;
  log.info({ node: nodeName, version: environment.version, scheduler: config.scheduler }, 'started');
  try {
    await servers.start();
    configChange?.takeOverBy((next) => {
      dataPlane.reconfigure(next.config);
      servers.reconfigured(next.document);
      setOomScore(next.config.oomScoreAdj, log);
      log.level = next.config.logLevel;
      for (const warning of next.warnings) log.warn(warning);
    });
    kubeProxy.start();
    releaseAddresses(
      { links: dataPlane.clients.links, sets: dataPlane.sources.sets },
      await sources.apiServerAddresses(),
      log,
    );
    await sources.start();
    if (config.events !== 'none' && options.manifests === undefined)
      events = startClusterEvents(dataPlane, {
        skipped: () => sources.report.skipped(),
        configProblem: () => configChange?.problem,
        onRequest: (request) => metrics.apiRequest(request),
      });
    await aborted(stop);
  } finally {
    const start = performance.now();
    await events?.close();
    await kubeProxy.close();
    await sources.close();
    await dataPlane.stop();
    await servers.close();
    log.info({ ms: Math.round(performance.now() - start) }, 'stopped; the data plane stays in place');
  }
}

/**
 * The health server as it answers until there is something to be healthy: alive, not ready, and red only where the
 * kernel serves nothing either.
 */
function startupHealth(config: ProxyConfig, metrics: Metrics, log: Logger): HealthListener {
  const starting = { category: 'starting', summary: 'the daemon is starting' } as const;
  const report = (healthy: boolean): HealthReport => ({
    healthy,
    nodeEligible: true,
    lastUpdated: undefined,
    reasons: healthy ? [] : [starting],
    families: [],
  });
  const source = { healthz: () => report(hasEarlierState()), livez: () => report(true), readyz: () => report(false) };
  return new HealthListener({
    address: config.healthzBindAddress,
    hardFail: config.bindAddressHardFail,
    beginning: healthHandler(source, metrics),
    log,
  });
}

export interface OpeningParts {
  config: ProxyConfig;
  nodeName: string;
  environment: Environment;
  log: Logger;
  reporter: SyncReporter;
  run: RunCommand;
}

/** Opens everything that the kernel has to offer; a refusal names the thing and the fix. */
export async function openDataPlane(parts: OpeningParts): Promise<DataPlane> {
  requireCapabilities();
  const { config, run, log, environment } = parts;
  const { rules } = config;
  const modules = await probeRequiredModules(run, config.scheduler, rules);
  for (const { name, state, fix } of modules)
    if (state === 'missing') log.debug({ module: name, fix }, 'kernel module not found');
  try {
    const choice = await chooseRules({ rules, run, modules, openNetlinkSocket: environment.openNetlinkSocket });
    const { iptables, reason } = choice;
    log.info({ rules: iptables === undefined ? 'nftables' : `iptables (${iptables.backend})`, reason }, 'rules');
    return dataPlaneOf(parts, choice, nftablesMode(environment.openNetlinkSocket, log));
  } catch (error) {
    const missing = missingModules(modules);
    const hint = missing === undefined ? '' : `; kernel modules were not found: ${missing}`;
    throw new PreflightError(`${errorMessage(error)}${hint}`, { cause: error });
  }
}

/** The same for looking only: refuses where the kernel would have to load a module for it. */
export async function openDataPlaneToLook(parts: OpeningParts): Promise<DataPlane> {
  requireCapabilities();
  const isPresent = isModulePresent();
  const { rules, scheduler } = parts.config;
  const hasTable =
    isPresent('nf_tables') && familiesWithTable(parts.environment.openNetlinkSocket, NFTABLES_TABLE).length > 0;
  if (rules === 'nftables' || (rules === 'auto' && hasTable)) {
    refuseToLoad(requiredModules(scheduler, 'nftables').filter((name) => !isPresent(name)));
    return dataPlaneOf(parts, { iptables: undefined, families: FAMILIES, failures: {} });
  }
  const iptables = await detectIptables(parts.run, { isPresent });
  const unloaded = unloadedIptables(iptables.backend, isPresent);
  // A family whose iptables are not loaded is one that the daemon leaves out, unless it is the only one.
  const families = iptables.families.filter((family) => unloaded[family] === undefined);
  const needed = [...requiredModules(scheduler), ...(families.length === 0 ? [unloaded[4]!] : [])];
  refuseToLoad(needed.filter((name) => !isPresent(name)));
  return dataPlaneOf(parts, { iptables, families, failures: unloaded });
}

function refuseToLoad(absent: readonly string[]): void {
  if (absent.length === 0) return;
  throw new PreflightError(
    `this only looks, and looking would make the kernel load ${absent.join(', ')}: run preflight --fix on the node first`,
  );
}

function dataPlaneOf(parts: OpeningParts, choice: Omit<RulesChoice, 'reason'>, otherModes?: OtherModes): DataPlane {
  const { iptables } = choice;
  const rules = iptables === undefined ? 'nftables' : 'iptables';
  const support = familySupport(choice, '/proc', parts.config.vips, iptables === undefined ? 'nf_tables' : 'iptables');
  for (const line of support.leftOut) parts.log.warn(line);
  if (iptables === undefined && parts.config.acceptServiceTraffic) parts.log.warn(ACCEPT_WITHOUT_EFFECT);
  const { openNetlinkSocket, openOptionSocket, releaseFreedMemory } = parts.environment;
  const outside = {
    openNetlinkSocket,
    openOptionSocket,
    releaseFreedMemory,
    runCommand: parts.run,
    clock: systemClock,
  };
  return new DataPlane({
    ...parts,
    ...{ world: { ...outside, sysctlRoot: '/proc/sys' }, iptables, otherModes, ...support },
    handover: otherModes && handoverTo(rules, { open: openNetlinkSocket, run: parts.run, log: parts.log }),
  });
}

/**
 * The node's proxy should be the last to be killed; lowering the score needs CAP_SYS_RESOURCE, which a container may
 * lack.
 */
function setOomScore(score: number, log: Logger): void {
  try {
    writeFileSync('/proc/self/oom_score_adj', String(score));
  } catch (error) {
    log.debug(
      { score, error: errorMessage(error) },
      'oomScoreAdj could not be set; the container runtime sets its own',
    );
  }
}

/**
 * Ends the daemon on the process's signals, and when the configuration file changes in what only the start can set, as
 * kube-proxy does whatever changes.
 */
async function watchForEnd(
  options: DaemonOptions,
  loaded: LoadedConfig | LoadedConfigFile,
  environment: Environment,
  log: Logger,
  metrics: Metrics,
): Promise<{ stop: AbortSignal; configChange: ConfigChange | undefined }> {
  const { configFile, overrides } = options;
  metrics.configRefused(false);
  if (configFile === undefined || !('content' in loaded)) return { stop: environment.stop, configChange: undefined };
  const changed = new AbortController();
  const configChange = new ConfigChange({
    file: configFile,
    overrides,
    loaded,
    log,
    onRefused: (isRefused) => metrics.configRefused(isRefused),
    onRestart: () => changed.abort(),
  });
  await configChange.start();
  return { stop: AbortSignal.any([environment.stop, changed.signal]), configChange };
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
}
