/** What `preflight` says of the surroundings; of the node itself in test/kernel/preflight.test.ts. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { checkApi, checkTables } from '../../../src/cli/preflight-surroundings.js';
import { type ProxyConfig } from '../../../src/config/proxy-config.js';
import { Sysctl } from '../../../src/kernel/node/sysctl.js';
import { FakeApiServer } from '../../fakes/api-server.js';

const NODE = { kind: 'Node', apiVersion: 'v1', metadata: { name: 'node-0' } };

async function apiServer(t: TestContext): Promise<{ api: FakeApiServer; config: ProxyConfig }> {
  const api = new FakeApiServer();
  api.set(NODE);
  await api.start();
  t.after(() => api.stop());
  return { api, config: { master: api.url, kubeconfig: undefined } as ProxyConfig };
}

test('an API server that lists what is needed and knows the Node is ok', async (t) => {
  const { config, api } = await apiServer(t);
  const { state, detail } = await checkApi(config, 'node-0');
  assert.deepEqual([state, detail], ['ok', `${api.url} lists Services, EndpointSlices and Node node-0`]);
  assert.equal(api.requests.length, 3);
});

test('a wrong node name, missing rights and an API server that is away fail, with the fix', async (t) => {
  const { config, api } = await apiServer(t);
  const unknown = await checkApi(config, 'node-9');
  assert.deepEqual(
    [unknown.state, /knows no Node node-9: set hostnameOverride/.test(unknown.detail)],
    ['failed', true],
  );
  api.fault({ resource: 'endpointslices', fault: { kind: 'status', code: 403, reason: 'Forbidden' } });
  const refused = await checkApi(config, 'node-0');
  assert.equal(refused.state, 'failed');
  assert.match(refused.detail, /list endpointslices: 403 Forbidden: add a rule .*discovery\.k8s\.io.*endpointslices/);
  await api.stop();
  const away = await checkApi(config, 'node-0');
  assert.deepEqual([away.state, /ECONNREFUSED/.test(away.detail)], ['failed', true]);
});

test('the tables are told with their sizes, and what is nearly full', () => {
  const root = mkdtempSync(join(tmpdir(), 'preflight-'));
  const write = (name: string, text: string): void => {
    mkdirSync(dirname(join(root, name)), { recursive: true });
    writeFileSync(join(root, name), text);
  };
  write('net/netfilter/nf_conntrack_count', '95\n');
  write('net/netfilter/nf_conntrack_max', '100\n');
  write('conn_tab_bits', '12\n');
  const [, connections, conntrack] = checkTables(new Sysctl(root), join(root, 'conn_tab_bits'));
  assert.match(connections!.detail, /^4096 buckets \(conn_tab_bits=12\), enough for some 16384 connections/);
  assert.match(conntrack!.detail, /^95 of 100 entries; NEARLY FULL/);
  const [, none, absent] = checkTables(new Sysctl('/nowhere'), '/nowhere');
  assert.deepEqual([none!.detail, absent!.detail], ['ip_vs is not loaded', 'nf_conntrack is not loaded']);
});
