/**
 * Other people's hands in the kernel's tables: each act is a small shell script, made from what should be there now.
 */
import { type Expected } from './chaos-oracle.js';
import { type Foreign, VANDAL_PORTS } from './chaos-kernel.js';
import {
  type Family,
  type TableName,
  addRule as addRuleScript,
  changeSets,
  deleteJump as deleteJumpScript,
  flushChain as flushChainScript,
  nftTable,
} from './harness/rules-damage.js';
import { isNftables } from './harness/rules-under-test.js';

export interface Act {
  readonly name: string;
  readonly script: string;
  /**
   * It removes the traces by which a restarted daemon tells its own virtual servers from other people's, so that the
   * daemon must live to repair it.
   */
  readonly erasesTraces?: boolean;
}

export interface Prey {
  readonly expected: Expected;
  readonly foreign: Foreign;
  readonly random: () => number;
}

export const FOREIGN_RULE = '-p tcp -m tcp --dport 12345 -m comment --comment foreign -j ACCEPT';
export const FOREIGN_SET = 'FOREIGN';
const SETS = [
  ...['CLUSTER-IP', 'EXTERNAL-IP', 'EXTERNAL-IP-LOCAL', 'LOAD-BALANCER', 'LOAD-BALANCER-LOCAL', 'LOAD-BALANCER-FW'],
  ...['NO-ENDPOINTS', 'NO-LOCAL-ENDPOINTS', 'NODE-PORT-SCTP-HASH'],
];
const CHAINS = {
  nat: ['KUBE-SERVICES', 'KUBE-POSTROUTING', 'KUBE-MARK-MASQ', 'KUBE-NODE-PORT', 'KUBE-LOAD-BALANCER'],
  filter: ['KUBE-FORWARD', 'KUBE-NODE-PORT', 'KUBE-PROXY-FIREWALL', 'KUBE-SOURCE-RANGES-FIREWALL', 'KUBE-IPVS-FILTER'],
  mangle: ['KUBE-IPVS-OUT-FILTER'],
} as const;

/** What must exist before the first act: things of others that nobody may touch. */
export function foreignSetup(foreign: Foreign): string {
  foreign.elements.add(`${FOREIGN_SET} 192.0.2.200`);
  const rules = [`IPv4 filter INPUT ${FOREIGN_RULE}`, `IPv6 filter INPUT ${FOREIGN_RULE}`];
  for (const rule of rules) foreign.rules.add(rule);
  return [
    `ipset create ${FOREIGN_SET} hash:ip`,
    `ipset add ${FOREIGN_SET} 192.0.2.200`,
    `$IPTABLES -w -A INPUT ${FOREIGN_RULE}`,
    `$IP6TABLES -w -A INPUT ${FOREIGN_RULE}`,
  ].join('\n');
}

type MakeAct = (prey: Prey) => Act | undefined;

/** Acts on the IPVS table alone: allowed while no daemon runs. */
const TABLE_ACTS: readonly MakeAct[] = [deleteServers, editServers, deleteReals, addReals, editReals, addForeign];
const OTHER_ACTS: readonly MakeAct[] = [
  ...[addServersOnVips, clearTable, deleteAddresses, addAddresses, deleteLink, flapLink],
  ...[deleteElements, addElements, flushSets, flushChain, addRule, deleteJump, resetTables, destroySets, writeSysctls],
];

export function tableAct(prey: Prey): Act | undefined {
  return pick(TABLE_ACTS, prey.random)(prey);
}

export function anyAct(prey: Prey): Act | undefined {
  return pick(prey.random() < 0.35 ? TABLE_ACTS : OTHER_ACTS, prey.random)(prey);
}

function deleteServers(prey: Prey): Act {
  return ipvs(
    'delete virtual servers',
    some([...prey.expected.servers.keys()], prey.random).map((name) => `-D ${name}`),
  );
}

function editServers({ expected, random }: Prey): Act {
  const options = (): string => pick(['-s lc', '-s rr -p 77', '-s sh -b sh-fallback', '-s wrr -p 3600'], random);
  const names = some([...expected.servers.keys()], random);
  return ipvs(
    'edit virtual servers',
    names.map((name) => `-E ${name} ${options()}`),
  );
}

function deleteReals(prey: Prey): Act {
  return ipvs(
    'delete real servers',
    someReals(prey).map(([name, real]) => `-d ${name} -r ${real}`),
  );
}

function addReals({ expected, random }: Prey): Act {
  const names = some([...expected.servers.keys()], random);
  const real = (name: string): string => (name.includes('[') ? '[fd00:66::6]:666' : '10.66.6.6:666');
  return ipvs(
    'add real servers',
    names.map((name) => `-a ${name} -r ${real(name)} -m -w ${pick([0, 1, 3], random)}`),
  );
}

