import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer as createHttpServer } from 'node:http';
import { type AddressInfo, createServer, type Socket, connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type KubeBody, KubeClient, type KubeClientOptions } from '../../../src/kube/client.js';
import { KubeError, parseRetryAfter } from '../../../src/kube/errors.js';
import { systemClock } from '../../../src/time/clock.js';
import { testService, until } from '../../fakes/api-server-testing.js';
import { CA_CERTIFICATE, CLIENT_CERTIFICATE, CLIENT_KEY } from '../../fakes/api-server-tls.js';
import { type ApiServerOptions, FakeApiServer } from '../../fakes/api-server.js';

const base64 = (text: string): string => Buffer.from(text).toString('base64');

async function startServer(t: TestContext, options: ApiServerOptions = {}): Promise<FakeApiServer> {
  const server = new FakeApiServer({ tls: true, ...options });
  server.set(testService('a'));
  await server.start();
  t.after(() => server.stop());
  return server;
}

function temporaryDirectory(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'kube-client-'));
  t.after(() => rmSync(directory, { recursive: true }));
  return directory;
}

/** Writes a kubeconfig for the server and makes a client from it. */
function clientFor(
  t: TestContext,
  server: FakeApiServer,
  config: { user?: object; cluster?: object; directory?: string; options?: KubeClientOptions },
): KubeClient {
  const directory = config.directory ?? temporaryDirectory(t);
  const file = join(directory, 'kubeconfig');
  const cluster = { server: server.url, 'certificate-authority-data': base64(CA_CERTIFICATE), ...config.cluster };
  const document = {
    clusters: [{ name: 'c', cluster }],
    users: [{ name: 'u', user: config.user ?? {} }],
    contexts: [{ name: 'x', context: { cluster: 'c', user: 'u' } }],
    'current-context': 'x',
  };
  writeFileSync(file, JSON.stringify(document));
  const client = new KubeClient({ kubeconfig: file, ...config.options });
  t.after(() => client.close());
  return client;
}

function openList(client: KubeClient, signal = new AbortController().signal): Promise<KubeBody> {
  return client.open({ operation: 'list services', path: '/api/v1/services', query: {}, signal, idleMs: () => 60_000 });
}

/** The length of a list body; rejects with what the request rejects with. */
async function list(client: KubeClient): Promise<number> {
  let length = 0;
  for await (const chunk of await openList(client)) length += chunk.length;
  return length;
}

async function failure(client: KubeClient): Promise<KubeError> {
  try {
    await list(client);
  } catch (error) {
    assert.ok(error instanceof KubeError, `a KubeError, not ${String(error)}`);
    return error;
  }
  return assert.fail('the request succeeded');
}

test('TLS with the kubeconfig CA; one connection for many requests', async (t) => {
  const server = await startServer(t);
  const client = clientFor(t, server, {});
  for (let i = 0; i < 5; i++) assert.ok((await list(client)) > 100);
  assert.equal(server.requests.length, 5);
  assert.equal(server.connections, 1);
});

test('a server that the CA did not sign is refused, unless insecure-skip-tls-verify says otherwise', async (t) => {
  const server = await startServer(t);
  const untrusted = { 'certificate-authority-data': undefined };
  const error = await failure(clientFor(t, server, { cluster: untrusted }));
  assert.match(error.reason, /SELF_SIGNED|UNABLE_TO/);
  const insecure = { ...untrusted, 'insecure-skip-tls-verify': true };
  assert.ok((await list(clientFor(t, server, { cluster: insecure }))) > 100);
});

test('tls-server-name is what the certificate is checked against', async (t) => {
  const server = await startServer(t);
  const error = await failure(clientFor(t, server, { cluster: { 'tls-server-name': 'other.example' } }));
  assert.equal(error.reason, 'ERR_TLS_CERT_ALTNAME_INVALID');
  assert.ok((await list(clientFor(t, server, { cluster: { 'tls-server-name': 'kubernetes.default.svc' } }))) > 100);
});

