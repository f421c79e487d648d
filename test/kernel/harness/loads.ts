/** Continuous traffic of which nothing may fail: several loads (agent.ts), and what tests ask of all of them. */
import assert from 'node:assert/strict';
import { type Load, type LoadCounts } from './agent.js';
import { waitUntil } from './wait.js';

export class Loads {
  readonly #loads: Readonly<Record<string, Load>>;
  #seen = { sent: 0, asked: 0 };

  /** By the name that messages call it by: who asks, or what. */
  constructor(loads: Readonly<Record<string, Load>>) {
    this.#loads = loads;
  }

  async counts(): Promise<Record<string, LoadCounts>> {
    const each = Object.entries(this.#loads).map(async ([name, load]) => [name, await load.counts()] as const);
    return Object.fromEntries(await Promise.all(each));
  }

  /** Waits until `isSo` holds for the counts of every load. */
  async waitFor(what: string, isSo: (counts: LoadCounts, name: string) => boolean): Promise<void> {
    await waitUntil(
      what,
      async () => Object.entries(await this.counts()).every(([name, counts]) => isSo(counts, name)),
      60_000,
      async () => JSON.stringify(await this.counts()),
    );
  }

  /**
   * Waits until each load has had more than `more` answers to new connections, and one on a long-lived connection,
   * since this was called; then demands that nothing of it has ever failed or been lost, and prints what it came to
   * since the last call.
   */
  async assertNothingLost(during: string, more = 0): Promise<void> {
    const before = await this.counts();
    await this.waitFor(
      'more traffic',
      ({ answered, asked }, name) => answered > before[name]!.answered + more && asked > before[name]!.asked,
    );
    const now = await this.counts();
    const { sent, asked, held } = sums(now);
    console.log(
      `${during}: ${sent - this.#seen.sent} new connections, ${asked - this.#seen.asked} requests on ${held} ` +
        `long-lived ones, ${failures(now)} failed`,
    );
    this.#seen = { sent, asked };
    for (const [name, { failed, lost, first }] of Object.entries(now))
      assert.deepEqual([failed, lost], [{}, {}], `${during}, ${name}: ${JSON.stringify(first)}`);
  }

  /** Ends all of them; what they came to. */
  async stop(): Promise<Record<string, LoadCounts>> {
    const each = Object.entries(this.#loads).map(async ([name, load]) => [name, await load.stop()] as const);
    return Object.fromEntries(await Promise.all(each));
  }
}

/** New connections and requests that failed, and long-lived connections that were lost. */
export function failures(counts: Readonly<Record<string, LoadCounts>>): number {
  const each = Object.values(counts).flatMap(({ failed, lost }) => [...Object.values(failed), ...Object.values(lost)]);
  return each.reduce((sum, count) => sum + count, 0);
}

export function sums(counts: Readonly<Record<string, LoadCounts>>): Pick<LoadCounts, 'sent' | 'asked' | 'held'> {
  const sum = (field: 'sent' | 'asked' | 'held'): number =>
    Object.values(counts).reduce((total, one) => total + one[field], 0);
  return { sent: sum('sent'), asked: sum('asked'), held: sum('held') };
}
