/** The kernel's state for comparison, read without the product's code and mostly without starting programs. */
import { readFileSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { ipvsRules, kubeIpvs0Addresses, run } from './harness/kernel-state.js';
import { allRules, allSets } from './harness/rules-state.js';

export interface Snapshot {
  readonly ipvs: readonly string[];
  readonly addresses: readonly string[];
  readonly sets: readonly string[];
  readonly rules4: readonly string[];
  readonly rules6: readonly string[];
}

/** Everything that the daemon writes, other people's included. */
export async function snapshot(): Promise<Snapshot> {
  const [ipvs, addresses, sets, rules4, rules6] = await Promise.all([
    ipvsRules(),
    kubeIpvs0Addresses(),
    allSets(),
    allRules(4),
    allRules(6),
  ]);
  return {
    ipvs,
    addresses: addresses.filter((address) => !address.startsWith('inet6 fe80:')),
    sets: [...sets.create.map((line) => line.replace(/ (hashsize|maxelem|bucketsize|initval) \S+/g, '')), ...sets.add],
    rules4,
    rules6,
  };
}

export interface RealServerState {
  readonly weight: number;
  readonly active: number;
  readonly inactive: number;
}

/** /proc/net/ip_vs by `TCP 10.96.0.1:80` (or `FWM 1`) and `10.128.0.11:8080`. */
export function ipvsTable(): Map<string, Map<string, RealServerState>> {
  const table = new Map<string, Map<string, RealServerState>>();
  let reals = new Map<string, RealServerState>();
  for (const line of readFileSync('/proc/net/ip_vs', 'utf8').split('\n')) {
    const fields = line.trim().split(/ +/);
    if (/^(TCP|UDP|SCTP|FWM)$/.test(fields[0]!)) {
      reals = new Map();
      table.set(`${fields[0]} ${fields[0] === 'FWM' ? parseInt(fields[1]!, 16) : hostPort(fields[1]!)}`, reals);
    } else if (fields[0] === '->' && fields[1] !== 'RemoteAddress:Port') {
      const [weight, active, inactive] = fields.slice(3).map(Number);
      reals.set(hostPort(fields[1]!), { weight: weight!, active: active!, inactive: inactive! });
    }
  }
  return table;
}

/** The real servers of `server`; empty when there is no such virtual server. */
export function realServers(server: string): Map<string, RealServerState> {
  return ipvsTable().get(server) ?? new Map<string, RealServerState>();
}

/** `10.128.0.11:8080=1` for each real server, sorted. */
export function weights(server: string): string[] {
  return [...realServers(server)].map(([real, { weight }]) => `${real}=${weight}`).sort();
}

/** 0A800001:1F90 -> 10.128.0.1:8080; IPv6 stays as it is. */
function hostPort(text: string): string {
  const colon = text.lastIndexOf(':');
  const port = parseInt(text.slice(colon + 1), 16);
  const host = text.slice(0, colon);
  if (host.startsWith('[')) return `${host}:${port}`;
  return `${host
    .match(/../g)!
    .map((byte) => parseInt(byte, 16))
    .join('.')}:${port}`;
}

/**
 * Connections that each virtual and real server has had, by `server` and `server -> real`. The kernel counts from the
 * moment an entry is added: one that was removed and added again starts from nothing.
 */
export async function connectionCounts(): Promise<Map<string, number>> {
  const counts = new Map<string, number>();
  let server = '';
  for (const line of (await run('ipvsadm', '-Ln', '--stats', '--exact')).split('\n')) {
    const fields = line.trim().split(/ +/);
    if (/^(TCP|UDP|SCTP|FWM)$/.test(fields[0]!) && fields.length > 3) {
      server = `${fields[0]} ${fields[1]}`;
      counts.set(server, Number(fields[2]));
    } else if (fields[0] === '->' && /^\d+$/.test(fields[2]!)) {
      counts.set(`${server} -> ${fields[1]}`, Number(fields[2]));
    }
  }
  return counts;
}

/**
 * Addresses on kube-ipvs0, which is down: nothing that looks at links that are up would name them. Link-local ones left
 * out.
 */
export function boundAddresses(): string[] {
  const { status, stdout } = spawnSync('ip', ['-o', 'addr', 'show', 'dev', 'kube-ipvs0'], { encoding: 'utf8' });
  const lines = status === 0 ? stdout.split('\n') : [];
  return lines
    .flatMap((line) => /inet6? ([^/ ]+)/.exec(line)?.[1] ?? [])
    .filter((address) => !address.startsWith('fe80:'))
    .sort();
}
