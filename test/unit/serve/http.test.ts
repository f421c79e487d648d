import assert from 'node:assert/strict';
import { type IncomingHttpHeaders, get, request } from 'node:http';
import { type AddressInfo, createServer } from 'node:net';
import { networkInterfaces } from 'node:os';
import { describe, it, type TestContext } from 'node:test';
import { loadConfigText } from '../../../src/config/load.js';
import { ServeError } from '../../../src/serve/errors.js';
import { type HealthReport, healthHandler } from '../../../src/serve/health.js';
import { Listener, type ListenerOptions } from '../../../src/serve/listener.js';
import { metricsHandler } from '../../../src/serve/metrics-server.js';
import { Metrics } from '../../../src/serve/metrics.js';
import { ServiceHealthServer } from '../../../src/serve/service-health.js';
import { type ServiceQuery, type StatusReport } from '../../../src/serve/status.js';
import { type Address, parseAddress } from '../../../src/values/address.js';

const hasIPv6 = Object.values(networkInterfaces()).some((list) => list?.some(({ address }) => address === '::1'));
const needsIPv6 = { skip: hasIPv6 ? false : 'this machine has no ::1' };

interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

function fetchText(port: number, path: string, options: { host?: string; method?: string } = {}): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const sent = request(
      { host: options.host ?? '127.0.0.1', port, path, method: options.method ?? 'GET' },
      (response) => {
        let body = '';
        response.setEncoding('utf8').on('data', (chunk: string) => (body += chunk));
        response.on('end', () => resolve({ status: response.statusCode!, headers: response.headers, body }));
      },
    );
    sent.on('error', reject).end();
  });
}

function recordingLog() {
  const lines: string[] = [];
  const log = {
    info: (_fields: object, message: string) => void lines.push(message),
    warn: (_fields: object, message: string) => void lines.push(message),
  };
  return { lines, log };
}

async function serve(t: TestContext, options: Partial<ListenerOptions>): Promise<number> {
  const { log } = recordingLog();
  const listener = new Listener({
    name: 'test',
    host: '127.0.0.1',
    port: 0,
    handler: () => undefined,
    log,
    ...options,
  });
  await listener.start();
  t.after(() => listener.close());
  return listener.port!;
}

/** A TCP port that somebody else holds. */
async function takenPort(
  t: TestContext,
  host: string,
  port = 0,
): Promise<{ port: number; release: () => Promise<void> }> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(port, host, resolve));
  const release = (): Promise<void> => new Promise((resolve) => server.close(() => resolve()));
  t.after(() => (server.listening ? release() : undefined));
  return { port: (server.address() as AddressInfo).port, release };
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 2));
}

const GREEN: HealthReport = { healthy: true, nodeEligible: true, lastUpdated: new Date(1000), reasons: [] };
const NOW = new Date('2026-11-21T07:00:00.000Z');

