import { setTimeout as sleep } from 'node:timers/promises';

/** How many times longer anything may take: an emulated machine (run.mjs, KERNEL=qemu:NAME) is several times slower. */
const SLOWNESS = process.env['TEST_KERNEL'] === 'qemu' ? 6 : 1;

/**
 * A limit in milliseconds as it is right for the machine at hand. For limits, never for how long to look at
 * something.
 */
export function patience(milliseconds: number): number {
  return milliseconds * SLOWNESS;
}

/**
 * Asks until the answer is truthy and returns it. After `milliseconds` (an upper bound against hanging, not a
 * measurement; on an emulated machine more) it throws, naming what was waited for and what `describe` or the last
 * answer
 * says.
 */
export async function waitUntil<T>(
  what: string,
  ask: () => T | Promise<T>,
  milliseconds = 60_000,
  describe?: () => string | Promise<string>,
): Promise<NonNullable<T>> {
  const limit = patience(milliseconds);
  const end = performance.now() + limit;
  for (let pause = 5; ; pause = Math.min(pause * 1.5, 100)) {
    const answer = await ask();
    if (answer) return answer;
    if (performance.now() > end) {
      const state = describe === undefined ? JSON.stringify(answer) : await describe();
      throw new Error(`waited ${limit} ms in vain for ${what}; now: ${state}`);
    }
    await sleep(pause);
  }
}
