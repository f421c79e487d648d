/**
 * The kernel as its own tools print it, and its differences from what the oracle and the owners of other things expect.
 */
import { readFileSync } from 'node:fs';
import { type Expected } from './chaos-oracle.js';
import { shell } from './harness/kernel-state.js';
import { nftRules, nftSets } from './harness/nftables-state.js';
import { isNftables } from './harness/rules-under-test.js';

/** Everything that the chaos test compares; `rules` by family, table and chain, in order. */
export interface KernelState extends Expected {
  /** Real servers with weight 0, by virtual server. */
  readonly draining: Map<string, Set<string>>;
  /** Addresses of interfaces other than kube-ipvs0, without prefix length. */
  readonly local: string[];
  readonly rules: Map<string, string[]>;
  readonly sysctls: Map<string, string>;
}

/** What belongs to others and must stay exactly so. */
export interface Foreign {
  /** Lines of ipvsadm -Sn. */
  readonly servers: Set<string>;
  /** `set element` */
  readonly elements: Set<string>;
  /** `family table chain rule` */
  readonly rules: Set<string>;
}

export const SYSCTLS: ReadonlyMap<string, string> = new Map([
  ['net.ipv4.vs.conntrack', '1'],
  ['net.ipv4.vs.expire_nodest_conn', '1'],
  ['net.ipv4.vs.expire_quiescent_template', '1'],
  ['net.ipv4.ip_forward', '1'],
]);

