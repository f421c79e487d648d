/** The keeper of the rules over iptables programs in memory. */
import { iptablesRules } from '../../src/desired/iptables-rules.js';
import { type RuleSet } from '../../src/desired/iptables-rule-set.js';
import { Iptables } from '../../src/kernel/iptables/iptables.js';
import { IptablesWriter } from '../../src/reconcile/iptables-writer.js';
import { type RulesOutcome, RulesKeeper } from '../../src/reconcile/rules-keeper.js';
import { type Clock } from '../../src/time/clock.js';
import { type Family } from '../../src/values/address.js';
import { HandClock } from '../fakes/hand-clock.js';
import { FakeIptables } from './fake-iptables.js';

export const rulesOf = (family: Family): RuleSet =>
  iptablesRules({
    family,
    masqueradeMark: 0x4000,
    masqueradeAll: false,
    randomFully: true,
    detectLocal: { mode: 'none' },
  });

export class RulesRig {
  readonly outcomes: RulesOutcome[] = [];
  readonly waits: number[] = [];
  readonly timers = new HandClock();
  now = 0;
  readonly keeper: RulesKeeper<RuleSet>;
  fingerprints: Record<Family, string | undefined> | undefined;
  hasForeignTables = false;
  /** How often it was said that everything is in place. */
  inPlace = 0;

  constructor(
    families: readonly Family[] = [4, 6],
    readonly fake = new FakeIptables(),
  ) {
    const clock: Clock = {
      now: () => this.now,
      after: (ms, action) => {
        this.now += ms;
        const soon = setImmediate(action);
        return () => clearImmediate(soon);
      },
    };
    const tools = { ...this.fake.tools, backend: 'nft', randomFully: true } as const;
    this.keeper = new RulesKeeper({
      writer: new IptablesWriter({
        iptables: new Iptables(tools, this.fake.run, clock),
        onLockWait: (ms) => this.waits.push(ms),
        fingerprint: (family) => this.fingerprints?.[family],
        hasForeignTables: () => this.hasForeignTables,
      }),
      desired: () => families.map(rulesOf),
      clock: this.timers,
      onOutcome: (outcome) => this.outcomes.push(outcome),
      onInPlace: () => void this.inPlace++,
    });
  }

  /** Programs started by one check. */
  async check(): Promise<string[]> {
    const before = this.fake.calls.length;
    this.keeper.check();
    await this.keeper.settled();
    return this.fake.calls.slice(before);
  }
}
