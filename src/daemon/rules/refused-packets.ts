import { type Family } from '../../values/address.js';
import { type RefusalReason, type RefusalRule } from '../../desired/refusal-rules.js';
import { type RuleCounters } from '../../kernel/iptables/rule-counters.js';

export interface RefusedPacketsOptions {
  readonly counters: RuleCounters;
  /** The rules as they should be; a chain that has another number of rules is not counted. */
  readonly rules: () => ReadonlyMap<Family, readonly RefusalRule[]>;
  readonly count: (family: Family, reason: RefusalReason, packets: number) => void;
  /** Milliseconds, of any origin. */
  readonly now: () => number;
}

/**
 * Packets refused or dropped by our rules, counted on by what the kernel's counters have grown. A rule that was written
 * anew begins at 0, and what it took between the last look and then is lost: the sum never falls.
 */
export class RefusedPackets {
  readonly #seen = new Map<string, number>();
  #readAt = -Infinity;
  #reading: Promise<void> | undefined;

  constructor(readonly options: RefusedPacketsOptions) {}

  /** Reads the counters, unless that was done a moment ago: then what is known will do. Never rejects. */
  collect(): Promise<void> {
    const { now, counters } = this.options;
    if (this.#reading !== undefined) return this.#reading;
    if (now() - this.#readAt < counters.keepMs) return Promise.resolve();
    this.#reading = this.#read().finally(() => {
      this.#readAt = now();
      this.#reading = undefined;
    });
    return this.#reading;
  }

  close(): void {
    this.options.counters.close();
  }

  async #read(): Promise<void> {
    for (const [family, rules] of this.options.rules())
      for (const table of new Set(rules.map((rule) => rule.table))) {
        const chains = await this.options.counters.read(family, table).catch(() => undefined);
        for (const rule of rules) {
          const packets = chains?.get(rule.chain);
          if (rule.table === table && packets?.length === rule.count) this.#add(family, rule, packets[rule.index]!);
        }
      }
  }

  #add(family: Family, { table, chain, index, reason }: RefusalRule, packets: number): void {
    const key = `${family} ${table} ${chain} ${index}`;
    const before = this.#seen.get(key) ?? 0;
    this.#seen.set(key, packets);
    this.options.count(family, reason, packets < before ? packets : packets - before);
  }
}
