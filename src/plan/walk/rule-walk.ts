/** A packet's way through the chains of one hook. */
import { type RuleSet } from '../../desired/iptables-rule-set.js';
import { type FoundEntry, type PacketState, type Surroundings, meets } from './rule-match.js';
import { type ParsedRule, parseMark, parseRule } from './rule-parse.js';

/** A rule that the packet met, in the order met. */
export interface MetRule {
  readonly table: string;
  readonly chain: string;
  /** As iptables-save prints it after `-A CHAIN`. */
  readonly rule: string;
  readonly parsed: ParsedRule;
  readonly entries: readonly FoundEntry[];
}

/** What a hook makes of a packet; `none`: no rule decided, the chain's policy holds. */
export type HookVerdict = 'accept' | 'drop' | 'reset' | 'unreachable' | 'masquerade' | 'none';

export interface HookResult {
  readonly verdict: HookVerdict;
  readonly packet: PacketState;
  readonly met: readonly MetRule[];
}

/** Runs the jumps of one built-in chain, those at its beginning before those at its end. Throws SyntaxError. */
export function walkHook(
  rules: RuleSet,
  table: string,
  hook: string,
  packet: PacketState,
  around: Surroundings,
): HookResult {
  const walk = new HookWalk(rules, table, packet, around);
  const jumps = (rules.tables.find(({ name }) => name === table)?.jumps ?? []).filter(({ chain }) => chain === hook);
  const inOrder = [
    ...jumps.filter(({ position }) => position === 'first'),
    ...jumps.filter(({ position }) => position === 'last'),
  ];
  const verdict = walk.chain(
    hook,
    inOrder.map(({ rule }) => rule),
  );
  return { verdict: verdict === 'return' ? 'none' : verdict, packet: walk.packet, met: walk.met };
}

/** Deeper than our chains ever jump: a loop among them is a mistake, not a reason to hang. */
const MAX_DEPTH = 16;

class HookWalk {
  readonly met: MetRule[] = [];
  readonly #chains: ReadonlyMap<string, readonly string[]>;
  #depth = 0;

  constructor(
    rules: RuleSet,
    readonly table: string,
    public packet: PacketState,
    readonly around: Surroundings,
  ) {
    const found = rules.tables.find(({ name }) => name === table);
    this.#chains = new Map(found?.chains.map(({ name, rules: own }) => [name, own]));
  }

  chain(name: string, rules: readonly string[]): HookVerdict | 'return' {
    if (++this.#depth > MAX_DEPTH) throw new SyntaxError(`chains of ${this.table} jump in a circle: ${name}`);
    for (const rule of rules) {
      const verdict = this.#rule(name, rule);
      if (verdict === 'none') continue;
      this.#depth--;
      return verdict;
    }
    this.#depth--;
    return 'none';
  }

  #rule(chain: string, rule: string): HookVerdict | 'return' {
    const parsed = parseRule(rule);
    const found = meets(parsed.conditions, this.packet, this.around);
    if (found === undefined) return 'none';
    const inner = this.#chains.get(parsed.target);
    const isJumpToMark = parsed.target === 'KUBE-MARK-MASQ';
    // What leads everybody into a chain says nothing of this packet.
    if (inner === undefined || (parsed.conditions.length > 0 && !isJumpToMark) || isJumpToMark)
      this.met.push({ table: this.table, chain, rule, parsed, entries: found.entries });
    if (inner !== undefined) {
      const verdict = this.chain(parsed.target, inner);
      return verdict === 'return' ? 'none' : verdict;
    }
    return this.#target(parsed);
  }

  #target({ target, argument }: ParsedRule): HookVerdict | 'return' {
    switch (target) {
      case 'ACCEPT':
        return 'accept';
      case 'RETURN':
        return 'return';
      case 'DROP':
        return 'drop';
      case 'REJECT':
        return argument === 'tcp-reset' ? 'reset' : 'unreachable';
      case 'MASQUERADE':
        return 'masquerade';
      case 'MARK': {
        const { value, mask } = parseMark(argument);
        this.packet = { ...this.packet, mark: ((this.packet.mark & ~mask) ^ value) >>> 0 };
        return 'none';
      }
      case 'DNAT':
        this.packet = { ...this.packet, port: Number(argument.replace(':', '')), isRedirected: true };
        return 'accept';
      default:
        throw new SyntaxError(`not a target of ours: ${target}`);
    }
  }
}
