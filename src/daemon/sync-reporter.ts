import { type Logger } from 'pino';
import { FAMILIES, type Family } from '../values/address.js';
import { errorMessage } from '../values/errors.js';
import { type VirtualServerKey, formatVirtualServer } from '../values/virtual-server.js';
import { type Refusal } from '../desired/exposures.js';
import { type DriftKind, type DriftObject } from '../reconcile/drift.js';
import { messagesSent } from '../kernel/clients.js';
import { type SyncReport } from '../reconcile/reconciler.js';
import { type RulesOutcome } from '../reconcile/rules-keeper.js';
import { type Metrics } from '../serve/metrics.js';
import { type ReportedDataPlane, isWorthALine, syncFields } from './sync-report.js';

const MAX_LOGGED_FAILURES = 5;
const MAX_LOGGED_RULES = 20;

/** What health and the status page want to know of the syncs; times are performance.now() milliseconds. */
export interface SyncState {
  /** Since when a change, or the repair of what drifted, waits for a sync that succeeds; undefined when none does. */
  waitingSince: number | undefined;
  runningSince: number | undefined;
  lastSuccess: Date | undefined;
  lastFailure: string | undefined;
  rulesFailure: string | undefined;
  readonly failedSysctls: Map<string, string>;
  lastSync: { at: Date; seconds: number; result: string } | undefined;
  lastVerification: { at: Date; seconds: number; result: string } | undefined;
}

/** Turns what the syncs report into metrics, log lines and health. */
export class SyncReporter {
  readonly state: SyncState = {
    waitingSince: undefined,
    runningSince: undefined,
    lastSuccess: undefined,
    lastFailure: undefined,
    rulesFailure: undefined,
    failedSysctls: new Map(),
    lastSync: undefined,
    lastVerification: undefined,
  };
  /** Called after every sync that ended well. */
  afterSync: () => void = () => undefined;
  readonly #reportedConflicts = new Map<VirtualServerKey, string>();
  #pending: { family: Family; triggeredAt: number }[] = [];
  #taken: { family: Family; triggeredAt: number }[] = [];
  #sent: Record<string, number> = {};
  #queuedDuring = false;
  #rulesSeen = false;

  constructor(
    readonly metrics: Metrics,
    readonly log: Logger,
  ) {}

  /** A change came from the cluster. */
  changeQueued(): void {
    this.state.waitingSince ??= performance.now();
    this.#queuedDuring = true;
    this.metrics.syncQueued(Date.now());
  }

  /** An EndpointSlice whose change was triggered at this Unix millisecond (its annotation) is to be programmed. */
  endpointsTriggered(family: Family, triggeredAt: number): void {
    // Before the first sync the annotation tells how old the endpoint is, not how long programming takes.
    if (this.state.lastSuccess !== undefined) this.#pending.push({ family, triggeredAt });
  }

  syncStarted(): void {
    this.metrics.syncRunning(true);
    this.state.runningSince = performance.now();
    this.#takePending();
  }

  /** Changes that came while a sync verified are in the kernel already. */
  interleaved(): void {
    this.#takePending();
    this.#programmed(Date.now());
    this.afterSync();
  }

  syncEnded(ok: boolean): void {
    this.metrics.syncRunning(false);
    const { state, metrics } = this;
    const seconds = (performance.now() - (state.runningSince ?? performance.now())) / 1000;
    state.runningSince = undefined;
    if (!ok) {
      state.waitingSince ??= performance.now();
      return;
    }
    const now = Date.now();
    state.waitingSince = this.#queuedDuring ? performance.now() : undefined;
    state.lastSuccess = new Date(now);
    state.lastFailure = undefined;
    for (const family of FAMILIES) metrics.synced(family, seconds, now);
    this.#programmed(now);
    this.afterSync();
  }

