/**
 * The kernel's state as its own tools print it: what the tests compare with, read without any of the product's code.
 */
import { execFile, execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { promisify } from 'node:util';

import { errorMessage } from '../../../src/values/errors.js';
import { iptablesPrograms } from './iptables-programs.js';

const execute = promisify(execFile);

/** Runs a program; its output. Fails with its standard error when it exits with another code than 0. */
export async function run(program: string, ...args: string[]): Promise<string> {
  try {
    return (await execute(program, args, { maxBuffer: 1 << 28 })).stdout;
  } catch (error) {
    const { stderr, code } = error as { stderr?: string; code?: unknown };
    throw new Error(`${program} ended with ${String(code)}: ${stderr?.trim() || errorMessage(error)}`, {
      cause: error,
    });
  }
}

/**
 * Runs a shell script: one process start for many commands. Any failing command fails it. $IPTABLES and $IP6TABLES are
 * the programs that work in this kernel (`$IPTABLES -w -N MINE`, `$IPTABLES-save`).
 */
export async function shell(script: string): Promise<string> {
  const { IPTABLES, IP6TABLES } = iptablesPrograms();
  return run('sh', '-ec', `IPTABLES=${IPTABLES}\nIP6TABLES=${IP6TABLES}\n${script}`);
}

function sortedLines(text: string): string[] {
  return text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '')
    .sort();
}

/** `ipvsadm -Sn`, sorted, without empty lines. */
export async function ipvsRules(): Promise<string[]> {
  return sortedLines(await run('ipvsadm', '-Sn'));
}

/**
 * Real servers with their weights from /proc/net/ip_vs, for polling without starting a process:
 * `TCP 10.96.0.20:80 -> 10.128.0.12:8080 1`, in the kernel's order. Virtual servers without real servers do not show.
 */
export async function realServerWeights(): Promise<string[]> {
  const lines: string[] = [];
  let server = '';
  for (const line of (await readFile('/proc/net/ip_vs', 'latin1')).split('\n')) {
    const words = line.trim().split(/ +/);
    if (/^(TCP|UDP|SCTP)$/.test(words[0]!)) server = `${words[0]} ${procAddress(words[1]!)}`;
    else if (words[0] === 'FWM') server = `FWM ${parseInt(words[1]!, 16)}`;
    else if (words[0] === '->' && words[3] !== undefined && /^\d+$/.test(words[3])) {
      lines.push(`${server} -> ${procAddress(words[1]!)} ${words[3]}`);
    }
  }
  return lines;
}

/** `0A600014:0050` or `[fd00:0096:...]:0050` as everybody writes it. */
function procAddress(text: string): string {
  const colon = text.lastIndexOf(':');
  const host = text.slice(0, colon);
  const port = parseInt(text.slice(colon + 1), 16);
  if (host.startsWith('[')) return `${new URL(`http://${host}`).hostname}:${port}`;
  return `${[0, 2, 4, 6].map((at) => parseInt(host.slice(at, at + 2), 16)).join('.')}:${port}`;
}

/**
 * Every address on kube-ipvs0 in the form of fixtures/kube-proxy-1.36/kube-ipvs0.txt (`inet 10.96.0.1/32`), sorted;
 * none without the link.
 */
export async function kubeIpvs0Addresses(): Promise<string[]> {
  const lines = sortedLines(await shell('ip -o addr show dev kube-ipvs0 2>/dev/null || true'));
  return lines.map((line) => /\b(inet6?) +(\S+)/.exec(line)?.slice(1).join(' ') ?? line).sort();
}

/** `ipset save`, split in the sorted `create` and `add` lines. */
export async function ipsets(): Promise<{ create: string[]; add: string[] }> {
  const lines = sortedLines(await run('ipset', 'save'));
  return {
    create: lines.filter((line) => line.startsWith('create ')),
    add: lines.filter((line) => line.startsWith('add ')),
  };
}

/** `iptables-save` of the working backend without comments and counters, so that two reads compare. */
export async function iptablesRules(family: 4 | 6): Promise<string[]> {
  const { IPTABLES, IP6TABLES } = iptablesPrograms();
  const text = await run(`${family === 4 ? IPTABLES : IP6TABLES}-save`);
  return text
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => line.replace(/^(:\S+ \S+) \[\d+:\d+\]$/, '$1'));
}

/** Loads the modules, but those that are there or part of the kernel's image, of which modprobe may not know. */
export function loadModules(...names: readonly string[]): void {
  for (const name of names) {
    if (!existsSync(`/sys/module/${name}`)) execFileSync('modprobe', [name], { stdio: 'pipe' });
  }
}

/** True when this kernel offers IPVS now or by loading the module. */
export async function hasIpvs(): Promise<boolean> {
  if (existsSync('/proc/net/ip_vs')) return true;
  await shell('modprobe ip_vs 2>/dev/null || true');
  return existsSync('/proc/net/ip_vs');
}
