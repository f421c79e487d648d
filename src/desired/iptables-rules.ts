/** The rules of proxy-rules.ts as text, duplicate-free and in the form that iptables-save prints. */
import { type Family } from '../values/address.js';
import { formatPrefix } from '../values/prefix.js';
import { ipsetName } from './ipset-definitions.js';
import { type RuleSet } from './iptables-rule-set.js';
import { proxyRules } from './proxy-rules.js';
import { type RuleConfig } from './rule-config.js';
import { type Match, type ProxyRules, type Rule, type Verdict } from './rule-model.js';

/** All rules of one family for iptables or ip6tables. */
export function iptablesRules(config: RuleConfig): RuleSet {
  return textOf(proxyRules(config));
}

function textOf({ family, tables }: ProxyRules): RuleSet {
  return {
    family,
    tables: tables.map(({ name, chains, jumps }) => ({
      name,
      chains: chains.map((chain) => ({ name: chain.name, rules: chain.rules.map((rule) => ruleText(rule, family)) })),
      jumps: jumps.map(({ hook, chain, comment, position }) => ({
        chain: hook,
        rule: `-m comment --comment "${comment}" -j ${chain}`,
        position,
      })),
    })),
  };
}

function ruleText({ matches, verdict }: Rule, family: Family): string {
  return [...matches.map((match) => matchText(match, family)), verdictText(verdict, family)].join(' ');
}

function matchText(match: Match, family: Family): string {
  switch (match.of) {
    case 'set':
      return `-m set ${not(match)}--match-set ${ipsetName(family, match.role)} ${match.facts}`;
    case 'source':
      return `-s ${formatPrefix(match.prefix)}`;
    case 'destination':
      return `-d ${formatPrefix(match.prefix)}`;
    case 'local':
      return `-m addrtype --${match.address === 'source' ? 'src' : 'dst'}-type LOCAL`;
    case 'interface':
      return `-i ${match.interface}${match.isPrefix === true ? '+' : ''}`;
    case 'protocol':
      return `${not(match)}-p ${match.protocol}`;
    case 'syn':
      return '-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN';
    case 'tcp-port':
      return `-p tcp -m tcp --dport ${match.port}`;
    case 'echo-request':
      return family === 4 ? '-p icmp -m icmp --icmp-type 8' : '-p ipv6-icmp -m icmp6 --icmpv6-type 128';
    case 'state':
      return `-m conntrack ${not(match)}--ctstate ${match.states.join(',')}`;
    case 'reply':
      return '-m conntrack --ctstate RELATED,ESTABLISHED --ctdir REPLY';
    case 'mark':
      return `-m mark ${not(match)}--mark ${hex(match.mark)}/${hex(match.mark)}`;
  }
}

function verdictText(verdict: Verdict, family: Family): string {
  switch (verdict.do) {
    case 'accept':
    case 'drop':
    case 'return':
      return `-j ${verdict.do.toUpperCase()}`;
    case 'jump':
      return `-j ${verdict.chain}`;
    case 'reject':
      return `-j REJECT --reject-with ${verdict.by === 'reset' ? 'tcp-reset' : unreachable(family)}`;
    case 'redirect-port':
      return `-j DNAT --to-destination :${verdict.port}`;
    case 'masquerade':
      return verdict.randomFully ? '-j MASQUERADE --random-fully' : '-j MASQUERADE';
    case 'set-mark':
      return `-j MARK --set-xmark ${hex(verdict.mark)}/${hex(verdict.mark)}`;
    case 'flip-mark':
      return `-j MARK --set-xmark ${hex(verdict.mark)}/0x0`;
  }
}

function unreachable(family: Family): string {
  return family === 4 ? 'icmp-port-unreachable' : 'icmp6-port-unreachable';
}

function not({ negated }: { readonly negated?: boolean }): string {
  return negated === true ? '! ' : '';
}

function hex(mark: number): string {
  return `0x${(mark >>> 0).toString(16)}`;
}
