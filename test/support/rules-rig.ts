/** The keeper of the rules over iptables programs in memory. */
import assert from 'node:assert/strict';
import { iptablesRules } from '../../src/desired/iptables-rules.js';
import { type RuleSet } from '../../src/desired/iptables-rule-set.js';
import { type RunCommand } from '../../src/kernel/command.js';
import { Iptables } from '../../src/kernel/iptables/iptables.js';
import { IptablesWriter } from '../../src/reconcile/iptables-writer.js';
import { type RulesOutcome, RulesKeeper } from '../../src/reconcile/rules-keeper.js';
import { type Clock } from '../../src/time/clock.js';
import { type Family } from '../../src/values/address.js';
import { HandClock } from '../fakes/hand-clock.js';

export const rulesOf = (family: Family): RuleSet =>
  iptablesRules({
    family,
    masqueradeMark: 0x4000,
    masqueradeAll: false,
    randomFully: true,
    detectLocal: { mode: 'none' },
  });

/** iptables programs over tables in memory, as much of them as the keeper uses: -save, and -restore --noflush. */
export class FakeIptables {
  readonly tables: Record<string, Map<string, Map<string, string[]>>> = { 'save-4': new Map(), 'save-6': new Map() };
  readonly calls: string[] = [];
  /** Called before each program; throw a CommandError to fail it. */
  before: (command: string) => Promise<void> | void = () => undefined;

  run: RunCommand = async (command, _args, options) => {
    this.calls.push(command);
    await this.before(command);
    options?.signal?.throwIfAborted();
    if (command.startsWith('save')) return { stdout: this.#save(command), stderr: '' };
    this.#restore(this.tables[command.replace('restore', 'save')]!, options?.input ?? '');
    return { stdout: '', stderr: '' };
  };

  #save(command: string): string {
    return [...this.tables[command]!]
      .map(([table, chains]) => {
        const rules = [...chains].flatMap(([chain, lines]) => lines.map((line) => `-A ${chain} ${line}`));
        return [`*${table}`, ...[...chains.keys()].map((chain) => `:${chain} - [0:0]`), ...rules, 'COMMIT', ''].join(
          '\n',
        );
      })
      .join('');
  }

  #restore(tables: Map<string, Map<string, string[]>>, input: string): void {
    let chains = new Map<string, string[]>();
    for (const line of input.split('\n')) {
      const [verb = '', chain = '', ...rest] = line.split(' ');
      if (verb.startsWith('*')) {
        chains = tables.get(verb.slice(1)) ?? new Map<string, string[]>();
        tables.set(verb.slice(1), chains);
      } else if (verb.startsWith(':'))
        chains.set(verb.slice(1), []); // declared: made, or emptied
      else if (verb === '-A') chains.get(chain)!.push(rest.join(' '));
      else if (verb === '-I') {
        if (!chains.has(chain)) chains.set(chain, []);
        chains.get(chain)!.splice(Number(rest[0]) - 1, 0, rest.slice(1).join(' '));
      } else if (verb === '-D') chains.get(chain)!.splice(Number(rest[0]) - 1, 1);
      else if (verb === '-F') chains.set(chain, []);
      else if (verb === '-X') chains.delete(chain);
      else assert.ok(line === '' || line === 'COMMIT', line);
    }
  }
}

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
    const commands = { 4: { save: 'save-4', restore: 'restore-4' }, 6: { save: 'save-6', restore: 'restore-6' } };
    const tools = {
      backend: 'nft',
      version: '1.8.9',
      randomFully: true,
      restoreWaits: true,
      reason: '',
      commands,
    } as const;
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
