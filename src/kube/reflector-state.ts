import { type Log } from '../values/log.js';
import { type WallClock } from '../time/clock.js';
import { type KubeError } from './errors.js';

/** What health and metrics want to know; times in milliseconds since the epoch, 0 for never. */
export interface ReflectorState {
  readonly isSynced: boolean;
  /** Last time that a byte came from a list or watch. */
  readonly lastContactAt: number;
  /** For how many milliseconds nothing has come, on a clock that nobody sets; undefined when nothing ever came. */
  readonly silentMs: number | undefined;
  /** Last time that an object came. */
  readonly lastEventAt: number;
  /** Failures since the last list or watch event that worked. */
  readonly consecutiveFailures: number;
  readonly lastError: string | undefined;
  readonly resourceVersion: string | undefined;
  readonly objects: number;
  readonly lists: number;
  readonly watches: number;
  readonly failures: number;
  readonly malformed: number;
}

const LOG_EVERY_MS = 60_000;

/** The books of one reflector: contacts, failures, and what of them is worth a log line. */
export class ReflectorBook {
  lists = 0;
  watches = 0;
  malformed = 0;
  #failures = 0;
  #consecutiveFailures = 0;
  #lastError: string | undefined;
  #lastEventAt = 0;
  #lastContactAt = 0;
  #lastContact: number | undefined;
  #lastLogged: { readonly message: string; readonly at: number } | undefined;

  readonly #clock: WallClock;
  readonly #log: Log;

  constructor(
    readonly resource: string,
    clock: WallClock,
    log: Log,
  ) {
    this.#clock = clock;
    this.#log = log;
  }

  /** When bytes came last, in the clock's milliseconds. */
  get heardAt(): number | undefined {
    return this.#lastContact;
  }

  /** Bytes came. */
  heard(): void {
    this.#lastContact = this.#clock.now();
    this.#lastContactAt = this.#clock.wall();
  }

  /** An object came. */
  gotObject(): void {
    this.#lastEventAt = this.#lastContactAt;
  }

  /** A list was complete, or an event of a watch came. */
  worked(): void {
    if (this.#consecutiveFailures === 0) return;
    const fields = { resource: this.resource, failures: this.#consecutiveFailures };
    if (this.#lastLogged !== undefined) this.#log.info(fields, 'API server answers again');
    this.#lastLogged = undefined;
    this.#consecutiveFailures = 0;
    this.#lastError = undefined;
  }

  /** The same failure is logged once a minute, not at every attempt. */
  failed(error: KubeError, waitMs: number): void {
    this.#failures++;
    this.#consecutiveFailures++;
    this.#lastError = error.message;
    const now = this.#clock.now();
    if (this.#lastLogged?.message === error.message && now - this.#lastLogged.at < LOG_EVERY_MS) return;
    this.#lastLogged = { message: error.message, at: now };
    const { status, reason } = error;
    this.#log.warn({ resource: this.resource, status, reason, retryInMs: Math.round(waitMs) }, error.message);
  }

  info(reason: string, message: string): void {
    this.#log.info({ resource: this.resource, reason }, message);
  }

  state(): Omit<ReflectorState, 'isSynced' | 'resourceVersion' | 'objects'> {
    return {
      lastContactAt: this.#lastContactAt,
      silentMs: this.#lastContact === undefined ? undefined : this.#clock.now() - this.#lastContact,
      lastEventAt: this.#lastEventAt,
      consecutiveFailures: this.#consecutiveFailures,
      lastError: this.#lastError,
      lists: this.lists,
      watches: this.watches,
      failures: this.#failures,
      malformed: this.malformed,
    };
  }
}
