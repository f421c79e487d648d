/** The daemon as shipped, run against the fake API server inside the test kernel. */
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type ApiObject } from '../fakes/api-server-store.js';
import { FakeApiServer } from '../fakes/api-server.js';
import { Daemon } from './harness/daemon.js';
import { waitUntil } from './harness/wait.js';
import { rulesUnderTest } from './harness/rules-under-test.js';
import { NODE_NAME } from './traffic-world.js';

export class Proxy {
  readonly api = new FakeApiServer({ bookmarkEveryMs: 10_000 });
  readonly #directory = mkdtempSync(join(tmpdir(), 'traffic-'));
  #daemon: Daemon | undefined;

  static async create(objects: readonly object[]): Promise<Proxy> {
    const proxy = new Proxy();
    proxy.set(...objects);
    await proxy.api.start();
    const cluster = { name: 'fake', cluster: { server: proxy.api.url } };
    const context = { name: 'fake', context: { cluster: 'fake', user: 'fake' } };
    proxy.#write('kubeconfig', {
      apiVersion: 'v1',
      kind: 'Config',
      clusters: [cluster],
      users: [{ name: 'fake', user: {} }],
      contexts: [context],
      'current-context': 'fake',
    });
    return proxy;
  }

  get daemon(): Daemon {
    if (this.#daemon === undefined) throw new Error('the daemon is not running');
    return this.#daemon;
  }

  /** Creates or replaces API objects; the watch hears of them at once. */
  set(...objects: readonly object[]): void {
    this.api.set(...(objects as ApiObject[]));
  }

  /** Starts the daemon and waits until the kernel is as it should be: its own `verify` must find no difference. */
  async start(config: Readonly<Record<string, unknown>>): Promise<void> {
    const file = this.#write('config.conf', {
      apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
      kind: 'KubeProxyConfiguration',
      mode: 'ipvs',
      hostnameOverride: NODE_NAME,
      clientConnection: { kubeconfig: join(this.#directory, 'kubeconfig') },
      ...config,
      kubeProxyIpvs: { ...(config['kubeProxyIpvs'] as object | undefined), ...rulesUnderTest() },
    });
    const daemon = new Daemon({ args: ['--config', file] });
    this.#daemon = daemon;
    await daemon.waitForLog('the first sync', (line) => line.msg === 'took over the kernel state and synced');
    await waitUntil(
      'verify to find no difference',
      async () => {
        const verify = new Daemon({ args: ['verify', '--config', file] });
        const { code } = await verify.exited;
        this.#lastVerify = verify.tail();
        return code === 0;
      },
      60_000,
      () => `${this.#lastVerify}\n${daemon.tail()}`,
    );
  }

  #lastVerify = '';

  /** SIGTERM; the data plane stays. Throws when the daemon does not end by itself with exit code 0. */
  async stop(): Promise<void> {
    const exit = await this.daemon.stop();
    if (exit.code !== 0) throw new Error(`the daemon ended with ${JSON.stringify(exit)}\n${this.daemon.tail()}`);
    this.#daemon = undefined;
  }

  async close(): Promise<void> {
    await this.#daemon?.stop();
    await this.api.stop();
  }

  #write(name: string, content: object): string {
    const path = join(this.#directory, name);
    writeFileSync(path, JSON.stringify(content)); // JSON is YAML
    return path;
  }
}
