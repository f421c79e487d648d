/** `config check` and `config print`: what they say, where, and with which exit code. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { runConfigCheck, runConfigPrint } from '../../../src/cli/config.js';
import { type ConfigCheckOptions, type ConfigPrintOptions } from '../../../src/cli/options.js';
import { type Environment } from '../../../src/daemon/environment.js';

const HEAD = 'apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nclusterCIDR: 10.0.0.0/8\n';

function fileOf(t: TestContext, text: string): string {
  const directory = mkdtempSync(join(tmpdir(), 'config-command-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const file = join(directory, 'config.conf');
  writeFileSync(file, HEAD + text);
  return file;
}

interface Ran {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

async function ran(run: (environment: Environment) => Promise<number>): Promise<Ran> {
  let [out, err] = ['', ''];
  const code = await run({
    out: (text: string) => void (out += text),
    err: (text: string) => void (err += text),
  } as Environment);
  return { code, out, err };
}

const check = (configFile: string, more: Partial<ConfigCheckOptions> = {}): Promise<Ran> => {
  const options = { configFile, overrides: {}, warnings: [], strict: false, json: false, ...more };
  return ran((environment) => runConfigCheck(options as unknown as ConfigCheckOptions, environment));
};

const GOOD = 'ipvs: {scheduler: lc}\n';
const ODD = 'ipvs: {scheduler: lc, schedular: rr}\n';
const BAD = 'ipvs: {scheduler: fast}\n';

test('a configuration that is right: valid, and nothing else', async (t) => {
  const file = fileOf(t, GOOD);
  assert.deepEqual(await check(file), { code: 0, out: `${file}: valid\n`, err: '' });
  assert.deepEqual(await check(file, { strict: true }), { code: 0, out: `${file}: valid\n`, err: '' });
});

test('with a warning it is valid, and strictly it is not; a warning of the command line counts as well', async (t) => {
  const file = fileOf(t, ODD);
  const loose = await check(file);
  assert.deepEqual([loose.code, loose.out], [0, `${file}: valid\n`]);
  assert.match(loose.err, /^\S+: warning: .*schedular.*\n$/);
  const strict = await check(file, { strict: true });
  assert.deepEqual([strict.code, strict.out, strict.err], [1, '', loose.err]);
  const typed = await check(fileOf(t, GOOD), { strict: true, warnings: ['--x has no effect'] });
  assert.deepEqual([typed.code, typed.out], [1, '']);
  assert.match(typed.err, /warning: --x has no effect/);
});

test('with a fault it is not, and each is named with its line', async (t) => {
  const file = fileOf(t, `${BAD}iptables: {syncPeriod: soon}\n`);
  const { code, out, err } = await check(file);
  assert.deepEqual([code, out], [1, '']);
  assert.match(err, /config\.conf:4: ipvs\.scheduler: "fast" is not allowed/);
  assert.match(err, /config\.conf:\d+: .*"soon" is not/);
});

test('as JSON, for each of them', async (t) => {
  const said = async (text: string, more: Partial<ConfigCheckOptions> = {}): Promise<[number, unknown, string]> => {
    const { code, out, err } = await check(fileOf(t, text), { json: true, ...more });
    const { valid, problems, warnings } = JSON.parse(out) as Record<'valid' | 'problems' | 'warnings', unknown[]>;
    return [code, [valid, problems.length, warnings.length], err];
  };
  assert.deepEqual(await said(GOOD), [0, [true, 0, 0], '']);
  assert.deepEqual(await said(ODD), [0, [true, 0, 1], '']);
  assert.deepEqual(await said(ODD, { strict: true }), [1, [false, 0, 1], '']);
  assert.deepEqual(await said(BAD), [1, [false, 1, 0], '']);
});

test('a file that is not there is not valid', async () => {
  const { code, out, err } = await check('/nonexistent/config.conf');
  assert.deepEqual([code, out], [1, '']);
  assert.match(err, /nonexistent.*ENOENT/);
});

test('print gives it complete, as YAML or JSON, or writes it', async (t) => {
  const file = fileOf(t, ODD);
  const print = (more: Partial<ConfigPrintOptions> = {}): Promise<Ran> => {
    const options = { configFile: file, overrides: {}, warnings: ['--y'], json: false, ...more };
    return ran((environment) => runConfigPrint(options as unknown as ConfigPrintOptions, environment));
  };
  const yaml = await print();
  assert.equal(yaml.code, 0);
  assert.match(yaml.out, /^apiVersion: kubeproxy\.config\.k8s\.io\/v1alpha1\n[^]*\n {2}scheduler: lc\n/m);
  assert.match(yaml.err, /^warning: --y\nwarning: .*schedular.*\n$/);
  const json = JSON.parse((await print({ json: true })).out) as { ipvs: { scheduler: string } };
  assert.equal(json.ipvs.scheduler, 'lc');
  const writeTo = join(file, '..', 'written.conf');
  const written = await print({ writeTo });
  assert.deepEqual([written.code, written.out, readFileSync(writeTo, 'utf8')], [0, '', yaml.out]);
});