test('client certificates, inline and from files', async (t) => {
  const server = await startServer(t, { requireClientCertificate: true });
  assert.equal((await failure(clientFor(t, server, {}))).status, 401);
  const inline = { 'client-certificate-data': base64(CLIENT_CERTIFICATE), 'client-key-data': base64(CLIENT_KEY) };
  assert.ok((await list(clientFor(t, server, { user: inline }))) > 100);
  const directory = temporaryDirectory(t);
  writeFileSync(join(directory, 'client.crt'), CLIENT_CERTIFICATE);
  writeFileSync(join(directory, 'client.key'), CLIENT_KEY);
  const files = { 'client-certificate': 'client.crt', 'client-key': 'client.key' };
  assert.ok((await list(clientFor(t, server, { user: files, directory }))) > 100);
});

test('a token from the kubeconfig; refused with a clear message that does not hold it', async (t) => {
  const server = await startServer(t, { tokens: ['s3cret-right'] });
  assert.ok((await list(clientFor(t, server, { user: { token: 's3cret-right' } }))) > 100);
  const error = await failure(clientFor(t, server, { user: { token: 's3cret-wrong' } }));
  assert.equal(error.status, 401);
  assert.match(error.message, /^list services: 401 Unauthorized: .*check the service account token/);
  assert.doesNotMatch(JSON.stringify(error) + String(error.stack), /s3cret/);
});

test("tokenFile, relative to the kubeconfig as in kubeadm's; rotated, it is read again after one 401", async (t) => {
  const server = await startServer(t, { tokens: ['one'] });
  const directory = temporaryDirectory(t);
  writeFileSync(join(directory, 'token'), 'one\n');
  const client = clientFor(t, server, { user: { tokenFile: 'token' }, directory });
  assert.ok((await list(client)) > 100);
  server.tokens = new Set(['two']);
  assert.equal((await failure(client)).status, 401, 'the file still holds the old one');
  writeFileSync(join(directory, 'token'), 'two\n');
  assert.ok((await list(client)) > 100);
  const statuses = server.requests.map(({ status }) => status);
  assert.deepEqual(statuses, [200, 401, 401, 200], 'the refused request was tried once with fresh credentials');
});

test('a 401 in the middle of life: refreshed and tried again, the caller sees nothing', async (t) => {
  const server = await startServer(t, { tokens: ['one'] });
  const directory = temporaryDirectory(t);
  writeFileSync(join(directory, 'token'), 'one');
  const client = clientFor(t, server, { user: { tokenFile: 'token' }, directory });
  await list(client);
  server.tokens = new Set(['two']);
  writeFileSync(join(directory, 'token'), 'two');
  assert.ok((await list(client)) > 100);
  assert.deepEqual(
    server.requests.map(({ status }) => status),
    [200, 401, 200],
  );
});

test('an exec plugin gives the token, is told about the cluster, and is asked again after a 401', async (t) => {
  const server = await startServer(t, { tokens: ['call-1'] });
  const directory = temporaryDirectory(t);
  const plugin = join(directory, 'plugin');
  writeFileSync(
    plugin,
    `#!${process.execPath}
const fs = require('node:fs');
const count = fs.existsSync('${directory}/calls') ? fs.readFileSync('${directory}/calls', 'utf8').length + 1 : 1;
fs.appendFileSync('${directory}/calls', 'x');
const info = JSON.parse(process.env.KUBERNETES_EXEC_INFO);
const token = info.spec.cluster.server === '${server.url}' && process.env.EXTRA === 'yes' ? 'call-' + count : 'bad';
const status = { token, expirationTimestamp: '2999-01-01T00:00:00Z' };
console.log(JSON.stringify({ apiVersion: info.apiVersion, kind: 'ExecCredential', status }));
`,
  );
  chmodSync(plugin, 0o755);
  const exec = {
    apiVersion: 'client.authentication.k8s.io/v1',
    command: './plugin',
    env: [{ name: 'EXTRA', value: 'yes' }],
    provideClusterInfo: true,
  };
  const client = clientFor(t, server, { user: { exec }, directory });
  await list(client);
  await list(client);
  server.tokens = new Set(['call-2']);
  assert.ok((await list(client)) > 100);
  const statuses = server.requests.map(({ status }) => status);
  assert.deepEqual(statuses, [200, 200, 401, 200], 'cached until refused');
});