/** Virtual servers on these addresses are other people's. */
export const FOREIGN_ADDRESS = /^\S+ (172\.30\.|\[fd00:172:30)/;
const CUT = '--8<--';
const PARTS = ['ipvsadm -Sn', 'ip -o addr show', 'ipset save', '$IPTABLES-save', '$IP6TABLES-save'];
/** As the table of the daemon's own chains in nf_tables is called here. */
const NFTABLES = 'nftables';

/** Reads it all with one shell, and our tables of nf_tables. Not atomic: compare again when it differs. */
export async function readKernel(): Promise<KernelState> {
  const own = await readNftables();
  const [ipvs = '', addresses = '', sets = '', rules4 = '', rules6 = ''] = (
    await shell(PARTS.join(`\necho '${CUT}'\n`))
  ).split(`${CUT}\n`);
  return {
    ...parseServers(ipvs),
    ...parseAddresses(addresses),
    sets: parseSets(`${sets}\n${own.sets}`),
    rules: new Map([
      ...parseRules('IPv4', `${rules4}\n*${NFTABLES}\n${own.rules4}`),
      ...parseRules('IPv6', `${rules6}\n*${NFTABLES}\n${own.rules6}`),
    ]),
    sysctls: new Map(
      [...SYSCTLS.keys()].map((name) => [name, readFileSync(`/proc/sys/${name.replaceAll('.', '/')}`, 'utf8').trim()]),
    ),
  };
}

/** As ipset and iptables-save would print it; nothing where the daemon's rules are in iptables. */
async function readNftables(): Promise<{ sets: string; rules4: string; rules6: string }> {
  if (!isNftables()) return { sets: '', rules4: '', rules6: '' };
  const [{ create, add }, rules4, rules6] = await Promise.all([nftSets(), nftRules(4), nftRules(6)]);
  return { sets: [...create, ...add].join('\n'), rules4: rules4.join('\n'), rules6: rules6.join('\n') };
}

function lines(text: string): string[] {
  return text.split('\n').filter((line) => line.trim() !== '');
}

function parseServers(text: string): Pick<KernelState, 'servers' | 'draining'> {
  const servers: KernelState['servers'] = new Map();
  const draining: KernelState['draining'] = new Map();
  for (const line of lines(text)) {
    const [, verb, name = '', rest = ''] = /^-([Aa]) (\S+ \S+) (.*?)\s*$/.exec(line) ?? [];
    if (verb === 'A') servers.set(name, { options: rest, reals: new Set() });
    const [, real = '', method = ''] = /^-r (\S+) (.*)$/.exec(rest) ?? [];
    if (verb !== 'a') continue;
    if (method !== '-m -w 0') servers.get(name)?.reals.add(method === '-m -w 1' ? real : `${real} ${method}`);
    else draining.set(name, new Set([...(draining.get(name) ?? []), real]));
  }
  return { servers, draining };
}

function parseAddresses(text: string): Pick<KernelState, 'addresses' | 'local'> {
  const bound = new Set<string>();
  const local: string[] = [];
  for (const line of lines(text)) {
    const [, link, address = ''] = /^\d+: (\S+) +inet6? ([^/ ]+)/.exec(line) ?? [];
    if (link !== 'kube-ipvs0') local.push(address);
    else if (!/^fe[89ab].:/.test(address)) bound.add(address);
  }
  return { addresses: bound, local };
}

function parseSets(text: string): Map<string, Set<string>> {
  const sets = new Map<string, Set<string>>();
  for (const line of lines(text)) {
    const [verb, name = '', element = ''] = line.split(' ');
    if (verb === 'create') sets.set(name, new Set());
    else sets.get(name)?.add(element);
  }
  return sets;
}

function parseRules(family: string, text: string): Map<string, string[]> {
  const rules = new Map<string, string[]>();
  let table = '';
  for (const line of lines(text)) {
    if (line.startsWith('*')) table = line.slice(1);
    const [, chain, hook = ''] = /^:(\S+) (.*)$/.exec(line) ?? [];
    // Where a base chain of ours stands, and that its policy is to accept, is as good as a rule.
    if (chain !== undefined) rules.set(`${family} ${table} ${chain}`, table === NFTABLES ? [hook] : []);
    const [, owner = '', rule = ''] = /^-A (\S+) (.*)$/.exec(line) ?? [];
    if (rule !== '') rules.get(`${family} ${table} ${owner}`)?.push(rule);
  }
  return rules;
}

/** Ports of the virtual servers that vandals put on VIPs. */
export const VANDAL_PORTS = { first: 7000, count: 99 } as const;

/** Gone from a VIP they must be; where the VIP itself went away before anybody looked, they are on nobody's address. */
function isOnLostVip(name: string, addresses: ReadonlySet<string>): boolean {
  const [, ipv6, ipv4, port] = /^\S+ (?:\[(.*)\]|(.*)):(\d+)$/.exec(name) ?? [];
  const isVandals = Number(port) >= VANDAL_PORTS.first && Number(port) < VANDAL_PORTS.first + VANDAL_PORTS.count;
  return isVandals && !addresses.has(ipv6 ?? ipv4 ?? '');
}

/** What was compared, and one line per difference: `- ` is missing, `+ ` should not be there. */
export interface Comparison {
  readonly compared: number;
  readonly differences: string[];
  /** Of the differences those that are real servers of weight 0, which go little by little. */
  readonly leaving: number;
}

export function compareKernel(
  state: KernelState,
  expected: Expected,
  foreign: Foreign,
  rules: KernelState['rules'],
): Comparison {
  const ours = new Map([...state.servers].filter(([name]) => !isOnLostVip(name, expected.addresses)));
  const pairs: [has: Set<string>, wants: Set<string>][] = [
    [serverLines({ servers: ours }), new Set([...serverLines(expected), ...foreign.servers])],
    [prefixed('address', state.addresses), prefixed('address', expected.addresses)],
    [
      elementLines(state.sets),
      new Set([...elementLines(expected.sets), ...[...foreign.elements].map((line) => `add ${line}`)]),
    ],
    [ruleLines(state.rules), new Set([...ruleLines(rules), ...foreign.rules])],
    [new Set([...state.sysctls].map((pair) => pair.join('='))), new Set([...SYSCTLS].map((pair) => pair.join('=')))],
  ];
  let compared = 0;
  const differences: string[] = [];
  for (const [has, wants] of pairs) {
    compared += wants.size;
    for (const line of wants) if (!has.has(line)) differences.push(`- ${line}`);
    for (const line of has) if (!wants.has(line)) differences.push(`+ ${line}`);
  }
  const leaving = [...state.draining].flatMap(([name, reals]) =>
    mayDrain(name) ? [] : [...reals].map((real) => `+ -a ${name} -r ${real} -w 0`),
  );
  differences.push(...leaving);
  return { compared, differences, leaving: leaving.length };
}

/** Without live connections a drain ends at once, so that only other people's weight 0 may stay. */
function mayDrain(name: string): boolean {
  return FOREIGN_ADDRESS.test(name);
}

function serverLines({ servers }: Pick<Expected, 'servers'>): Set<string> {
  const found: string[] = [];
  for (const [name, { options, reals }] of servers) {
    found.push(`-A ${name} ${options}`);
    for (const real of reals) found.push(`-a ${name} -r ${real}`);
  }
  return new Set(found);
}

function elementLines(sets: ReadonlyMap<string, ReadonlySet<string>>): Set<string> {
  return new Set([...sets].flatMap(([name, elements]) => [...elements].map((element) => `add ${name} ${element}`)));
}

/** Order counts in our own chains; in the shared ones only that each rule is there as often as it should. */
function ruleLines(rules: KernelState['rules']): Set<string> {
  const found: string[] = [];
  for (const [chain, list] of rules) {
    const times = new Map<string, number>();
    const isOwn = / KUBE-/.test(chain) || chain.includes(` ${NFTABLES} `);
    if (isOwn) found.push(`${chain} exists`);
    for (const [index, rule] of list.entries()) {
      const count = (times.get(rule) ?? 0) + 1;
      times.set(rule, count);
      found.push(`${chain} ${isOwn ? `#${index + 1} ` : count > 1 ? `(again) ` : ''}${rule}`);
    }
  }
  return new Set(found);
}

function prefixed(prefix: string, values: Iterable<string>): Set<string> {
  return new Set([...values].map((value) => `${prefix} ${value}`));
}
