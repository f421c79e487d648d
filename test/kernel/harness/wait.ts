import { setTimeout as sleep } from 'node:timers/promises';

/**
 * Asks until the answer is truthy and returns it. After `milliseconds` (an upper bound against hanging, not a
 * measurement) it throws, naming what was waited for and what `describe` or the last answer says.
 */
export async function waitUntil<T>(
  what: string,
  ask: () => T | Promise<T>,
  milliseconds = 60_000,
  describe?: () => string | Promise<string>,
): Promise<NonNullable<T>> {
  const end = performance.now() + milliseconds;
  for (let pause = 5; ; pause = Math.min(pause * 1.5, 100)) {
    const answer = await ask();
    if (answer) return answer;
    if (performance.now() > end) {
      const state = describe === undefined ? JSON.stringify(answer) : await describe();
      throw new Error(`waited ${milliseconds} ms in vain for ${what}; now: ${state}`);
    }
    await sleep(pause);
  }
}
