import { type Address, type Family, formatAddress, parseAddress } from '../values/address.js';
import { hostPrefix, parsePrefix } from '../values/prefix.js';
import { ruleWords } from './iptables-save.js';

/** Options before the first `-m` in the order in which iptables-save prints them. */
const HEAD_OPTIONS = ['-s', '-d', '-i', '-o', '-p', '-f'];

const LONG_OPTIONS: Readonly<Record<string, string>> = {
  '--source': '-s',
  '--src': '-s',
  '--destination': '-d',
  '--dst': '-d',
  '--in-interface': '-i',
  '--out-interface': '-o',
  '--protocol': '-p',
  '--proto': '-p',
  '--fragment': '-f',
  '--match': '-m',
  '--jump': '-j',
  '--goto': '-g',
  '--destination-port': '--dport',
  '--source-port': '--sport',
};

const PROTOCOL_NAMES: Readonly<Record<string, string>> = {
  '1': 'icmp',
  '6': 'tcp',
  '17': 'udp',
  '58': 'ipv6-icmp',
  icmpv6: 'ipv6-icmp',
  '132': 'sctp',
};

/**
 * A form in which two rules are equal exactly when they do the same, whichever way they were written or the kernel
 * prints them: option order, implied matches, host prefixes, mark notations, default REJECT type, quoting. Comments
 * are left out, so that kube-proxy's rules can be adopted. The order of matches is not kept: all of them must hold
 * anyway.
 */
export function normalRule(rule: string, family: Family): string {
  const words = ruleWords(rule).map((word) => LONG_OPTIONS[word] ?? word);
  const head = new Map<string, string>();
  const matches: string[][] = [];
  let target: string[] = [];
  let group: string[] | undefined;
  for (let i = 0; i < words.length; i++) {
    const isNegated = words[i] === '!' && i + 1 < words.length;
    const option = isNegated ? words[++i]! : words[i]!;
    if (option === '-j' || option === '-g') {
      target = group = [option, words[++i] ?? ''];
    } else if (option === '-m') {
      matches.push((group = [words[++i] ?? '']));
    } else if (HEAD_OPTIONS.includes(option)) {
      const value = option === '-f' ? '' : headValue(option, words[++i] ?? '', family);
      if (value !== undefined) head.set(option, (isNegated ? '! ' : '') + value);
    } else {
      if (group === undefined) matches.push((group = [])); // an option of the protocol's implied match
      if (isNegated) group.push('!');
      group.push(option);
    }
  }
  return render(head, matches, target, family);
}

function render(head: Map<string, string>, matches: string[][], target: string[], family: Family): string {
  const protocol = head.get('-p') ?? '';
  const parts = HEAD_OPTIONS.filter((option) => head.has(option)).map((option) => `${option} ${head.get(option)}`);
  const groups = matches
    .filter((match) => match[0] !== 'comment')
    .map((match) => normalMatch(match, protocol))
    .filter((match) => match !== '')
    .sort();
  return JSON.stringify([...parts, ...groups, normalTarget(target, family)]);
}

/** Undefined for a prefix that matches everything, which the kernel does not print. */
function headValue(option: string, value: string, family: Family): string | undefined {
  if (option === '-p') {
    const name = value.toLowerCase();
    return name === 'all' || name === '0' ? undefined : (PROTOCOL_NAMES[name] ?? name);
  }
  if (option === '-s' || option === '-d') return prefixText(value, family);
  return value;
}

function prefixText(value: string, family: Family): string | undefined {
  const address: Address | undefined = parseAddress(value);
  const prefix = address === undefined ? parsePrefix(maskToBits(value)) : hostPrefix(address);
  if (prefix === undefined || (prefix.address.length === 4) !== (family === 4)) return value;
  return prefix.bits === 0 ? undefined : `${formatAddress(prefix.address)}/${prefix.bits}`;
}

/** Old iptables-save prints `10.0.0.0/255.0.0.0`. */
function maskToBits(value: string): string {
  const [address, mask] = value.split('/');
  const packed = mask === undefined ? undefined : parseAddress(mask);
  if (packed === undefined) return value;
  let bits = 0;
  for (let i = 0; i < packed.length; i++) bits += packed.charCodeAt(i).toString(2).replace(/0/g, '').length;
  return `${address}/${bits}`;
}

function normalMatch(words: string[], protocol: string): string {
  const isImplied = words[0]?.startsWith('-') === true || words[0] === '!';
  const name = isImplied ? protocol : (words[0] ?? '');
  const options = (isImplied ? words : words.slice(1)).flatMap((word) => (word === '--syn' ? SYN : [word]));
  const text = options.map((word, i) => normalValue(options[i - 1], options[i - 2], word)).join(' ');
  // `-m tcp` without options says no more than `-p tcp`
  return text === '' && name === protocol ? '' : `-m ${name} ${text}`;
}

/** What `--syn` is short for. */
const SYN = ['--tcp-flags', 'FIN,SYN,RST,ACK', 'SYN'];

/** A word after `option`, which comes after `before`: `--tcp-flags` takes two values. */
function normalValue(option: string | undefined, before: string | undefined, value: string): string {
  if (option === '--tcp-flags' || before === '--tcp-flags') return value.split(',').sort().join(',');
  switch (option) {
    case '--mark':
      return markText(value);
    case '--ctstate':
    case '--state':
    case '--ctstatus':
      return value.split(',').sort().join(',');
    case '--vproto':
      return PROTOCOL_NAMES[value.toLowerCase()] ?? value.toLowerCase();
    default:
      return value;
  }
}

function normalTarget(words: string[], family: Family): string {
  const [kind = '', name = '', option, value, ...rest] = words;
  if (name === 'REJECT') return `${kind} REJECT ${rejectType(value, family)}`;
  if (name === 'MARK' && option !== undefined && value !== undefined)
    return `${kind} MARK ${markTarget(option, value)}`;
  return [kind, name, option, value, ...rest].filter((word) => word !== undefined).join(' ');
}

function rejectType(value: string | undefined, family: Family): string {
  const unreachable = family === 4 ? 'icmp-port-unreachable' : 'icmp6-port-unreachable';
  if (value === undefined || value === 'port-unreach') return unreachable;
  return value;
}

/** All MARK options are one operation: clear `mask`, then exclusive-or `value` (xt_mark_tginfo2). */
function markTarget(option: string, text: string): string {
  const [value = 0, mask] = text.split('/').map((part) => Number(part) >>> 0);
  switch (option) {
    case '--set-mark':
      return xmark(value, mask === undefined ? 0xffffffff : (value | mask) >>> 0);
    case '--set-xmark':
      return xmark(value, mask ?? 0xffffffff);
    case '--or-mark':
      return xmark(value, value);
    case '--and-mark':
      return xmark(0, ~value >>> 0);
    case '--xor-mark':
      return xmark(value, 0);
    default:
      return `${option} ${text}`;
  }
}

function xmark(value: number, mask: number): string {
  return `--set-xmark 0x${value.toString(16)}/0x${mask.toString(16)}`;
}

function markText(text: string): string {
  const [value = 0, mask = 0xffffffff] = text.split('/').map((part) => Number(part) >>> 0);
  return mask === 0xffffffff ? `0x${value.toString(16)}` : `0x${value.toString(16)}/0x${mask.toString(16)}`;
}
