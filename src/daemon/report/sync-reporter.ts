import { type Logger } from 'pino';
import { type Family } from '../../values/address.js';
import { type Conflict } from '../../desired/conflict-pairs.js';
import { type Refusal } from '../../desired/exposures.js';
import { type RulesOutcome } from '../../reconcile/rules-keeper.js';
import { WorkStopped } from '../../time/pacer.js';
import { type SyncRecord } from '../../reconcile/sync-record.js';
import { type SysctlOutcome } from '../../reconcile/sysctl-keeper.js';
import { type Metrics } from '../../serve/metrics.js';
import { EventRecorder } from './event-recorder.js';
import { SyncLog } from './sync-log.js';
import { SyncMetrics } from './sync-metrics.js';
import { type ReportedDataPlane } from './sync-report.js';
import { SyncState } from './sync-state.js';

/** Hands what the syncs, and what goes on beside them, report to those who keep it: state, metrics, events and log. */
export class SyncReporter {
  readonly state = new SyncState();
  readonly events: EventRecorder;
  readonly #counted: SyncMetrics;
  readonly #logged: SyncLog;
  /** Called after every sync that came to its end. */
  afterSync: () => void = () => undefined;

  constructor(
    readonly metrics: Metrics,
    log: Logger,
  ) {
    this.events = new EventRecorder(log);
    this.#counted = new SyncMetrics(metrics);
    this.#logged = new SyncLog(log);
  }

  /**
   * A change came from the cluster; `arrivedAt`: when its bytes came from the API server, in performance.now()
   * milliseconds, for changes whose way into the kernel is to be measured.
   */
  changeQueued(arrivedAt?: number): void {
    this.state.changeQueued();
    this.#counted.changeQueued(arrivedAt);
  }

  /** An EndpointSlice whose change was triggered at this Unix millisecond (its annotation) is to be programmed. */
  endpointsTriggered(family: Family, triggeredAt: number): void {
    // Before the first sync the annotation tells how old the endpoint is, not how long programming takes.
    if (this.state.lastSuccess !== undefined) this.#counted.endpointsTriggered(family, triggeredAt);
  }

  syncStarted(): void {
    this.#counted.syncRunning(true);
    this.state.syncStarted();
    this.changesTaken();
  }

  /** All changes so far are about to be worked out. */
  changesTaken(): void {
    this.state.changesTaken();
    this.#counted.changesTaken();
  }

  /** The changes that were taken are in the kernel, be it in the middle of a sync or of a verification. */
  changesApplied(interleaved: boolean): void {
    this.#counted.programmed();
    if (interleaved) this.afterSync();
  }

  /** Everything that one sync has to report. */
  syncEnded(record: SyncRecord, dataPlane: ReportedDataPlane): void {
    this.#counted.syncRunning(false);
    if (record.error instanceof WorkStopped) {
      this.state.syncStopped();
      this.#logged.syncStopped(record);
      return;
    }
    this.state.syncEnded(record, dataPlane.reconciler.refusals);
    const sysctls = record.verified && this.state.sysctlsChecked(record.verified.sysctls);
    this.#counted.syncEnded(record, dataPlane);
    this.#logged.syncEnded(record, sysctls);
    this.events.syncEnded(record, dataPlane.ipvs.applied.size);
    if (record.error !== undefined) return;
    this.#counted.programmed();
    this.afterSync();
  }

  /** A sync ended in an error of this program's own: nothing that it did is known. */
  syncCrashed(error: unknown): void {
    this.state.syncBrokeOff(error);
    this.#counted.syncRunning(false);
    this.#counted.syncBrokeOff();
    this.#logged.syncBrokeOff(error);
    this.events.syncBrokeOff(error);
  }

  conflicts(pairs: readonly Conflict[]): void {
    this.events.conflicts(pairs);
    this.#logged.conflicts(pairs);
  }

  /** Part of a Service is left out for what it would do to the node; reported once, until that is over. */
  refused(service: string, { reason, text }: Refusal): void {
    this.metrics.objectSkipped('services', reason);
    this.events.add({ kind: 'refused', service, text });
    this.#logged.refused(service, text);
  }

  /** Until the first sync has ended everything is new, and no event. */
  *updated(...change: Parameters<EventRecorder['serviceChanged']>): Generator<void, void> {
    if (this.state.lastSuccess !== undefined) yield* this.events.serviceChanged(...change);
  }

  /** Called with every outcome of a check of the rules. */
  afterRules: (outcome: RulesOutcome) => void = () => undefined;

  rulesChecked(outcome: RulesOutcome): void {
    this.afterRules(outcome);
    this.state.rulesChecked(outcome);
    this.#counted.rulesChecked(outcome);
    this.#logged.rulesChecked(outcome);
    this.events.repaired(outcome.drift);
  }

  lockWaited(ms: number): void {
    this.#counted.lockWaited(ms);
    this.#logged.lockWaited(ms);
  }

  /** The kernel parameters before the first sync: what is set then has not drifted. */
  sysctlsPrepared(outcome: SysctlOutcome): void {
    this.#logged.sysctlsSet(outcome.changed);
    this.#logged.sysctlsChecked(this.state.sysctlsChecked(outcome));
  }
}