describe('health server', () => {
  const counted: string[] = [];
  const counters = {
    healthzAnswered: (code: number) => void counted.push(`healthz ${code}`),
    livezAnswered: (code: number) => void counted.push(`livez ${code}`),
  };
  async function ask(t: TestContext, path: string, report: HealthReport): Promise<Answer> {
    const source = { healthz: () => report, livez: () => report };
    const port = await serve(t, { handler: healthHandler(source, counters, () => NOW) });
    return fetchText(port, path);
  }

  it("answers green in kube-proxy's words, lastUpdated being now", async (t) => {
    const families = [{ family: 4, healthy: true, lastUpdated: new Date(1000) }] as const;
    const answer = await ask(t, '/healthz', { ...GREEN, families });
    assert.equal(answer.status, 200);
    assert.equal(answer.headers['content-type'], 'application/json');
    assert.equal(answer.headers['x-content-type-options'], 'nosniff');
    const expected =
      '{"lastUpdated":"2026-11-21T07:00:00.000Z","currentTime":"2026-11-21T07:00:00.000Z","nodeEligible":true,' +
      '"healthy":true,"status":{"IPv4":{"lastUpdated":"1970-01-01T00:00:01.000Z","healthy":true}}}';
    assert.equal(answer.body, expected);
  });

  it('answers red with the real lastUpdated and the reasons', async (t) => {
    const answer = await ask(t, '/healthz', { ...GREEN, healthy: false, reasons: ['watch is silent'] });
    assert.equal(answer.status, 503);
    assert.deepEqual(JSON.parse(answer.body), {
      lastUpdated: '1970-01-01T00:00:01.000Z',
      currentTime: NOW.toISOString(),
      nodeEligible: true,
      healthy: false,
      reasons: ['watch is silent'],
    });
  });

  it('is red on /healthz, not on /livez, while the node goes away', async (t) => {
    const leaving = { ...GREEN, nodeEligible: false, lastUpdated: undefined };
    const healthz = await ask(t, '/healthz', leaving);
    assert.equal(healthz.status, 503);
    const body = JSON.parse(healthz.body) as Record<string, unknown>;
    assert.equal(body.lastUpdated, '0001-01-01T00:00:00Z');
    assert.equal(body.nodeEligible, false);
    assert.equal(body.healthy, true);
    assert.match(String(body.reasons), /being deleted/);
    const livez = await ask(t, '/livez', leaving);
    assert.equal(livez.status, 200);
    assert.ok(!('nodeEligible' in (JSON.parse(livez.body) as object)));
  });

  it('counts its answers, refuses other methods and paths, and answers HEAD without a body', async (t) => {
    counted.length = 0;
    const source = { healthz: () => GREEN, livez: () => ({ ...GREEN, healthy: false }) };
    const port = await serve(t, { handler: healthHandler(source, counters) });
    await fetchText(port, '/healthz?verbose');
    await fetchText(port, '/livez');
    assert.deepEqual(counted, ['healthz 200', 'livez 503']);
    assert.equal((await fetchText(port, '/metrics')).status, 404);
    assert.equal((await fetchText(port, '/healthz', { method: 'POST' })).status, 405);
    const head = await fetchText(port, '/healthz', { method: 'HEAD' });
    assert.deepEqual([head.status, head.body], [200, '']);
  });

  it('answers 500 when the source throws, and goes on', async (t) => {
    let broken = true;
    const healthz = (): HealthReport => {
      if (broken) throw new Error('secret detail');
      return GREEN;
    };
    const port = await serve(t, { handler: healthHandler({ healthz, livez: healthz }, counters) });
    const answer = await fetchText(port, '/healthz');
    assert.deepEqual([answer.status, answer.body], [500, 'internal error\n']);
    broken = false;
    assert.equal((await fetchText(port, '/healthz')).status, 200);
  });
});

describe('listener', () => {
  const handler = healthHandler(
    { healthz: () => GREEN, livez: () => GREEN },
    { healthzAnswered: () => undefined, livezAnswered: () => undefined },
  );

  it('serves both families on 0.0.0.0, as Go does', needsIPv6, async (t) => {
    const port = await serve(t, { host: '0.0.0.0', handler });
    assert.equal((await fetchText(port, '/healthz', { host: '127.0.0.1' })).status, 200);
    assert.equal((await fetchText(port, '/healthz', { host: '::1' })).status, 200);
  });

  it('retries a taken port, says so once, and listens when it is free', async (t) => {
    const { port, release } = await takenPort(t, '127.0.0.1');
    const { lines, log } = recordingLog();
    const options = {
      name: 'health server',
      host: '127.0.0.1',
      port,
      handler,
      log,
      fix: 'is kube-proxy still running?',
    };
    const listener = new Listener({ ...options, retryMs: [1, 4] });
    t.after(() => listener.close());
    await listener.start();
    assert.equal(listener.port, undefined);
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.deepEqual(lines, [
      `health server cannot listen on 127.0.0.1:${port}: another process has this port; is kube-proxy still running?; retrying until it succeeds`,
    ]);
    await release();
    await until(() => listener.port !== undefined);
    assert.equal((await fetchText(port, '/healthz')).status, 200);
    assert.equal(lines.length, 2);
  });

  it('fails at once with bindAddressHardFail', async (t) => {
    const { port } = await takenPort(t, '127.0.0.1');
    const { lines, log } = recordingLog();
    const listener = new Listener({ name: 'x', host: '127.0.0.1', port, handler, log, hardFail: true });
    await assert.rejects(listener.start(), (error) => {
      assert.ok(error instanceof ServeError && error.code === 'EADDRINUSE' && error.cause instanceof Error);
      return true;
    });
    assert.deepEqual(lines, []);
  });

  it('closes at once although a client keeps its connection open', async () => {
    const { log } = recordingLog();
    const listener = new Listener({ name: 'x', host: '127.0.0.1', port: 0, handler, log });
    await listener.start();
    const closed = new Promise((resolve) => {
      get({ port: listener.port!, path: '/livez', headers: { Connection: 'keep-alive' } }, (response) => {
        response.resume().on('end', () => void listener.close().then(resolve));
      });
    });
    await closed;
    assert.equal(listener.port, undefined);
  });

  it('cuts off a request with oversized headers', async (t) => {
    const port = await serve(t, { handler });
    const status = await new Promise((resolve, reject) => {
      const sent = request({ port, path: '/healthz', headers: { 'X-Junk': 'x'.repeat(20_000) } }, (response) => {
        resolve(response.resume().statusCode);
      });
      sent.on('error', reject).end();
    });
    assert.equal(status, 431);
  });
});

