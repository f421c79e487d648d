/** The lock that every iptables program takes, held by another process for exactly as long as a test wants. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';

export interface HeldLock {
  /** Whether it is still held. */
  readonly isHeld: boolean;
  /** Lets it go; resolves when it is free. May be called twice. */
  release(): Promise<void>;
}

/** Waits for the lock, like another program's iptables, and holds it until `release`, or this process's end. */
export async function holdXtablesLock(): Promise<HeldLock> {
  // It ends when its standard input does, so the lock is never free at a time that nobody chose.
  const holder = spawn('flock', ['/run/xtables.lock', 'sh', '-c', 'echo held; exec cat'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const ended = once(holder, 'close');
  await once(holder.stdout, 'data');
  holder.stdout.resume();
  return {
    get isHeld() {
      return holder.exitCode === null && holder.signalCode === null && !holder.stdin.writableEnded;
    },
    release: async () => {
      holder.stdin.end();
      await ended;
    },
  };
}
