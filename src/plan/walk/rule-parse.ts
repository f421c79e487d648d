/**
 * Rules of iptables-rules.ts taken apart, so that a packet can be held against them. Knows what our own rules use,
 * nothing else.
 */
import { type Prefix, parsePrefix } from '../../values/prefix.js';
import { ruleWords } from '../iptables-save.js';

/** What a rule asks of a packet; each may be negated. */
export type Condition = { readonly negated: boolean } & (
  | { readonly kind: 'protocol'; readonly protocol: string }
  | { readonly kind: 'source' | 'destination'; readonly prefix: Prefix }
  /** An interface's name; with a `+` at its end, how the name begins. */
  | { readonly kind: 'interface'; readonly name: string }
  | { readonly kind: 'set'; readonly set: string; readonly directions: string }
  /** An address of this node, as source or destination. */
  | { readonly kind: 'local'; readonly end: 'src' | 'dst' }
  | { readonly kind: 'port'; readonly port: number }
  | { readonly kind: 'mark'; readonly value: number; readonly mask: number }
  | { readonly kind: 'states'; readonly states: readonly string[] }
  /** A SYN; an answer; an echo request. */
  | { readonly kind: 'opensTcp' | 'reply' | 'echo' }
);

export interface ParsedRule {
  readonly conditions: readonly Condition[];
  /** What follows `-j`; empty when the rule has no target. */
  readonly target: string;
  /** Of the target: `--reject-with`, `--to-destination`, `--set-xmark`. */
  readonly argument: string;
}

/** Takes a rule apart, as it stands after `-A CHAIN`. Throws SyntaxError on words that no rule of ours has. */
export function parseRule(rule: string): ParsedRule {
  const words = ruleWords(rule);
  const conditions: Condition[] = [];
  let target = '';
  let argument = '';
  let negated = false;
  for (let i = 0; i < words.length; i++) {
    const word = words[i]!;
    if (word === '!') {
      negated = true;
      continue;
    }
    const arity = ARITIES[word];
    if (arity === undefined) throw new SyntaxError(`not a rule of ours: ${word} in ${rule}`);
    const [first = '', second = ''] = words.slice(i + 1, i + 1 + arity);
    i += arity;
    if (word === '-j') target = first;
    else if (TARGET_ARGUMENTS.has(word)) argument = first;
    else conditions.push(...conditionOf(word, first, second, negated));
    negated = false;
  }
  return { conditions, target, argument };
}

const TARGET_ARGUMENTS = new Set(['--reject-with', '--to-destination', '--set-xmark', '--random-fully']);

/** How many words follow each of these. */
const ARITIES: Readonly<Record<string, number>> = {
  ...{ '-m': 1, '-j': 1, '-p': 1, '-s': 1, '-d': 1, '-i': 1, '--comment': 1, '--match-set': 2, '--tcp-flags': 2 },
  ...{ '--src-type': 1, '--dst-type': 1, '--dport': 1, '--mark': 1, '--ctstate': 1, '--ctdir': 1 },
  ...{ '--icmp-type': 1, '--icmpv6-type': 1 },
  ...{ '--reject-with': 1, '--to-destination': 1, '--set-xmark': 1, '--random-fully': 0 },
};

function conditionOf(word: string, first: string, second: string, negated: boolean): Condition[] {
  switch (word) {
    case '-p':
      return [{ kind: 'protocol', protocol: first.toUpperCase(), negated }];
    case '-s':
      return [{ kind: 'source', prefix: parsePrefix(first)!, negated }];
    case '-d':
      return [{ kind: 'destination', prefix: parsePrefix(first)!, negated }];
    case '-i':
      return [{ kind: 'interface', name: first, negated }];
    case '--match-set':
      return [{ kind: 'set', set: first, directions: second, negated }];
    case '--src-type':
      return [{ kind: 'local', end: 'src', negated }];
    case '--dst-type':
      return [{ kind: 'local', end: 'dst', negated }];
    case '--tcp-flags':
      return [{ kind: 'opensTcp', negated }];
    case '--dport':
      return [{ kind: 'port', port: Number(first), negated }];
    case '--mark':
      return [{ kind: 'mark', ...parseMark(first), negated }];
    case '--ctstate':
      return [{ kind: 'states', states: first.split(','), negated }];
    case '--ctdir':
      return [{ kind: 'reply', negated }];
    case '--icmp-type':
    case '--icmpv6-type':
      return [{ kind: 'echo', negated }];
    default:
      return [];
  }
}

/** `0x4000/0x4000`, as `--mark` and `--set-xmark` have it. */
export function parseMark(text: string): { value: number; mask: number } {
  const [value = '', mask = '0xffffffff'] = text.split('/');
  return { value: Number(value), mask: Number(mask) };
}