function editReals(prey: Prey): Act {
  const how = (): string => pick(['-m -w 0', '-m -w 7', '-g -w 1'], prey.random);
  return ipvs(
    'edit real servers',
    someReals(prey).map(([name, real]) => `-e ${name} -r ${real} ${how()}`),
  );
}

function addForeign({ foreign, random }: Prey): Act {
  const host = 1 + Math.floor(random() * 200);
  const [name, real] =
    random() < 0.6 ? [`-t 172.30.0.${host}:80`, '10.66.0.1:80'] : [`-u [fd00:172:30::${host}]:53`, '[fd00:66::1]:53'];
  const lines = [`-A ${name} -s wlc`, `-a ${name} -r ${real} -m -w 5`];
  foreign.servers.add(lines[0]!);
  foreign.servers.add(`-a ${name} -r ${real} -m -w 5`);
  return ipvs('add virtual servers of others', lines);
}

function addServersOnVips({ expected, random }: Prey): Act {
  const lines = some([...expected.addresses], random).flatMap((address) => {
    const isIPv6 = address.includes(':');
    const name = `${pick(['-t', '-u'], random)} ${isIPv6 ? `[${address}]` : address}:${VANDAL_PORTS.first + Math.floor(random() * VANDAL_PORTS.count)}`;
    return [`-A ${name} -s rr`, `-a ${name} -r ${isIPv6 ? '[fd00:66::7]:7' : '10.66.6.7:7'} -m -w 1`];
  });
  return { ...ipvs('add virtual servers on VIPs', lines), erasesTraces: true };
}

function clearTable({ foreign }: Prey): Act {
  foreign.servers.clear();
  return { name: 'ipvsadm -C', script: 'ipvsadm -C' };
}

function deleteAddresses({ expected, random }: Prey): Act {
  const lines = some([...expected.addresses], random).map((address) => `addr del ${prefix(address)} dev kube-ipvs0`);
  return { name: 'delete addresses', script: ip(lines), erasesTraces: true };
}

function addAddresses({ random }: Prey): Act {
  const host = (): number => 1 + Math.floor(random() * 200);
  const lines = [`10.98.0.${host()}`, `fd00:98::${host()}`].map(
    (address) => `addr add ${prefix(address)} dev kube-ipvs0`,
  );
  return { name: 'add addresses', script: ip(lines) };
}

function deleteLink(): Act {
  return { name: 'ip link del kube-ipvs0', script: ip(['link del kube-ipvs0']), erasesTraces: true };
}

function flapLink(): Act {
  // Being set down flushes its IPv6 addresses.
  const lines = ['link set kube-ipvs0 up', 'link set kube-ipvs0 down'];
  return { name: 'kube-ipvs0 up and down', script: ip(lines), erasesTraces: true };
}

function deleteElements({ expected, random }: Prey): Act {
  const all = [...expected.sets].flatMap(([name, elements]) => [...elements].map((element) => `${name} ${element}`));
  const lines = some(all, random).map((line) => `del ${line}`);
  return { name: 'delete set elements', script: changeSets(lines), erasesTraces: true };
}

function addElements({ random }: Prey): Act {
  const port = 7000 + Math.floor(random() * 99);
  const lines = [
    `add KUBE-${pick(SETS, random)} 10.97.0.1,tcp:${port}`,
    `add KUBE-6-${pick(SETS.slice(0, 8), random)} fd00:97::1,udp:${port}`,
    `add KUBE-IPVS-IPS 10.97.0.2`,
    `add KUBE-NODE-PORT-TCP ${port}`,
    `add KUBE-LOOP-BACK 10.97.0.3,tcp:1,10.97.0.3`,
  ];
  return { name: 'add set elements', script: changeSets(lines) };
}

function flushSets({ expected, foreign, random }: Prey): Act {
  if (random() < 0.3) {
    if (!isNftables()) foreign.elements.clear();
    const script = isNftables() ? changeSets([...expected.sets.keys()].map((name) => `flush ${name}`)) : 'ipset flush';
    return { name: 'flush all sets', script, erasesTraces: true };
  }
  const names = some([...expected.sets.keys()], random);
  const script = changeSets(names.map((name) => `flush ${name}`));
  return { name: `flush ${names.length} sets`, script, erasesTraces: true };
}

function flushChain({ random }: Prey): Act {
  const [table, chain] = ownChain(random);
  return { name: `flush ${table} ${chain}`, script: flushChainScript(family(random), table, chain) };
}

function addRule({ random }: Prey): Act {
  const [table, chain] = ownChain(random);
  const script = addRuleScript(family(random), table, chain, pick(['before', 'behind'], random));
  return { name: `add a rule to ${table} ${chain}`, script };
}

