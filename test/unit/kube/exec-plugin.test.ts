/**
 * Credential plugins: bounded in time, asked as rarely as client-go asks, and silent: nothing that they print gets out.
 */
import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type WallClock, systemClock } from '../../../src/time/clock.js';
import { KubeClient } from '../../../src/kube/client.js';
import { KubeError } from '../../../src/kube/errors.js';
import { type ExecConfig, ExecPlugin } from '../../../src/kube/exec-plugin.js';
import { CA_CERTIFICATE, CLIENT_CERTIFICATE, CLIENT_KEY } from '../../fakes/api-server-tls.js';
import { testService, until } from '../../fakes/api-server-testing.js';
import { FakeApiServer } from '../../fakes/api-server.js';

const CLUSTER = { server: 'https://203.0.113.1:6443' };

/** A directory, and a plugin in it that notes each call and runs a shell script. */
function pluginOf(t: TestContext, script: string): { directory: string; exec: ExecConfig; calls: () => number } {
  const directory = mkdtempSync(join(tmpdir(), 'exec-plugin-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const command = join(directory, 'plugin');
  writeFileSync(command, `#!/bin/sh\ncd ${directory}\nprintf x >> calls\n${script}\n`);
  chmodSync(command, 0o755);
  const exec = { apiVersion: 'client.authentication.k8s.io/v1', command };
  const calls = (): number =>
    existsSync(join(directory, 'calls')) ? readFileSync(join(directory, 'calls')).length : 0;
  return { directory, exec, calls };
}

const credential = (status: object): string =>
  `cat <<'END'\n${JSON.stringify({ apiVersion: 'client.authentication.k8s.io/v1', kind: 'ExecCredential', status })}\nEND`;

async function failureOf(plugin: ExecPlugin): Promise<string> {
  try {
    await plugin.credential();
  } catch (error) {
    assert.ok(error instanceof KubeError, String(error));
    return `${error.message}\n${String((error.cause as Error | undefined)?.message)}`;
  }
  return assert.fail('it gave a credential');
}

/** True while the process lives; a pid of no digits would read the machine's own /proc/stat. */
function isRunning(pid: string): boolean {
  assert.match(pid, /^\d+$/);
  try {
    return !readFileSync(`/proc/${pid}/stat`, 'utf8').includes(') Z ');
  } catch {
    return false;
  }
}

for (const [name, script, message] of [
  ['fails', 'echo Bearer s3cret-one; echo s3cret-two >&2; exit 3', /plugin" ended with exit code 3$/],
  ['prints no JSON', 'echo "{token: s3cret}"', /printed something that is no JSON$/],
  ['prints something else', `echo '{"token":"s3cret"}'`, /printed no ExecCredential with a status$/],
  ['gives nothing', credential({}), /gave neither a token nor a client certificate$/],
  ['gives half', credential({ clientCertificateData: 's3cret' }), /a certificate without its key, or the reverse$/],
  ['gives a bad date', credential({ token: 's3cret', expirationTimestamp: 's3cret' }), /that is no date$/],
  ['is killed', 'kill -9 $$', /was ended by SIGKILL$/],
] as const) {
  test(`a plugin that ${name}: its command and what happened, never what it printed`, async (t) => {
    const { exec } = pluginOf(t, script);
    const text = await failureOf(new ExecPlugin(exec, CLUSTER, systemClock));
    assert.doesNotMatch(text, /s3cret|Bearer/);
    assert.match(text.split('\n')[0]!, message);
    assert.match(text, /^get credentials: exec plugin "\/.*\/plugin" /);
  });
}

test('a plugin that is not there', async () => {
  const plugin = new ExecPlugin({ command: '/nonexistent/aws' }, CLUSTER, systemClock);
  assert.match(await failureOf(plugin), /exec plugin "\/nonexistent\/aws" could not be run: ENOENT/);
});

test('a plugin without a command is a fault of the kubeconfig', async () => {
  const message = await failureOf(new ExecPlugin({}, CLUSTER, systemClock));
  assert.match(message, /^get credentials: exec plugin of the kubeconfig has no command\n/);
});

test('a plugin that hangs is ended after its time, with all that it started', async (t) => {
  const { exec, directory } = pluginOf(t, 'sleep 600 & echo $! > child\nwait');
  const plugin = new ExecPlugin(exec, CLUSTER, systemClock, 1500);
  assert.match(await failureOf(plugin), /did not end within 1.5 s/);
  const child = readFileSync(join(directory, 'child'), 'utf8').trim();
  await until('its child is gone', () => !isRunning(child));
});

test('a plugin that prints without end is ended', async (t) => {
  const { exec } = pluginOf(t, 'exec yes s3cret');
  assert.match(await failureOf(new ExecPlugin(exec, CLUSTER, systemClock)), /printed more than 1048576 bytes/);
});

test('without an expiration it is asked once; many at a time ask once; an expired credential is asked for anew', async (t) => {
  const forever = pluginOf(t, credential({ token: 'one' }));
  const plugin = new ExecPlugin(forever.exec, CLUSTER, systemClock);
  const all = await Promise.all(Array.from({ length: 5 }, () => plugin.credential()));
  assert.deepEqual(new Set(all.map(({ token }) => token)), new Set(['one']));
  await plugin.credential();
  assert.equal(forever.calls(), 1);

  const dated = pluginOf(t, credential({ token: 'two', expirationTimestamp: '2030-01-01T00:00:00Z' }));
  let wall = Date.UTC(2029, 11, 31);
  const clock: WallClock = { ...systemClock, wall: () => wall };
  const expiring = new ExecPlugin(dated.exec, CLUSTER, clock);
  await expiring.credential();
  await expiring.credential();
  assert.equal(dated.calls(), 1);
  wall = Date.UTC(2030, 0, 1, 0, 0, 1);
  await expiring.credential();
  assert.equal(dated.calls(), 2);
});

/** A client whose kubeconfig names the plugin. */
function clientWith(directory: string, server: FakeApiServer, exec: ExecConfig): KubeClient {
  const file = join(directory, 'kubeconfig');
  const ca = Buffer.from(CA_CERTIFICATE).toString('base64');
  writeFileSync(
    file,
    JSON.stringify({
      clusters: [{ name: 'c', cluster: { server: server.url, 'certificate-authority-data': ca } }],
      users: [{ name: 'u', user: { exec } }],
      contexts: [{ name: 'x', context: { cluster: 'c', user: 'u' } }],
      'current-context': 'x',
    }),
  );
  return new KubeClient({ kubeconfig: file });
}

test('client certificates of a plugin are shown to the server', async (t) => {
  const server = new FakeApiServer({ tls: true, requireClientCertificate: true });
  server.set(testService('a'));
  await server.start();
  t.after(() => server.stop());
  const certificate = { clientCertificateData: CLIENT_CERTIFICATE, clientKeyData: CLIENT_KEY };
  const { exec, directory } = pluginOf(t, credential(certificate));
  const client = clientWith(directory, server, exec);
  t.after(() => client.close());
  const { signal } = new AbortController();
  const request = { operation: 'list', path: '/api/v1/services', query: {}, signal, idleMs: () => 60_000 };
  for await (const chunk of await client.open(request)) assert.ok(chunk.length > 0);
});

test('an abort returns at once although the plugin hangs, and closing the client ends the plugin', async (t) => {
  const server = new FakeApiServer({ tls: true });
  await server.start();
  t.after(() => server.stop());
  const { exec, directory } = pluginOf(t, 'echo $$ > pid\nexec sleep 600');
  const client = clientWith(directory, server, exec);
  const stop = new AbortController();
  const request = { operation: 'list', path: '/', query: {}, signal: stop.signal, idleMs: () => 60_000 };
  const opening = client.open(request);
  opening.catch(() => undefined);
  const pid = (): string =>
    existsSync(join(directory, 'pid')) ? readFileSync(join(directory, 'pid'), 'utf8').trim() : '';
  await until('the plugin has written its whole pid', () => /^\d+$/.test(pid()));
  stop.abort();
  await assert.rejects(opening, KubeError);
  client.close();
  await until('it is gone', () => !isRunning(pid()));
});
