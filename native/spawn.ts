/**
 * Starting programs by posix_spawn. Node's child_process forks: the kernel copies the page tables of a process of
 * hundreds of megabytes, and every page that is written afterwards faults once. posix_spawn borrows the memory until
 * the exec (CLONE_VM | CLONE_VFORK), whatever its size.
 */
import { closeSync } from 'node:fs';
import { Socket } from 'node:net';
import ffi from 'ffi-napi';
import ref from 'ref-napi';
import { type StartedProgram } from '../src/kernel/command.js';

type SpawnArguments = [pid: Buffer, file: string, actions: Buffer, attributes: Buffer, args: Buffer, env: Buffer];

interface Libc {
  pipe2(ends: Buffer, flags: number): number;
  waitpid(pid: number, status: Buffer, options: number): number;
  posix_spawnp: { async(...call: [...SpawnArguments, done: (error: unknown, errno: number) => void]): void };
  posix_spawn_file_actions_init(actions: Buffer): number;
  posix_spawn_file_actions_adddup2(actions: Buffer, fd: number, as: number): number;
  posix_spawn_file_actions_destroy(actions: Buffer): number;
  posix_spawnattr_init(attributes: Buffer): number;
  posix_spawnattr_destroy(attributes: Buffer): number;
  posix_spawnattr_setflags(attributes: Buffer, flags: number): number;
  posix_spawnattr_setsigdefault(attributes: Buffer, signals: Buffer): number;
  posix_spawnattr_setsigmask(attributes: Buffer, signals: Buffer): number;
}

const O_CLOEXEC = 0o2000000;
const WNOHANG = 1;
const POSIX_SPAWN_SETSIGDEF = 4;
const POSIX_SPAWN_SETSIGMASK = 8;
/** More than any libc's posix_spawnattr_t (336 bytes), posix_spawn_file_actions_t (80) or sigset_t (128) has. */
const STRUCTURE = 512;
const POINTER = 8;
const KEEP_ALIVE_MS = 1000;

let loaded: Libc | undefined;
let keepAlive: NodeJS.Timeout | undefined;
const waiting = new Map<number, (status: number) => void>();

function libc(): Libc {
  const pointers = (count: number): ['int', string[]] => ['int', Array<string>(count).fill('pointer')];
  loaded ??= ffi.Library(null, {
    pipe2: ['int', ['pointer', 'int']],
    waitpid: ['int', ['int', 'pointer', 'int']],
    posix_spawnp: ['int', ['pointer', 'string', 'pointer', 'pointer', 'pointer', 'pointer']],
    posix_spawn_file_actions_init: pointers(1),
    posix_spawn_file_actions_adddup2: ['int', ['pointer', 'int', 'int']],
    posix_spawn_file_actions_destroy: pointers(1),
    posix_spawnattr_init: pointers(1),
    posix_spawnattr_destroy: pointers(1),
    posix_spawnattr_setflags: ['int', ['pointer', 'short']],
    posix_spawnattr_setsigdefault: pointers(2),
    posix_spawnattr_setsigmask: pointers(2),
  }) as unknown as Libc;
  return loaded;
}

/**
 * Starts a program found in PATH with this process's environment. Rejects with an Error with `errno` (ENOENT: no such
 * program).
 */
export async function startProgram(command: string, args: readonly string[]): Promise<StartedProgram> {
  const pipes: Pipe[] = [];
  try {
    const pipe = (): Pipe => {
      const made = openPipe();
      pipes.push(made);
      return made;
    };
    const [stdin, stdout, stderr] = [pipe(), pipe(), pipe()];
    const pid = await spawn(command, args, [stdin.readEnd, stdout.writeEnd, stderr.writeEnd]);
    const exited = ended(pid);
    for (const fd of [stdin.readEnd, stdout.writeEnd, stderr.writeEnd]) closeSync(fd);
    return {
      pid,
      stdin: new Socket({ fd: stdin.writeEnd, readable: false, writable: true }),
      stdout: new Socket({ fd: stdout.readEnd, readable: true, writable: false }),
      stderr: new Socket({ fd: stderr.readEnd, readable: true, writable: false }),
      exited,
    };
  } catch (error) {
    for (const { readEnd, writeEnd } of pipes) for (const fd of [readEnd, writeEnd]) closeSync(fd);
    throw error;
  }
}