function deleteJump({ random }: Prey): Act {
  const [chain, target] = pick(
    [
      ['PREROUTING', 'KUBE-SERVICES'],
      ['OUTPUT', 'KUBE-SERVICES'],
      ['POSTROUTING', 'KUBE-POSTROUTING'],
    ] as const,
    random,
  );
  return { name: `delete the jump in ${chain}`, script: deleteJumpScript(family(random), 'nat', chain, target) };
}

/**
 * As a firewall's reload does it: a whole table replaced by the firewall's own rules. That of nf_tables takes all there
 * is (`flush ruleset`), sets included, or empties a family.
 */
function resetTables({ random }: Prey): Act {
  if (isNftables()) return resetNftables(random);
  const table = pick(['nat', 'filter', 'mangle'] as const, random);
  const rules = table === 'filter' ? `-A INPUT ${FOREIGN_RULE}` : '';
  const program = family(random) === 4 ? '$IPTABLES' : '$IP6TABLES';
  const script = `${program}-restore <<'END'\n*${table}\n${rules}\nCOMMIT\nEND`;
  return { name: `replace the table ${table}`, script };
}

function resetNftables(random: () => number): Act {
  const own = nftTable(family(random));
  const rules = ['$IPTABLES', '$IP6TABLES'].map((program) => `${program} -w -A INPUT ${FOREIGN_RULE}`);
  return pick<Act>(
    [
      { name: 'nft flush ruleset', script: ['nft flush ruleset', ...rules].join('\n'), erasesTraces: true },
      { name: `nft delete table ${own}`, script: `nft delete table ${own}`, erasesTraces: true },
      { name: `nft flush table ${own}`, script: `nft flush table ${own}` },
      { name: `nft: ${own} dormant`, script: `nft 'add table ${own} { flags dormant; }'` },
      {
        name: `nft: policy drop in ${own}`,
        script: `nft 'chain ${own} filter-INPUT { type filter hook input priority -1; policy drop; }'`,
      },
    ],
    random,
  );
}

/** All rules away, then the sets that they held, one of which comes back as something else. */
function destroySets({ expected, random }: Prey): Act {
  const reset = ['$IPTABLES', '$IP6TABLES'].flatMap((program) =>
    (['nat', 'filter', 'mangle'] as const).map((table) => {
      const rules = table === 'filter' ? `-A INPUT ${FOREIGN_RULE}\n` : '';
      return `${program}-restore <<'END'\n*${table}\n${rules}COMMIT\nEND`;
    }),
  );
  const ownReset = ([4, 6] as const).map((version) => `nft flush table ${nftTable(version)} || true`);
  const names = some([...expected.sets.keys()], random);
  const wrong = random() < 0.5 ? [`create ${names[0]} hash:net`] : [];
  const destroy = names.map((name) => changeSets([`destroy ${name}`]));
  const script = [
    ...(isNftables() ? ownReset : reset),
    ...destroy,
    ...(wrong.length > 0 ? [changeSets(wrong)] : []),
  ].join('\n');
  return { name: `destroy ${names.length} sets and all rules`, script, erasesTraces: true };
}

function writeSysctls({ random }: Prey): Act {
  const name = pick(['vs/conntrack', 'vs/expire_nodest_conn', 'vs/expire_quiescent_template'], random);
  return { name: `sysctl ${name}`, script: `echo 0 >/proc/sys/net/ipv4/${name}` };
}

function someReals({ expected, random }: Prey): [name: string, real: string][] {
  const names = some(
    [...expected.servers].filter(([, { reals }]) => reals.size > 0),
    random,
  );
  return names.map(([name, { reals }]) => [name, pick([...reals], random)]);
}

function ownChain(random: () => number): [table: TableName, chain: string] {
  const table = pick(['nat', 'filter', 'mangle'] as const, random);
  return [table, pick(CHAINS[table], random)];
}

function family(random: () => number): Family {
  return random() < 0.6 ? 4 : 6;
}

function ipvs(name: string, lines: readonly string[]): Act {
  return { name, script: heredoc('ipvsadm -R', lines) };
}

function ip(lines: readonly string[]): string {
  return heredoc('ip -force -batch -', lines);
}

function heredoc(command: string, lines: readonly string[]): string {
  return `${command} <<'END'\n${lines.join('\n')}\nEND`;
}

function prefix(address: string): string {
  return address.includes(':') ? `${address}/128 nodad` : `${address}/32`;
}

/** One to twelve of the values, each at most once. */
export function some<T>(values: readonly T[], random: () => number): T[] {
  const left = [...values];
  const count = Math.min(left.length, 1 + Math.floor(random() * 12));
  return Array.from({ length: count }, () => left.splice(Math.floor(random() * left.length), 1)[0]!);
}

export function pick<T>(values: readonly T[], random: () => number): T {
  return values[Math.floor(random() * values.length)]!;
}