test('an exec plugin that fails is a KubeError without what it said', async (t) => {
  const server = await startServer(t);
  const exec = {
    apiVersion: 'client.authentication.k8s.io/v1',
    command: '/bin/sh',
    args: ['-c', 'echo no SSO session >&2; exit 1'],
  };
  const error = await failure(clientFor(t, server, { user: { exec } }));
  assert.equal(error.message, 'get credentials: exec plugin "/bin/sh" ended with exit code 1');
});

test('master overrides the server of the kubeconfig, and works alone', async (t) => {
  const server = await startServer(t, { tls: false });
  const withMaster = clientFor(t, server, {
    cluster: { server: 'https://127.0.0.1:1' },
    options: { master: server.url },
  });
  assert.ok((await list(withMaster)) > 100);
  const alone = new KubeClient({ master: `${server.url}/` });
  assert.ok((await list(alone)) > 100);
  alone.close();
});

test('a server without a port has that of its scheme', async () => {
  for (const [server, port] of [
    ['http://127.0.0.253', 80],
    ['https://127.0.0.253', 443],
    ['https://127.0.0.253:1', 1],
  ] as const) {
    const client = new KubeClient({ master: server });
    assert.match((await failure(client)).message, new RegExp(`ECONNREFUSED 127\\.0\\.0\\.253:${port}$`));
    client.close();
  }
});

test('a kubeconfig without a user has the CA of its cluster all the same', async (t) => {
  const server = await startServer(t);
  const file = join(temporaryDirectory(t), 'kubeconfig');
  const cluster = { server: server.url, 'certificate-authority-data': base64(CA_CERTIFICATE) };
  const contexts = [{ name: 'x', context: { cluster: 'c' } }];
  writeFileSync(file, JSON.stringify({ clusters: [{ name: 'c', cluster }], contexts, 'current-context': 'x' }));
  const client = new KubeClient({ kubeconfig: file });
  t.after(() => client.close());
  assert.ok((await list(client)) > 100);
});

test('in a cluster the environment says where the API server is, if it says host and port', (t) => {
  const names = ['KUBERNETES_SERVICE_HOST', 'KUBERNETES_SERVICE_PORT'] as const;
  const before = names.map((name) => process.env[name]);
  t.after(() =>
    names.forEach((name, i) => (before[i] === undefined ? delete process.env[name] : (process.env[name] = before[i]))),
  );
  [process.env[names[0]], process.env[names[1]]] = ['10.96.0.1', '443'];
  const client = new KubeClient({});
  assert.equal(client.server, 'https://10.96.0.1:443');
  client.close();
  for (const missing of names) {
    [process.env[names[0]], process.env[names[1]]] = ['10.96.0.1', '443'];
    delete process.env[missing];
    assert.throws(() => new KubeClient({}), /not in a cluster/, missing);
  }
});

test('a path in the server URL is kept', async (t) => {
  const server = await startServer(t);
  const client = clientFor(t, server, { cluster: { server: `${server.url}/k8s/clusters/c-1` } });
  assert.equal((await failure(client)).status, 404);
});

