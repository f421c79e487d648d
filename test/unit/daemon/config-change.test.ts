/**
 * A configuration file that changes under a running daemon: a typo ends nothing, most changes are taken over, some end
 * it, and the same in other words is no change.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { loadConfigFile } from '../../../src/config/load.js';
import { ConfigChange } from '../../../src/daemon/config-change.js';
import { until } from '../../fakes/api-server-testing.js';

const HEAD = 'apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nclusterCIDR: 10.0.0.0/8\n';
const GOOD = `${HEAD}ipvs: {scheduler: rr}\n`;

interface Rig {
  readonly change: ConfigChange;
  readonly refused: boolean[];
  readonly logged: string[];
  changed: number;
  write(text: string): void;
}

async function startWatch(t: TestContext): Promise<Rig> {
  const directory = mkdtempSync(join(tmpdir(), 'config-change-'));
  const file = join(directory, 'config.conf');
  const write = (text: string): void => {
    writeFileSync(`${file}.new`, text);
    renameSync(`${file}.new`, file);
  };
  write(GOOD);
  const [refused, logged]: [boolean[], string[]] = [[], []];
  const log = (fields: object, message: string): void => void logged.push(`${message} ${JSON.stringify(fields)}`);
  const keepAlive = setInterval(() => undefined, 1000);
  const rig: Rig = {
    refused,
    logged,
    changed: 0,
    write,
    change: new ConfigChange({
      file,
      overrides: {},
      loaded: await loadConfigFile(file),
      log: { info: log, error: log },
      onRefused: (isRefused) => refused.push(isRefused),
      onRestart: () => rig.changed++,
      settleMs: 1,
    }),
  };
  t.after(() => {
    clearInterval(keepAlive);
    rig.change.close();
    rmSync(directory, { recursive: true });
  });
  await rig.change.start();
  return rig;
}

test('a typo, a value that is not allowed, no YAML at all: reported, and what runs goes on', async (t) => {
  const rig = await startWatch(t);
  for (const bad of [`${HEAD}ipvs: {scheduler: round-robin}\n`, 'apiVersion: v2\n', 'kind: [', '']) {
    const before = rig.refused.length;
    rig.write(bad);
    await until(`refused: ${bad}`, () => rig.refused.length > before);
    assert.equal(rig.refused.at(-1), true);
    assert.match(rig.change.problem!, /cannot be used, the one before runs on/);
  }
  assert.match(rig.logged[0]!, /refused.*ipvs\.scheduler/s);
  assert.equal(rig.changed, 0);
  rig.write(GOOD);
  await until('in order again', () => rig.refused.at(-1) === false);
  assert.equal(rig.change.problem, undefined);
  assert.equal(rig.changed, 0);
});

test('before there is anybody to take it over, another configuration ends the daemon, also after one that was refused', async (t) => {
  const rig = await startWatch(t);
  rig.write(`${HEAD}ipvs: {scheduler: nonsense}\n`);
  await until('refused', () => rig.refused.length === 1);
  rig.write(`${HEAD}ipvs: {scheduler: lc}\n`);
  await until('changed', () => rig.changed === 1);
  assert.deepEqual(rig.refused, [true, false]);
});

test('the same in other words changes nothing', async (t) => {
  const rig = await startWatch(t);
  rig.write(`# a comment\n${HEAD}ipvs:\n  scheduler: ""\n  strictARP: false\nconntrack: {maxPerCore: 32768}\n`);
  await until('seen', () => rig.logged.some((line) => line.includes('means the same as before')));
  assert.equal(rig.changed, 0);
});

test('what changed between the loading and the watching is seen', async (t) => {
  const rig = await startWatch(t);
  rig.change.close();
  const directory = mkdtempSync(join(tmpdir(), 'config-change-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const file = join(directory, 'config.conf');
  writeFileSync(file, GOOD);
  const loaded = await loadConfigFile(file);
  writeFileSync(file, GOOD.replace('rr', 'lc'));
  let changed = 0;
  const log = { info: () => undefined, error: () => undefined };
  const onRestart = (): void => void changed++;
  const change = new ConfigChange({
    file,
    overrides: {},
    loaded,
    log,
    onRefused: () => undefined,
    onRestart,
    settleMs: 1,
  });
  await change.start();
  await until('changed', () => changed === 1);
});

test('a change is handed over, again and again, and ends nothing', async (t) => {
  const rig = await startWatch(t);
  const taken: string[] = [];
  rig.change.takeOverBy(({ config, document }) => {
    taken.push(`${config.scheduler} ${config.masqueradeAll} ${JSON.stringify(document['featureGates'] ?? {})}`);
  });
  rig.write(`${HEAD}ipvs: {scheduler: lc}\n`);
  await until('lc', () => taken.at(-1) === 'lc false {}');
  rig.write(`${HEAD}ipvs: {scheduler: lc}\niptables: {masqueradeAll: true}\n`);
  await until('masqueradeAll', () => taken.at(-1) === 'lc true {}');
  rig.write(GOOD);
  await until('back', () => taken.at(-1) === 'rr false {}');
  rig.write(`${GOOD}featureGates: {AllAlpha: false}\n`);
  await until('what is not heeded is shown', () => taken.at(-1) === 'rr false {"AllAlpha":false}');
  assert.equal(rig.changed, 0);
  assert.match(rig.logged.join('\n'), /taken over .*"fields":\["scheduler"\]/);
});

test('what cannot be taken over is refused and can be corrected', async (t) => {
  const rig = await startWatch(t);
  rig.change.takeOverBy(({ config }) => {
    if (config.scheduler === 'ovf') throw new Error('the kernel has no IPVS scheduler "ovf"');
  });
  rig.write(`${HEAD}ipvs: {scheduler: ovf}\n`);
  await until('refused', () => rig.refused.at(-1) === true);
  assert.match(rig.change.problem!, /no IPVS scheduler "ovf"/);
  rig.write(GOOD);
  await until('in order again', () => rig.refused.at(-1) === false);
  assert.equal(rig.change.problem, undefined);
  assert.equal(rig.changed, 0);
});

for (const change of [
  'healthzBindAddress: 127.0.0.1:10257',
  'metricsBindAddress: 127.0.0.1:10250',
  'bindAddress: 10.1.1.1',
  'bindAddressHardFail: true',
  'clientConnection: {kubeconfig: /other}',
  'hostnameOverride: other',
  'kubeProxyIpvs: {relistPeriod: 1h}',
  'kubeProxyIpvs: {protectNodeAddresses: off}',
])
  test(`${change} ends the daemon, whatever else changed`, async (t) => {
    const rig = await startWatch(t);
    let taken = 0;
    rig.change.takeOverBy(() => void taken++);
    rig.write(`${HEAD}ipvs: {scheduler: lc}\n${change}\n`);
    await until('the end', () => rig.changed === 1);
    assert.equal(taken, 0);
  });
