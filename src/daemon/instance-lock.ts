import { type Server, createServer } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';

/**
 * Lets one instance per network namespace work at a time. The lock is a listening abstract Unix socket: it needs no
 * file (the root is read-only), is scoped to the host's network as the data plane is, and is released by the kernel the
 * moment its holder dies, however it dies.
 */
const NAME = '\0kube-proxy-ipvs.instance';
const RETRY_MS = 100;

export class InstanceLock {
  private constructor(readonly server: Server) {}

  /** Waits until no other instance runs; `onWait` is called once if there is one. Rejects when `signal` aborts. */
  static async acquire(onWait: () => void, signal: AbortSignal, name = NAME): Promise<InstanceLock> {
    for (let attempt = 0; ; attempt++) {
      signal.throwIfAborted();
      const server = await tryListen(name);
      if (server !== undefined) return new InstanceLock(server);
      if (attempt === 0) onWait();
      await delay(RETRY_MS, undefined, { signal });
    }
  }

  release(): void {
    this.server.close();
  }
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
