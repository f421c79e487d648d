/** The daemon from start to end, over manifests and a kernel of fakes: what it serves, when, and what it leaves. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { pino } from 'pino';
import { type DaemonOptions } from '../../../src/daemon/daemon-options.js';
import { type Environment } from '../../../src/daemon/environment.js';
import { runDaemon } from '../../../src/daemon/run.js';
import { systemClock } from '../../../src/time/clock.js';
import { TestKernel } from '../../fakes/test-kernel.js';
import { type Answer, fetchText, takenPort } from '../../support/http.js';
import { sysctlDirectory, testDataPlane } from '../../support/test-world.js';

const WEB = `apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}
---
apiVersion: v1
kind: Node
metadata: {name: node-0}
`;

interface Daemon {
  readonly kernel: TestKernel;
  readonly logged: string[];
  readonly stop: AbortController;
  readonly ended: Promise<number>;
  readonly directory: string;
  readonly configure: (more: string) => void;
  readonly health: (path: string) => Promise<Answer>;
  readonly metrics: (path: string) => Promise<Answer>;
}

async function freePort(t: TestContext): Promise<number> {
  const { port, release } = await takenPort(t, '127.0.0.1');
  await release();
  return port;
}

/** Waits until it is so; what is thrown on the way counts as no. */
async function until(what: string, isSo: () => Promise<boolean> | boolean): Promise<void> {
  const end = Date.now() + 60_000;
  for (;;) {
    const is = await Promise.resolve()
      .then(isSo)
      .catch(() => false);
    if (is) return;
    assert.ok(Date.now() < end, what);
    await wait(5);
  }
}

interface More {
  /** Before the kernel is opened. */
  readonly prepare?: (health: Daemon['health']) => Promise<void>;
  readonly warnings?: readonly string[];
}

async function daemon(t: TestContext, more: More = {}): Promise<Daemon> {
  const directory = mkdtempSync(join(tmpdir(), 'run-'));
  const [healthPort, metricsPort] = [await freePort(t), await freePort(t)];
  const configure = (fields: string): void => {
    const head =
      'apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nclusterCIDR: 10.0.0.0/8\n';
    const at = `healthzBindAddress: 127.0.0.1:${healthPort}\nmetricsBindAddress: 127.0.0.1:${metricsPort}\n`;
    const score = `oomScoreAdj: ${readFileSync('/proc/self/oom_score_adj', 'utf8').trim()}\n`;
    writeFileSync(join(directory, 'new'), `${head}${at}${score}${fields}`);
    renameSync(join(directory, 'new'), join(directory, 'config.conf'));
  };
  configure('');
  mkdirSync(join(directory, 'manifests'));
  writeFileSync(join(directory, 'manifests/web.yaml'), WEB);
  const kernel = new TestKernel();
  const [logged, stop] = [[] as string[], new AbortController()];
  const sysctlRoot = sysctlDirectory({ 'net/ipv4/ip_forward': '0' });
  const environment = {
    ...{ version: '1.2.3', hostname: 'Node-0', variables: {}, stop: stop.signal, startedAt: Date.now() },
    logger: (level: string) =>
      pino({ level }, { write: (line) => void logged.push((JSON.parse(line) as { msg: string }).msg) }),
    // A daemon that runs on this machine is not one of this test.
    peerCredentials: () => ({ pid: 1, uid: 65_534 }),
  } as unknown as Environment;
  const options: DaemonOptions = {
    ...{ configFile: join(directory, 'config.conf'), document: {}, overrides: {}, warnings: more.warnings ?? [] },
    manifests: join(directory, 'manifests'),
  };
  const health = (path: string): Promise<Answer> => fetchText(healthPort, path);
  const ended = runDaemon(options, environment, async ({ config, nodeName, reporter }) => {
    await more.prepare?.(health);
    const world = { openNetlinkSocket: kernel.open, clock: systemClock, table: {}, sysctlRoot };
    return testDataPlane({ ...world, config, nodeName, reporter });
  });
  t.after(async () => {
    stop.abort();
    await ended.catch(() => undefined);
    for (const path of [directory, sysctlRoot]) rmSync(path, { recursive: true });
  });
  return {
    ...{ kernel, logged, stop, ended, directory, configure, health },
    metrics: (path) => fetchText(metricsPort, path),
  };
}

/** `TCP 10.96.0.1:80 rr` */
const table = ({ kernel }: Daemon): string[] => kernel.ipvs.dump().map((line) => line.split(' ').slice(0, 3).join(' '));

const isUp =
  ({ health }: Daemon) =>
  async (): Promise<boolean> =>
    (await health('/readyz')).status === 200;

test('it serves, follows what changes, and leaves the data plane in place when it is told to end', async (t) => {
  const one = await daemon(t, { warnings: ['--x has no effect'] });
  await until('ready', isUp(one));
  assert.deepEqual(table(one), ['TCP 10.96.0.1:80 rr']);
  assert.equal((await one.health('/healthz')).status, 200);
  assert.match((await one.metrics('/metrics')).body, /^kubeproxy_ipvs_build_info\{version="1\.2\.3"/m);
  assert.match((await one.metrics('/configz')).body, /"clusterCIDR": ?"10\.0\.0\.0\/8"/);
  const status = (await one.metrics('/status.json')).body;
  assert.match(status, /"node": ?"node-0"/, 'in lower case');
  writeFileSync(
    join(one.directory, 'manifests/more.yaml'),
    WEB.replace('web', 'more').replace('10.96.0.1', '10.96.0.2'),
  );
  await until('the second Service', () => table(one).length === 2);
  assert.equal(one.logged[0], '--x has no effect');
  assert.ok(one.logged.includes('started'));
  one.stop.abort();
  assert.equal(await one.ended, 0);
  assert.equal(table(one).length, 2);
  assert.deepEqual(one.kernel.links.addressesOf('kube-ipvs0'), ['10.96.0.1/32', '10.96.0.2/32']);
  assert.equal(one.logged.at(-1), 'stopped; the data plane stays in place');
  for (const ask of [one.health, one.metrics]) await assert.rejects(ask('/healthz'), /ECONNREFUSED|hang up/);
});

test('a configuration that changes is taken over, one that cannot be used is a note, one for a start ends it', async (t) => {
  const one = await daemon(t);
  await until('ready', isUp(one));
  one.configure('ipvs: {scheduler: lc}\n');
  await until('the scheduler', () => table(one).join() === 'TCP 10.96.0.1:80 lc');
  await until('/configz', async () => /"scheduler": ?"lc"/.test((await one.metrics('/configz')).body));
  one.configure('ipvs: {scheduler: fast}\n');
  await until('the note', async () => (await one.metrics('/status.json')).body.includes('fast'));
  assert.match((await one.metrics('/metrics')).body, /^kubeproxy_ipvs_config_refused 1$/m);
  assert.deepEqual(table(one), ['TCP 10.96.0.1:80 lc']);
  one.configure('hostnameOverride: node-9\n');
  assert.equal(await one.ended, 0);
});

test('while it opens the kernel it is alive and not ready; what cannot be opened is told, and nothing listens', async (t) => {
  const asked: Record<string, number> = {};
  const one = await daemon(t, {
    prepare: async (health) => {
      for (const path of ['/livez', '/readyz']) asked[path] = (await health(path)).status;
      throw new Error('no IPVS here');
    },
  });
  await assert.rejects(one.ended, /no IPVS here/);
  assert.deepEqual(asked, { '/livez': 200, '/readyz': 503 });
  await assert.rejects(one.health('/livez'), /ECONNREFUSED|hang up/);
});
