/** `diag`: a bundle that tar can read, without secrets wherever they were planted, and with what could be had. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test, type TestContext } from 'node:test';
import { type Part, collectBundle } from '../../../src/cli/diag/bundle.js';
import { rulesThatTouchOurs } from '../../../src/cli/diag/iptables-extract.js';
import { redact, secretsOfEnvironment, secretsOfKubeconfig } from '../../../src/cli/diag/redact.js';
import { TestCluster } from '../../support/desired-cluster.js';
import { SeeRig } from '../../support/see-rig.js';

const NEVER = new AbortController().signal;
const SECRETS = {
  environment: 'wJalrXUtnFEMIK7MDENGbPxRfi',
  token: 'abcdef.0123456789abcdef',
  field: 'correct-horse-battery',
  jwt: 'eyJhbGciOiJSUzI1NiIs.eyJpc3MiOiJrdWJlcm5ldGVz.c2lnbmF0dXJl',
  key: 'LS0tLS1CRUdJTiBSU0EgUFJJVkFURSBLRVktLS0tLQ==',
  proxy: 'robot:pa55w0rd',
};

/** Every file of a tar archive by its name, as the system's tar unpacks it. */
function unpacked(archive: Buffer): Map<string, string> {
  const directory = mkdtempSync(join(tmpdir(), 'diag-'));
  writeFileSync(join(directory, 'a.tar'), archive);
  execFileSync('tar', ['-xf', 'a.tar'], { cwd: directory });
  const [folder = ''] = readdirSync(directory).filter((name) => name !== 'a.tar');
  const place = join(directory, folder);
  for (const name of readdirSync(place)) assert.equal(statSync(join(place, name)).mode & 0o777, 0o600, name);
  return new Map(readdirSync(place).map((name) => [name, readFileSync(join(place, name), 'utf8')]));
}

function part(file: string, collect: Part['collect']): Part {
  return { file, about: 'a test', collect };
}

const OPTIONS = { folder: 'bundle', now: new Date('2026-11-26T08:00:00Z'), secrets: [], stop: NEVER };

describe('collectBundle', () => {
  test('names what cannot be had or takes too long, and has the rest', async () => {
    const parts = [
      part('broken.txt', () => Promise.reject(new Error('no\nsuch thing'))),
      part('thrown.txt', () => {
        throw new Error('at once');
      }),
      part('slow.txt', () => new Promise<string>(() => undefined)),
      part('good.txt', () => 'grün ☂\n'),
    ];
    const limits = { partMs: 50, partLength: 1000, totalLength: 1000 };
    const { archive, failures } = await collectBundle(parts, { ...OPTIONS, limits });
    assert.deepEqual(failures, [
      'broken.txt: no such thing',
      'thrown.txt: at once',
      'slow.txt: not done within 0.05 s',
    ]);
    const files = unpacked(archive);
    assert.deepEqual([...files.keys()].sort(), ['good.txt', 'index.txt']);
    assert.equal(files.get('good.txt'), 'grün ☂\n');
    for (const failure of failures) assert.ok(files.get('index.txt')!.includes(failure.replace(':', ': MISSING:')));
  });

  test('is bounded: a part is cut at the end of a line, and what comes after the last room is empty', async () => {
    const lines = (count: number): string => 'ninety-one\n'.repeat(count);
    const parts = [
      part('one.txt', () => lines(50)),
      part('two.txt', () => lines(5)),
      part('three.txt', () => lines(5)),
    ];
    const limits = { partMs: 1000, partLength: 200, totalLength: 210 };
    const files = unpacked((await collectBundle(parts, { ...OPTIONS, limits })).archive);
    assert.equal(files.get('one.txt'), lines(18));
    assert.match(files.get('index.txt')!, /^one\.txt: a test \(cut, 550 characters in all\)$/m);
    assert.ok(files.get('two.txt')!.length + files.get('three.txt')!.length <= 14);
  });

  test('ends when the process is told to end', async () => {
    const stop = AbortSignal.abort();
    await assert.rejects(collectBundle([part('a.txt', () => 'x')], { ...OPTIONS, stop }));
  });
});