/** A CONNECT proxy; what it was asked to reach is in `tunnelled`. */
async function startProxy(t: TestContext): Promise<{ url: string; tunnelled: string[] }> {
  const tunnelled: string[] = [];
  const sockets = new Set<Socket>();
  const proxy = createServer((inner) => {
    sockets.add(inner);
    inner.once('data', (data) => {
      const [, host = '', port = ''] = /^CONNECT ([^:]+):(\d+)/.exec(data.toString('latin1')) ?? [];
      tunnelled.push(`${host}:${port}`);
      const outer = connect(Number(port), '127.0.0.1', () => {
        inner.write('HTTP/1.1 200 OK\r\n\r\n');
        inner.pipe(outer).pipe(inner);
      });
      outer.on('error', () => inner.destroy());
      inner.on('error', () => outer.destroy());
    });
  });
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    proxy.close();
  });
  return { url: `http://127.0.0.1:${(proxy.address() as { port: number }).port}`, tunnelled };
}

test('through an HTTP proxy', async (t) => {
  const server = await startServer(t);
  const { url, tunnelled } = await startProxy(t);
  assert.ok((await list(clientFor(t, server, { cluster: { 'proxy-url': url } }))) > 100);
  assert.deepEqual(tunnelled, [new URL(server.url).host]);
});

test("the environment's proxy is used, and not where NO_PROXY names the server", async (t) => {
  const server = await startServer(t);
  const { url, tunnelled } = await startProxy(t);
  const before = { HTTPS_PROXY: process.env['HTTPS_PROXY'], NO_PROXY: process.env['NO_PROXY'] };
  t.after(() => {
    for (const [name, value] of Object.entries(before)) {
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
  });
  process.env['HTTPS_PROXY'] = url;
  process.env['NO_PROXY'] = 'other.example';
  // Loopback addresses are never proxied: the proxy of this test leads every name there.
  const name = `api.example:${new URL(server.url).port}`;
  const cluster = { server: `https://${name}`, 'tls-server-name': 'kubernetes.default.svc' };
  assert.ok((await list(clientFor(t, server, { cluster }))) > 100);
  assert.deepEqual(tunnelled, [name]);
  assert.ok((await list(clientFor(t, server, {}))) > 100);
  process.env['NO_PROXY'] = 'api.example';
  assert.match((await failure(clientFor(t, server, { cluster }))).reason, /ENOTFOUND|EAI_AGAIN/);
  assert.equal(tunnelled.length, 1);
});

test('the peer of every connection is told', async (t) => {
  const server = await startServer(t);
  const peers: string[] = [];
  const client = clientFor(t, server, { options: { onPeer: (address) => peers.push(address) } });
  await list(client);
  await list(client);
  assert.deepEqual(peers, ['127.0.0.1', '127.0.0.1']);
  const proxied: string[] = [];
  const { url } = await startProxy(t);
  const options = { onPeer: (address: string) => void proxied.push(address) };
  await list(clientFor(t, server, { cluster: { 'proxy-url': url }, options }));
  assert.deepEqual(proxied, ['127.0.0.1']);
});

test('a configuration that cannot work is refused at once, naming what is wrong', (t) => {
  const directory = temporaryDirectory(t);
  const file = join(directory, 'bad');
  assert.throws(() => new KubeClient({ kubeconfig: join(directory, 'missing') }), /load kubeconfig: ENOENT.*missing/);
  writeFileSync(file, '{"current-context":"nowhere"}');
  assert.throws(() => new KubeClient({ kubeconfig: file }), /current-context "nowhere" names no known cluster/);
  writeFileSync(file, 'a: [');
  assert.throws(() => new KubeClient({ kubeconfig: file }), KubeError);
  const { KUBERNETES_SERVICE_HOST: host } = process.env;
  delete process.env['KUBERNETES_SERVICE_HOST'];
  t.after(() => (host === undefined ? undefined : (process.env['KUBERNETES_SERVICE_HOST'] = host)));
  assert.throws(() => new KubeClient({}), /not in a cluster: .*set clientConnection.kubeconfig/);
});

test('an answer that is no Status is told by its beginning, on one line; of a Status its reason and message', async (t) => {
  let body = `<html>\n  <h1>gateway</h1>\t${'x'.repeat(300)}`;
  const proxy = createHttpServer((_request, response) => response.writeHead(502).end(body));
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  t.after(() => proxy.close());
  const client = new KubeClient({ master: `http://127.0.0.1:${(proxy.address() as AddressInfo).port}` });
  t.after(() => client.close());
  const page = await failure(client);
  const said = `<html> <h1>gateway</h1> ${'x'.repeat(174)}`;
  assert.deepEqual([page.reason, page.message], ['', `list services: HTTP 502: ${said}`]);
  body = JSON.stringify({ kind: 'Status', reason: 'ServiceUnavailable', message: 'the server is starting' });
  const status = await failure(client);
  assert.deepEqual(
    [status.reason, status.message],
    ['ServiceUnavailable', 'list services: HTTP 502: the server is starting'],
  );
});

test('what never gives credentials is given up after 35 s, and nothing is left waiting', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const exec = { apiVersion: 'client.authentication.k8s.io/v1', command: '/bin/sleep', args: ['600'] };
  const server = await startServer(t, { tls: false });
  // The plugin's own limit never strikes here.
  const clock = { ...systemClock, after: () => () => undefined };
  const client = clientFor(t, server, { user: { exec }, options: { clock } });
  const failed = failure(client);
  await new Promise((resolve) => setImmediate(resolve));
  t.mock.timers.tick(34_999);
  const early = await Promise.race([failed, new Promise((resolve) => setImmediate(() => resolve('waits')))]);
  t.mock.timers.tick(1);
  assert.deepEqual([early, (await failed).message], ['waits', 'get credentials: nothing within 35 s']);
});

