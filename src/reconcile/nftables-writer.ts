import { type NftClient } from '../kernel/nftables/client.js';
import { type RuleDifference } from '../plan/iptables-rule-diff.js';
import { planNftables } from '../plan/nftables-diff.js';
import { type Family } from '../values/address.js';
import { type NftTable } from '../values/nftables.js';
import { StopFlag } from '../time/pacer.js';
import { type RuleWork, type RulesWriter } from './rules-keeper.js';

/** Rules in a table of our own, read and written through netlink: no process is started, and no lock is waited for. */
export class NftablesWriter implements RulesWriter<NftTable> {
  readonly backend = 'nftables';

  constructor(readonly client: NftClient) {}

  readAhead(): Promise<void> {
    return Promise.resolve(); // reading takes no time worth saving
  }

  async ensure(desired: NftTable, { signal, onWaiting, onWritten }: RuleWork): Promise<readonly RuleDifference[]> {
    const pacer = new StopFlag().pacer();
    const observed = await this.client.readTable(desired.family, () => pacer.yieldIfDue());
    signal.throwIfAborted();
    const { family } = desired;
    const { differences, operations, wakes } = planNftables(desired, observed, () => this.#mapsOf(family));
    if (differences.length > 0) {
      onWaiting();
      this.client.commit(family, `write nftables rules (IPv${family})`, operations);
      this.client.commit(family, `wake nftables table (IPv${family})`, wakes);
      onWritten();
    }
    return differences;
  }

  #mapsOf(family: Family): string[] {
    return this.client
      .listSets(family)
      .filter(({ isMap }) => isMap)
      .map(({ name }) => name);
  }
}