describe('redact', () => {
  test('hides what looks like a secret, and leaves the rest as it is', () => {
    const plain = [
      'default/secret-store: TCP 10.96.0.1:443',
      'tokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token',
      '-A KUBE-SERVICES -m comment --comment "the key to it"',
      'https://api.example.com:6443/api',
      'default/secret:\n  add virtual server TCP 10.96.0.1:80 rr',
    ].join('\n');
    assert.equal(redact(plain, []), plain);
    const pem = `-----BEGIN RSA PRIVATE KEY-----\n${SECRETS.key}\n-----END RSA PRIVATE KEY-----`;
    const told = [
      `Authorization: Bearer ${SECRETS.token}`,
      `the server says ${SECRETS.jwt}`,
      `  password: "${SECRETS.field}"`,
      `{"client-key-data":"${SECRETS.key}","x":1}`,
      `--token=${SECRETS.token} --x`,
      `proxy http://${SECRETS.proxy}@proxy.example.com:3128`,
      pem,
    ].join('\n');
    const clean = redact(told, []);
    for (const secret of Object.values(SECRETS)) assert.ok(!clean.includes(secret), clean);
    assert.match(clean, /proxy\.example\.com:3128/);
    assert.match(clean, /"x":1/);
    assert.match(clean, /--x/);
  });

  test('hides known secrets wherever they stand, also those of a kubeconfig that cannot be parsed', () => {
    const kubeconfig = `users:\n- name: a\n  user:\n   token: ${SECRETS.token}\n  client-key-data: >-\n    ${SECRETS.key}\n`;
    const secrets = [
      ...secretsOfKubeconfig(kubeconfig),
      ...secretsOfEnvironment({ AWS_SECRET_KEY: SECRETS.environment }),
    ];
    const clean = redact(`at line 4: "${SECRETS.token}", ${SECRETS.key}; ${SECRETS.environment}`, secrets);
    assert.equal(clean, 'at line 4: "[redacted]", [redacted]; [redacted]');
    assert.deepEqual(
      secretsOfKubeconfig('server: https://api-server.example.com:6443\ntokenFile: /var/run/secrets/token'),
      [],
    );
  });
});

test('of the rules a bundle has ours, the built-in chains, and chains of others that lead to ours', () => {
  const saved = [
    ...['*filter', ':INPUT ACCEPT [0:0]', ':KUBE-NODE-PORT - [0:0]', ':CNI-A - [0:0]', ':CNI-B - [0:0]'],
    ...[
      '-A INPUT -j CNI-A',
      '-A CNI-A -p tcp -g KUBE-NODE-PORT',
      '-A CNI-A -j DROP',
      '-A CNI-B -s 10.0.0.1/32 -j DROP',
    ],
    ...['-A KUBE-NODE-PORT -j ACCEPT', 'COMMIT', '*raw', ':CNI-A - [0:0]', '-A CNI-A -j DROP', 'COMMIT', ''],
  ];
  const dropped = new Set([':CNI-B - [0:0]', '-A CNI-B -s 10.0.0.1/32 -j DROP']);
  const raw = saved.indexOf('*raw');
  const kept = saved.filter((line, i) => !dropped.has(line) && !(i > raw && line.includes('CNI-A')));
  const expected = `${kept.join('\n').trimEnd()}\n# left out: 2 chains of others with 2 rules\n`;
  assert.equal(rulesThatTouchOurs(saved.join('\n')), expected);
});

async function rigWithSecrets(t: TestContext): Promise<{ rig: SeeRig; flags: string }> {
  const cluster = new TestCluster({ families: [4] });
  cluster.service('web');
  cluster.slice('web', ['10.0.0.1']);
  const rig = new SeeRig(cluster);
  await rig.sync();
  await rig.listen(t);
  const directory = mkdtempSync(join(tmpdir(), 'diag-'));
  const kubeconfig = join(directory, 'kubeconfig');
  // Not YAML: the complaint about it quotes it.
  writeFileSync(
    kubeconfig,
    `users:\n- name: a\n  user:\n   token: ${SECRETS.token}\n  client-key-data: ${SECRETS.key}\n`,
  );
  return { rig, flags: `--kubeconfig ${kubeconfig}` };
}

