import { spawn } from 'node:child_process';
import { type Readable, type Writable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { errorMessage } from '../values/errors.js';

/** A program that could not be started, was killed, or exited with a code other than 0. */
export class CommandError extends Error {
  override readonly name = 'CommandError';

  constructor(
    readonly command: string,
    readonly args: readonly string[],
    /** The exit code; undefined when the program did not start or was killed. */
    readonly exitCode: number | undefined,
    readonly stderr: string,
    options: { reason?: string; missing?: boolean; cause?: unknown } = {},
  ) {
    const detail = stderr.trim() || options.reason;
    const outcome = options.missing
      ? 'not found in PATH'
      : exitCode === undefined
        ? 'failed'
        : `exited with ${exitCode}`;
    super(`${[command, ...args].join(' ')}: ${outcome}${detail ? `: ${detail}` : ''}`, { cause: options.cause });
    this.missing = options.missing ?? false;
  }

  /** True when there is no such program. */
  readonly missing: boolean;
}

export interface CommandOptions {
  readonly input?: string;
  /** Milliseconds after which the program is killed: by SIGTERM, and when that does not help by SIGKILL. */
  readonly timeout?: number;
  readonly signal?: AbortSignal;
}

export interface CommandResult {
  readonly stdout: string;
  readonly stderr: string;
}

/** How the kernel layer starts programs; tests hand in their own. Rejects with CommandError. */
export type RunCommand = (command: string, args: readonly string[], options?: CommandOptions) => Promise<CommandResult>;

/** A started program with its pipes. */
export interface StartedProgram {
  readonly pid: number;
  readonly stdin: Writable;
  readonly stdout: Readable;
  readonly stderr: Readable;
  /** Resolves to the exit code, or to the number of the signal that killed it. */
  readonly exited: Promise<{ readonly code?: number; readonly signal?: number | string }>;
}

/** Starts a program found in PATH; rejects with an Error with `errno`. */
export type StartProgram = (command: string, args: readonly string[]) => Promise<StartedProgram>;

const ENOENT = 2;
/** What SIGTERM does not end within this time is ended by SIGKILL, ms. */
const TERM_MS = 5000;

/**
 * Starts programs without a shell and counts them: `spawned` is what the "no process per change" promise is checked by.
 * `start` is native/spawn.ts's in the daemon, because child_process forks, which a large process feels.
 */
export class CommandRunner {
  spawned = 0;
  readonly #start: StartProgram;
  readonly #termMs: number;

  constructor(start: StartProgram = startByFork, termMs = TERM_MS) {
    this.#start = start;
    this.#termMs = termMs;
  }

  readonly run: RunCommand = async (command, args, options = {}) => {
    this.spawned++;
    if (options.signal?.aborted)
      throw new CommandError(command, args, undefined, '', { reason: 'aborted before its start' });
    let program: StartedProgram;
    try {
      program = await this.#start(command, args);
    } catch (error) {
      const missing = Math.abs((error as { errno?: number }).errno ?? 0) === ENOENT;
      throw new CommandError(command, args, undefined, '', { cause: error, missing, reason: errorMessage(error) });
    }
    return finish(program, command, args, options, this.#termMs);
  };
}

/** Waits for the end of a program and of all that it writes, or ends it. */
async function finish(
  program: StartedProgram,
  command: string,
  args: readonly string[],
  { input, timeout, signal }: CommandOptions,
  termMs: number,
): Promise<CommandResult> {
  const killer = new Killer(program, termMs);
  const onAbort = (): void => killer.end('aborted');
  if (signal?.aborted) onAbort();
  const timer =
    timeout === undefined ? undefined : setTimeout(() => killer.end(`no end within ${timeout} ms`), timeout);
  signal?.addEventListener('abort', onAbort, { once: true });
  try {
    feed(program.stdin, input);
    const output = Promise.all([text(program.stdout), text(program.stderr), program.exited]);
    const outcome = await Promise.race([output, killer.givenUp]);
    if (outcome === undefined) {
      output.catch(() => undefined); // its pipes are closed now
      throw new CommandError(command, args, undefined, '', { reason: killer.reason! });
    }
    const [stdout, stderr, end] = outcome;
    if (end.code === 0) return { stdout, stderr };
    const reason = killer.reason ?? (end.signal === undefined ? undefined : `killed by signal ${end.signal}`);
    throw new CommandError(command, args, end.code, stderr, reason === undefined ? {} : { reason });
  } finally {
    clearTimeout(timer);
    killer.close();
    signal?.removeEventListener('abort', onAbort);
  }
}

/** Ends a program: SIGTERM, SIGKILL, and at last no longer waiting for pipes that its descendants hold open. */
class Killer {
  /** Why the program was ended; undefined as long as it was not. */
  reason: string | undefined;
  /** Resolves when all was tried in vain; the pipes are closed then. */
  readonly givenUp: Promise<undefined>;
  readonly #program: StartedProgram;
  readonly #termMs: number;
  #giveUp: () => void = () => undefined;
  #timer: NodeJS.Timeout | undefined;
  #hasExited = false;

  constructor(program: StartedProgram, termMs: number) {
    this.#program = program;
    this.#termMs = termMs;
    this.givenUp = new Promise((resolve) => {
      this.#giveUp = () => {
        for (const stream of [program.stdin, program.stdout, program.stderr]) stream.destroy();
        resolve(undefined);
      };
    });
    void program.exited.then(() => (this.#hasExited = true));
  }

  end(reason: string): void {
    if (this.reason !== undefined) return;
    this.reason = reason;
    this.#signal('SIGTERM', () => this.#signal('SIGKILL', this.#giveUp));
  }

  close(): void {
    clearTimeout(this.#timer);
  }

  /** One that is gone gets no signal: its process number may be another program's by now. */
  #signal(name: NodeJS.Signals, next: () => void): void {
    if (this.#hasExited) {
      this.#giveUp();
      return;
    }
    try {
      process.kill(this.#program.pid, name);
    } catch {
      // ESRCH: it ends just now, and `exited` is about to say so.
    }
    this.#timer = setTimeout(next, this.#termMs);
  }
}

/** By child_process: for commands, whose process is small and short-lived. */
const startByFork: StartProgram = (command, args) =>
  new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: 'pipe' });
    const exited = new Promise<{ code?: number; signal?: string }>((ended) => {
      child.once('exit', (code, signal) => ended(code === null ? { signal: signal ?? 'unknown' } : { code }));
    });
    child.once('error', reject);
    child.once('spawn', () => {
      const { stdin, stdout, stderr } = child;
      resolve({ pid: child.pid!, stdin, stdout, stderr, exited });
    });
  });

/**
 * A program that exits without reading its input makes the pipe break; its exit code says why, so EPIPE is dropped.
 */
function feed(stdin: Writable, input: string | undefined): void {
  stdin.on('error', () => undefined);
  stdin.end(input ?? '');
}
