import { type Logger } from 'pino';
import { FAMILIES, type Family } from '../values/address.js';
import { errorMessage } from '../values/errors.js';
import { formatVirtualServer } from '../values/virtual-server.js';
import { type Conflict } from '../desired/conflict-pairs.js';
import { type Refusal } from '../desired/exposures.js';
import { messagesSent } from '../kernel/clients.js';
import { type Drift } from '../reconcile/drift.js';
import { WorkStopped } from '../reconcile/pacer.js';
import { type RulesOutcome } from '../reconcile/iptables-keeper.js';
import { type ConntrackCleanup, type SyncRecord } from '../reconcile/sync-record.js';
import { type SysctlOutcome } from '../reconcile/sysctl-keeper.js';
import { type Metrics } from '../serve/metrics.js';
import { formatClaimed } from './event-ring.js';
import { EventRecorder } from './event-recorder.js';
import { type ReportedDataPlane, isWorthALine, syncFields, syncSentence } from './sync-report.js';

const MAX_LOGGED_FAILURES = 5;
/** Measured are so many changes of one sync at most: a histogram needs no more. */
const MOST_TRIGGERS = 10_000;
const MAX_NAMED_REFUSALS = 21;
/** Of one sync: the ring is for other things, too. */
const MAX_CONFLICT_EVENTS = 20;
const MAX_LOGGED_CONFLICTS = 100;

/** A kernel parameter that could not be set; the message names the fix. */
export interface FailedSysctl {
  readonly message: string;
  /** Service traffic is wrong without it. */
  readonly required: boolean;
}

/** What health and the status page want to know of the syncs; `...Since` are performance.now() milliseconds. */
export interface SyncState {
  /** Since when a change, or the repair of what drifted, waits for a sync that succeeds; undefined when none does. */
  waitingSince: number | undefined;
  runningSince: number | undefined;
  /** Since when every sync breaks off; undefined after one that came to its end. */
  breakingOffSince: number | undefined;
  lastSuccess: Date | undefined;
  /** The first failure of the last sync, and how many there were. */
  lastFailure: string | undefined;
  failureCount: number;
  rulesFailure: string | undefined;
  /**
   * Since when checks of the rules have failed, and for which family the last one did; undefined after one that went
   * well.
   */
  rulesFailingSince: number | undefined;
  rulesFailureFamily: Family | undefined;
  /** Objects that are skipped because the kernel keeps refusing them: how many, and what it says of some. */
  refused: { readonly count: number; readonly messages: readonly string[] };
  readonly failedSysctls: Map<string, FailedSysctl>;
  lastSync: { at: Date; seconds: number; result: string } | undefined;
  lastVerification: { at: Date; seconds: number; result: string } | undefined;
}

/** A change of an EndpointSlice, made at this Unix millisecond. */
interface Trigger {
  readonly family: Family;
  readonly triggeredAt: number;
}

/** Turns what the syncs report into metrics, log lines and health. */
export class SyncReporter {
  readonly state: SyncState = {
    waitingSince: undefined,
    runningSince: undefined,
    breakingOffSince: undefined,
    lastSuccess: undefined,
    lastFailure: undefined,
    failureCount: 0,
    rulesFailure: undefined,
    rulesFailingSince: undefined,
    rulesFailureFamily: undefined,
    refused: { count: 0, messages: [] },
    failedSysctls: new Map(),
    lastSync: undefined,
    lastVerification: undefined,
  };
  /** Called after every sync that came to its end. */
  afterSync: () => void = () => undefined;
  /** Triggers whose changes no sync has taken yet, and those that the last sync took. */
  #pending: Trigger[] = [];
  #taken: Trigger[] = [];
  #sent: Record<string, number> = {};
  #queuedDuring = false;

  readonly events: EventRecorder;

  constructor(
    readonly metrics: Metrics,
    readonly log: Logger,
  ) {
    this.events = new EventRecorder(log);
  }

  /** A change came from the cluster. */
  changeQueued(): void {
    this.state.waitingSince ??= performance.now();
    this.#queuedDuring = true;
    this.metrics.syncQueued(Date.now());
  }

