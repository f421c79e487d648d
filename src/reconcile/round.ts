import { RefusedChanges } from './failures.js';
import { type SyncRecord } from './sync-record.js';

/** One round of changes on their way to the kernel; a sync has several. */
export class Round {
  readonly refused = new RefusedChanges();

  constructor(readonly record: SyncRecord) {}
}
