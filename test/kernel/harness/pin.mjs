/**
 * Keeps a test kernel on one CPU of the host. User-mode-linux has one CPU but runs its kernel and each of its programs
 * as processes of the host; every system call goes from one to the other and back, which takes 13 us on the same CPU
 * and 60 us when the host's scheduler spreads them over two (measured in a virtual machine).
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

const TASKSET = '/usr/bin/taskset';
const SAMPLE_MS = 100;

/**
 * The command line that runs `program` on CPU number `wanted` of those that this process may use (modulo their count),
 * by default on the one that is least busy now. Without taskset, or leave to use it, the program is left to the
 * scheduler.
 * @param {string} program
 * @param {readonly string[]} args
 * @param {number | undefined} wanted
 * @returns {Promise<[string, string[]]>}
 */
export async function onOneCpu(program, args, wanted) {
  if (!existsSync(TASKSET)) return [program, [...args]];
  const allowed = allowedCpus(readFileSync('/proc/self/status', 'utf8'));
  const cpu = wanted === undefined ? await leastBusy(allowed) : allowed[wanted % allowed.length];
  const pin = ['--cpu-list', String(cpu)];
  // A sandbox may forbid it.
  if (spawnSync(TASKSET, [...pin, 'true'], { stdio: 'ignore' }).status !== 0) return [program, [...args]];
  return [TASKSET, [...pin, program, ...args]];
}

/** @param {string} status the text of /proc/self/status, with a line like `Cpus_allowed_list: 0-3,6` */
function allowedCpus(status) {
  const list = /^Cpus_allowed_list:\s*(\S+)$/m.exec(status)?.[1] ?? '0';
  return list.split(',').flatMap((range) => {
    const [first = 0, last = first] = range.split('-').map(Number);
    return Array.from({ length: last - first + 1 }, (_, i) => first + i);
  });
}

/** @param {number[]} cpus */
async function leastBusy(cpus) {
  const before = idleTicks();
  await sleep(SAMPLE_MS);
  const after = idleTicks();
  /** @param {number} cpu */
  const idle = (cpu) => (after.get(cpu) ?? 0) - (before.get(cpu) ?? 0);
  return cpus.reduce((best, cpu) => (idle(cpu) > idle(best) ? cpu : best));
}

/** Ticks for which each CPU had nothing to do: field 4 of its line in /proc/stat (proc(5)). */
function idleTicks() {
  const lines = readFileSync('/proc/stat', 'utf8').matchAll(/^cpu(\d+) \d+ \d+ \d+ (\d+)/gm);
  return new Map([...lines].map(([, cpu, idle]) => [Number(cpu), Number(idle)]));
}
