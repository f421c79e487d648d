import { type Clock } from '../time/clock.js';

/**
 * The kernel keeps a deleted real server on a list (ip_vs_ctl.c, dest_trash): its timer finds it idle within a minute
 * and frees it two minutes later. So long an entry is searched past by every addition of a real server, ms.
 */
const LISTED_MS = 180_000;
/**
 * So many are deleted at once, whatever else goes on: to search past one takes some 6 ns, so that an addition takes
 * 30 us longer at most. What all but the largest clusters change in three minutes goes as soon as it is idle, as by
 * kube-proxy.
 */
const AT_ONCE = 5000;
/** So long the list may get when nothing is added, and its search still takes a part of a millisecond. */
const LONGEST_LIST = 10_000;
/**
 * More may be on the list when more than that wait, by this share of them: what waits gets fewer by a factor of e in
 * ten minutes, so that however many backends come and go, those of weight 0 stay a small part of the table.
 */
const SHARE_OF_WAITING = LISTED_MS / 600_000;
/** Additions with smaller gaps than this are one update of the cluster, ms ... */
const QUIET_MS = 2000;
/** ... through which deletions wait, unless it goes on for longer than this, ms: then it is no update any more. */
const LONGEST_WAIT_MS = 60_000;

/**
 * How many real servers without connections may be deleted now, so that the kernel's list of deleted ones stays short
 * and additions fast: a rolling update of half a million endpoints adds 50,000 real servers, and each would search past
 * all that were deleted. A few go at once, the others stay at weight 0 until nothing is added for two seconds, and then
 * go evenly. Real servers that have to go at once (UDP, SCTP, whole Services, deadlines) count, but never wait.
 */
export class DeletionBudget {
  #left = AT_ONCE;
  #settledAt: number;
  #busySince = -Infinity;
  #addedAt = -Infinity;

  constructor(readonly clock: Pick<Clock, 'now'>) {
    this.#settledAt = clock.now();
  }

  /** How many may be deleted now when `waiting` real servers are on their way out; negative: more than that were. */
  left(waiting: number): number {
    const now = this.clock.now();
    const perMs = Math.max(LONGEST_LIST, waiting * SHARE_OF_WAITING) / LISTED_MS;
    this.#left = Math.min(AT_ONCE, this.#left + perMs * this.#grantedSince(this.#settledAt, now));
    this.#settledAt = now;
    return Math.floor(this.#left);
  }

  /** So many were deleted. */
  spend(count: number): void {
    this.#left = Math.max(-LONGEST_LIST, this.#left - count);
  }

  /** Real servers were added: what comes within two seconds belongs to the same update. */
  added(): void {
    const now = this.clock.now();
    if (now - this.#addedAt >= QUIET_MS) this.#busySince = now;
    this.#addedAt = now;
  }

  /** Of the time from `from` to `now`, what was not part of an update, or was part of one that takes too long. */
  #grantedSince(from: number, now: number): number {
    const busyUntil = Math.min(this.#addedAt + QUIET_MS, this.#busySince + LONGEST_WAIT_MS, now);
    const busyFrom = Math.max(this.#busySince, from);
    return now - from - Math.max(0, busyUntil - busyFrom);
  }
}
