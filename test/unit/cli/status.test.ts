/** The command `status` against the page as the daemon serves it. */
import assert from 'node:assert/strict';
import { describe, test, type TestContext } from 'node:test';
import { parse } from 'yaml';
import { type OutputFormat } from '../../../src/cli/see.js';
import { age } from '../../../src/cli/status-text.js';
import { runStatus } from '../../../src/cli/status.js';
import { type Environment } from '../../../src/daemon/environment.js';
import { metricsHandler } from '../../../src/serve/metrics-server.js';
import {
  type ServiceQuery,
  type StatusHealth,
  type StatusReport,
  type StatusService,
} from '../../../src/serve/status.js';
import { serve } from '../../support/http.js';
import { NO_INSPECTION, statusReport } from '../../support/status-report.js';

const AT = new Date('2026-11-21T07:00:00.000Z');
const VERSIONS = { kernel: '6.1.0', iptables: '1.8.9 (nft)', families: 'IPv4, IPv6' };
const HEALTHY: StatusHealth = { healthy: true, nodeEligible: true, lastUpdated: AT, reasons: [] };

/** 2,345 Services, one page of those that match. */
function servicesOf({ search, offset, limit }: ServiceQuery): Promise<{ total: number; services: StatusService[] }> {
  const all = Array.from({ length: 2345 }, (_, i): StatusService => {
    const virtualServers = [
      { virtualServer: `TCP 10.96.${i >> 8}.${i & 255}:80`, scheduler: 'rr', realServers: 2, draining: 1 },
    ];
    return { namespace: 'shop', name: `web-${i}`, virtualServers };
  });
  const found = all.filter(({ name }) => name.includes(search));
  return Promise.resolve({ total: found.length, services: found.slice(offset, offset + limit) });
}

const SEE = { format: undefined, headers: true, watchMs: undefined };

async function status(
  t: TestContext,
  health: StatusHealth,
  more: { format?: OutputFormat; search?: string; report?: Partial<StatusReport> } = {},
): Promise<{ code: number; text: string }> {
  const report = statusReport({
    ...{ startedAt: AT, health },
    ...{ counts: { services: 3 }, kernel: { counts: { virtualServers: 5 }, syncingFor: undefined } },
    notes: ['something to know'],
    ...{ repairs: { virtual_server: 3, rule: 1 }, versions: VERSIONS },
    ...more.report,
  });
  const source = { status: () => Promise.resolve(report), services: servicesOf, changes: () => [] };
  const metrics = { text: () => Promise.resolve(''), contentType: 'text/plain' };
  const handler = metricsHandler({
    metrics,
    status: source,
    inspection: NO_INSPECTION,
    configz: () => ({}),
    access: 'loopback',
  });
  const port = await serve(t, { handler });
  let text = '';
  const environment = { out: (part: string) => void (text += part), err: () => undefined } as unknown as Environment;
  const document = {
    apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
    kind: 'KubeProxyConfiguration',
    metricsBindAddress: `127.0.0.1:${port}`,
  };
  const options = { configFile: undefined, document, overrides: {}, manifests: undefined, warnings: [] };
  return { code: await runStatus({ ...options, ...SEE, ...more }, environment), text };
}

test('an age has the unit that a reader would choose', () => {
  const now = new Date('2026-11-26T08:00:00Z');
  const said = { 0: '0 s', 12: '12 s', 119: '119 s', 120: '2 min', 7199: '120 min', 7200: '2 h', 172_799: '48 h' };
  const more = { 172_800: '2 d', 864_000: '10 d', '-5': '0 s' };
  for (const [seconds, text] of Object.entries({ ...said, ...more }))
    assert.equal(age(new Date(now.getTime() - Number(seconds) * 1000).toISOString(), now), text, seconds);
});

