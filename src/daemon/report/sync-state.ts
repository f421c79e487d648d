import { type Family } from '../../values/address.js';
import { errorMessage } from '../../values/errors.js';
import { type RuleBackendName, type RulesOutcome } from '../../reconcile/rules-keeper.js';
import { type KernelRefusals } from '../../reconcile/kernel-refusals.js';
import { type SyncRecord } from '../../reconcile/sync-record.js';
import { type SysctlOutcome } from '../../reconcile/sysctl-keeper.js';
import { systemClock } from '../../time/clock.js';
import { SyncHistory } from './sync-history.js';
import { isWorthALine, syncSentence } from './sync-report.js';

const MAX_NAMED_REFUSALS = 21;

/** A kernel parameter that could not be set; the message names the fix. */
export interface FailedSysctl {
  readonly message: string;
  /** Service traffic is wrong without it. */
  readonly required: boolean;
}

/** How the kernel parameters differ from what the check before found. */
export interface SysctlNews {
  readonly failed: readonly (FailedSysctl & { readonly name: string })[];
  readonly rightAgain: readonly string[];
}

/** When, how long, and what came of it. */
interface Ended {
  readonly at: Date;
  readonly seconds: number;
  readonly result: string;
}

/** What health and the status page want to know of the syncs; `...Since` are performance.now() milliseconds. */
export class SyncState {
  /** Since when a change, or the repair of what drifted, waits for a sync that succeeds; undefined when none does. */
  waitingSince: number | undefined;
  runningSince: number | undefined;
  /** Since when every sync breaks off; undefined after one that came to its end. */
  breakingOffSince: number | undefined;
  lastSuccess: Date | undefined;
  /** The first failure of the last sync, and how many there were. */
  lastFailure: string | undefined;
  failureCount = 0;
  rulesFailure: string | undefined;
  rulesBackend: RuleBackendName = 'iptables';
  /**
   * Since when checks of the rules have failed, and for which family the last one did; undefined after one that went
   * well.
   */
  rulesFailingSince: number | undefined;
  rulesFailureFamily: Family | undefined;
  /** Objects that are skipped because the kernel keeps refusing them: how many, and what it says of some. */
  refused: { readonly count: number; readonly messages: readonly string[] } = { count: 0, messages: [] };
  readonly failedSysctls = new Map<string, FailedSysctl>();
  lastSync: Ended | undefined;
  lastVerification: Ended | undefined;
  /** Of the syncs that changed something. */
  readonly history = new SyncHistory();
  #isQueuedMeanwhile = false;

  changeQueued(): void {
    this.waitingSince ??= systemClock.now();
    this.#isQueuedMeanwhile = true;
  }

  syncStarted(): void {
    this.runningSince = systemClock.now();
  }

  /** A sync has taken all changes that were queued. */
  changesTaken(): void {
    this.#isQueuedMeanwhile = false;
  }

  /** Nothing came of the sync in flight, good or bad: the process ends. */
  syncStopped(): void {
    this.runningSince = undefined;
  }

  /** The sync could not even read the kernel, or ended in an error of this program's own. */
  syncBrokeOff(error: unknown): void {
    this.runningSince = undefined;
    this.waitingSince ??= systemClock.now();
    this.breakingOffSince ??= systemClock.now();
    this.lastFailure = errorMessage(error);
  }

  /** After every sync, also after one that broke off. */
  syncEnded(record: SyncRecord, refusals: KernelRefusals): void {
    this.runningSince = undefined;
    if (record.error !== undefined) this.syncBrokeOff(record.error);
    this.#waitOrNot(record);
    const { verified, drift, ms } = record;
    if (verified !== undefined) {
      const result =
        drift.total === 0 ? 'nothing drifted' : `${drift.total} difference${drift.total === 1 ? '' : 's'} repaired`;
      this.lastVerification = { at: new Date(systemClock.wall()), seconds: verified.ms / 1000, result };
    }
    if (record.error !== undefined) return;
    this.breakingOffSince = undefined;
    this.lastSuccess = new Date(systemClock.wall());
    this.refused = { count: refusals.skippedCount, messages: refusals.messages(MAX_NAMED_REFUSALS) };
    if (!isWorthALine(record)) return;
    this.lastSync = { at: new Date(systemClock.wall()), seconds: ms / 1000, result: syncSentence(record) };
    this.history.add(systemClock.wall(), ms / 1000);
  }

  #waitOrNot({ failures, ok }: SyncRecord): void {
    const [first] = failures;
    if (first !== undefined) {
      this.lastFailure = first.message;
      this.failureCount = failures.length;
    }
    if (!ok) {
      this.waitingSince ??= systemClock.now();
      return;
    }
    this.waitingSince = this.#isQueuedMeanwhile ? systemClock.now() : undefined;
    this.lastFailure = undefined;
    this.failureCount = 0;
  }

  rulesChecked({ backend, error, family }: RulesOutcome): void {
    this.rulesBackend = backend;
    this.rulesFailure = error?.message;
    this.rulesFailureFamily = error && family;
    this.rulesFailingSince = error && (this.rulesFailingSince ?? systemClock.now());
  }

  sysctlsChecked({ failures }: SysctlOutcome): SysctlNews {
    const before = new Map(this.failedSysctls);
    this.failedSysctls.clear();
    for (const { desired, message } of failures)
      this.failedSysctls.set(desired.name, { message, required: desired.required });
    return {
      failed: [...this.failedSysctls].flatMap(([name, failed]) =>
        before.get(name)?.message === failed.message ? [] : [{ name, ...failed }],
      ),
      rightAgain: [...before.keys()].filter((name) => !this.failedSysctls.has(name)),
    };
  }
}
