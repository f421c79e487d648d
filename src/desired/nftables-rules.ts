/**
 * The rules of proxy-rules.ts as one table of nf_tables. What differs from iptables:
 *
 * - A chain of iptables' table is called by both names, `nat-KUBE-SERVICES`: nf_tables has one name for all hooks.
 * - A base chain stands just before iptables' of the same hook, as jumps from there stand first.
 * - Accepting a packet ends the walk through this table alone. Chains that do nothing else are left out; and where
 *   accepting ends the translation of a packet's address (nat), its address is translated to itself, so that no nat
 *   chain of others behind, a CNI's host ports, takes it.
 */
import { type Family } from '../values/address.js';
import {
  NFTABLES_TABLE,
  type NftChain,
  type NftExpression,
  type NftHook,
  type NftRule,
  type NftTable,
} from '../values/nftables.js';
import { type Prefix } from '../values/prefix.js';
import { ipsetName, ipsetType } from './ipset-definitions.js';
import {
  type ConnectionState,
  type HookName,
  type Match,
  type ProxyRules,
  type TableName,
  type Verdict,
} from './rule-model.js';

/** include/uapi/linux/netfilter.h: enum nf_inet_hooks; NF_IP_PRI_* of netfilter_ipv4.h, one before each. */
const HOOKS: Readonly<Record<HookName, number>> = { PREROUTING: 0, INPUT: 1, FORWARD: 2, OUTPUT: 3, POSTROUTING: 4 };
const PRIORITIES: Readonly<Record<TableName, number>> = { mangle: -151, nat: -101, filter: -1 };
const POSTROUTING_PRIORITY = 99;

const NF_DROP = 0;
const NF_ACCEPT = 1;
const NFT_JUMP = -3;
const NFT_RETURN = -5;
const CMP_EQ = 0;
const CMP_NEQ = 1;
const NETWORK = 1;
const TRANSPORT = 2;
const META_MARK = 3;
const META_IIFNAME = 6;
const META_L4PROTO = 16;
const CT_STATE = 0;
const CT_DIRECTION = 1;
const CT_STATUS = 2;
const FIB_TYPE = 3;
const FIB_SADDR = 1;
const FIB_DADDR = 2;
const RTN_LOCAL = '\x02\0\0\0';
const NAT_DESTINATION = 1;
const RANDOM_FULLY = 16;
const LOOKUP_INVERTED = 1;
const REJECT_ICMP = 0;
const REJECT_RESET = 1;
const INTERFACE_NAME_LENGTH = 16;
const DESTINATION_PORT_AT = 2;
const TCP_FLAGS_AT = 13;
const TCP = '\x06';
const PROTOCOLS = { tcp: TCP, udp: '\x11', sctp: '\x84' } as const;
/** Bits of conntrack's state and, for DNAT, of its status. */
const STATES: Readonly<Record<Exclude<ConnectionState, 'DNAT'>, number>> = { ESTABLISHED: 2, RELATED: 4, NEW: 8 };
const STATUS_DNAT = 0x20;

/** Where addresses stand in a packet, and what else differs. */
const LAYOUT = {
  4: { protocol: 2, length: 4, source: 12, destination: 16, icmp: '\x01', echo: '\x08', portUnreachable: 3 },
  6: { protocol: 10, length: 16, source: 8, destination: 24, icmp: '\x3a', echo: '\x80', portUnreachable: 4 },
} as const satisfies Record<Family, object>;

/** The table that does what `rules` say. */
export function nftablesTable({ family, tables }: ProxyRules): NftTable {
  const chains: NftChain[] = [];
  for (const table of tables) {
    const jumps = table.jumps.filter(({ onlyAccepts }) => onlyAccepts !== true);
    const left = new Set(table.jumps.filter(({ onlyAccepts }) => onlyAccepts === true).map(({ chain }) => chain));
    for (const { name, rules } of table.chains) {
      if (left.has(name)) continue;
      const rendered = rules.map(({ matches, verdict }): NftRule => [
        ...matches.flatMap((match) => matchExpressions(match, family)),
        { name: 'counter' },
        ...verdictExpressions(verdict, family, table.name),
      ]);
      chains.push({ name: chainName(table.name, name), rules: rendered });
    }
    for (const hook of new Set(jumps.map((jump) => jump.hook))) {
      const rules = jumps
        .filter((jump) => jump.hook === hook)
        .map(({ chain }): NftRule => [{ name: 'verdict', code: NFT_JUMP, chain: chainName(table.name, chain) }]);
      chains.push({ name: chainName(table.name, hook), hook: baseHook(table.name, hook), rules });
    }
  }
  return { family, name: NFTABLES_TABLE, chains };
}

