/**
 * The test's hands in the network namespaces: servers and clients that live in one python3 process (agent.py says why),
 * which is asked by JSON lines. A namespace is a name of `ip netns`, or '' for the node's own.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { createInterface } from 'node:readline';
import { type Protocol } from '../../../src/values/protocol.js';

/** Root of the repository, seen from build/test/kernel/harness. */
export const ROOT = fileURLToPath(new URL('../../../../', import.meta.url));

export interface Target {
  readonly protocol: Protocol;
  readonly address: string;
  readonly port: number;
  readonly sourceAddress?: string;
  readonly sourcePort?: number;
  /** Milliseconds until the result is `timeout`; 1000 when left out. */
  readonly timeout?: number;
  /** Close TCP with a reset instead of a FIN: leaves no TIME_WAIT behind. */
  readonly reset?: boolean;
  /** Bytes of a UDP request, which its answer repeats; 1 when left out. */
  readonly size?: number;
}

/** What became of one request. `by` is the server's name, `seen` the source address that the server saw. */
export type Outcome =
  | {
      readonly result: 'answered';
      readonly by: string;
      readonly seen: string;
      readonly seenPort: number;
      /** The address that the server was asked on. */
      readonly to: string;
      readonly local: string;
      readonly localPort: number;
      /** How many bytes of a UDP request the answer repeats. */
      readonly token?: number;
      readonly ms: number;
    }
  | Failure;

/** `refused` is ECONNREFUSED (RST, SCTP ABORT or ICMP port unreachable); `error` is any other errno, e.g. EPERM. */
export interface Failure {
  readonly result: 'refused' | 'timeout' | 'reset' | 'unreachable' | 'error';
  readonly errno?: string;
  readonly ms: number;
}

/** Counts over many requests: by answering server, by source address seen, by kind of failure. */
export interface Histogram {
  readonly answered: number;
  readonly by: Record<string, number>;
  readonly seen: Record<string, number>;
  readonly failed: Record<string, number>;
  readonly ms: number;
}

export interface LoadOptions extends Target {
  /** New connections (or UDP requests) per second; none when left out. */
  readonly rate?: number;
  readonly workers?: number;
  /** Long-lived connections, each of which asks every `interval` milliseconds (500). */
  readonly connections?: number;
  readonly interval?: number;
}

export interface LoadCounts {
  readonly sent: number;
  readonly answered: number;
  readonly failed: Record<string, number>;
  readonly by: Record<string, number>;
  /** Long-lived connections that were established, questions asked on them, and those that were lost, by kind. */
  readonly held: number;
  readonly asked: number;
  readonly lost: Record<string, number>;
  /** The first failures, with `at` in Unix seconds. */
  readonly first: readonly (Failure & { readonly at: number })[];
}

export type HttpOutcome =
  | {
      readonly result: 'answered';
      readonly status: number;
      readonly headers: Record<string, string>;
      readonly body: string;
    }
  | Failure;

export interface Connection {
  /** What the opening brought. */
  readonly outcome: Outcome;
  ask(timeout?: number): Promise<Outcome>;
  close(): Promise<void>;
}

/** Counts TCP segments on an interface, and may send one that is out of the window. */
export interface Tap {
  /** The last data segment that the port sent, once more, `offset` bytes further on. */
  inject(offset: number): Promise<void>;
  /** Counts by `in SOURCE` and `out TARGET`, with ` RST` behind for resets. */
  stop(): Promise<Record<string, number>>;
}

export interface Load {
  counts(): Promise<LoadCounts>;
  stop(): Promise<LoadCounts>;
}

interface Waiting {
  resolve(value: unknown): void;
  reject(error: Error): void;
}

export class Agent {
  readonly #process: ChildProcess;
  readonly #waiting = new Map<number, Waiting>();
  #lastId = 0;

  private constructor(process: ChildProcess) {
    this.#process = process;
  }

