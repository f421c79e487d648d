import { CommandError } from '../command.js';

const LOCK_MESSAGE = /xtables lock/;

/** True for an iptables program that gave up because another process holds /run/xtables.lock. */
export function isLockHeld(error: unknown): boolean {
  return error instanceof CommandError && LOCK_MESSAGE.test(error.stderr);
}