describe('diag', () => {
  test('has no secret of the environment, the kubeconfig or the configuration in it, and names what failed', async (t) => {
    const { rig, flags } = await rigWithSecrets(t);
    const variables = {
      VAULT_TOKEN: SECRETS.environment,
      NODE_NAME: 'node-7',
      HTTP_PROXY: `http://${SECRETS.proxy}@x`,
    };
    const file = join(mkdtempSync(join(tmpdir(), 'diag-')), 'bundle.tar');
    const { code, out, err } = await rig.type(`diag --output ${file} ${flags}`, { variables, version: '9.9.9' });
    assert.deepEqual([code, out], [0, ''], err);
    const archive = readFileSync(file);
    assert.equal(statSync(file).mode & 0o777, 0o600);
    for (const [name, secret] of Object.entries(SECRETS)) assert.ok(!archive.includes(secret), name);
    const files = unpacked(archive);
    assert.match(files.get('versions.txt')!, /^kube-proxy-ipvs: 9\.9\.9$/m);
    assert.match(files.get('versions.txt')!, /^node name: node-7$/m);
    assert.match(files.get('services.txt')!, /10\.96\.0\.1:80/);
    assert.match(files.get('table.txt')!, /^TCP {2}10\.96\.0\.1:80 rr +# default\/web$/m);
    assert.match(files.get('configuration.yaml')!, /^kind: KubeProxyConfiguration$/m);
    assert.match(files.get('sysctls.txt')!, /^net\.ipv4\.ip_forward = [01]$/m);
    assert.match(err, /^not in the bundle: events\.txt: /m);
    assert.match(files.get('index.txt')!, /^events\.txt: MISSING: /m);
  });

  test('goes to standard output where that is no terminal, and says so where it is one', async (t) => {
    const { rig, flags } = await rigWithSecrets(t);
    const { code, out } = await rig.type(`diag ${flags}`);
    assert.equal(code, 0);
    assert.ok(unpacked(Buffer.from(out, 'utf8')).has('index.txt'));
    const shown = await rig.type(`diag ${flags}`, { isTerminal: true });
    assert.deepEqual([shown.code, shown.out], [1, '']);
    assert.match(shown.err, /--output FILE/);
  });

  test('has the rest where the configuration is what is wrong', async (t) => {
    const { rig } = await rigWithSecrets(t);
    const directory = mkdtempSync(join(tmpdir(), 'diag-'));
    const config = join(directory, 'config.yaml');
    writeFileSync(config, `kind: KubeProxyConfiguration\npassword: ${SECRETS.field}\n  bad: [\n`);
    const { code, out, err } = await rig.type(`diag --config ${config}`);
    assert.equal(code, 0);
    assert.ok(!out.includes(SECRETS.field) && !err.includes(SECRETS.field), err);
    assert.match(err, /not in the bundle: configuration\.yaml: /);
    assert.ok(unpacked(Buffer.from(out, 'utf8')).has('modules.txt'));
  });

  test('has the last lines of the log where the kubelet keeps it', async () => {
    const { nodeParts } = await import('../../../src/cli/diag/node-parts.js');
    const logs = mkdtempSync(join(tmpdir(), 'diag-'));
    const folder = join(logs, 'kube-system_kube-proxy-ipvs-x7k2p_0a1b', 'kube-proxy-ipvs');
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, '0.log'), 'the first line\n');
    const environment = { openNetlinkSocket: () => assert.fail(), variables: {}, version: '1', hostname: 'h' };
    const log = nodeParts(environment as never, { proc: '/proc', logs }).find(({ file }) => file === 'log.txt')!;
    assert.match(await log.collect(NEVER), /0\.log\nthe first line\n$/);
    const none = nodeParts(environment as never, { proc: '/proc', logs: '/nowhere' }).find(
      ({ file }) => file === 'log.txt',
    )!;
    assert.throws(() => none.collect(NEVER), /nowhere/);
  });
});
