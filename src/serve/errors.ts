/** A server that cannot listen; the message names the address, the server and the fix. */
export class ServeError extends Error {
  override readonly name = 'ServeError';

  constructor(
    readonly server: string,
    readonly address: string,
    /** The system's error code, such as EADDRINUSE. */
    readonly code: string,
    options: ErrorOptions & { fix?: string | undefined },
  ) {
    const fix = options.fix === undefined ? '' : `; ${options.fix}`;
    super(`${server} cannot listen on ${address}: ${REASONS[code] ?? code}${fix}`, { cause: options.cause });
  }
}

const REASONS: Readonly<Record<string, string>> = {
  EADDRINUSE: 'another process has this port',
  EADDRNOTAVAIL: 'this node does not have that address',
  EACCES: 'no permission (ports below 1024 need CAP_NET_BIND_SERVICE)',
};