function chainName(table: TableName, chain: string): string {
  return `${table}-${chain}`;
}

/** Only what the nat table does needs a chain of another type than filter's. */
function baseHook(table: TableName, hook: HookName): NftHook {
  const priority = hook === 'POSTROUTING' ? POSTROUTING_PRIORITY : PRIORITIES[table];
  return { type: table === 'nat' ? 'nat' : 'filter', hook: HOOKS[hook], priority };
}

function matchExpressions(match: Match, family: Family): NftExpression[] {
  const layout = LAYOUT[family];
  switch (match.of) {
    case 'set': {
      const set = ipsetName(family, match.role);
      const flags = match.negated === true ? { flags: LOOKUP_INVERTED } : {};
      return [...factExpressions(match, family), { name: 'lookup', set, source: 0, ...flags }];
    }
    case 'source':
    case 'destination':
      return prefixExpressions(match.prefix, layout[match.of]);
    case 'local': {
      const flags = match.address === 'source' ? FIB_SADDR : FIB_DADDR;
      return [{ name: 'fib', result: FIB_TYPE, flags, register: 0 }, compare(RTN_LOCAL)];
    }
    case 'interface': {
      const { interface: name } = match;
      const data = match.isPrefix === true ? name : name.padEnd(INTERFACE_NAME_LENGTH, '\0');
      return [{ name: 'meta', key: META_IIFNAME, register: 0 }, compare(data)];
    }
    case 'protocol':
      return protocolExpressions(PROTOCOLS[match.protocol], match.negated);
    case 'syn':
      return [
        ...protocolExpressions(TCP),
        { name: 'payload', register: 0, base: TRANSPORT, offset: TCP_FLAGS_AT, length: 1 },
        mask('\x17', '\0'),
        compare('\x02'),
      ];
    case 'tcp-port':
      return [...protocolExpressions(TCP), destinationPort(0), compare(bigEndian(match.port))];
    case 'echo-request':
      return [
        ...protocolExpressions(layout.icmp),
        { name: 'payload', register: 0, base: TRANSPORT, offset: 0, length: 1 },
        compare(layout.echo),
      ];
    case 'state':
      return stateExpressions(match);
    case 'reply':
      return [
        ...stateExpressions({ states: ['RELATED', 'ESTABLISHED'] }),
        { name: 'ct', key: CT_DIRECTION, register: 0 },
        compare('\x01'),
      ];
    case 'mark': {
      const bits = hostOrder(match.mark);
      const operator = match.negated === true ? CMP_NEQ : CMP_EQ;
      return [{ name: 'meta', key: META_MARK, register: 0 }, mask(bits, hostOrder(0)), compare(bits, operator)];
    }
  }
}

/** What a set is asked, in registers one after the other, each beginning at a word of 32 bits. */
function factExpressions({ role, facts }: Match & { readonly of: 'set' }, family: Family): NftExpression[] {
  const { length, source, destination } = LAYOUT[family];
  const words = length / 4;
  const address = (offset: number, register: number): NftExpression => {
    return { name: 'payload', register, base: NETWORK, offset, length };
  };
  if (facts === 'src') return [address(source, 0)];
  if (facts === 'dst') return ipsetType(role) === 'bitmap:port' ? [destinationPort(0)] : [address(destination, 0)];
  return [
    address(destination, 0),
    { name: 'meta', key: META_L4PROTO, register: words },
    destinationPort(words + 1),
    ...(facts === 'dst,dst,src' ? [address(source, words + 2)] : []),
  ];
}