interface Pipe {
  readonly readEnd: number;
  readonly writeEnd: number;
}

function openPipe(): Pipe {
  const ends = Buffer.alloc(8);
  if (libc().pipe2(ends, O_CLOEXEC) !== 0) throw failure('pipe2', ffi.errno());
  return { readEnd: ends.readInt32LE(0), writeEnd: ends.readInt32LE(4) };
}

/** `fds` become the program's standard input, output and error; all others close at its start. */
async function spawn(command: string, args: readonly string[], fds: readonly number[]): Promise<number> {
  const [actions, attributes, pid] = [Buffer.alloc(STRUCTURE), Buffer.alloc(STRUCTURE), Buffer.alloc(4)];
  const c = libc();
  c.posix_spawn_file_actions_init(actions);
  c.posix_spawnattr_init(attributes);
  try {
    for (const [as, fd] of fds.entries()) c.posix_spawn_file_actions_adddup2(actions, fd, as);
    // Node ignores SIGPIPE, and what is ignored stays so across exec.
    c.posix_spawnattr_setsigdefault(attributes, Buffer.alloc(STRUCTURE, 0xff));
    c.posix_spawnattr_setsigmask(attributes, Buffer.alloc(STRUCTURE));
    c.posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
    const argumentList = stringList([command, ...args]);
    const environment = stringList(Object.entries(process.env).map(([name, value]) => `${name}=${value}`));
    const errno = await new Promise<number>((resolve, reject) =>
      c.posix_spawnp.async(
        ...([pid, command, actions, attributes, argumentList.pointers, environment.pointers] as const),
        (error, result) => (error == null ? resolve(result) : reject(failure(command, 0))),
      ),
    );
    // Naming the strings keeps them alive until here.
    if (errno !== 0 || argumentList.strings.length === 0 || environment.strings.length < 0)
      throw failure(command, errno);
    return pid.readInt32LE();
  } finally {
    c.posix_spawn_file_actions_destroy(actions);
    c.posix_spawnattr_destroy(attributes);
  }
}

/** A NULL-terminated char *[]. */
function stringList(values: readonly string[]): { pointers: Buffer; strings: Buffer[] } {
  const strings = values.map((value) => Buffer.from(`${value}\0`));
  const pointers = Buffer.alloc(POINTER * (strings.length + 1));
  for (const [i, string] of strings.entries()) pointers.writeBigUInt64LE(BigInt(ref.address(string)), POINTER * i);
  return { pointers, strings };
}

async function ended(pid: number): Promise<{ code?: number; signal?: number }> {
  const status = await new Promise<number>((resolve) => {
    waiting.set(pid, resolve);
    listen();
    reap(); // it may have ended before anybody listened
  });
  const signal = status & 0x7f;
  return signal === 0 ? { code: (status >> 8) & 0xff } : { signal };
}

/** One SIGCHLD may stand for several ends, and for ends of programs that are not ours. */
function reap(): void {
  const status = Buffer.alloc(4);
  for (const [pid, resolve] of waiting) {
    if (libc().waitpid(pid, status, WNOHANG) !== pid) continue;
    waiting.delete(pid);
    resolve(status.readInt32LE());
  }
  unlisten();
}

function listen(): void {
  if (keepAlive !== undefined) return;
  process.on('SIGCHLD', reap);
  // A signal listener alone does not keep the event loop running.
  keepAlive = setInterval(reap, KEEP_ALIVE_MS);
}

function unlisten(): void {
  if (waiting.size > 0) return;
  process.off('SIGCHLD', reap);
  clearInterval(keepAlive);
  keepAlive = undefined;
}

function failure(what: string, errno: number): Error {
  return Object.assign(new Error(`${what}: errno ${errno}`), { errno });
}
