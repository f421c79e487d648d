/**
 * The shipped daemon against the fake API server inside the test kernel, with what the reliability tests ask of both.
 */
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type ApiObject } from '../fakes/api-server-store.js';
import { FakeApiServer } from '../fakes/api-server.js';
import { ROOT } from './harness/agent.js';
import { Daemon, type Exit, type LogLine } from './harness/daemon.js';
import { shell } from './harness/kernel-state.js';
import { waitForOwnRules } from './harness/rules-state.js';
import { rulesUnderTest } from './harness/rules-under-test.js';
import { waitUntil } from './harness/wait.js';

export const FIXTURES = `${ROOT}test/fixtures/`;
export const TOOK_OVER = 'took over the kernel state and synced';
/**
 * A virtual server of this address belongs to somebody else (keepalived, say): on another link, in none of our sets.
 */
export const FOREIGN_VIP = '10.99.9.9';

export interface Answer {
  readonly status: number;
  readonly body: {
    readonly healthy?: boolean;
    readonly nodeEligible?: boolean;
    readonly reasons?: readonly string[];
  };
}

/** One scrape of /metrics. */
export class Scrape {
  constructor(readonly text: string) {}

  /** Sum of all samples of `name` whose labels include all of `labels`; 0 when there is none. */
  sum(name: string, labels: Readonly<Record<string, string>> = {}): number {
    let total = 0;
    for (const line of this.text.split('\n')) {
      const match = /^([a-z_]+)(?:\{(.*)\})? (\S+)$/.exec(line);
      if (match?.[1] !== name) continue;
      const has = (wanted: [string, string]): boolean => (match[2] ?? '').includes(`${wanted[0]}="${wanted[1]}"`);
      if (Object.entries(labels).every(has)) total += Number(match[3]);
    }
    return total;
  }

  drift(object: string, kind: string): number {
    return this.sum('kubeproxy_ipvs_drift_repaired_total', { object, kind });
  }
}

export class Rig {
  readonly directory = mkdtempSync(join(tmpdir(), 'reliability-'));
  readonly kubeconfig = join(this.directory, 'kubeconfig');
  #daemon: Daemon | undefined;
  #files = 0;

  private constructor(readonly api: FakeApiServer) {}

  static async create(objects: readonly object[]): Promise<Rig> {
    const rig = new Rig(new FakeApiServer({ bookmarkEveryMs: 10_000 }));
    rig.set(...objects);
    await rig.api.start();
    const context = { name: 'fake', context: { cluster: 'fake', user: 'fake' } };
    rig.write('kubeconfig', {
      apiVersion: 'v1',
      kind: 'Config',
      clusters: [{ name: 'fake', cluster: { server: rig.api.url } }],
      users: [{ name: 'fake', user: {} }],
      contexts: [context],
      'current-context': 'fake',
    });
    return rig;
  }

