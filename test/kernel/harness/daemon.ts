/** Runs the daemon as shipped (dist/main.js) inside the test kernel and listens to its JSON log. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { ROOT } from './agent.js';
import { patience, waitUntil } from './wait.js';

/** One line of the log. */
export interface LogLine {
  readonly level: string;
  readonly time: string;
  readonly msg: string;
  readonly [field: string]: unknown;
}

export interface DaemonOptions {
  /** After `node dist/main.js`. */
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Options of node itself, e.g. `--cpu-prof`. */
  readonly nodeArgs?: readonly string[];
  /** Words before node's own: what it is to run under, `setpriv ...` say. */
  readonly prefix?: readonly string[];
  /** Instead of dist/main.js. */
  readonly entry?: string;
  readonly cwd?: string;
  /** Sees every line of standard output and error as it comes. */
  readonly onLine?: (line: string) => void;
}

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export class Daemon {
  /** Everything logged so far; lines of standard output or error that are no JSON are in `text`. */
  readonly log: LogLine[] = [];
  readonly text: string[] = [];
  readonly exited: Promise<Exit>;
  readonly #process: ChildProcess;
  #exit: Exit | undefined;

  constructor(options: DaemonOptions) {
    const entry = options.entry ?? `${ROOT}dist/main.js`;
    const words = [process.execPath, ...(options.nodeArgs ?? []), entry, ...options.args];
    const [program = '', ...args] = [...(options.prefix ?? []), ...words];
    this.#process = spawn(program, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...options.env },
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    });
    this.exited = new Promise((resolve, reject) => {
      this.#process.on('error', reject);
      this.#process.on('close', (code, signal) => resolve((this.#exit = { code, signal })));
    });
    this.exited.catch(() => undefined); // seen by whoever awaits it
    const killAtEnd = (): void => void this.#process.kill('SIGKILL');
    process.once('exit', killAtEnd);
    this.#process.once('exit', () => process.off('exit', killAtEnd));
    for (const stream of [this.#process.stdout, this.#process.stderr]) {
      if (stream === null) continue;
      createInterface({ input: stream }).on('line', (line) => this.#receive(line, options.onLine));
    }
  }

  get pid(): number {
    if (this.#process.pid === undefined) throw new Error('the daemon did not start');
    return this.#process.pid;
  }

  /** Set once the process has ended. */
  get exit(): Exit | undefined {
    return this.#exit;
  }

  /**
   * Waits for a log line that the predicate accepts, among those from index `from` on, and returns it. Fails at once,
   * with the last lines, when the daemon ends before.
   */
  async waitForLog(
    what: string,
    predicate: (line: LogLine) => boolean,
    milliseconds = 60_000,
    from = 0,
  ): Promise<LogLine> {
    return waitUntil(
      `the daemon's log line: ${what}`,
      () => {
        const found = this.log.slice(from).find(predicate);
        if (found === undefined && this.#exit !== undefined) {
          throw new Error(`the daemon ended (${JSON.stringify(this.#exit)}) before: ${what}\n${this.tail()}`);
        }
        return found;
      },
      milliseconds,
      () => this.tail(),
    );
  }

  /**
   * Sends the signal and waits for the end; SIGKILL after `milliseconds` (on an emulated machine more), which
   * `signal` of the result shows.
   */
  async stop(signal: NodeJS.Signals = 'SIGTERM', milliseconds = 60_000): Promise<Exit> {
    this.#process.kill(signal);
    const timer = setTimeout(() => this.#process.kill('SIGKILL'), patience(milliseconds));
    try {
      return await this.exited;
    } finally {
      clearTimeout(timer);
    }
  }

  signal(signal: NodeJS.Signals): void {
    this.#process.kill(signal);
  }

  /** The last lines that it wrote, for messages. */
  tail(lines = 15): string {
    return [...this.log.slice(-lines).map((line) => JSON.stringify(line)), ...this.text.slice(-lines)].join('\n');
  }

  #receive(line: string, onLine: ((line: string) => void) | undefined): void {
    onLine?.(line);
    if (line.startsWith('{')) {
      try {
        this.log.push(JSON.parse(line) as LogLine);
        return;
      } catch {
        // cut short by a kill: keep it as text
      }
    }
    this.text.push(line);
  }
}
