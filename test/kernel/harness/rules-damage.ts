/**
 * Somebody else's hands in our rules and sets, wherever the daemon under test keeps them: each function makes a piece
 * of shell script for `shell`.
 */
import { TABLE, nftElement } from './nftables-state.js';
import { isNftables } from './rules-under-test.js';

export type Family = 4 | 6;
export type TableName = 'nat' | 'filter' | 'mangle';

/**
 * Lines as `ipset restore` takes them (`add SET ENTRY`, `del`, `flush SET`, `destroy SET`, `create SET hash:ip`). What
 * is there already, or not there, is no error.
 */
export function changeSets(lines: readonly string[]): string {
  if (!isNftables()) return `ipset -exist restore <<'END'\n${lines.join('\n')}\nEND`;
  // One command for each: nft would do all of them or nothing.
  return lines.map((line) => `nft '${nftCommand(line)}' 2>/dev/null || true`).join('\n');
}

/** Removes the rules of one of our chains, or of iptables' own (`POSTROUTING`) the jump to ours among all others. */
export function flushChain(family: Family, table: TableName, chain: string): string {
  if (!isNftables()) return `${iptables(family)} -w -t ${table} -F ${chain}`;
  return `nft flush chain ${nftTable(family)} ${table}-${chain}`;
}

/** Deletes the first rule of one of our chains. */
export function deleteFirstRule(family: Family, table: TableName, chain: string): string {
  if (!isNftables()) return `${iptables(family)} -w -t ${table} -D ${chain} 1`;
  const place = `${nftTable(family)} ${table}-${chain}`;
  return `nft delete rule ${place} handle $(nft -a list chain ${place} | sed -n '/^\t\t/s/.*# handle //p' | head -1)`;
}

/** Puts a rule of somebody else before or behind those of one of our chains. */
export function addRule(family: Family, table: TableName, chain: string, where: 'before' | 'behind'): string {
  const target = table === 'filter' ? 'DROP' : 'ACCEPT';
  if (!isNftables())
    return `${iptables(family)} -w -t ${table} ${where === 'before' ? '-I' : '-A'} ${chain} -p tcp --dport 66 -j ${target}`;
  const verb = where === 'before' ? 'insert' : 'add';
  return `nft ${verb} rule ${nftTable(family)} ${table}-${chain} tcp dport 66 ${target.toLowerCase()}`;
}

/** Deletes the jump from iptables' own chain, or from the base chain of the same name, to one of ours. */
export function deleteJump(family: Family, table: TableName, chain: string, target: string): string {
  if (!isNftables()) {
    const program = `${iptables(family)} -w -t ${table}`;
    return `${program} -D ${chain} $(${program} -S ${chain} | grep -n -e '-j ${target}$' | head -1 | cut -d: -f1 | awk '{print $1-1}')`;
  }
  const base = `${nftTable(family)} ${table}-${chain}`;
  return `nft delete rule ${base} handle $(nft -a list chain ${base} | sed -n 's/.*jump ${table}-${target} # handle //p' | head -1)`;
}

/** Removes all of our rules, and then all of these sets. */
export function destroyAll(sets: readonly string[]): string {
  if (isNftables()) return ([4, 6] as const).map((family) => `nft delete table ${nftTable(family)}`).join('\n');
  const flush = (program: string): string =>
    `${program}-save | grep -v KUBE- | sed 's/\\[[0-9:]*\\]//' | ${program}-restore`;
  return `${flush('$IPTABLES')}\n${flush('$IP6TABLES')}\n${changeSets(sets.map((name) => `destroy ${name}`))}`;
}

/** How the daemon calls one of our chains in its log. */
export function chainInLog(family: Family, table: TableName, chain: string): string {
  return isNftables() ? `IPv${family} ${TABLE} ${table}-${chain}` : `IPv${family} ${table} ${chain}`;
}

export function nftTable(family: Family): string {
  return `${family === 4 ? 'ip' : 'ip6'} ${TABLE}`;
}

function iptables(family: Family): string {
  return family === 4 ? '$IPTABLES' : '$IP6TABLES';
}

function nftCommand(line: string): string {
  const [verb = '', name = '', rest = ''] = line.split(' ');
  const family: Family = name.startsWith('KUBE-6-') ? 6 : 4;
  const set = `${nftTable(family)} ${name}`;
  switch (verb) {
    case 'add':
      return `add element ${set} { ${nftElement(rest)} }`;
    case 'del':
      return `delete element ${set} { ${nftElement(rest)} }`;
    case 'flush':
      return `flush set ${set}`;
    case 'destroy':
      return `delete set ${set}`;
    case 'create':
      return `add table ${nftTable(family)}; add set ${set} { type ${family === 4 ? 'ipv4' : 'ipv6'}_addr; }`;
    default:
      throw new Error(`not a line of ipset: ${line}`);
  }
}
