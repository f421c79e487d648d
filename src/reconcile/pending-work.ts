import { type Touched, newTouched } from '../desired/desired-state.js';
import { Drift } from './drift.js';
import { type SyncRecord } from './sync-record.js';

/** What the next sync has to do beside bringing up to date what changed in the cluster, and what it has to report. */
export class PendingWork {
  /** Kernel objects to be made as desired. */
  touched: Touched = newTouched();
  /** The whole kernel state is to be read back, whatever the interval. */
  verification = false;
  #drift = new Drift();
  #warnings: string[] = [];

  /** Noticed between two syncs: counted by the next one, which repairs it. */
  get drift(): Drift {
    return this.#drift;
  }

  warn(text: string): void {
    if (!this.#warnings.includes(text)) this.#warnings.push(text);
  }

  /** Hands over what was touched; what fails of it has to be put back. */
  takeTouched(): Touched {
    const taken = this.touched;
    this.touched = newTouched();
    return taken;
  }

  /** Moves what there is to report into `record`. */
  reportTo(record: SyncRecord): void {
    record.drift.merge(this.#drift);
    for (const text of this.#warnings) record.warnings.push(text);
    this.#drift = new Drift();
    this.#warnings = [];
  }
}