  get daemon(): Daemon {
    if (this.#daemon === undefined) throw new Error('the daemon is not running');
    return this.#daemon;
  }

  /** Creates or replaces API objects; the watch hears of them at once. */
  set(...objects: readonly object[]): void {
    this.api.set(...(objects as ApiObject[]));
  }

  /** Writes a configuration file (a new one each time: the daemon ends when its own changes) and returns its path. */
  config(fields: Readonly<Record<string, unknown>> = {}, ipvs: Readonly<Record<string, unknown>> = {}): string {
    return this.write(`config-${++this.#files}.conf`, {
      apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
      kind: 'KubeProxyConfiguration',
      mode: 'ipvs',
      hostnameOverride: 'node-0',
      clusterCIDR: '10.128.0.0/9,fd00:10:128::/48',
      clientConnection: { kubeconfig: this.kubeconfig },
      conntrack: { maxPerCore: 0 },
      ipvs: { scheduler: 'rr', syncPeriod: '30s', minSyncPeriod: '0s', ...ipvs },
      ...fields,
      kubeProxyIpvs: { ...(fields['kubeProxyIpvs'] as object | undefined), ...rulesUnderTest() },
    });
  }

  /** JSON is YAML. */
  write(name: string, content: object): string {
    const path = join(this.directory, name);
    writeFileSync(path, JSON.stringify(content));
    return path;
  }

  /** A daemon that is not waited for: it may be refused, or wait for another. */
  launch(args: readonly string[]): Daemon {
    return new Daemon({ args });
  }

  /** Starts the daemon and waits until it has taken the kernel over. */
  async start(config: string, ...args: string[]): Promise<Daemon> {
    return this.adopt(this.launch(['--config', config, ...args]));
  }

  /** Makes `daemon` the one that this rig speaks of, once it has taken the kernel over. */
  async adopt(daemon: Daemon): Promise<Daemon> {
    this.#daemon = daemon;
    // On a busy machine traffic that goes on meanwhile takes most of the test kernel's one CPU.
    await daemon.waitForLog('the first sync', ({ msg }) => msg === TOOK_OVER, 180_000);
    return daemon;
  }

  /** Ends the daemon with the signal and waits for its end. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<Exit> {
    const exit = await this.daemon.stop(signal);
    this.#daemon = undefined;
    return exit;
  }

  async command(...args: string[]): Promise<{ code: number | null; output: string }> {
    const daemon = this.launch(args);
    const { code } = await daemon.exited;
    return { code, output: daemon.tail(50) };
  }

  /** Runs a shell script while the daemon stands still, so that one verification finds all that it did. */
  async behindItsBack(script: string): Promise<void> {
    this.daemon.signal('SIGSTOP');
    try {
      await shell(script);
    } finally {
      this.daemon.signal('SIGCONT');
    }
  }

  /** `verify` finds no difference between kernel and desired state. */
  async waitUntilVerified(config: string): Promise<void> {
    let last = '';
    await waitUntil(
      'verify to find no difference',
      async () => {
        const { code, output } = await this.command('verify', '--config', config);
        last = output;
        return code === 0;
      },
      60_000,
      () => `${last}\n${this.#daemon?.tail()}`,
    );
  }

  /** Waits for the rules, which are written beside the first sync, IPv6 after IPv4. */
  async waitForRules(): Promise<void> {
    await waitForOwnRules();
  }

  async scrape(): Promise<Scrape> {
    const response = await fetch('http://127.0.0.1:10249/metrics');
    return new Scrape(await response.text());
  }

  async health(path: '/healthz' | '/livez' | '/readyz' = '/healthz'): Promise<Answer> {
    const response = await fetch(`http://127.0.0.1:10256${path}`);
    return { status: response.status, body: (await response.json()) as Answer['body'] };
  }

  /** What the status page says to the node itself: reasons with details, and notes. */
  async status(): Promise<{ reasons: string; notes: string }> {
    const response = await fetch('http://127.0.0.1:10249/status.json');
    const { report } = (await response.json()) as { report: { health: { reasons: string[] }; notes: string[] } };
    return { reasons: report.health.reasons.join('\n'), notes: report.notes.join('\n') };
  }

  async close(): Promise<void> {
    await this.#daemon?.stop('SIGKILL');
    await this.api.stop();
  }
}

/** Lines of a fixture file, without empty ones. */
export function fixtureLines(name: string): string[] {
  return readFileSync(FIXTURES + name, 'utf8')
    .split('\n')
    .filter((line) => line.trim() !== '');
}

/** The objects of the recorded cluster (test/fixtures/cluster). */
export function fixtureCluster(): ApiObject[] {
  const kinds = { services: 'Service', endpointslices: 'EndpointSlice', nodes: 'Node' };
  return Object.entries(kinds).flatMap(([file, kind]) => {
    const list = JSON.parse(readFileSync(`${FIXTURES}cluster/${file}.json`, 'utf8')) as { items: ApiObject[] };
    return list.items.map((item) => ({ kind, ...item }));
  });
}

/** Names in the daemon's drift lines since `from`. */
export function driftNames(log: readonly LogLine[], from = 0): string[] {
  return log.slice(from).flatMap(({ drift }) => (Array.isArray(drift) ? (drift as string[]) : []));
}
