/** What `preflight` says of the way to the API server; of the node itself in test/kernel/preflight.test.ts. */
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { checkApi } from '../../../src/cli/preflight-api.js';
import { type ProxyConfig } from '../../../src/config/proxy-config.js';
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
