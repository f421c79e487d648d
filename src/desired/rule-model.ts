/**
 * The rules beside the IPVS table as data: what a packet must be, and what happens to it then. As text for
 * iptables: iptables-rules.ts; as expressions of nf_tables: nftables-rules.ts.
 */
import { type Family } from '../values/address.js';
import { type Prefix } from '../values/prefix.js';
import { type IpsetRole } from './ipset-definitions.js';

export type ConnectionState = 'NEW' | 'ESTABLISHED' | 'RELATED' | 'DNAT';

/** One question to a packet; a rule's questions are asked in their order, and all must be answered with yes. */
export type Match =
  /** Is in a set: by destination or source address, or by more of its facts, as the set's type has them. */
  | {
      readonly of: 'set';
      readonly role: IpsetRole;
      readonly facts: 'dst' | 'src' | 'dst,dst' | 'dst,dst,src';
      readonly negated?: boolean;
    }
  | { readonly of: 'source' | 'destination'; readonly prefix: Prefix }
  /** Is local as such: the source, or the destination, is an address of this node. */
  | { readonly of: 'local'; readonly address: 'source' | 'destination' }
  /** Comes in by an interface of this name, or whose name begins so. */
  | { readonly of: 'interface'; readonly interface: string; readonly isPrefix?: boolean }
  | { readonly of: 'protocol'; readonly protocol: 'tcp' | 'udp' | 'sctp'; readonly negated?: boolean }
  /** A SYN: of TCP's flags FIN, SYN, RST and ACK that one alone. */
  | { readonly of: 'syn' }
  /** Goes to this port, by TCP. */
  | { readonly of: 'tcp-port'; readonly port: number }
  | { readonly of: 'echo-request' }
  | { readonly of: 'state'; readonly states: readonly ConnectionState[]; readonly negated?: boolean }
  /** Answers what belongs to a known flow, or is about it. */
  | { readonly of: 'reply' }
  /** Bears the mark; `negated`: does not. */
  | { readonly of: 'mark'; readonly mark: number; readonly negated?: boolean };

export type Verdict =
  | { readonly do: 'accept' | 'drop' | 'return' }
  | { readonly do: 'jump'; readonly chain: string }
  /** A reset of TCP, or the ICMP message that nobody listens at this port. */
  | { readonly do: 'reject'; readonly by: 'reset' | 'unreachable' }
  /** Goes to another port of the same address. */
  | { readonly do: 'redirect-port'; readonly port: number }
  | { readonly do: 'masquerade'; readonly randomFully: boolean }
  /** Sets the mark's bit, or turns it round. */
  | { readonly do: 'set-mark' | 'flip-mark'; readonly mark: number };

export interface Rule {
  readonly matches: readonly Match[];
  readonly verdict: Verdict;
}

/** A chain of ours with all its rules. */
export interface ProxyChain {
  readonly name: string;
  readonly rules: readonly Rule[];
}

export type TableName = 'filter' | 'nat' | 'mangle';
export type HookName = 'PREROUTING' | 'INPUT' | 'FORWARD' | 'OUTPUT' | 'POSTROUTING';

/** Where a chain of ours is led to from. */
export interface Jump {
  readonly hook: HookName;
  readonly chain: string;
  /** kube-proxy's words, by which its jump and ours are known for the same. */
  readonly comment: string;
  readonly position: 'first' | 'last';
  /**
   * The chain only accepts what rules of others behind it would drop. That binds nobody in nf_tables, where every table
   * has its say.
   */
  readonly onlyAccepts?: boolean;
}

export interface ProxyTable {
  readonly name: TableName;
  readonly chains: readonly ProxyChain[];
  readonly jumps: readonly Jump[];
}

/** All rules of one family. */
export interface ProxyRules {
  readonly family: Family;
  readonly tables: readonly ProxyTable[];
}

export const ACCEPT: Verdict = { do: 'accept' };
export const DROP: Verdict = { do: 'drop' };
export const RETURN: Verdict = { do: 'return' };

/** A rule that asks `matches`, some of which may be lists or missing. */
export function rule(matches: readonly (Match | readonly Match[])[], verdict: Verdict): Rule {
  return { matches: matches.flat(), verdict };
}

export function jump(chain: string): Verdict {
  return { do: 'jump', chain };
}