  /** Starts the process; `threads` bounds how many commands run at the same time. */
  static async start(threads = 16): Promise<Agent> {
    const python = existsSync('/usr/bin/python3') ? '/usr/bin/python3' : 'python3';
    const script = `${ROOT}test/kernel/harness/agent.py`;
    const process = spawn(python, ['-S', '-E', script, String(threads)], { stdio: ['pipe', 'pipe', 'inherit'] });
    const agent = new Agent(process);
    const ready = new Promise((resolve, reject) => agent.#waiting.set(0, { resolve, reject }));
    process.on('error', (error) => agent.#end(error));
    process.on('exit', (code, signal) => agent.#end(new Error(`the agent ended: ${signal ?? code}`)));
    createInterface({ input: process.stdout }).on('line', (line) => agent.#receive(line));
    await ready;
    return agent;
  }

  /** Ends the process, and with it every server and client. */
  stop(): void {
    this.#process.kill('SIGKILL');
  }

  /** Answers on address and port with the name `by`. Serving the same place again changes the name. */
  async serve(
    namespace: string,
    server: { protocol: Protocol; address: string; port: number; by: string },
  ): Promise<void> {
    await this.#do('serve', namespace, server);
  }

  /**
   * Stops listening, and closes the accepted connections unless told to keep them; returns how many requests came in
   * all.
   */
  async unserve(
    namespace: string,
    server: { protocol: Protocol; address: string; port: number; keepConnections?: boolean },
  ): Promise<number> {
    return (await this.#do('unserve', namespace, server)) as number;
  }

  async request(namespace: string, target: Target): Promise<Outcome> {
    return (await this.#do('request', namespace, target)) as Outcome;
  }

  /** `count` requests one after the other. */
  async many(namespace: string, count: number, target: Target): Promise<Histogram> {
    return (await this.#do('many', namespace, { ...target, count })) as Histogram;
  }

  /** Opens a connection that stays open; for UDP, a socket with one source port. */
  async open(namespace: string, target: Target): Promise<Connection> {
    const handle = ++this.#lastId;
    const outcome = (await this.#do('open', namespace, { ...target, handle })) as Outcome;
    return {
      outcome,
      ask: async (timeout = 1000) => (await this.#do('ask', namespace, { handle, timeout })) as Outcome,
      close: async () => {
        if (outcome.result === 'answered') await this.#do('close', namespace, { handle });
      },
    };
  }

  /** Starts continuous traffic; `stop` returns the counts. */
  async load(namespace: string, options: LoadOptions): Promise<Load> {
    const handle = ++this.#lastId;
    await this.#do('load', namespace, { ...options, handle });
    return {
      counts: async () => (await this.#do('loadCounts', namespace, { handle })) as LoadCounts,
      stop: async () => (await this.#do('loadStop', namespace, { handle })) as LoadCounts,
    };
  }

  /** One connection that sends `up` bytes and is answered by about `down`; all of them, or it fails. */
  async exchange(
    namespace: string,
    target: { address: string; port: number; up: number; down: number; timeout?: number },
  ): Promise<{ result: 'answered'; received: number; ms: number } | Failure> {
    return (await this.#do('exchange', namespace, target)) as { result: 'answered'; received: number; ms: number };
  }

  /** Listens to an interface; `port` is the server's whose segments are kept for `inject`. */
  async tap(namespace: string, where: { interface: string; port: number }): Promise<Tap> {
    const handle = ++this.#lastId;
    await this.#do('tap', namespace, { ...where, handle });
    return {
      inject: async (offset) => void (await this.#do('tapInject', namespace, { handle, offset })),
      stop: async () => (await this.#do('tapStop', namespace, { handle })) as Record<string, number>,
    };
  }

  /** GET over a connection of its own. */
  async http(
    namespace: string,
    target: { address: string; port: number; path: string; timeout?: number },
  ): Promise<HttpOutcome> {
    return (await this.#do('http', namespace, target)) as HttpOutcome;
  }

  /** One ICMP echo. */
  async ping(
    namespace: string,
    target: { address: string; timeout?: number },
  ): Promise<{ result: string; errno?: string }> {
    return (await this.#do('ping', namespace, target)) as { result: string; errno?: string };
  }

  /** One ARP request on the interface; `timeout` when nobody claims the address. */
  async arp(
    namespace: string,
    target: { interface: string; address: string; sourceAddress?: string; timeout?: number },
  ): Promise<{ result: 'answered'; mac: string } | { result: 'timeout' }> {
    return (await this.#do('arp', namespace, target)) as { result: 'answered'; mac: string } | { result: 'timeout' };
  }

  /** Writes files as seen from the namespace, that is, its sysctls under /proc/sys/net. */
  async write(namespace: string, files: readonly (readonly [path: string, text: string])[]): Promise<void> {
    await this.#do('write', namespace, { files });
  }

  async read(namespace: string, path: string): Promise<string> {
    return (await this.#do('read', namespace, { path })) as string;
  }

  #do(what: string, ns: string, fields: object): Promise<unknown> {
    const id = ++this.#lastId;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#process.stdin!.write(`${JSON.stringify({ ...fields, id, do: what, ns })}\n`);
    });
  }

  #receive(line: string): void {
    const answer = JSON.parse(line) as { id: number; value?: unknown; error?: string };
    const waiting = this.#waiting.get(answer.id);
    this.#waiting.delete(answer.id);
    if (answer.error === undefined) waiting?.resolve(answer.value);
    else waiting?.reject(new Error(answer.error));
  }

  #end(error: Error): void {
    for (const waiting of this.#waiting.values()) waiting.reject(error);
    this.#waiting.clear();
  }
}