test('a server that accepts and never answers is given up after the header time-out', async (t) => {
  const server = await startServer(t);
  server.fault({ fault: { kind: 'hang' } });
  const error = await failure(clientFor(t, server, { options: { headerTimeoutMs: 20 } }));
  assert.equal(error.reason, 'Timeout');
});

test('a body that nobody reads to its end is cut off, and holds no connection', async (t) => {
  let closed = false;
  const endless = createHttpServer((_request, response) => {
    response.socket!.once('close', () => (closed = true));
    response.write('one');
  });
  await new Promise<void>((resolve) => endless.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    endless.close();
    endless.closeAllConnections();
  });
  const client = new KubeClient({ master: `http://127.0.0.1:${(endless.address() as AddressInfo).port}` });
  t.after(() => client.close());
  for await (const chunk of await openList(client)) {
    assert.equal(chunk.toString(), 'one');
    break;
  }
  await until('closed', () => closed);
});

test('an abort ends a request that is under way', async (t) => {
  const server = await startServer(t);
  server.fault({ fault: { kind: 'hang' } });
  const client = clientFor(t, server, {});
  const stop = new AbortController();
  const request = openList(client, stop.signal);
  await until('asked', () => server.faults.injected.get('hang') === 1);
  stop.abort();
  await assert.rejects(request, KubeError);
});

test('a kept connection that the server closed meanwhile is no failure', async (t) => {
  const server = await startServer(t, { tls: false });
  const client = new KubeClient({ master: server.url });
  t.after(() => client.close());
  await list(client);
  server.fault({ times: 1, fault: { kind: 'drop' } });
  assert.ok((await list(client)) > 100);
});

test('Retry-After in seconds, as a date, and nonsense', () => {
  const now = Date.UTC(2026, 0, 1);
  assert.equal(parseRetryAfter('7', now), 7000);
  assert.equal(parseRetryAfter(new Date(now + 9000).toUTCString(), now), 9000);
  assert.equal(parseRetryAfter(new Date(now - 9000).toUTCString(), now), 0);
  assert.equal(parseRetryAfter('soon', now), 0);
  assert.equal(parseRetryAfter(undefined, now), 0);
  assert.equal(parseRetryAfter('999999', now), 300_000);
});