/** As `nft` does it: whole bytes are loaded alone, others masked. */
function prefixExpressions({ address, bits }: Prefix, offset: number): NftExpression[] {
  if (bits % 8 === 0) {
    const length = bits / 8;
    return [{ name: 'payload', register: 0, base: NETWORK, offset, length }, compare(address.slice(0, length))];
  }
  const { length } = address;
  const ones = Array.from({ length }, (_, i) => String.fromCharCode(0xff & (0xff00 >> clamp(bits - 8 * i)))).join('');
  return [
    { name: 'payload', register: 0, base: NETWORK, offset, length },
    mask(ones, '\0'.repeat(length)),
    compare(address),
  ];
}

function clamp(bits: number): number {
  return Math.max(0, Math.min(8, bits));
}

function protocolExpressions(protocol: string, negated = false): NftExpression[] {
  return [{ name: 'meta', key: META_L4PROTO, register: 0 }, compare(protocol, negated ? CMP_NEQ : CMP_EQ)];
}

function destinationPort(register: number): NftExpression {
  return { name: 'payload', register, base: TRANSPORT, offset: DESTINATION_PORT_AT, length: 2 };
}

function stateExpressions({ states, negated }: Pick<Match & { readonly of: 'state' }, 'states' | 'negated'>) {
  const isStatus = states.includes('DNAT');
  const bits = isStatus ? STATUS_DNAT : states.reduce((sum, state) => sum | (state === 'DNAT' ? 0 : STATES[state]), 0);
  const key = isStatus ? CT_STATUS : CT_STATE;
  const operator = negated === true ? CMP_EQ : CMP_NEQ;
  const expressions: NftExpression[] = [
    { name: 'ct', key, register: 0 },
    mask(hostOrder(bits), hostOrder(0)),
    compare(hostOrder(0), operator),
  ];
  return expressions;
}

function verdictExpressions(verdict: Verdict, family: Family, table: TableName): NftExpression[] {
  const { protocol, portUnreachable } = LAYOUT[family];
  switch (verdict.do) {
    case 'accept':
      return table === 'nat' ? unchanged(family) : [{ name: 'verdict', code: NF_ACCEPT }];
    case 'drop':
      return [{ name: 'verdict', code: NF_DROP }];
    case 'return':
      return [{ name: 'verdict', code: NFT_RETURN }];
    case 'jump':
      return [{ name: 'verdict', code: NFT_JUMP, chain: chainName(table, verdict.chain) }];
    case 'reject':
      if (verdict.by === 'reset') return [{ name: 'reject', type: REJECT_RESET }];
      return [{ name: 'reject', type: REJECT_ICMP, code: portUnreachable }];
    case 'redirect-port':
      return [
        { name: 'immediate', register: 0, data: bigEndian(verdict.port) },
        { name: 'nat', type: NAT_DESTINATION, family: protocol, port: 0 },
      ];
    case 'masquerade':
      return [verdict.randomFully ? { name: 'masq', flags: RANDOM_FULLY } : { name: 'masq' }];
    case 'set-mark':
      return markExpressions(hostOrder(~verdict.mark), hostOrder(verdict.mark));
    case 'flip-mark':
      return markExpressions(hostOrder(-1), hostOrder(verdict.mark));
  }
}

/** Translated to what it is: then no nat chain that comes later may translate it (nf_nat_initialized). */
function unchanged(family: Family): NftExpression[] {
  const { protocol, destination, length } = LAYOUT[family];
  return [
    { name: 'payload', register: 0, base: NETWORK, offset: destination, length },
    { name: 'nat', type: NAT_DESTINATION, family: protocol, address: 0 },
  ];
}

function markExpressions(and: string, xor: string): NftExpression[] {
  return [{ name: 'meta', key: META_MARK, register: 0 }, mask(and, xor), { name: 'meta', key: META_MARK, source: 0 }];
}

function mask(ones: string, xor: string): NftExpression {
  return { name: 'bitwise', source: 0, register: 0, length: ones.length, mask: ones, xor };
}

function compare(data: string, operator = CMP_EQ): NftExpression {
  return { name: 'cmp', source: 0, operator, data };
}

function bigEndian(port: number): string {
  return String.fromCharCode(port >> 8, port & 255);
}

/** Of facts that are no part of a packet; only little-endian hosts are supported (native/libc.ts checks). */
function hostOrder(value: number): string {
  return String.fromCharCode(value & 255, (value >> 8) & 255, (value >> 16) & 255, (value >>> 24) & 255);
}