describe('metrics server', () => {
  const REPORT: StatusReport = {
    node: 'node-0',
    version: '0.1.0',
    startedAt: new Date(NOW.getTime() - 3_600_000),
    health: { ...GREEN, healthy: false, reasons: ['<script>alert(1)</script>'] },
    counts: { 'virtual servers': 42 },
    lastSync: { at: NOW, seconds: 0.002, result: '1 real server changed' },
    lastVerification: undefined,
    drains: [{ virtualServer: 'TCP 10.96.0.1:443', realServer: '10.1.2.3:443', connections: 7, deadline: NOW }],
    notes: ['a & b'],
  };

  async function start(t: TestContext, queries: ServiceQuery[] = []): Promise<number> {
    const metrics = new Metrics({ version: '0.1.0' });
    t.after(() => metrics.close());
    const status = {
      status: () => REPORT,
      services: (query: ServiceQuery) => {
        queries.push(query);
        const virtualServers = [{ virtualServer: 'TCP 10.96.0.1:443', scheduler: 'rr', realServers: 3, draining: 1 }];
        return { total: 500, services: [{ namespace: 'default', name: 'web"><b>', virtualServers }] };
      },
    };
    const head = 'apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n';
    const { config } = loadConfigText(`${head}clusterCIDR: 10.0.0.0/8\nbindAddress: "::"`, 'test');
    return serve(t, { handler: metricsHandler({ metrics, status, config, now: () => NOW }) });
  }

  it('answers /metrics, /proxyMode, /healthz and /configz', async (t) => {
    const port = await start(t);
    const metrics = await fetchText(port, '/metrics');
    assert.match(String(metrics.headers['content-type']), /^text\/plain; version=0\.0\.4/);
    assert.match(metrics.body, /^kubernetes_build_info/m);
    const mode = await fetchText(port, '/proxyMode');
    assert.equal(mode.body, 'ipvs');
    assert.equal(mode.headers['content-type'], 'text/plain; charset=utf-8');
    assert.equal((await fetchText(port, '/healthz')).body, 'ok');
    const configz = JSON.parse((await fetchText(port, '/configz')).body) as Record<string, Record<string, unknown>>;
    const config = configz['kubeproxy.config.k8s.io']!;
    assert.equal(config.bindAddress, '::');
    assert.deepEqual(config.detectLocal, { mode: 'ClusterCIDR', cidrs: { 4: ['10.0.0.0/8'], 6: [] } });
  });

  it('shows a status page in which nothing can inject markup', async (t) => {
    const { status, headers, body } = await fetchText(await start(t), '/status?search=%22%3E%3Cimg');
    assert.equal(status, 200);
    assert.match(String(headers['content-type']), /^text\/html/);
    assert.match(String(headers['content-security-policy']), /default-src 'none'/);
    assert.doesNotMatch(body, /<script|<img|web"><b>/);
    for (const text of [
      '&lt;script&gt;',
      'value="&quot;&gt;&lt;img"',
      'web&quot;&gt;&lt;b&gt;',
      'a &amp; b',
      '42 virtual servers',
    ]) {
      assert.ok(body.includes(text), text);
    }
    assert.match(body, /10\.1\.2\.3:443.*<td class="n">7<\/td>/);
    assert.match(body, /1 to 1 of 500.*href="\?search=%22%3E%3Cimg&amp;offset=1&amp;limit=100">next/);
  });

  it('bounds what one page asks for', async (t) => {
    const queries: ServiceQuery[] = [];
    const port = await start(t, queries);
    await fetchText(port, '/status.json?search=Web&offset=20&limit=99999999');
    await fetchText(port, '/status.json?offset=-1&limit=x');
    assert.deepEqual(queries, [
      { search: 'web', offset: 20, limit: 1000 },
      { search: '', offset: 0, limit: 100 },
    ]);
    const page = JSON.parse((await fetchText(port, '/status.json')).body) as {
      total: number;
      report: { node: string };
    };
    assert.deepEqual([page.total, page.report.node], [500, 'node-0']);
  });
});

describe('service health check ports', () => {
  const LOOPBACK_4 = parseAddress('127.0.0.1')!;
  const LOOPBACK_6 = parseAddress('::1')!;

  async function freePort(t: TestContext): Promise<number> {
    const { port, release } = await takenPort(t, '127.0.0.1');
    await release();
    return port;
  }

  function create(t: TestContext, isHealthy = () => true) {
    const { lines, log } = recordingLog();
    const server = new ServiceHealthServer({ log, isProxyHealthy: isHealthy, retryMs: [1, 2] });
    t.after(() => server.close());
    return { server, lines };
  }

  const one = (port: number, localEndpoints: number, name = 'web') =>
    new Map([[port, { namespace: 'default', name, localEndpoints }]]);

  it("answers in kube-proxy's words with the count as weight", async (t) => {
    let healthy = true;
    const { server } = create(t, () => healthy);
    const port = await freePort(t);
    await server.update(one(port, 2), 'all');
    const green = await fetchText(port, '/');
    assert.equal(green.status, 200);
    assert.equal(green.headers['content-type'], 'application/json');
    assert.equal(green.headers['x-content-type-options'], 'nosniff');
    assert.equal(green.headers['x-load-balancing-endpoint-weight'], '2');
    assert.equal(
      green.body,
      '{\n\t"service": {\n\t\t"namespace": "default",\n\t\t"name": "web"\n\t},\n\t"localEndpoints": 2,\n\t"serviceProxyHealthy": true\n}',
    );
    healthy = false;
    assert.equal((await fetchText(port, '/')).status, 503);
  });

  it('answers 503 without local endpoints, on the same socket as before', async (t) => {
    const { server } = create(t);
    const port = await freePort(t);
    await server.update(one(port, 1), [LOOPBACK_4]);
    const before = server.listening;
    await server.update(one(port, 0), [LOOPBACK_4]);
    assert.deepEqual(server.listening, before);
    const answer = await fetchText(port, '/');
    assert.deepEqual([answer.status, answer.headers['x-load-balancing-endpoint-weight']], [503, '0']);
  });

  it('follows the node addresses and the Services', needsIPv6, async (t) => {
    const { server } = create(t);
    const [first, second] = [await freePort(t), await freePort(t)];
    const keys = async (ports: number[], addresses: Address[]): Promise<string[]> => {
      await server.update(new Map(ports.flatMap((port) => [...one(port, 1)])), addresses);
      return [...server.listening.keys()].sort();
    };
    assert.deepEqual(await keys([first], [LOOPBACK_4]), [`127.0.0.1:${first}`]);
    await assert.rejects(fetchText(first, '/', { host: '::1' }), { code: 'ECONNREFUSED' });
    assert.deepEqual(await keys([first], [LOOPBACK_4, LOOPBACK_6]), [`127.0.0.1:${first}`, `[::1]:${first}`]);
    assert.equal((await fetchText(first, '/', { host: '::1' })).status, 200);
    assert.deepEqual(await keys([second], [LOOPBACK_6]), [`[::1]:${second}`]);
    await assert.rejects(fetchText(first, '/'), { code: 'ECONNREFUSED' });
    assert.deepEqual(await keys([], []), []);
    await assert.rejects(fetchText(second, '/', { host: '::1' }), { code: 'ECONNREFUSED' });
  });

  it('logs one clear line for a port in use, and takes the port when it is free', async (t) => {
    const { port, release } = await takenPort(t, '127.0.0.1');
    const { server, lines } = create(t);
    await server.update(one(port, 1), [LOOPBACK_4]);
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.equal(lines.length, 1);
    assert.match(
      lines[0]!,
      /^health check of Service default\/web cannot listen on .*: another process has this port; a process/,
    );
    await release();
    await until(() => server.listening.get(`127.0.0.1:${port}`) === port);
    assert.equal((await fetchText(port, '/')).status, 200);
  });

  it('stops retrying when the Service goes', async (t) => {
    const { port, release } = await takenPort(t, '127.0.0.1');
    const { server } = create(t);
    await server.update(one(port, 1), [LOOPBACK_4]);
    await server.update(new Map(), [LOOPBACK_4]);
    await release();
    await new Promise((resolve) => setTimeout(resolve, 20));
    await assert.rejects(fetchText(port, '/'), { code: 'ECONNREFUSED' });
  });

  it('leaves other ports alone when one Service takes over another port', async (t) => {
    const { server } = create(t);
    const port = await freePort(t);
    await server.update(one(port, 1, 'old'), [LOOPBACK_4]);
    await server.update(one(port, 4, 'new'), [LOOPBACK_4]);
    const answer = JSON.parse((await fetchText(port, '/')).body) as {
      service: { name: string };
      localEndpoints: number;
    };
    assert.deepEqual([answer.service.name, answer.localEndpoints], ['new', 4]);
  });
});
