/** A dry run over manifests and a kernel of fakes: what it finds, what it says on the way, and when it gives up. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { getEventListeners } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { pino } from 'pino';
import { type DryRunOptions, dryRun, dryRunWith } from '../../../src/daemon/dry-run.js';
import { type Environment } from '../../../src/daemon/environment.js';
import { TestKernel } from '../../fakes/test-kernel.js';
import { FakeApiServer } from '../../fakes/api-server.js';
import { HandClock } from '../../fakes/hand-clock.js';
import { sysctlDirectory, testDataPlane } from '../../support/test-world.js';

const WEB = `apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}
`;

interface Ran {
  readonly kernel: TestKernel;
  readonly said: string[];
  readonly stop: AbortController;
  readonly closed: () => boolean;
  readonly options: DryRunOptions;
  readonly environment: Environment;
}

function node(t: TestContext, files: Readonly<Record<string, string>>, more: Partial<DryRunOptions> = {}): Ran {
  const manifests = mkdtempSync(join(tmpdir(), 'dry-run-'));
  t.after(() => rmSync(manifests, { recursive: true }));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(manifests, name), text);
  const kernel = new TestKernel();
  const [said, stop] = [[] as string[], new AbortController()];
  let isClosed = false;
  const document = { apiVersion: 'kubeproxy.config.k8s.io/v1alpha1', kind: 'KubeProxyConfiguration' };
  const sysctlRoot = sysctlDirectory({ 'net/ipv4/ip_forward': '0' });
  t.after(() => rmSync(sysctlRoot, { recursive: true }));
  const open: DryRunOptions['open'] = ({ config, reporter }) => {
    const clock = new HandClock();
    const dataPlane = testDataPlane({ openNetlinkSocket: kernel.open, clock, table: {}, config, reporter, sysctlRoot });
    const end = dataPlane.stop.bind(dataPlane);
    dataPlane.stop = async () => {
      isClosed = true;
      await end();
    };
    return Promise.resolve(dataPlane);
  };
  return {
    ...{ kernel, said, stop, closed: () => isClosed },
    options: { ...{ document, overrides: {}, warnings: [], manifests, open }, ...more } as unknown as DryRunOptions,
    environment: {
      ...{ version: '1.0.0', hostname: 'Node-0', variables: {}, stop: stop.signal },
      logger: () => pino({ level: 'silent' }),
      err: (text: string) => void said.push(text),
    } as unknown as Environment,
  };
}

test('everything that a sync would do is found: table, rules, sysctls; nothing is done, and all is closed', async (t) => {
  const { kernel, said, options, environment, closed } = node(t, { 'web.yaml': WEB });
  const { changes } = await dryRun(options, environment);
  const objects = new Set(changes.map(({ object }) => object));
  assert.deepEqual(objects, new Set(['set', 'link', 'set_entry', 'virtual_server', 'address', 'rule', 'sysctl']));
  assert.ok(changes.some((change) => change.object === 'sysctl' && change.name === 'net.ipv4.ip_forward'));
  assert.equal(kernel.links.find('kube-ipvs0'), undefined);
  assert.deepEqual(said, []);
  assert.equal(closed(), true);
});

test('what is looked at is open while it is looked at, under the name of this node in lower case', async (t) => {
  const { options, environment, closed } = node(t, { 'web.yaml': WEB });
  const found = await dryRunWith(options, environment, async ({ dataPlane, rules, config }) => {
    await Promise.resolve();
    assert.equal(closed(), false);
    return [dataPlane.updater.desired.virtualServers.size, rules.map(({ family }) => family), config.scheduler];
  });
  assert.deepEqual(found, [1, [4, 6], 'rr']);
});

test('what of the manifests is ignored is said; a broken one is half of an answer, and refused', async (t) => {
  const pod = 'apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n';
  const ignoring = node(t, { 'web.yaml': WEB, 'pod.yaml': pod });
  await dryRun(ignoring.options, ignoring.environment);
  assert.equal(ignoring.said.length, 1);
  assert.match(ignoring.said[0]!, /^kube-proxy-ipvs: ignored: \S*pod\.yaml: .*\n$/);
  const broken = node(t, { 'web.yaml': WEB, 'a.yaml': 'a: [', 'b.yaml': 'b: {' });
  await assert.rejects(
    dryRun(broken.options, broken.environment),
    /^Error: manifests that cannot be read: \S*a\.yaml: .*; \S*b\.yaml: /,
  );
  assert.equal(broken.closed(), true);
});

test('it gives up when the cluster does not answer in time, and says what it waited for', async (t) => {
  const server = new FakeApiServer();
  server.fault({ fault: { kind: 'hang' } });
  const master = await server.start();
  t.after(() => server.stop());
  const { options, environment, closed, stop } = node(
    t,
    {},
    {
      ...{ manifests: undefined, timeoutMs: 50 },
      overrides: { master },
    },
  );
  await assert.rejects(
    dryRun(options, environment),
    /^Error: gave up after 0\.05 s of waiting for the first lists of services and endpointslices from http:\S+/,
  );
  assert.equal(closed(), true);
  assert.equal(getEventListeners(stop.signal, 'abort').length, 0);
  const unhurried = { ...options, timeoutMs: 600_000 };
  const running = dryRun(unhurried, environment);
  setTimeout(() => stop.abort(), 20);
  await assert.rejects(running, /^Error: stopped$/);
  await assert.rejects(dryRun(unhurried, environment), /^Error: stopped$/, 'stopped before');
});
