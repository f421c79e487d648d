import { execFile } from 'node:child_process';
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
  /** Milliseconds after which the program is killed with SIGTERM. */
  readonly timeout?: number;
  readonly signal?: AbortSignal;
}

export interface CommandResult {
  readonly stdout: string;
  readonly stderr: string;
}

/** How the kernel layer starts programs; tests hand in their own. Rejects with CommandError. */
export type RunCommand = (command: string, args: readonly string[], options?: CommandOptions) => Promise<CommandResult>;

const MAX_OUTPUT = 512 * 1024 * 1024; // iptables-save of a node with 100,000 rules of others is tens of megabytes

/** A started program with its pipes. */
export interface StartedProgram {
  readonly pid: number;
  readonly stdin: Writable;
  readonly stdout: Readable;
  readonly stderr: Readable;
  /** Resolves to the exit code, or to the number of the signal that killed it. */
  readonly exited: Promise<{ readonly code?: number; readonly signal?: number }>;
}

/** Starts a program found in PATH; rejects with an Error with `errno`. */
export type StartProgram = (command: string, args: readonly string[]) => Promise<StartedProgram>;

const ENOENT = 2;

/**
 * Starts programs without a shell and counts them: `spawned` is what the "no process per change" promise is checked by.
 * `start` is native/spawn.ts's in the daemon, because child_process forks, which a large process feels.
 */
export class CommandRunner {
  spawned = 0;

  constructor(private readonly start?: StartProgram) {}

  readonly run: RunCommand = (command, args, options = {}) => {
    this.spawned++;
    return this.start === undefined
      ? runByFork(command, args, options)
      : runStarted(this.start, command, args, options);
  };
}

async function runStarted(
  start: StartProgram,
  command: string,
  args: readonly string[],
  { input, timeout, signal }: CommandOptions,
): Promise<CommandResult> {
  if (signal?.aborted) throw new CommandError(command, args, undefined, '', { reason: 'aborted before its start' });
  let program: StartedProgram;
  try {
    program = await start(command, args);
  } catch (error) {
    const missing = (error as { errno?: unknown }).errno === ENOENT;
    throw new CommandError(command, args, undefined, '', { cause: error, missing, reason: errorMessage(error) });
  }
  let killedBy: string | undefined;
  const kill = (reason: string): void => {
    killedBy = reason;
    process.kill(program.pid, 'SIGTERM');
  };
  const onAbort = (): void => kill('aborted');
  if (signal?.aborted) onAbort();
  const timer = timeout === undefined ? undefined : setTimeout(() => kill(`no end within ${timeout} ms`), timeout);
  signal?.addEventListener('abort', onAbort, { once: true });
  try {
    feed(program.stdin, input);
    const [stdout, stderr, end] = await Promise.all([text(program.stdout), text(program.stderr), program.exited]);
    if (end.code === 0) return { stdout, stderr };
    const reason = killedBy ?? (end.signal === undefined ? undefined : `killed by signal ${end.signal}`);
    throw new CommandError(command, args, end.code, stderr, reason === undefined ? {} : { reason });
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', onAbort);
  }
}

function runByFork(command: string, args: readonly string[], options: CommandOptions): Promise<CommandResult> {
  const { timeout, signal, input } = options;
  return new Promise((resolve, reject) => {
    const child = execFile(
      command,
      [...args],
      { maxBuffer: MAX_OUTPUT, encoding: 'utf8', ...(timeout && { timeout }), ...(signal && { signal }) },
      (error, stdout, stderr) => {
        if (error === null) resolve({ stdout, stderr });
        else reject(commandError(command, args, error, stderr));
      },
    );
    if (child.stdin !== null) feed(child.stdin, input);
  });
}

/** A program that exits without reading its input makes the pipe break; its exit code tells why, so EPIPE is dropped. */
function feed(stdin: Writable, input: string | undefined): void {
  stdin.on('error', () => undefined);
  stdin.end(input ?? '');
}

function commandError(command: string, args: readonly string[], error: Error, stderr: string): CommandError {
  const { code } = error as { code?: unknown };
  const exitCode = typeof code === 'number' ? code : undefined;
  return new CommandError(command, args, exitCode, stderr, {
    cause: error,
    missing: code === 'ENOENT',
    ...(exitCode === undefined && { reason: error.message }),
  });
}
