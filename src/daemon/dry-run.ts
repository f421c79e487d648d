import { type ProxyConfig } from '../config/proxy-config.js';
import { type RuleSet } from '../desired/iptables-rule-set.js';
import { iptablesRules } from '../desired/iptables-rules.js';
import { CommandRunner } from '../kernel/command.js';
import { type Inspection, inspect } from '../reconcile/inspect.js';
import { inspectSysctls } from '../reconcile/inspect-node.js';
import { type SkipReason } from '../kube/manifests.js';
import { Metrics } from '../serve/metrics.js';
import { type Environment } from './environment.js';
import { type DaemonOptions, loadDaemonConfig } from './daemon-options.js';
import { type DataPlane } from './data-plane.js';
import { openDataPlaneToLook } from './open-data-plane.js';
import { Sources } from './cluster/sources.js';
import { SyncReporter } from './report/sync-reporter.js';

/** Who asks what a sync would do wants to know soon that there is nobody to say. */
const TIMEOUT_MS = 30_000;

export interface DryRunOptions extends DaemonOptions {
  /** Longest wait for the cluster's state: 30 s when not given. */
  readonly timeoutMs?: number;
  /** Opens the kernel; `openDataPlaneToLook` otherwise. */
  readonly open?: typeof openDataPlaneToLook;
}

/**
 * Reads the cluster and the kernel and compares them; changes nothing. Rejects, saying what it waited for, when the
 * cluster's state does not come in time, when a manifest cannot be used, and when `environment.stop` aborts first. What
 * of the manifests is not used is reported on standard error.
 */
export async function dryRun(options: DryRunOptions, environment: Environment): Promise<Inspection> {
  return dryRunWith(options, environment, ({ inspection }) => inspection);
}

/** What a dry run has found. */
export interface DryRun {
  readonly inspection: Inspection;
  /** With the cluster's state and the desired one; open until `look` is done. */
  readonly dataPlane: DataPlane;
  readonly config: ProxyConfig;
  readonly rules: readonly RuleSet[];
}

/** As `dryRun`, and `look` makes of what was found what it resolves to. */
export async function dryRunWith<T>(
  options: DryRunOptions,
  environment: Environment,
  look: (found: DryRun) => T | Promise<T>,
): Promise<T> {
  const { config } = await loadDaemonConfig(options);
  const log = environment.logger('silent');
  const reporter = new SyncReporter(new Metrics({ version: environment.version }), log);
  const nodeName = config.hostnameOverride ?? environment.hostname.toLowerCase();
  const { run } = new CommandRunner();
  const open = options.open ?? openDataPlaneToLook;
  const dataPlane = await open({ config, nodeName, environment, log, reporter, run });
  let onReady = (): void => undefined;
  const ready = new Promise<void>((resolve) => (onReady = resolve));
  const manifests = new ManifestReport();
  const sources = new Sources(dataPlane, {
    ...{ manifests: options.manifests, absentNodeWaitMs: 0 },
    onReady: () => onReady(),
    onSkippedManifest: (file, what, reason) => manifests.add(file, what, reason),
  });
  try {
    await sources.apiServerAddresses();
    await sources.start();
    await inTime(
      ready,
      options.timeoutMs ?? TIMEOUT_MS,
      environment.stop,
      () => sources.waitsFor ?? 'the addresses of other nodes',
    );
    manifests.report(environment.err);
    for (const note of sources.notes) environment.err(`kube-proxy-ipvs: ${note}\n`);
    const found = await inspect(dataPlane.updater, dataPlane.sources, dataPlane.ipvs.excludeCIDRs);
    await dataPlane.ruleBackend.inspect(found);
    inspectSysctls(dataPlane.sysctls, found);
    return await look({ inspection: found, dataPlane, config, rules: dataPlane.ruleConfigs().map(iptablesRules) });
  } finally {
    await sources.close();
    await dataPlane.stop();
  }
}

/** What of a directory of manifests is not used. */
class ManifestReport {
  readonly #broken: string[] = [];
  readonly #ignored: string[] = [];

  add(file: string, what: string, reason: SkipReason): void {
    if (reason === 'broken') this.#broken.push(`${file}: ${what}`);
    else this.#ignored.push(`${file}: ${what}`);
  }

  /** Throws for a broken file: half of the objects is not what is asked about. */
  report(err: Environment['err']): void {
    for (const line of this.#ignored) err(`kube-proxy-ipvs: ignored: ${line}\n`);
    if (this.#broken.length > 0) throw new Error(`manifests that cannot be read: ${this.#broken.join('; ')}`);
  }
}

/** Waits for `ready`, not longer than `timeoutMs` and not beyond the end that `stop` says. */
async function inTime(
  ready: Promise<void>,
  timeoutMs: number,
  stop: AbortSignal,
  waitsFor: () => string,
): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  let onStop = (): void => undefined;
  const ended = new Promise<never>((_resolve, reject) => {
    const seconds = timeoutMs / 1000;
    timer = setTimeout(() => reject(new Error(`gave up after ${seconds} s of waiting for ${waitsFor()}`)), timeoutMs);
    onStop = () => reject(new Error('stopped'));
    stop.addEventListener('abort', onStop);
    if (stop.aborted) onStop();
  });
  try {
    await Promise.race([ready, ended]);
  } finally {
    clearTimeout(timer);
    stop.removeEventListener('abort', onStop);
  }
}