  /** An EndpointSlice whose change was triggered at this Unix millisecond (its annotation) is to be programmed. */
  endpointsTriggered(family: Family, triggeredAt: number): void {
    // Before the first sync the annotation tells how old the endpoint is, not how long programming takes.
    if (this.state.lastSuccess === undefined) return;
    if (this.#pending.length < MOST_TRIGGERS) this.#pending.push({ family, triggeredAt });
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

  /** Everything that one sync has to report. */
  syncEnded(record: SyncRecord, dataPlane: ReportedDataPlane): void {
    const { state, metrics } = this;
    metrics.syncRunning(false);
    state.runningSince = undefined;
    if (record.error instanceof WorkStopped) {
      this.log.info({ ms: Math.round(record.ms) }, 'the sync in flight broke off; the next start goes on from there');
      return;
    }
    if (record.error === undefined) this.#synced(record, dataPlane);
    else this.#brokeOff(record.error);
    this.#report(record);
    if (record.ok) {
      state.waitingSince = this.#queuedDuring ? performance.now() : undefined;
      state.lastFailure = undefined;
      state.failureCount = 0;
      this.events.succeeded();
    } else state.waitingSince ??= performance.now();
    if (record.error === undefined) this.#ended(record);
  }

  /** What follows every sync that came to its end, whatever the kernel refused of it. */
  #ended({ ms }: SyncRecord): void {
    const { state, metrics } = this;
    const now = Date.now();
    state.breakingOffSince = undefined;
    state.lastSuccess = new Date(now);
    for (const family of FAMILIES) metrics.synced(family, ms / 1000, now);
    this.#programmed(now);
    this.afterSync();
  }

  #takePending(): void {
    this.#queuedDuring = false;
    // A sync that broke off leaves some: they are counted with the next one that comes to its end.
    const room = MOST_TRIGGERS - this.#taken.length;
    if (this.#taken.length === 0) this.#taken = this.#pending;
    else for (const trigger of this.#pending.slice(0, room)) this.#taken.push(trigger);
    this.#pending = [];
    this.metrics.changesTaken();
  }

  #programmed(now: number): void {
    for (const { family, triggeredAt } of this.#taken)
      this.metrics.networkProgrammed(family, (now - triggeredAt) / 1000);
    this.#taken = [];
  }

  /** A sync ended in an error of this program's own: nothing that it did is known. */
  syncCrashed(error: unknown): void {
    this.metrics.syncRunning(false);
    this.state.runningSince = undefined;
    this.state.waitingSince ??= performance.now();
    this.#brokeOff(error);
  }

  /** The sync could not even read the kernel. */
  #brokeOff(error: unknown): void {
    this.state.breakingOffSince ??= performance.now();
    this.state.lastFailure = errorMessage(error);
    this.metrics.syncFailed('sync');
    this.events.failed([errorMessage(error)]);
    this.log.error({ error: errorMessage(error) }, 'sync failed; it will be tried again');
  }

  #synced(record: SyncRecord, dataPlane: ReportedDataPlane): void {
    const { metrics, state } = this;
    metrics.draining(dataPlane.drains.size);
    this.#refused(record, dataPlane.reconciler.refusals);
    metrics.claimConflicts(dataPlane.updater.claims.conflicts);
    for (const family of FAMILIES) {
      const { internal, external } = dataPlane.updater.desired.withoutLocal(family);
      metrics.noLocalEndpoints(family, 'internal', internal);
      metrics.noLocalEndpoints(family, 'external', external);
    }
    this.#countMessages(dataPlane);
    if (record.adopted) this.events.add({ kind: 'started', virtualServers: dataPlane.ipvs.applied.size });
    if (!isWorthALine(record)) return;
    const fields = syncFields(record);
    state.lastSync = { at: new Date(), seconds: record.ms / 1000, result: syncSentence(record) };
    this.log.info(fields, record.adopted ? 'took over the kernel state and synced' : 'synced');
  }

