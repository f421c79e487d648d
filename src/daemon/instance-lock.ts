import { type Server, type Socket, connect, createServer } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';

/**
 * Lets one instance per network namespace work at a time. The lock is a listening abstract Unix socket: it needs no
 * file (the root is read-only), is scoped to the host's network as the data plane is, and is released by the kernel the
 * moment its holder dies, however it dies. Any user can take such a name. So the kernel is asked who holds it, and one
 * that is not root does not count: the next name is taken then, and all names are looked at.
 */
const NAME = '\0kube-proxy-ipvs.instance';
const NAMES = 8;
const RETRY_MS = 100;
/**
 * How long to wait for another instance; then the pod's restart policy takes over, and the reason is in its last log.
 */
const LIMIT_MS = 5 * 60_000;

/** Who holds the lock. */
export interface Holder {
  /** 0: in another process namespace. */
  readonly pid: number;
  readonly uid: number;
}

export interface LockOptions {
  /**
   * Credentials of the listener that a descriptor is connected to; without it every holder is taken for an instance.
   */
  readonly peerCredentials?: ((fd: number) => Holder) | undefined;
  readonly name?: string;
  readonly limitMs?: number;
}

/** Another instance held the lock for too long. */
export class InstanceLockError extends Error {
  override readonly name = 'InstanceLockError';
}

export class InstanceLock {
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  /**
   * Waits until no other instance runs; `onWait` is called once if there is one. Rejects when `signal` aborts, and with
   * InstanceLockError after five minutes.
   */
  static async acquire(
    onWait: (holder: Holder) => void,
    signal: AbortSignal,
    options: LockOptions = {},
  ): Promise<InstanceLock> {
    const limit = options.limitMs ?? LIMIT_MS;
    const start = performance.now();
    for (let attempt = 0; ; attempt++) {
      signal.throwIfAborted();
      const outcome = await attemptOnce(options);
      if (!('pid' in outcome)) return new InstanceLock(outcome);
      if (attempt === 0) onWait(outcome);
      if (performance.now() - start > limit)
        throw new InstanceLockError(
          `another instance (${holderName(outcome)}) has held this node for ${Math.round(limit / 1000)} s: end it`,
        );
      await delay(RETRY_MS * (1 + Math.random()), undefined, { signal });
    }
  }

  /** The lock, or undefined when an instance runs. */
  static async tryAcquire(options: LockOptions = {}): Promise<InstanceLock | undefined> {
    const outcome = await attemptOnce(options);
    return 'pid' in outcome ? undefined : new InstanceLock(outcome);
  }

  release(): void {
    this.#server.close();
  }
}

export function holderName({ pid }: Holder): string {
  return pid > 0 ? `pid ${pid}` : 'in another process namespace';
}

/** Takes the first name that no instance's or stranger's hold is on, unless an instance has any of them. */
async function attemptOnce(options: LockOptions): Promise<Server | Holder> {
  const name = options.name ?? NAME;
  const names = Array.from({ length: NAMES }, (_, i) => (i === 0 ? name : `${name}.${i}`));
  for (const candidate of names) {
    const server = await tryListen(candidate);
    if (server === undefined) {
      const holder = await holderOf(candidate, options);
      if (holder !== undefined && isInstance(holder, options)) return holder;
      continue;
    }
    for (const other of names) {
      const holder = other === candidate ? undefined : await holderOf(other, options);
      if (holder === undefined || !isInstance(holder, options)) continue;
      server.close();
      return holder;
    }
    return server;
  }
  // Strangers have them all: they must not keep the node from being served.
  return (await tryListen(`${name}.${process.pid}.${performance.now()}`))!;
}

/** An instance runs as root; one that runs as somebody else's user, tests say, is of the same user as this one. */
function isInstance({ uid }: Holder, { peerCredentials }: LockOptions): boolean {
  return peerCredentials === undefined || uid === 0 || uid === process.getuid?.();
}

function tryListen(name: string): Promise<Server | undefined> {
  return new Promise((resolve, reject) => {
    const server = createServer((connection) => connection.destroy());
    server.unref();
    server.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EADDRINUSE') resolve(undefined);
      else reject(error);
    });
    server.listen(name, () => resolve(server));
  });
}

/** Undefined when nobody listens. */
function holderOf(name: string, { peerCredentials }: LockOptions): Promise<Holder | undefined> {
  return new Promise((resolve) => {
    const socket = connect(name);
    socket.once('error', () => resolve(undefined));
    socket.once('connect', () => {
      resolve(peerCredentials === undefined ? { pid: 0, uid: 0 } : peerCredentials(descriptorOf(socket)));
      socket.destroy();
    });
  });
}

/** Node keeps the descriptor to itself. */
function descriptorOf(socket: Socket): number {
  return (socket as unknown as { readonly _handle: { readonly fd: number } })._handle.fd;
}
