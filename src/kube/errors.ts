import { errorMessage } from '../values/errors.js';

/** What went wrong while talking to the API server. `message` never holds credentials. */
export class KubeError extends Error {
  override readonly name = 'KubeError';
  /** `list services`, `watch endpointslices`, `load kubeconfig` */
  readonly operation: string;
  /** HTTP status, or the code of an in-stream ERROR event; 0 when there was no answer. */
  readonly status: number;
  /**
   * metav1.Status reason (`Expired`, `Forbidden`), or a system error code (`ECONNRESET`), or a word of our own
   * (`Idle`).
   */
  readonly reason: string;
  /** What the server asked us to wait, in milliseconds; 0 when it asked nothing. */
  readonly retryAfterMs: number;

  constructor(
    operation: string,
    details: { status?: number; reason?: string; message: string; retryAfterMs?: number; cause?: unknown },
  ) {
    super(`${operation}: ${details.message}`, details.cause === undefined ? undefined : { cause: details.cause });
    this.operation = operation;
    this.status = details.status ?? 0;
    this.reason = details.reason ?? '';
    this.retryAfterMs = details.retryAfterMs ?? 0;
  }

  /** The version we asked for (or the continue token) is compacted away: only a new list helps. */
  get isExpired(): boolean {
    return this.status === 410 || this.reason === 'Expired' || this.reason === 'Gone';
  }
}

/** Wraps anything thrown on the way to the API server; a KubeError passes through. */
export function toKubeError(operation: string, error: unknown): KubeError {
  if (error instanceof KubeError) return error;
  const code = (error as NodeJS.ErrnoException | undefined)?.code;
  return new KubeError(operation, {
    reason: typeof code === 'string' ? code : '',
    message: errorMessage(error) || 'connection failed',
    cause: error,
  });
}

/**
 * Milliseconds of a Retry-After header: seconds or an HTTP date (RFC 9110 10.2.3); 0 when absent or malformed. Capped
 * at five minutes so that no answer can silence a node for a day.
 */
export function parseRetryAfter(header: string | undefined, now: number): number {
  if (header === undefined) return 0;
  const text = header.trim();
  const wait = /^\d+$/.test(text) ? Number(text) * 1000 : Date.parse(text) - now;
  return Number.isFinite(wait) ? Math.min(Math.max(wait, 0), 300_000) : 0;
}
