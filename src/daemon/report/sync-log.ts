import { type Logger } from 'pino';
import { errorMessage } from '../../values/errors.js';
import { formatVirtualServer } from '../../values/virtual-server.js';
import { type Conflict } from '../../desired/conflict-pairs.js';
import { type RulesOutcome } from '../../reconcile/rules-keeper.js';
import { type ConntrackCleanup, type SyncRecord } from '../../reconcile/sync-record.js';
import { formatClaimed } from './event-ring.js';
import { isWorthALine, syncFields } from './sync-report.js';
import { type SysctlNews } from './sync-state.js';

const MAX_LOGGED_FAILURES = 5;
const MAX_LOGGED_CONFLICTS = 100;

/** The log lines of the syncs: what changed, and what an operator may have to look after. */
export class SyncLog {
  readonly #log: Logger;

  constructor(log: Logger) {
    this.#log = log;
  }

  syncStopped({ ms }: SyncRecord): void {
    this.#log.info({ ms: Math.round(ms) }, 'the sync in flight broke off; the next start goes on from there');
  }

  syncBrokeOff(error: unknown): void {
    this.#log.error({ error: errorMessage(error) }, 'sync failed; it will be tried again');
  }

  /** After every sync, also after one that broke off; `sysctls` when it checked them. */
  syncEnded(record: SyncRecord, sysctls: SysctlNews | undefined): void {
    if (record.error === undefined) this.#synced(record);
    else this.syncBrokeOff(record.error);
    for (const text of record.warnings) this.#log.warn(text);
    this.#failed(record);
    for (const cleanup of record.conntrack) this.#conntrackCleaned(cleanup);
    if (sysctls !== undefined) this.sysctlsChecked(sysctls);
    const { drift } = record;
    if (drift.total > 0) this.#log.warn({ drift: drift.names, count: drift.total }, 'drift found and repaired');
  }

  #synced(record: SyncRecord): void {
    const { newlySkipped, adopted } = record;
    if (newlySkipped.length > 0)
      this.#log.warn(
        { refused: newlySkipped.slice(0, MAX_LOGGED_FAILURES), count: newlySkipped.length },
        'the kernel keeps refusing these: skipped, and tried again now and then; the others are in the kernel',
      );
    if (isWorthALine(record))
      this.#log.info(syncFields(record), adopted ? 'took over the kernel state and synced' : 'synced');
  }

  #failed({ failures }: SyncRecord): void {
    const worthALine = failures.filter(({ isOnTrial }) => isOnTrial !== true);
    if (worthALine.length === 0) return;
    const messages = worthALine.slice(0, MAX_LOGGED_FAILURES).map(({ message }) => message);
    this.#log.error(
      { failures: messages, count: worthALine.length },
      'some changes failed; the others are in the kernel, these will be tried again',
    );
  }

  #conntrackCleaned({ failures, error, isRepeated }: ConntrackCleanup): void {
    const [first] = failures;
    if (isRepeated || (first === undefined && error === undefined)) return;
    const fields =
      error === undefined
        ? { error: first!.message, count: failures.length }
        : { error: errorMessage(error.cause), servers: error.servers.map(formatVirtualServer) };
    this.#log.error(fields, 'stale conntrack entries of UDP backends could not be removed; it will be tried again');
  }

  /** One line per pair of Services, however many addresses and ports they quarrel about. */
  conflicts(pairs: readonly Conflict[]): void {
    for (const { winner, loser, example } of pairs.slice(0, MAX_LOGGED_CONFLICTS)) {
      const what = formatClaimed(example);
      this.#log.warn({ winner, loser, example: what }, 'two Services claim the same address: only one can have it');
    }
    const more = pairs.length - MAX_LOGGED_CONFLICTS;
    if (more > 0) this.#log.warn({ pairs: more }, 'more Services claim addresses of others');
  }

  refused(service: string, problem: string): void {
    this.#log.warn({ resource: 'services', object: service, problem }, 'part of an object is refused and left out');
  }

  rulesChecked({ backend, differences, drift, error, heldBack }: RulesOutcome): void {
    if (error !== undefined) {
      this.#log.error({ error: error.message }, `${backend} rules could not be checked or written`);
    } else if (differences.length > 0) {
      const shown = drift.total === 0 ? {} : { rules: drift.names };
      this.#log.info({ differences: differences.length, ...shown }, `${backend} rules written`);
    }
    if (heldBack.length > 0)
      this.#log.info({ families: heldBack }, "kube-proxy's iptables mode serves until everything else is in place");
  }

  lockWaited(ms: number): void {
    this.#log.warn({ waitedMs: Math.round(ms) }, 'another process holds the xtables lock: rules wait, IPVS goes on');
  }

  sysctlsSet(changed: readonly string[]): void {
    if (changed.length > 0) this.#log.info({ sysctls: changed }, 'sysctls set');
  }

  sysctlsChecked({ failed, rightAgain }: SysctlNews): void {
    for (const { name, message, required } of failed)
      if (required) this.#log.error({ sysctl: name }, message);
      else this.#log.warn({ sysctl: name }, message);
    for (const name of rightAgain) this.#log.info({ sysctl: name }, 'the sysctl is right again');
  }
}
