/** What the node's kernel says, read without changing anything, nor by anything that makes it load a module. */
import { closeSync, fstatSync, openSync, readFileSync, readSync, readdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { arch, versions } from 'node:process';
import { type Environment } from '../../daemon/environment.js';
import { CommandRunner } from '../../kernel/command.js';
import { detectIptables } from '../../kernel/iptables/detect.js';
import { Iptables } from '../../kernel/iptables/iptables.js';
import { IpsetClient } from '../../kernel/ipset/client.js';
import { isModulePresent } from '../../kernel/node/modules.js';
import { LinkClient } from '../../kernel/rtnetlink/client.js';
import { FAMILIES, formatAddress } from '../../values/address.js';
import { errorMessage } from '../../values/errors.js';
import { formatIpsetEntry } from '../../values/ipset.js';
import { type Part } from './bundle.js';
import { rulesThatTouchOurs } from './iptables-extract.js';

/** Where a test has its own. */
export interface NodeFiles {
  readonly proc: string;
  readonly logs: string;
}

export const NODE_FILES: NodeFiles = { proc: '/proc', logs: '/var/log/pods' };

const SYSCTL_FOLDERS = ['net/ipv4/vs', 'net/netfilter'];
const SYSCTLS = [
  ...['net/ipv4/ip_forward', 'net/ipv6/conf/all/forwarding', 'net/ipv6/conf/all/disable_ipv6'],
  ...['all', 'default', 'kube-ipvs0'].flatMap((link) =>
    ['arp_ignore', 'arp_announce', 'rp_filter', 'route_localnet', 'src_valid_mark'].map(
      (name) => `net/ipv4/conf/${link}/${name}`,
    ),
  ),
  ...['net/ipv4/ip_local_port_range', 'net/bridge/bridge-nf-call-iptables', 'net/bridge/bridge-nf-call-ip6tables'],
];
const KERNEL_FILES = ['version', 'uptime', 'loadavg', 'meminfo', 'net/ip_vs_stats', 'net/ip_vs_status', 'net/netlink'];
const ROUTE_FILES = ['net/route', 'net/ipv6_route', 'net/if_inet6'];
const LOG_BYTES = 512 << 10;

export function nodeParts(environment: Environment, { proc, logs }: NodeFiles = NODE_FILES): Part[] {
  const { openNetlinkSocket: open } = environment;
  const isPresent = isModulePresent();
  const files = (names: readonly string[]): string =>
    names.map((name) => `== /proc/${name}\n${fileText(proc, name)}`).join('\n');
  return [
    { file: 'versions.txt', about: 'this program and what it runs on', collect: () => versionsText(environment, proc) },
    { file: 'kernel.txt', about: 'memory, load, IPVS statistics', collect: () => files(KERNEL_FILES) },
    { file: 'modules.txt', about: 'loaded modules', collect: () => fileText(proc, 'modules') },
    { file: 'sysctls.txt', about: 'those that Service traffic meets', collect: () => sysctlsText(join(proc, 'sys')) },
    { file: 'links.txt', about: 'addresses by link', collect: () => linksText(new LinkClient(open)) },
    { file: 'routes.txt', about: "the kernel's tables, as /proc has them", collect: () => files(ROUTE_FILES) },
    {
      file: 'sets.txt',
      about: 'KUBE-* sets with their entries, of others the names',
      collect: () => (isPresent('ip_set') ? setsText(new IpsetClient(open)) : 'ip_set is not loaded\n'),
    },
    ...(['legacy', 'nft'] as const).map((backend): Part => ({
      file: `iptables-${backend}.txt`,
      about: `rules of iptables-${backend}: built-in chains, KUBE-* chains, and chains that lead there`,
      collect: (signal) => rulesText(backend, isPresent, signal),
    })),
    { file: 'log.txt', about: "the daemon's last lines", collect: () => logText(logs) },
  ];
}

function versionsText({ version, build, hostname, variables }: Environment, proc: string): string {
  const lines = {
    'kube-proxy-ipvs': version,
    commit: build?.commit ?? 'unknown',
    built: build?.date ?? 'unknown',
    node: `${versions.node} ${arch}`,
    kernel: fileText(proc, 'version').trim(),
    processors: availableParallelism(),
    host: hostname,
    'node name': variables['NODE_NAME'] ?? '(NODE_NAME is not set)',
  };
  const text = Object.entries(lines).map(([name, value]) => `${name}: ${value}\n`);
  return `${text.join('')}\n${osRelease()}`;
}

/** Of the image where this runs in one. */
function osRelease(): string {
  try {
    return readFileSync('/etc/os-release', 'utf8');
  } catch (error) {
    return `${errorMessage(error)}\n`;
  }
}

/** A file's text, or why there is none: many exist on some kernels only. */
function fileText(root: string, name: string): string {
  try {
    return readFileSync(join(root, name), 'utf8');
  } catch (error) {
    return `${errorMessage(error)}\n`;
  }
}

function sysctlsText(root: string): string {
  const names = [...SYSCTLS];
  for (const folder of SYSCTL_FOLDERS) {
    try {
      names.push(
        ...readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' }).map((name) => `${folder}/${name}`),
      );
    } catch {
      // The module that has them is not loaded: modules.txt says so.
    }
  }
  const lines = names.sort().flatMap((name) => {
    try {
      return [`${name.replaceAll('/', '.')} = ${readFileSync(join(root, name), 'latin1').trim()}\n`];
    } catch {
      return []; // a folder, or nothing that this kernel has
    }
  });
  return lines.join('');
}

function linksText(client: LinkClient): string {
  try {
    const ours = client.findLink('kube-ipvs0');
    const found = ours === undefined ? 'missing' : `index ${ours.index}, ${ours.kind}, ${ours.up ? 'up' : 'down'}`;
    const lines = client
      .listAddresses()
      .map(
        ({ index, address, prefixLength, scope }) =>
          `${index} ${formatAddress(address)}/${prefixLength} scope ${scope}\n`,
      );
    return `kube-ipvs0: ${found}\nindex, address and scope of all links:\n${lines.join('')}`;
  } finally {
    client.close();
  }
}

function setsText(client: IpsetClient): string {
  try {
    const lines: string[] = [];
    for (const set of client.listSets()) {
      lines.push(`create ${set.name} ${set.type}`);
      if (!set.name.startsWith('KUBE-')) continue;
      const definition = { name: set.name, type: set.type, family: set.family } as Parameters<
        typeof client.listEntries
      >[0];
      for (const entry of client.listEntries(definition))
        lines.push(`add ${set.name} ${formatIpsetEntry(definition.type, entry)}`);
    }
    return `${lines.join('\n')}\n`;
  } finally {
    client.close();
  }
}

async function rulesText(
  backend: 'legacy' | 'nft',
  isPresent: (module: string) => boolean,
  signal: AbortSignal,
): Promise<string> {
  if (backend === 'nft' && !isPresent('nf_tables')) return 'nf_tables is not loaded\n';
  const { run } = new CommandRunner();
  const iptables = new Iptables(await detectIptables(run, { backend, isPresent }), run);
  const texts: string[] = [`iptables ${iptables.tools.version}\n`];
  for (const family of FAMILIES) {
    try {
      texts.push(`== IPv${family}\n${rulesThatTouchOurs(await iptables.save(family, signal))}`);
    } catch (error) {
      texts.push(`== IPv${family}\n${errorMessage(error)}\n`);
    }
  }
  return texts.join('');
}

/** Where the kubelet keeps it: on the node itself, or where a pod has /var/log/pods mounted. */
function logText(root: string): string {
  const pods = readdirSync(root).filter((name) => /^[\w-]+_kube-proxy-ipvs-/.test(name));
  const files = pods.flatMap((pod) =>
    readdirSync(join(root, pod), { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.log'))
      .map((name) => join(root, pod, name)),
  );
  if (files.length === 0) throw new Error(`no log of kube-proxy-ipvs in ${root} (kubectl logs has it)`);
  return files.map((file) => `== ${file}\n${tail(file)}`).join('\n');
}

function tail(file: string): string {
  const descriptor = openSync(file, 'r');
  try {
    const { size } = fstatSync(descriptor);
    const buffer = Buffer.alloc(Math.min(size, LOG_BYTES));
    const length = readSync(descriptor, buffer, 0, buffer.length, size - buffer.length);
    return buffer.toString('utf8', 0, length);
  } finally {
    closeSync(descriptor);
  }
}