describe('status', () => {
  test('healthy: exit code 0, what is wanted and what is written, the notes', async (t) => {
    const { code, text } = await status(t, HEALTHY);
    assert.equal(code, 0);
    assert.match(text, /^node node-0, version 0\.1\.0: healthy\n/);
    assert.match(text, /\nup for [^;]+; kernel 6\.1\.0, iptables 1\.8\.9 \(nft\), IPv4, IPv6\n/);
    assert.match(text, /\nwanted: 3 Services\n/);
    assert.match(text, /\nwritten: 5 virtual servers\n/);
    assert.match(text, /\nlast sync: none yet\nlast verification: none yet\ndrains: none\n/);
    assert.match(text, /\nrepaired in the last hour: 3 virtual_server, 1 rule\n/);
    assert.match(text, /note: something to know\n/);
  });

  test('says when VIPs are routes', async (t) => {
    const { text } = await status(t, HEALTHY, { report: { versions: { ...VERSIONS, vips: 'routes' } } });
    assert.match(text, /, IPv4, IPv6, VIPs as routes\n/);
  });

  test('drains are counted and some of them named; notes are bounded', async (t) => {
    const drain = (i: number): StatusReport['drains'][number] => ({
      ...{ virtualServer: `TCP 10.96.0.${i}:80`, realServer: '10.0.0.1:8080', connections: 2 },
      deadline: new Date(AT.getTime() + i * 1000),
    });
    const drains = Array.from({ length: 5 }, (_, i) => drain(i));
    const notes = Array.from({ length: 40 }, (_, i) => `note ${i}`);
    const lastSync = { at: AT, seconds: 0.0123, result: '2 real servers added' };
    const { text } = await status(t, HEALTHY, { report: { drains, notes, lastSync } });
    assert.match(text, /\nlast sync: [0-9]+ (s|min|h|d) ago, 2 real servers added \(0\.012 s\)\n/);
    assert.match(
      text,
      /\ndrains: 5 with 10 connections, until 2026-11-21T07:00:04\.000Z at the latest: TCP 10\.96\.0\.0:80 -> /,
    );
    assert.match(text, / and 2 more\n/);
    assert.match(text, /\nnote: note 11\nand 28 more notes \(-o wide has them\)\n$/);
    const wide = (await status(t, HEALTHY, { format: 'wide', report: { drains, notes, lastSync } })).text;
    assert.match(wide, /\nnote: note 39\n$/);
    assert.match(wide, / TCP 10\.96\.0\.4:80 -> 10\.0\.0\.1:8080 \(2\)\n/);
  });

  test('drains without a deadline have none; the last repair is told with its Service', async (t) => {
    const drain = { virtualServer: 'TCP 10.96.0.1:80', realServer: '10.0.0.1:8080', connections: 2 };
    const lastRepair = { at: AT, object: 'real_server', kind: 'missing', name: 'TCP 10.96.0.1:80 -> 10.0.0.2:8080' };
    const { text } = await status(t, HEALTHY, {
      report: {
        drains: [{ ...drain, deadline: undefined }],
        kernel: { counts: { drainingRealServers: 1500 }, syncingFor: undefined },
        lastRepair: { ...lastRepair, services: ['shop/web'], total: 3 },
      },
    });
    assert.match(text, /\ndrains: 1500 with 2 connections, without a deadline: .* and 1499 more\n/);
    assert.match(
      text,
      /; last [0-9]+ [smhd]\w* ago: missing real_server TCP 10\.96\.0\.1:80 -> 10\.0\.0\.2:8080 \(shop\/web\) and 2 more\n/,
    );
  });

  test('not healthy: exit code 1 and why', async (t) => {
    const { code, text } = await status(t, { ...HEALTHY, healthy: false, reasons: ['rules: they wait'] });
    assert.equal(code, 1);
    assert.match(text, /NOT HEALTHY\n {2}rules: they wait\n/);
  });

  test('a node that is going (D21): exit code 1 and why', async (t) => {
    const reasons = ['node: the node is being deleted'];
    const { code, text } = await status(t, { ...HEALTHY, nodeEligible: false, reasons });
    assert.equal(code, 1);
    assert.match(text, /NOT HEALTHY\n {2}node: the node is being deleted\n/);
  });

  test('as JSON it has every Service, however many pages they are (D23)', async (t) => {
    const { text } = await status(t, HEALTHY, { format: 'json' });
    const page = JSON.parse(text) as { total: number; services: StatusService[]; report: StatusReport };
    assert.deepEqual([page.total, page.services.length, page.report.node], [2345, 2345, 'node-0']);
    assert.equal(new Set(page.services.map(({ name }) => name)).size, 2345);
  });

  test('as names it has every Service, and as YAML what it has as JSON', async (t) => {
    const names = (await status(t, HEALTHY, { format: 'name' })).text.trimEnd().split('\n');
    assert.deepEqual([names.length, names[0]], [2345, 'shop/web-0']);
    const { report } = parse((await status(t, HEALTHY, { format: 'yaml' })).text) as { report: StatusReport };
    assert.deepEqual([report.node, report.counts], ['node-0', { services: 3 }]);
  });

  test('shows the Services that a search finds', async (t) => {
    const { text } = await status(t, HEALTHY, { search: 'web-1234' });
    assert.match(text, /\nshop\/web-1234\n {2}TCP 10\.96\.4\.210:80 rr: 2 real servers, 1 draining\n$/);
    assert.match((await status(t, HEALTHY, { search: 'nobody' })).text, /\nno Service matches\n$/);
    assert.doesNotMatch((await status(t, HEALTHY)).text, /shop\//);
  });
});
