import { CommandRunner } from '../kernel/command.js';
import { Iptables } from '../kernel/iptables/iptables.js';
import { Sysctl } from '../kernel/node/sysctl.js';
import { setDefinitions } from '../desired/set-definitions.js';
import { type Inspection, inspect } from '../reconcile/inspect.js';
import { inspectRules, inspectSysctls } from '../reconcile/inspect-node.js';
import { Metrics } from '../serve/metrics.js';
import { type Environment } from './environment.js';
import { type DaemonOptions, loadDaemonConfig } from './daemon-options.js';
import { ruleSets } from './rule-sets.js';
import { openDataPlane } from './run.js';
import { Sources } from './sources.js';
import { SyncReporter } from './sync-reporter.js';
import { sysctlsOf } from './sysctls.js';

/** Reads the cluster and the kernel and compares them; changes nothing. Rejects when `environment.stop` aborts first. */
export async function dryRun(options: DaemonOptions, environment: Environment): Promise<Inspection> {
  const { config } = await loadDaemonConfig(options);
  const log = environment.logger('silent');
  const metrics = new Metrics({ version: environment.version });
  const observer = new SyncReporter(metrics, log);
  const nodeName = config.hostnameOverride ?? environment.hostname.toLowerCase();
  const { run } = new CommandRunner();
  const dataPlane = await openDataPlane({ config, nodeName, environment, log, observer, run });
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
    const { families } = dataPlane.parts;
    const definitions = new Map(families.flatMap(setDefinitions).map((definition) => [definition.name, definition]));
    const excludeCIDRs = families.flatMap((family) => config.excludeCIDRs[family]);
    const tables = { ...dataPlane.clients, table: dataPlane.table, definitions };
    const found = await inspect(dataPlane.updater, tables, excludeCIDRs);
    const { iptables } = dataPlane.parts;
    const rules = ruleSets(config, families, dataPlane.cluster.node, iptables.randomFully);
    await inspectRules(new Iptables(iptables, run), rules, found);
    inspectSysctls(new Sysctl(), sysctlsOf(config), found);
    return found;
  } finally {
    await sources.close();
    await dataPlane.stop();
  }
}
