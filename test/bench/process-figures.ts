/** CPU time and memory of another process, from /proc. */
import { readFileSync } from 'node:fs';

/** The kernel's USER_HZ, the unit of /proc/PID/stat: 100 on every Linux in use. */
const MS_PER_TICK = 10;

/** User and system time so far in milliseconds: of the process alone, and with the children that it waited for. */
export function cpuTimes(pid: number): { readonly own: number; readonly withChildren: number } {
  const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
  // Fields count from behind the command's name, which may hold anything; field 14 of proc(5) is then number 11.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  const [user, system, childUser, childSystem] = fields.slice(11, 15).map(Number) as [number, number, number, number];
  const own = (user + system) * MS_PER_TICK;
  return { own, withChildren: own + (childUser + childSystem) * MS_PER_TICK };
}

export function cpuMs(pid: number): number {
  return cpuTimes(pid).own;
}

/** Resident memory in MB (10^6 bytes): now, and at its highest. */
export function memory(pid: number): { readonly now: number; readonly peak: number } {
  const text = readFileSync(`/proc/${pid}/status`, 'utf8');
  const field = (name: string): number => {
    const match = new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(text);
    if (match === null) throw new Error(`/proc/${pid}/status has no ${name}`);
    return Math.round((Number(match[1]) * 1024) / 1e5) / 10;
  };
  return { now: field('VmRSS'), peak: field('VmHWM') };
}
