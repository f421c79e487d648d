/** System calls of a cold start, all threads, counted by strace. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { ApiServer, type Scale, coldStart } from './world.js';

export interface StraceResult {
  /** null: strace does not work here. */
  readonly syscalls: number | null;
  readonly why?: string;
  /** The most frequent ones. */
  readonly byName?: Readonly<Record<string, number>>;
}

/** From the first milliseconds of the process to the end of its first sync; processes that it starts count too. */
export async function countSyscalls(scale: Scale, directory: string): Promise<StraceResult> {
  try {
    execFileSync('strace', ['-c', '-o', `${directory}/strace-probe`, 'true'], { stdio: 'pipe', timeout: 20_000 });
  } catch (error) {
    return { syscalls: null, why: `strace does not work here: ${String(error).split('\n')[0]}` };
  }
  const output = `${directory}/strace`;
  const server = await ApiServer.start(scale);
  let strace: ChildProcess | undefined;
  const { daemon } = await coldStart({}, (pid) => {
    strace = spawn('strace', ['-c', '-f', '-o', output, '-p', String(pid)], { stdio: 'ignore' });
  });
  if (strace === undefined) throw new Error('strace was not started');
  strace.kill('SIGINT');
  if (strace.exitCode === null) await once(strace, 'exit');
  await daemon.stop('SIGKILL');
  server.stop();
  return parseStrace(readFileSync(output, 'utf8'));
}

/** Lines of `strace -c`: % time, seconds, usecs/call, calls, [errors], syscall. */
export function parseStrace(text: string): StraceResult {
  const byName: Record<string, number> = {};
  let total = 0;
  for (const line of text.split('\n')) {
    const match = /^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$/.exec(line);
    if (match === null || match[2] === 'total') continue;
    const count = Number(match[1]);
    total += count;
    byName[match[2]!] = count;
  }
  const top = Object.entries(byName)
    .sort(([, a], [, b]) => b - a)
    .slice(0, 12);
  return { syscalls: total, byName: Object.fromEntries(top) };
}
