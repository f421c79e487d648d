import { constants } from 'node:os';

const NAMES = new Map<number, string>(Object.entries(constants.errno).map(([name, value]) => [value, name]));
// Linux has these under two names, or node leaves them out; the kernel's own spelling is what people search for.
NAMES.set(11, 'EAGAIN');
NAMES.set(95, 'EOPNOTSUPP');
NAMES.set(35, 'EDEADLK');

/** The symbolic name of a positive errno, `ERRNO_<n>` when this platform does not know it. */
export function errnoName(errno: number): string {
  return NAMES.get(errno) ?? `ERRNO_${errno}`;
}

/** The positive errno for a symbolic name; 0 when unknown. */
export function errnoNumber(name: string): number {
  for (const [errno, known] of NAMES) if (known === name) return errno;
  return 0;
}

export interface NetlinkErrorDetails {
  /** What was asked for, such as `IPVS new-dest` or `socket`. */
  readonly operation: string;
  /** Positive errno. */
  readonly errno: number;
  /** The kernel's extended text (NLMSGERR_ATTR_MSG), when it sent one. */
  readonly extAck?: string | undefined;
  readonly sequence?: number | undefined;
  /** True when the kernel may or may not have done it: an answer was lost. The caller has to read the state back. */
  readonly resultUnknown?: boolean | undefined;
  readonly cause?: unknown;
}

/** The kernel (or the socket) refused an operation, or its answer was lost (`resultUnknown`). */
export class NetlinkError extends Error {
  override readonly name = 'NetlinkError';
  readonly operation: string;
  readonly errno: number;
  /** Symbolic errno: `EEXIST`. */
  readonly code: string;
  readonly extAck: string | undefined;
  readonly sequence: number | undefined;
  readonly resultUnknown: boolean;

  constructor(details: NetlinkErrorDetails) {
    const code = errnoName(details.errno);
    const unknown = details.resultUnknown === true ? ' (answer lost, result unknown)' : '';
    const text = details.extAck === undefined ? '' : `: ${details.extAck}`;
    super(`${details.operation}: ${code}${text}${unknown}`, { cause: details.cause });
    this.operation = details.operation;
    this.errno = details.errno;
    this.code = code;
    this.extAck = details.extAck;
    this.sequence = details.sequence;
    this.resultUnknown = details.resultUnknown === true;
  }
}

/** A message that is truncated, lies about its length, or does not fit where it should be written. */
export class NetlinkProtocolError extends Error {
  override readonly name = 'NetlinkProtocolError';

  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
  }
}

/** The errno name of an error thrown by a socket (`send`, `receive`); undefined for anything else. */
export function socketErrorCode(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error) || typeof error.code !== 'string') return undefined;
  return error.code;
}
