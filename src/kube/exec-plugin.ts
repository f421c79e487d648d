import { type ChildProcess, spawn } from 'node:child_process';
import { asObject, asString } from '../model/json.js';
import { errorMessage } from '../values/errors.js';
import { type WallClock } from '../time/clock.js';
import { KubeError } from './errors.js';

/** The `exec` section of a kubeconfig's user, paths absolute. */
export interface ExecConfig {
  readonly apiVersion?: string;
  readonly command?: string;
  readonly args?: readonly string[] | null;
  readonly env?: readonly { readonly name: string; readonly value: string }[] | null;
  readonly provideClusterInfo?: boolean;
}

/** What a plugin gives: a token, or a client certificate with its key, or both. */
export interface ExecCredential {
  readonly token: string;
  readonly cert: string;
  readonly key: string;
}

interface Cached {
  readonly credential: ExecCredential;
  /** Milliseconds since the epoch; Infinity when the plugin named no end. */
  readonly expiresAt: number;
}

const TIMEOUT_MS = 30_000;
const MAX_OUTPUT = 1024 * 1024;

/**
 * A credential plugin (client.authentication.k8s.io). One run at a time, for 30 seconds at most; what it gives is kept
 * until it expires, and for as long as the process lives when it names no end, as client-go does. What it prints never
 * gets into an error: a plugin that fails may well print the secrets that it was given.
 */
export class ExecPlugin {
  #cached: Cached | undefined;
  #running: Promise<Cached> | undefined;
  #child: ChildProcess | undefined;

  readonly #config: ExecConfig;
  readonly #cluster: { readonly server: string; readonly caData?: string | undefined };
  readonly #clock: WallClock;
  readonly #timeoutMs: number;

  constructor(
    config: ExecConfig,
    cluster: { readonly server: string; readonly caData?: string | undefined },
    clock: WallClock,
    timeoutMs = TIMEOUT_MS,
  ) {
    this.#config = config;
    this.#cluster = cluster;
    this.#clock = clock;
    this.#timeoutMs = timeoutMs;
  }

  /** The credential that is valid now. Rejects with KubeError. */
  async credential(): Promise<ExecCredential> {
    if (this.#cached !== undefined && this.#cached.expiresAt > this.#clock.wall()) return this.#cached.credential;
    this.#running ??= this.#run().finally(() => (this.#running = undefined));
    this.#cached = await this.#running;
    return this.#cached.credential;
  }

  /** Ends a plugin that is running. */
  close(): void {
    this.#kill();
  }

  #run(): Promise<Cached> {
    const { command = '', args, env } = this.#config;
    return new Promise((resolve, reject) => {
      const fail = (message: string): void => {
        cancel();
        this.#kill();
        const what = command === '' ? 'of the kubeconfig' : JSON.stringify(command);
        reject(new KubeError('get credentials', { reason: 'Credentials', message: `exec plugin ${what} ${message}` }));
      };
      const cancel = this.#clock.after(this.#timeoutMs, () => fail(`did not end within ${this.#timeoutMs / 1000} s`));
      if (command === '') return fail('has no command');
      const own = Object.fromEntries((env ?? []).map(({ name, value }) => [name, value]));
      // A group of its own, so that its end is the end of all that it started.
      const child = spawn(command, args ?? [], {
        env: { ...process.env, ...own, KUBERNETES_EXEC_INFO: this.#info() },
        stdio: ['ignore', 'pipe', 'ignore'],
        detached: true,
      });
      this.#child = child;
      const chunks: Buffer[] = [];
      let length = 0;
      child.stdout.on('data', (chunk: Buffer) => {
        chunks.push(chunk);
        length += chunk.length;
        if (length > MAX_OUTPUT) fail(`printed more than ${MAX_OUTPUT} bytes`);
      });
      child.on('error', (error: NodeJS.ErrnoException) =>
        fail(`could not be run: ${error.code ?? errorMessage(error)}`),
      );
      child.on('close', (code, signal) => {
        if (code !== 0) return fail(code === null ? `was ended by ${signal}` : `ended with exit code ${code}`);
        cancel();
        this.#child = undefined;
        const parsed = parseCredential(Buffer.concat(chunks).toString('utf8'));
        if (typeof parsed === 'string') fail(parsed);
        else resolve(parsed);
      });
    });
  }

  #info(): string {
    const { apiVersion = 'client.authentication.k8s.io/v1', provideClusterInfo } = this.#config;
    const { server, caData } = this.#cluster;
    const cluster = provideClusterInfo === true ? { cluster: { server, 'certificate-authority-data': caData } } : {};
    return JSON.stringify({ apiVersion, kind: 'ExecCredential', spec: { interactive: false, ...cluster } });
  }

  #kill(): void {
    const child = this.#child;
    this.#child = undefined;
    if (child?.pid === undefined) return;
    child.stdout?.destroy();
    try {
      process.kill(-child.pid, 'SIGKILL');
    } catch {
      // It has ended meanwhile.
    }
  }
}

/** The credential; or what is wrong with it, in words that hold none of it. */
function parseCredential(text: string): Cached | string {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    return 'printed something that is no JSON';
  }
  const root = asObject(parsed);
  const status = asObject(root?.['status']);
  if (root?.['kind'] !== 'ExecCredential' || status === undefined) return 'printed no ExecCredential with a status';
  const credential = {
    token: asString(status['token']),
    cert: asString(status['clientCertificateData']),
    key: asString(status['clientKeyData']),
  };
  if (credential.token === '' && credential.cert === '') return 'gave neither a token nor a client certificate';
  if ((credential.cert === '') !== (credential.key === '')) return 'gave a certificate without its key, or the reverse';
  const expires = status['expirationTimestamp'];
  if (expires === undefined || expires === null) return { credential, expiresAt: Infinity };
  const expiresAt = Date.parse(asString(expires));
  return Number.isNaN(expiresAt) ? 'gave an expirationTimestamp that is no date' : { credential, expiresAt };
}