  #takePending(): void {
    this.#queuedDuring = false;
    this.#taken.push(...this.#pending);
    this.#pending = [];
    this.metrics.changesTaken();
  }

  #programmed(now: number): void {
    for (const { family, triggeredAt } of this.#taken)
      this.metrics.networkProgrammed(family, (now - triggeredAt) / 1000);
    this.#taken = [];
  }

  /** The sync could not even read the kernel. */
  syncFailed(error: unknown): void {
    this.metrics.syncRunning(false);
    this.state.runningSince = undefined;
    this.state.waitingSince ??= performance.now();
    this.state.lastFailure = errorMessage(error);
    this.metrics.syncFailed('sync');
    this.log.error({ error: errorMessage(error) }, 'sync failed; it will be tried again');
  }

  synced(report: SyncReport, dataPlane: ReportedDataPlane): void {
    const { metrics, state } = this;
    this.#countMessages(dataPlane);
    for (const { operation, code } of report.failures) metrics.netlinkFailed(operation, code);
    if (report.failures.length > 0) this.#failed(report);
    if (report.verified !== undefined) this.#verified(report.verified);
    metrics.draining(dataPlane.drains.size);
    metrics.claimConflicts(dataPlane.updater.claims.conflicts);
    for (const family of FAMILIES) {
      const { internal, external } = dataPlane.updater.desired.withoutLocal(family);
      metrics.noLocalEndpoints(family, 'internal', internal);
      metrics.noLocalEndpoints(family, 'external', external);
    }
    if (!isWorthALine(report)) return;
    const fields = syncFields(report);
    state.lastSync = { at: new Date(), seconds: report.ms / 1000, result: JSON.stringify(fields) };
    this.log.info(fields, report.adopted ? 'took over the kernel state and synced' : 'synced');
  }

  conflict(server: VirtualServerKey, losers: readonly string[]): void {
    const text = losers.join(', ');
    if (this.#reportedConflicts.get(server) === text) return;
    this.#reportedConflicts.set(server, text);
    this.log.warn(
      { virtualServer: formatVirtualServer(server), losers },
      'more than one Service claims this address and port: the oldest has it',
    );
  }

  /** Part of a Service is left out for what it would do to the node; told once, until that is over. */
  refused(service: string, { reason, text }: Refusal): void {
    this.metrics.objectSkipped('services', reason);
    this.log.warn(
      { resource: 'services', object: service, problem: text },
      'part of an object is refused and left out',
    );
  }

  driftRepaired(object: DriftObject, kind: DriftKind, name: string): void {
    this.metrics.driftRepaired(object, kind, 1);
    this.log.warn({ drift: [`${kind} ${object} ${name}`] }, 'drift found and repaired');
  }

  rulesChecked({ differences, error, family }: RulesOutcome): void {
    this.state.rulesFailure = error?.message;
    if (error !== undefined) {
      this.metrics.syncFailed('rules');
      this.metrics.iptablesRestoreFailed(family);
      this.log.error({ error: error.message }, 'iptables rules could not be checked or written');
    } else if (differences.length > 0) {
      // The first rules of this process are written, not repaired.
      if (this.#rulesSeen) for (const { kind } of differences) this.metrics.driftRepaired('rule', kind, 1);
      const changed = differences.map(({ family, table, chain, kind }) => `IPv${family} ${table} ${chain} ${kind}`);
      const shown = this.#rulesSeen ? { rules: changed.slice(0, MAX_LOGGED_RULES) } : {};
      this.log.info({ differences: changed.length, ...shown }, 'iptables rules written');
    }
    if (error === undefined) this.#rulesSeen = true;
  }

  lockWaited(ms: number): void {
    this.metrics.xtablesLockWaited(ms / 1000);
    this.log.warn({ waitedMs: Math.round(ms) }, 'another process holds the xtables lock: rules wait, IPVS goes on');
  }

  conntrackCleaned(family: Family, ms: number, deleted: number): void {
    this.metrics.conntrackCleaned(family, ms / 1000, deleted);
  }

  sysctlFailed(name: string, message: string, required: boolean): void {
    if (this.state.failedSysctls.get(name) === message) return;
    this.state.failedSysctls.set(name, message);
    if (required) this.log.error({ sysctl: name }, message);
    else this.log.warn({ sysctl: name }, message);
  }

  #failed(report: SyncReport): void {
    const messages = report.failures.map(({ message }) => message);
    this.state.lastFailure = messages[0];
    this.metrics.syncFailed('kernel');
    this.log.error(
      { failures: messages.slice(0, MAX_LOGGED_FAILURES), count: messages.length },
      'some changes failed; the others are in the kernel, these will be tried again',
    );
  }

  #verified({ drift, ms }: NonNullable<SyncReport['verified']>): void {
    this.metrics.verified(ms / 1000, Date.now());
    for (const { object, kind, count } of drift.counts.values()) this.metrics.driftRepaired(object, kind, count);
    const result = drift.total === 0 ? 'nothing drifted' : `${drift.total} differences repaired`;
    this.state.lastVerification = { at: new Date(), seconds: ms / 1000, result };
    if (drift.total > 0) this.log.warn({ drift: drift.names, count: drift.total }, 'drift found and repaired');
  }

  #countMessages(dataPlane: ReportedDataPlane): void {
    for (const [operation, total] of Object.entries(messagesSent(dataPlane.clients))) {
      const before = this.#sent[operation] ?? 0;
      if (total > before) this.metrics.netlinkSent(operation, total - before);
      this.#sent[operation] = total;
    }
  }
}
