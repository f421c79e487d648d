import { CommandRunner } from '../kernel/command.js';
import { type Inspection, inspect } from '../reconcile/inspect.js';
import { inspectRules, inspectSysctls } from '../reconcile/inspect-node.js';
import { Metrics } from '../serve/metrics.js';
import { type Environment } from './environment.js';
import { type DaemonOptions, loadDaemonConfig } from './daemon-options.js';
import { ruleSets } from './rule-sets.js';
import { openDataPlane } from './run.js';
import { Sources } from './sources.js';
import { SyncReporter } from './sync-reporter.js';

/** Reads the cluster and the kernel and compares them; changes nothing. Rejects when `environment.stop` aborts first. */
export async function dryRun(options: DaemonOptions, environment: Environment): Promise<Inspection> {
  const { config } = await loadDaemonConfig(options);
  const log = environment.logger('silent');
  const metrics = new Metrics({ version: environment.version });
  const observer = new SyncReporter(metrics, log);
  const nodeName = config.hostnameOverride ?? environment.hostname.toLowerCase();
  const { run } = new CommandRunner();
  const dataPlane = await openDataPlane({ config, nodeName, environment, log, reporter: observer, run });
  let onReady = (): void => undefined;
  const ready = new Promise<void>((resolve) => (onReady = resolve));
  const stopped = new Promise<never>((_resolve, reject) => {
    environment.stop.addEventListener('abort', () => reject(new Error('stopped')), { once: true });
  });
  const sources = new Sources({
    options,
    config,
    nodeName,
    dataPlane,
    metrics,
    observer,
    log,
    onReady: () => onReady(),
  });
  try {
    await sources.start();
    await Promise.race([ready, stopped]);
    const { families, iptables } = dataPlane.options;
    const found = await inspect(dataPlane.updater, dataPlane.sources, dataPlane.ipvs.excludeCIDRs);
    const rules = ruleSets(config, families, dataPlane.cluster.node, iptables.randomFully);
    await inspectRules(dataPlane.iptables, rules, found);
    inspectSysctls(dataPlane.sysctls, found);
    return found;
  } finally {
    await sources.close();
    await dataPlane.stop();
  }
}