  /** What a sync has to report even if it broke off. */
  #report(record: SyncRecord): void {
    for (const text of record.warnings) this.log.warn(text);
    for (const { operation, code } of record.failures) this.metrics.netlinkFailed(operation, code);
    if (record.failures.length > 0) this.#failed(record);
    for (const cleanup of record.conntrack) this.#conntrackCleaned(cleanup);
    const { drift, verified } = record;
    if (verified !== undefined) this.#verified(verified, drift);
    this.#countDrift(drift);
    if (drift.total > 0) this.log.warn({ drift: drift.names, count: drift.total }, 'drift found and repaired');
  }

  /** One line per pair of Services, however many addresses and ports they quarrel about. */
  conflicts(pairs: readonly Conflict[]): void {
    for (const conflict of pairs.slice(0, MAX_CONFLICT_EVENTS)) this.events.add({ kind: 'conflict', conflict });
    for (const { winner, loser, example } of pairs.slice(0, MAX_LOGGED_CONFLICTS)) {
      const what = formatClaimed(example);
      this.log.warn({ winner, loser, example: what }, 'two Services claim the same address: only one can have it');
    }
    const more = pairs.length - MAX_LOGGED_CONFLICTS;
    if (more > 0) this.log.warn({ pairs: more }, 'more Services claim addresses of others');
  }

  /** Part of a Service is left out for what it would do to the node; reported once, until that is over. */
  refused(service: string, { reason, text }: Refusal): void {
    this.metrics.objectSkipped('services', reason);
    this.events.add({ kind: 'refused', service, text });
    this.log.warn(
      { resource: 'services', object: service, problem: text },
      'part of an object is refused and left out',
    );
  }

  /** Until the first sync has ended everything is new, and no event. */
  *updated(...change: Parameters<EventRecorder['serviceChanged']>): Generator<void, void> {
    if (this.state.lastSuccess !== undefined) yield* this.events.serviceChanged(...change);
  }

  rulesChecked({ differences, drift, error, family }: RulesOutcome): void {
    this.state.rulesFailure = error?.message;
    this.state.rulesFailureFamily = error && family;
    this.state.rulesFailingSince = error && (this.state.rulesFailingSince ?? performance.now());
    this.#countDrift(drift);
    if (error !== undefined) {
      this.metrics.syncFailed('rules');
      this.metrics.iptablesRestoreFailed(family);
      this.log.error({ error: error.message }, 'iptables rules could not be checked or written');
    } else if (differences.length > 0) {
      const shown = drift.total === 0 ? {} : { rules: drift.names };
      this.log.info({ differences: differences.length, ...shown }, 'iptables rules written');
    }
  }

  lockWaited(ms: number): void {
    this.metrics.xtablesLockWaited(ms / 1000);
    this.log.warn({ waitedMs: Math.round(ms) }, 'another process holds the xtables lock: rules wait, IPVS goes on');
  }

  /** The kernel parameters before the first sync: what is set then has not drifted. */
  sysctlsPrepared(outcome: SysctlOutcome): void {
    if (outcome.changed.length > 0) this.log.info({ sysctls: outcome.changed }, 'sysctls set');
    this.#sysctlsChecked(outcome);
  }

  #sysctlsChecked({ failures }: SysctlOutcome): void {
    const { failedSysctls } = this.state;
    const before = new Map(failedSysctls);
    failedSysctls.clear();
    for (const { desired, message } of failures) {
      failedSysctls.set(desired.name, { message, required: desired.required });
      if (before.get(desired.name)?.message === message) continue;
      if (desired.required) this.log.error({ sysctl: desired.name }, message);
      else this.log.warn({ sysctl: desired.name }, message);
    }
    for (const name of before.keys())
      if (!failedSysctls.has(name)) this.log.info({ sysctl: name }, 'the sysctl is right again');
  }

  #conntrackCleaned({ family, ms, deleted, failures, error, isRepeated }: ConntrackCleanup): void {
    if (error === undefined) this.metrics.conntrackCleaned(family, ms / 1000, deleted);
    const [first] = failures;
    if (isRepeated || (first === undefined && error === undefined)) return;
    const fields =
      error === undefined
        ? { error: first!.message, count: failures.length }
        : { error: errorMessage(error.cause), servers: error.servers.map(formatVirtualServer) };
    this.log.error(fields, 'stale conntrack entries of UDP backends could not be removed; it will be tried again');
  }

  #countDrift(drift: Drift): void {
    this.events.repaired(drift);
    for (const { object, kind, count } of drift.counts.values()) this.metrics.driftRepaired(object, kind, count);
  }

  #failed({ failures }: SyncRecord): void {
    this.state.lastFailure = failures[0]!.message;
    this.state.failureCount = failures.length;
    this.metrics.syncFailed('kernel');
    this.events.failed(failures.map(({ message }) => message));
    const worthALine = failures.filter(({ isOnTrial }) => isOnTrial !== true);
    if (worthALine.length === 0) return;
    const messages = worthALine.slice(0, MAX_LOGGED_FAILURES).map(({ message }) => message);
    this.log.error(
      { failures: messages, count: worthALine.length },
      'some changes failed; the others are in the kernel, these will be tried again',
    );
  }

  /** What the kernel keeps refusing is reported once, and shown as long as it is so. */
  #refused({ newlySkipped }: SyncRecord, refusals: ReportedDataPlane['reconciler']['refusals']): void {
    for (const [object, count] of Object.entries(refusals.skipped)) this.metrics.refusedObjects(object, count);
    this.state.refused = { count: refusals.skippedCount, messages: refusals.messages(MAX_NAMED_REFUSALS) };
    if (newlySkipped.length === 0) return;
    const named = newlySkipped.slice(0, MAX_LOGGED_FAILURES);
    this.events.add({ kind: 'skipped', messages: named, count: newlySkipped.length });
    this.log.warn(
      { refused: named, count: newlySkipped.length },
      'the kernel keeps refusing these: skipped, and tried again now and then; the others are in the kernel',
    );
  }

  #verified({ ms, sysctls }: NonNullable<SyncRecord['verified']>, drift: Drift): void {
    this.metrics.verified(ms / 1000, Date.now());
    this.#sysctlsChecked(sysctls);
    const result = drift.total === 0 ? 'nothing drifted' : `${drift.total} differences repaired`;
    this.state.lastVerification = { at: new Date(), seconds: ms / 1000, result };
  }

  #countMessages(dataPlane: ReportedDataPlane): void {
    for (const [operation, total] of Object.entries(messagesSent(dataPlane.clients))) {
      const before = this.#sent[operation] ?? 0;
      if (total > before) this.metrics.netlinkSent(operation, total - before);
      this.#sent[operation] = total;
    }
  }
}
