import { writeFileSync } from 'node:fs';
import { type Logger } from 'pino';
import { errorMessage } from '../values/errors.js';
import { type LoadedConfig, type LoadedConfigFile } from '../config/load.js';
import { type ProxyConfig } from '../config/proxy-config.js';
import { CommandRunner, type RunCommand } from '../kernel/command.js';
import { systemClock } from '../time/clock.js';
import { type HealthReport, healthHandler } from '../serve/health.js';
import { Metrics } from '../serve/metrics.js';
import { startClusterEvents } from './report/cluster-events.js';
import { ConfigChange } from './config-change.js';
import { hasEarlierState } from './takeover/earlier-state.js';
import { type Environment } from './environment.js';
import { HealthListener } from './health-listener.js';
import { InstanceLock, holderName } from './instance-lock.js';
import { type DaemonOptions, loadDaemonConfig } from './daemon-options.js';
import { lookForKubeProxy } from './takeover/kube-proxy-signs.js';
import { KubeProxyWatch } from './takeover/kube-proxy-watch.js';
import { releaseAddresses } from './takeover/release-addresses.js';
import { Servers } from './servers.js';
import { Sources } from './cluster/sources.js';
import { SyncReporter } from './report/sync-reporter.js';
import { openDataPlane } from './open-data-plane.js';

/**
 * Runs the daemon until SIGTERM or a changed configuration file; resolves to the exit code. Nothing is touched before
 * the configuration is valid, and the health server listens from then on. `open` opens the kernel.
 */
export async function runDaemon(
  options: DaemonOptions,
  environment: Environment,
  open = openDataPlane,
): Promise<number> {
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
    const { manifests } = options;
    await serve({ manifests, loaded, environment, log, metrics, health, configChange, stop, open });
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

interface ServeOptions extends Pick<DaemonOptions, 'manifests'> {
  readonly loaded: LoadedConfig;
  readonly environment: Environment;
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly health: HealthListener;
  readonly configChange: ConfigChange | undefined;
  readonly stop: AbortSignal;
  readonly open: typeof openDataPlane;
}

async function serve(options: ServeOptions): Promise<void> {
  const { manifests, loaded, environment, log, metrics, health, configChange, stop, open } = options;
  const { config, document } = loaded;
  const nodeName = config.hostnameOverride ?? environment.hostname.toLowerCase();
  const reporter = new SyncReporter(metrics, log);
  const commands = new CommandRunner(environment.startProgram);
  const run: RunCommand = (command, args, more) => {
    metrics.processSpawned(command);
    return commands.run(command, args, more);
  };
  const dataPlane = await open({ config, nodeName, environment, log, reporter, run });
  dataPlane.prepare();
  setOomScore(config.oomScoreAdj, log);
  const sources = new Sources(dataPlane, {
    manifests,
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
    events = startClusterEvents(dataPlane, {
      manifests,
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
