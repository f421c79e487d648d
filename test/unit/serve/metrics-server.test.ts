import { type StatusAccess } from '../../../src/values/status-access.js';
import assert from 'node:assert/strict';
import { networkInterfaces } from 'node:os';
import { describe, it, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { metricsHandler } from '../../../src/serve/metrics-server.js';
import { Metrics } from '../../../src/serve/metrics.js';
import { type ServiceQuery, type StatusReport } from '../../../src/serve/status.js';
import { fetchText, serve } from '../../support/http.js';
import { NO_INSPECTION, statusReport } from '../../support/status-report.js';

const NOW = new Date('2026-11-21T07:00:00.000Z');

describe('metrics server', () => {
  const REPORT = statusReport({
    startedAt: new Date(NOW.getTime() - 3_600_000),
    health: { healthy: false, nodeEligible: true, lastUpdated: NOW, reasons: ['<script>alert(1)</script>'] },
    counts: { virtualServers: 42 },
    kernel: { counts: { virtualServers: 41 }, syncingFor: undefined },
    lastSync: { at: NOW, seconds: 0.002, result: '1 real server changed' },
    lastVerification: undefined,
    drains: [{ virtualServer: 'TCP 10.96.0.1:443', realServer: '10.1.2.3:443', connections: 7, deadline: NOW }],
    notes: ['a & b'],
  });

  interface Start {
    readonly queries?: ServiceQuery[];
    readonly report?: Partial<StatusReport>;
    readonly access?: StatusAccess;
    readonly host?: string;
    /** Takes the time that it likes: rendering is synchronous. */
    readonly render?: () => void;
    readonly events?: (sinceMs: number) => object;
  }

  async function start(t: TestContext, options: Start = {}): Promise<number> {
    const metrics = new Metrics({ version: '0.1.0' });
    t.after(() => metrics.close());
    const status = {
      status: () => Promise.resolve({ ...REPORT, ...options.report }),
      services: (query: ServiceQuery) => {
        options.queries?.push(query);
        options.render?.();
        const virtualServers = [{ virtualServer: 'TCP 10.96.0.1:443', scheduler: 'rr', realServers: 3, draining: 1 }];
        return Promise.resolve({ total: 500, services: [{ namespace: 'default', name: 'web', virtualServers }] });
      },
      changes: () => [],
    };
    const { access = 'loopback', host = '127.0.0.1', events } = options;
    const configz = (): object => ({ 'kubeproxy.config.k8s.io': { mode: 'ipvs' } });
    return serve(t, {
      host,
      handler: metricsHandler({
        ...{ metrics, status, inspection: NO_INSPECTION, configz, access, now: () => NOW },
        ...(events && { events }),
      }),
    });
  }

  it('answers /metrics, /proxyMode, /healthz and /configz', async (t) => {
    const port = await start(t);
    const metrics = await fetchText(port, '/metrics');
    assert.match(String(metrics.headers['content-type']), /^text\/plain; version=0\.0\.4/);
    assert.match(metrics.body, /^kubeproxy_ipvs_build_info/m);
    const mode = await fetchText(port, '/proxyMode');
    assert.equal(mode.body, 'ipvs');
    assert.equal(mode.headers['content-type'], 'text/plain; charset=utf-8');
    assert.equal((await fetchText(port, '/healthz')).body, 'ok');
    assert.equal((await fetchText(port, '/healthz/ping')).body, 'ok');
    assert.equal((await fetchText(port, '/healthz?verbose')).body, '[+]ping ok\nhealthz check passed\n');
    const configz = await fetchText(port, '/configz');
    assert.equal(configz.headers['content-type'], 'application/json');
    assert.deepEqual(JSON.parse(configz.body), { 'kubeproxy.config.k8s.io': { mode: 'ipvs' } });
  });

  it('counts its health checks on /metrics/slis, as component-base does', async (t) => {
    const port = await start(t);
    const before = (await fetchText(port, '/metrics/slis')).body;
    const started = Number(/^process_start_time_seconds (\S+)$/m.exec(before)?.[1]);
    assert.ok(Math.abs(started + process.uptime() - Date.now() / 1000) < 60, 'in seconds since the epoch');
    assert.match(before, /^# TYPE kubernetes_healthcheck gauge$/m);
    assert.match(before, /^# TYPE kubernetes_healthchecks_total counter$/m);
    assert.match(before, /^process_start_time_seconds \d/m);
    await fetchText(port, '/healthz');
    await fetchText(port, '/healthz');
    const after = (await fetchText(port, '/metrics/slis')).body.split('\n');
    assert.ok(after.includes('kubernetes_healthcheck{name="ping",type="healthz"} 1'));
    assert.ok(after.includes('kubernetes_healthchecks_total{name="ping",type="healthz",status="success"} 2'));
  });

  it('shows /status and /configz to the node itself, /metrics to everybody (X-L8)', async (t) => {
    const outside = Object.values(networkInterfaces())
      .flatMap((list) => list ?? [])
      .find(({ family, internal }) => family === 'IPv4' && !internal)?.address;
    const port = await start(t, { host: '0.0.0.0' });
    for (const path of ['/status', '/status.json', '/configz', '/metrics', '/'])
      assert.equal((await fetchText(port, path)).status, 200, path);
    if (outside === undefined) {
      t.skip('SKIPPED in part: this machine has no address but loopback');
      return;
    }
    // From loopback to another address of this machine: the peer is neither loopback nor the address asked.
    const ask = async (path: string, from: number): Promise<number> =>
      (await fetchText(from, path, { host: '127.0.0.1', localAddress: outside })).status;
    for (const path of ['/status', '/status/service?name=a/b', '/status.json', '/status?search=x', '/configz'])
      assert.equal(await ask(path, port), 403, path);
    for (const path of ['/metrics', '/metrics/slis', '/healthz', '/proxyMode', '/'])
      assert.equal(await ask(path, port), 200, path);
    assert.equal((await fetchText(port, '/status', { host: outside })).status, 200, 'asked at its own address');
    const open = await start(t, { host: '0.0.0.0', access: 'all' });
    for (const path of ['/status', '/status.json', '/configz']) assert.equal(await ask(path, open), 200, path);
  });

  it('tells events since so many seconds, all of them where nobody says since when', async (t) => {
    const port = await start(t, { events: (sinceMs) => ({ sinceMs: String(sinceMs) }) });
    const since = async (query: string): Promise<unknown> => {
      const { status, body } = await fetchText(port, `/events${query}`);
      assert.equal(status, 200);
      return (JSON.parse(body) as { sinceMs: unknown }).sinceMs;
    };
    assert.deepEqual(
      [await since('?since=90'), await since('?since=0.5'), await since('?since=0')],
      ['90000', '500', '0'],
    );
    for (const query of ['', '?since=x', '?since=-1']) assert.equal(await since(query), 'Infinity', query);
  });

  it('names fifty drains and the last repair, and says how many more there are', async (t) => {
    const at = (ms: number): Date => new Date(NOW.getTime() + ms);
    const drain = (i: number) => ({
      ...{ virtualServer: 'TCP 10.96.0.1:443', realServer: `10.1.2.${i}:443`, connections: 1000 + i },
      deadline: i === 0 ? undefined : at(i === 1 ? -5000 : 90_000),
    });
    const repair = { at: at(-3000), kind: 'missing', object: 'real_server', name: 'x', services: ['a/b'] } as const;
    const page = async (drains: number, draining: number, total: number): Promise<string> => {
      const report = {
        drains: Array.from({ length: drains }, (_, i) => drain(i)),
        kernel: { counts: { drainingRealServers: draining }, syncingFor: undefined },
        ...{ lastRepair: { ...repair, total }, repairs: { real_server: total, address: 1 } },
      };
      const { body } = await fetchText(await start(t, { report: report }), '/status');
      return body.replace(/<[^>]*>/g, ' ').replace(/\s+/g, ' ');
    };
    const many = await page(60, 1070, 3);
    assert.match(many, /10\.1\.2\.0:443 TCP 10\.96\.0\.1:443 1,000 none /);
    assert.match(many, /10\.1\.2\.1:443 TCP 10\.96\.0\.1:443 1,001 0 ms /);
    assert.match(many, /10\.1\.2\.49:443 TCP 10\.96\.0\.1:443 1,049 90 s and 1,020 more; Services that drain/);
    assert.match(many, /3 real servers, 1 address /);
    assert.match(many, /Last, 3 s ago: missing real server x \( ?a\/b ?\) and 2 more differences/);
    const few = await page(50, 3, 1);
    assert.doesNotMatch(few, /more; Services that drain|more difference/);
    assert.match(await page(1, 0, 2), /and 1 more difference /);
    assert.doesNotMatch(await page(0, 5, 1), /Draining real servers/);
  });

  it('has no status page when it is off', async (t) => {
    const port = await start(t, { access: 'off' });
    for (const path of ['/status', '/status/', '/status/service', '/status.json'])
      assert.equal((await fetchText(port, path)).status, 404);
    assert.equal((await fetchText(port, '/configz')).status, 200);
    assert.doesNotMatch((await fetchText(port, '/')).body, /status/);
  });

  it('leads from / and /status/ to the page', async (t) => {
    const port = await start(t);
    assert.match((await fetchText(port, '/')).body, /href="\/status"/);
    const { status, headers } = await fetchText(port, '/status/?search=web');
    assert.deepEqual([status, headers.location], [308, '/status?search=web']);
  });

  it('renders one page at a time with other work in between; beyond eight that wait it says 503', async (t) => {
    let rendering = 0;
    const render = (): void => {
      rendering++;
      const end = performance.now() + 20;
      while (performance.now() < end);
    };
    const port = await start(t, { render });
    const pages = Array.from({ length: 30 }, () => fetchText(port, '/status.json'));
    // Probes get their turn meanwhile: not all pages are rendered by then.
    await sleep(1);
    assert.equal((await fetchText(port, '/healthz')).status, 200);
    assert.ok(rendering < 9, `${rendering} pages were rendered before the probe`);
    const answers = await Promise.all(pages);
    const busy = answers.filter(({ status }) => status === 503);
    assert.ok(busy.length >= 10, `${busy.length} of 30 were told to come again`);
    assert.ok(busy.every(({ headers }) => headers['retry-after'] === '1'));
    assert.equal(answers.filter(({ status }) => status === 200).length, 30 - busy.length);
    assert.equal((await fetchText(port, '/status')).status, 200);
  });

  it('bounds what one page asks for, and has no page beyond the last', async (t) => {
    const queries: ServiceQuery[] = [];
    const port = await start(t, { queries });
    const ask = async (parameters: string): Promise<ServiceQuery> => {
      queries.length = 0;
      const { body } = await fetchText(port, `/status.json?${parameters}`);
      const { query, total } = JSON.parse(body) as { query: ServiceQuery; total: number };
      assert.deepEqual(query, queries.at(-1));
      assert.equal(total, 500);
      return query;
    };
    assert.deepEqual(await ask('search=Web&offset=20&limit=99999999'), { search: 'web', offset: 20, limit: 1000 });
    assert.deepEqual(await ask('offset=-1&limit=x'), { search: '', offset: 0, limit: 100 });
    assert.deepEqual(await ask('limit=0'), { search: '', offset: 0, limit: 100 });
    assert.deepEqual(await ask('offset=500&limit=30'), { search: '', offset: 480, limit: 30 });
    assert.deepEqual(await ask('offset=999999&limit=1000'), { search: '', offset: 0, limit: 1000 });
  });
});
