import { writeFileSync } from 'node:fs';
import { type Logger } from 'pino';
import { errorMessage } from '../values/errors.js';
import { watchConfig } from '../config/watch.js';
import { type LoadedConfig } from '../config/load.js';
import { type ProxyConfig } from '../config/proxy-config.js';
import { CommandRunner, type RunCommand } from '../kernel/command.js';
import { detectIptables } from '../kernel/iptables/detect.js';
import { systemClock } from '../reconcile/clock.js';
import { Metrics } from '../serve/metrics.js';
import { DataPlane } from './data-plane.js';
import { type Environment } from './environment.js';
import { InstanceLock } from './instance-lock.js';
import { type DaemonOptions, loadDaemonConfig } from './daemon-options.js';
import { PreflightError, probeRequiredModules, requireNetAdmin, servedFamilies } from './preflight-checks.js';
import { Servers } from './servers.js';
import { Sources } from './sources.js';
import { SyncReporter } from './sync-reporter.js';

/** Runs the dataPlane until SIGTERM or a changed configuration file; resolves to the exit code. Nothing is touched before the configuration is valid. */
export async function runDaemon(options: DaemonOptions, environment: Environment): Promise<number> {
  const loaded = await loadDaemonConfig(options);
  const { config, warnings } = loaded;
  const log = environment.logger(config.logLevel);
  for (const warning of [...options.warnings, ...warnings]) log.warn(warning);
  const stop = await stopSignal(options, environment, log);
  let lock: InstanceLock | undefined;
  try {
    lock = await InstanceLock.acquire(
      () => log.warn('another instance runs on this node: waiting until it ends'),
      stop,
    );
    await serve(options, loaded, environment, log, stop);
    return 0;
  } catch (error) {
    if (stop.aborted) return 0;
    throw error;
  } finally {
    lock?.release();
  }
}

async function serve(
  options: DaemonOptions,
  { config, document }: LoadedConfig,
  environment: Environment,
  log: Logger,
  stop: AbortSignal,
): Promise<void> {
  const nodeName = config.hostnameOverride ?? environment.hostname.toLowerCase();
  const metrics = new Metrics({ version: environment.version, ...environment.build });
  const observer = new SyncReporter(metrics, log);
  const commands = new CommandRunner(environment.startProgram);
  const run: RunCommand = (command, args, more) => {
    metrics.processSpawned(command);
    return commands.run(command, args, more);
  };
  const dataPlane = await openDataPlane({ config, nodeName, environment, log, reporter: observer, run });
  dataPlane.prepare();
  setOomScore(config.oomScoreAdj, log);
  const sources = new Sources({
    options,
    config,
    nodeName,
    dataPlane,
    metrics,
    observer,
    log,
    onReady: () => dataPlane.start(),
  });
  const servers = new Servers({ config, document, nodeName, environment, dataPlane, sources, metrics, observer, log });
  log.info({ node: nodeName, version: environment.version, scheduler: config.scheduler }, 'started');
  try {
    await servers.start();
    await sources.start();
    await aborted(stop);
  } finally {
    const start = performance.now();
    await sources.close();
    await dataPlane.stop();
    await servers.close();
    log.info({ ms: Math.round(performance.now() - start) }, 'stopped; the data plane stays in place');
  }
}

/** Opens everything that the kernel has to offer; a refusal names the thing and the fix. */
export async function openDataPlane(parts: {
  config: ProxyConfig;
  nodeName: string;
  environment: Environment;
  log: Logger;
  reporter: SyncReporter;
  run: RunCommand;
}): Promise<DataPlane> {
  requireNetAdmin();
  const { config, run, log } = parts;
  const modules = await probeRequiredModules(run, config.scheduler);
  const missing = modules.filter(({ state }) => state === 'missing');
  for (const { name, fix } of missing) log.debug({ module: name, fix }, 'kernel module not found');
  try {
    const iptables = await detectIptables(run, { probe: true });
    const { openNetlinkSocket, openOptionSocket } = parts.environment;
    const outside = { openNetlinkSocket, openOptionSocket, runCommand: run, clock: systemClock };
    const world = { ...outside, sysctlRoot: '/proc/sys' };
    return new DataPlane({ ...parts, world, iptables, families: servedFamilies() });
  } catch (error) {
    const fixes = missing.map(({ name, fix }) => `${name}: ${fix}`);
    const hint = fixes.length === 0 ? '' : ` (kernel modules not found: ${fixes.join('; ')})`;
    throw new PreflightError(`${errorMessage(error)}${hint}`, { cause: error });
  }
}

/** The node's proxy should be the last to be killed; lowering the score needs CAP_SYS_RESOURCE, which a container may lack. */
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

/** Aborts on the process's signals, and when the configuration file changes: kube-proxy restarts then, too. */
async function stopSignal(options: DaemonOptions, environment: Environment, log: Logger): Promise<AbortSignal> {
  if (options.configFile === undefined) return environment.stop;
  const changed = new AbortController();
  const onChange = (): void => {
    log.info({ file: options.configFile }, 'the configuration changed: ending, to be started with the new one');
    changed.abort();
  };
  const watch = await watchConfig(options.configFile, { onChange });
  environment.stop.addEventListener('abort', () => watch.close(), { once: true });
  return AbortSignal.any([environment.stop, changed.signal]);
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
}
