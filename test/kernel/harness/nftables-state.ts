/** Our tables of nf_tables as the program `nft` prints them, in the words of ipset and iptables-save. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

/** The name of our table in either family. */
export const TABLE = 'kube-proxy-ipvs';
const FAMILIES = { 4: 'ip', 6: 'ip6' } as const;
const PROTOCOLS: Readonly<Record<string, string>> = { 6: 'tcp', 17: 'udp', 132: 'sctp' };
/** ipset's types by nft's, where an interval makes a net of the last address. */
const TYPES: readonly [RegExp, string][] = [
  [/^inet_service$/, 'bitmap:port range 0-65535'],
  [/^ipv[46]_addr$/, 'hash:ip'],
  [/^ipv[46]_addr \. inet_proto \. inet_service$/, 'hash:ip,port'],
  [/^ipv[46]_addr \. inet_proto \. inet_service \. ipv[46]_addr$/, 'hash:ip,port,ip'],
  [/^ipv[46]_addr \. inet_proto \. inet_service \. ipv[46]_addr interval$/, 'hash:ip,port,net'],
];

const execute = promisify(execFile);

/** Our sets as `ipset save` would write them, sorted; none where there is no table. */
export async function nftSets(): Promise<{ create: string[]; add: string[] }> {
  const found = { create: [] as string[], add: [] as string[] };
  for (const family of [4, 6] as const) {
    for (const [, name = '', body = ''] of (await table(family)).matchAll(/^\tset (\S+) \{\n([^]*?)^\t\}/gm)) {
      found.create.push(`create ${name} ${ipsetType(body)}${ipsetFamily(body)}`);
      const [, elements = ''] = /elements = \{([^]*?)\}/.exec(body) ?? [];
      for (const element of elements.split(',').map((one) => one.trim()))
        if (element !== '') found.add.push(`add ${name} ${ipsetElement(element)}`);
    }
  }
  return { create: found.create.sort(), add: found.add.sort() };
}

/** Our chains and rules of a family, as `:nat-PREROUTING type nat hook ...` and `-A nat-PREROUTING jump ...`. */
export async function nftRules(family: 4 | 6): Promise<string[]> {
  const text = await table(family);
  const lines = text.split('\n');
  // All that the table says of itself: `flags dormant` puts it out of work.
  const own = lines.filter((line) => /^\tflags /.test(line)).map((line) => `:${TABLE} ${line.trim()}`);
  for (const [, name = '', body = ''] of text.matchAll(/^\tchain (\S+) \{\n([^]*?)^\t\}/gm)) {
    const rules = body.split('\n').map((line) => line.trim());
    const hook = rules.find((line) => line.startsWith('type '));
    own.push(`:${name} ${hook ?? '-'}`);
    own.push(...rules.filter((line) => line !== '' && line !== hook).map((rule) => `-A ${name} ${rule}`));
  }
  return own;
}

/** Packets that each rule of a table has counted, by chain as iptables would call it; a rule that does not count: 0. */
export async function nftCounters(family: 4 | 6, tableName: string): Promise<Map<string, number[]>> {
  const chains = new Map<string, number[]>();
  const { stdout } = await execute('nft', ['-n', 'list', 'table', FAMILIES[family], TABLE], { maxBuffer: 1 << 28 });
  for (const [, name = '', body = ''] of stdout.matchAll(/^\tchain (\S+) \{\n([^]*?)^\t\}/gm)) {
    if (!name.startsWith(`${tableName}-`)) continue;
    const rules = body.split('\n').filter((line) => line.trim() !== '' && !line.startsWith('\t\ttype '));
    const counts = rules.map((rule) => Number(/ ?counter packets (\d+)/.exec(rule)?.[1] ?? 0));
    if (counts.length > 0) chains.set(name.slice(tableName.length + 1), counts);
  }
  return chains;
}

/** `10.96.0.1 . 6 . 443 . 10.0.0.0/8` -> `10.96.0.1,tcp:443,10.0.0.0/8` */
export function ipsetElement(element: string): string {
  const [first = '', protocol, port, ...rest] = element.split(' . ');
  if (protocol === undefined) return first;
  return [first, `${PROTOCOLS[protocol] ?? protocol}:${port}`, ...rest].join(',');
}

/** `10.96.0.1,tcp:443,10.0.0.0/8` -> `10.96.0.1 . tcp . 443 . 10.0.0.0/8` */
export function nftElement(entry: string): string {
  return entry.replace(/,(tcp|udp|sctp):/, ' . $1 . ').replace(',', ' . ');
}

function ipsetType(body: string): string {
  const [, type = ''] = /^\t\ttype (.*)$/m.exec(body) ?? [];
  const interval = /^\t\tflags interval$/m.test(body) ? ' interval' : '';
  return TYPES.find(([nft]) => nft.test(type + interval))?.[1] ?? `nft: ${type}${interval}`;
}

/** A set of ports has none. */
function ipsetFamily(body: string): string {
  if (/^\t\ttype inet_service$/m.test(body)) return '';
  return body.includes('type ipv6_addr') ? ' family inet6' : ' family inet';
}

/** Without counters; numbers are not made names. Empty where there is no such table. */
async function table(family: 4 | 6): Promise<string> {
  try {
    const { stdout } = await execute('nft', ['-n', '-s', 'list', 'table', FAMILIES[family], TABLE], {
      maxBuffer: 1 << 28,
    });
    return stdout;
  } catch (error) {
    const { stderr = '' } = error as { stderr?: string };
    if (/No such file or directory/.test(stderr)) return '';
    throw new Error(`nft list table ${FAMILIES[family]} ${TABLE}: ${stderr}`, { cause: error });
  }
}
