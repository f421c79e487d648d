/** Where a process spent its time, by a CPU profile of V8: by what was running, rooms of src/ for our own code. */
import { type CpuProfile } from './cpu-profile.js';

export interface Share {
  readonly what: string;
  readonly ms: number;
}

type CallFrame = CpuProfile['profile']['nodes'][number]['callFrame'];

const IDLE = '(idle)';
/** A sample speaks for no more than this, ms. Longer until the next one, the process was not on the CPU. */
const LONGEST = 6;
const AWAY = 'others on the CPU';
/** What V8 and Node call what is not JavaScript. */
const NATIVE: Readonly<Record<string, string>> = {
  writeBuffer: 'the kernel: write and send',
  read: 'the kernel: read and receive',
  getsockopt: 'the kernel: getsockopt',
  now: 'looks at the clock',
  '(garbage collector)': 'garbage collection',
};

/** Self time by what was running between two moments (Unix ms), longest first; what was idle is left out. */
export function shares({ startedAt, profile }: CpuProfile, from = 0, to = Infinity): Share[] {
  const frames = new Map(profile.nodes.map(({ id, callFrame }) => [id, callFrame]));
  const found = new Map<string, number>();
  let at = startedAt;
  for (const [i, node] of (profile.samples ?? []).entries()) {
    at += (profile.timeDeltas?.[i] ?? 0) / 1000;
    const ms = (profile.timeDeltas?.[i + 1] ?? 0) / 1000;
    const frame = frames.get(node);
    if (frame === undefined || at < from || at > to || frame.functionName === IDLE) continue;
    const add = (what: string, time: number): unknown => found.set(what, (found.get(what) ?? 0) + time);
    add(placeOf(frame), Math.min(ms, LONGEST));
    if (ms > LONGEST) add(AWAY, ms - LONGEST);
  }
  return [...found].map(([what, ms]) => ({ what, ms: Math.round(ms) })).sort((a, b) => b.ms - a.ms);
}

function placeOf({ functionName, url }: CallFrame): string {
  const native = url === '' ? NATIVE[functionName] : undefined;
  if (native !== undefined) return native;
  const room = /\/build\/src\/((?:kernel|daemon)\/[^/]+|[^/]+)\//.exec(url)?.[1];
  if (room !== undefined) return `src/${room}`;
  const [, name] = /\/node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(url) ?? [];
  if (name !== undefined) return name;
  if (url.includes('/build/native/')) return 'native';
  return url === '' ? 'native code of Node and V8' : "Node's JavaScript";
}
