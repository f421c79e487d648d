import { RefusedChanges } from './failures.js';
import { type Pacer } from '../time/pacer.js';
import { type SyncRecord } from './sync-record.js';

/** Called in the middle of longer work, when nothing is queued for the kernel: it may make other changes. */
export type Between = () => Promise<unknown>;

/** One round of changes on their way to the kernel; a sync has several. */
export class Round {
  readonly refused = new RefusedChanges();
  /** For all its parts: a new one would look at the clock at each of its first calls. */
  readonly pacer: Pacer;

  constructor(readonly record: SyncRecord) {
    this.pacer = record.stop.pacer();
  }
}
