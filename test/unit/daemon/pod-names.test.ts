/** Names of pods, nodes and zones as the API server tells them: of one Service, in pages, and why not. */
import assert from 'node:assert/strict';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test, type TestContext } from 'node:test';
import { lookUpPodNames } from '../../../src/daemon/cluster/pod-names.js';
import { type ApiObject } from '../../fakes/api-server-store.js';
import { FakeApiServer } from '../../fakes/api-server.js';

function slice(namespace: string, service: string, suffix: string, endpoints: readonly object[]): ApiObject {
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { namespace, name: `${service}-${suffix}`, labels: { 'kubernetes.io/service-name': service } },
    addressType: 'IPv4',
    ports: [{ name: '', port: 80, protocol: 'TCP' }],
    endpoints,
  };
}

async function start(t: TestContext, ...objects: ApiObject[]): Promise<{ api: FakeApiServer; kubeconfig: string }> {
  const api = new FakeApiServer({ maxPage: 1 });
  api.set(...objects);
  await api.start();
  t.after(() => api.stop());
  const kubeconfig = join(mkdtempSync(join(tmpdir(), 'pods-')), 'kubeconfig');
  const context = { name: 'fake', context: { cluster: 'fake', user: 'fake' } };
  const clusters = [{ name: 'fake', cluster: { server: api.url } }];
  const users = [{ name: 'fake', user: {} }];
  const config = { apiVersion: 'v1', kind: 'Config', clusters, users, contexts: [context], 'current-context': 'fake' };
  writeFileSync(kubeconfig, JSON.stringify(config));
  return { api, kubeconfig };
}

describe('names of pods', () => {
  test('are of the slices of that Service alone, of all of them', async (t) => {
    const pod = (name: string): object => ({ targetRef: { kind: 'Pod', name } });
    const { api, kubeconfig } = await start(
      t,
      slice('shop', 'web', 'a', [{ addresses: ['10.0.0.1'], nodeName: 'n-1', zone: 'z-1', ...pod('web-0') }]),
      slice('shop', 'web', 'b', [
        { addresses: ['10.0.0.2'], targetRef: { kind: 'VirtualMachine', name: 'vm' } },
        { addresses: ['10.0.0.3'] },
        { addresses: ['nonsense'], ...pod('nobody') },
        null as unknown as object,
      ]),
      slice('shop', 'other', 'a', [{ addresses: ['10.0.0.9'], ...pod('other-0') }]),
      slice('prod', 'web', 'a', [{ addresses: ['10.0.0.1'], ...pod('elsewhere') }]),
    );
    const found = await lookUpPodNames({ kubeconfig, master: undefined }, 'shop', 'web');
    assert.deepEqual(Object.fromEntries(found), {
      '10.0.0.1': { pod: 'web-0', node: 'n-1', zone: 'z-1' },
      '10.0.0.2': { pod: 'VirtualMachine/vm', node: '', zone: '' },
      '10.0.0.3': { pod: '', node: '', zone: '' },
    });
    assert.equal(api.requests.length, 2, 'two pages, of the slices of this Service');
  });

  test('are asked of the API server that `master` names, with a kubeconfig or without', async (t) => {
    const { api } = await start(t, slice('shop', 'web', 'a', [{ addresses: ['10.0.0.1'], nodeName: 'n-1' }]));
    const elsewhere = await start(t);
    for (const kubeconfig of [undefined, elsewhere.kubeconfig]) {
      const found = await lookUpPodNames({ kubeconfig, master: api.url }, 'shop', 'web');
      assert.deepEqual([...found.keys()], ['10.0.0.1']);
    }
    assert.equal(elsewhere.api.requests.length, 0);
  });

  test('that are forbidden, or an API server that is away, are an error with the fix', async (t) => {
    const { api, kubeconfig } = await start(t);
    api.faults.add({ resource: 'endpointslices', fault: { kind: 'status', code: 403, reason: 'Forbidden' } });
    await assert.rejects(
      lookUpPodNames({ kubeconfig, master: undefined }, 'shop', 'web'),
      /403 Forbidden: add a rule \{apiGroups: \["discovery\.k8s\.io"\], resources: \["endpointslices"\]/,
    );
    await api.stop();
    await assert.rejects(lookUpPodNames({ kubeconfig, master: undefined }, 'shop', 'web'), /ECONNREFUSED/);
  });
});
