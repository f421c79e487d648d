import { FAMILIES, type Family } from '../../values/address.js';
import { messagesSent } from '../../kernel/clients.js';
import { type Drift } from '../../reconcile/drift.js';
import { type RulesOutcome } from '../../reconcile/rules-keeper.js';
import { type SyncRecord } from '../../reconcile/sync-record.js';
import { type Metrics } from '../../serve/metrics.js';
import { systemClock } from '../../time/clock.js';
import { ProgrammingLatency } from './programming-latency.js';
import { type ReportedDataPlane } from './sync-report.js';

/** Counts and measures what the syncs report. */
export class SyncMetrics {
  readonly #metrics: Metrics;
  readonly #latency: ProgrammingLatency;
  #sent: Record<string, number> = {};

  constructor(metrics: Metrics) {
    this.#metrics = metrics;
    this.#latency = new ProgrammingLatency({
      sinceTrigger: (family, seconds) => metrics.networkProgrammed(family, seconds),
      sinceArrival: (seconds) => metrics.changeApplied(seconds),
    });
  }

  /** `arrivedAt` as for SyncReporter. */
  changeQueued(arrivedAt: number | undefined): void {
    if (arrivedAt !== undefined) this.#latency.arrived(arrivedAt);
    this.#metrics.syncQueued(systemClock.wall());
  }

  endpointsTriggered(family: Family, triggeredAt: number): void {
    this.#latency.triggered(family, triggeredAt);
  }

  changesTaken(): void {
    this.#latency.taken();
    this.#metrics.changesTaken();
  }

  /** All changes that were taken are in the kernel, as far as it lets them. */
  programmed(): void {
    this.#latency.programmed();
  }

  syncRunning(isRunning: boolean): void {
    this.#metrics.syncRunning(isRunning);
  }

  syncBrokeOff(): void {
    this.#metrics.syncFailed('sync');
  }

  /** After every sync, also after one that broke off. */
  syncEnded(record: SyncRecord, dataPlane: ReportedDataPlane): void {
    const { error, failures, conntrack, verified } = record;
    if (error !== undefined) this.syncBrokeOff();
    for (const { operation, code } of failures) this.#metrics.netlinkFailed(operation, code);
    if (failures.length > 0) this.#metrics.syncFailed('kernel');
    for (const cleanup of conntrack)
      if (cleanup.error === undefined)
        this.#metrics.conntrackCleaned(cleanup.family, cleanup.ms / 1000, cleanup.deleted);
    if (verified !== undefined) this.#metrics.verified(verified.ms / 1000, systemClock.wall());
    this.#drifted(record.drift);
    if (error !== undefined) return;
    this.#stateOf(dataPlane);
    this.#countMessages(dataPlane);
    const now = systemClock.wall();
    for (const family of FAMILIES) this.#metrics.synced(family, record.ms / 1000, now);
  }

  rulesChecked({ backend, drift, error, family }: RulesOutcome): void {
    this.#drifted(drift);
    if (error === undefined) return;
    this.#metrics.syncFailed('rules');
    if (backend === 'iptables') this.#metrics.iptablesRestoreFailed(family);
  }

  lockWaited(ms: number): void {
    this.#metrics.xtablesLockWaited(ms / 1000);
  }

  #drifted(drift: Drift): void {
    for (const { object, kind, count } of drift.counts.values()) this.#metrics.driftRepaired(object, kind, count);
  }

  #stateOf({ drains, reconciler, updater }: ReportedDataPlane): void {
    const metrics = this.#metrics;
    metrics.draining(drains.size);
    for (const [object, count] of Object.entries(reconciler.refusals.skipped)) metrics.refusedObjects(object, count);
    metrics.claimConflicts(updater.claims.conflicts);
    for (const family of FAMILIES) {
      const { internal, external } = updater.desired.withoutLocal(family);
      metrics.noLocalEndpoints(family, 'internal', internal);
      metrics.noLocalEndpoints(family, 'external', external);
    }
  }

  #countMessages({ clients }: ReportedDataPlane): void {
    for (const [operation, total] of Object.entries(messagesSent(clients))) {
      const before = this.#sent[operation] ?? 0;
      if (total > before) this.#metrics.netlinkSent(operation, total - before);
      this.#sent[operation] = total;
    }
  }
}
