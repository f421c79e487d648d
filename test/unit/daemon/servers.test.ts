/** What the daemon serves, joined together: each address answers by what runs now, until all of it is closed. */
import assert from 'node:assert/strict';
import { type RequestListener } from 'node:http';
import { type TestContext, describe, test } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { loadConfigDocument } from '../../../src/config/load.js';
import { type ProxyConfig } from '../../../src/config/proxy-config.js';
import { Servers, type ServersOptions } from '../../../src/daemon/servers.js';
import { TestCluster } from '../../support/desired-cluster.js';
import { fetchText, serve, takenPort } from '../../support/http.js';
import { ReconcileRig } from '../../support/reconcile-rig.js';

const document = (scheduler: string) =>
  loadConfigDocument(
    { apiVersion: 'kubeproxy.config.k8s.io/v1alpha1', kind: 'KubeProxyConfiguration', ipvs: { scheduler } },
    'test',
  ).document;

async function freePort(t: TestContext): Promise<number> {
  const { port, release } = await takenPort(t, '127.0.0.1');
  await release();
  return port;
}

interface Served {
  readonly rig: ReconcileRig;
  readonly servers: Servers;
  readonly cluster: TestCluster;
  readonly port: number;
  /** /healthz of what was handed to the health server. */
  healthz(): Promise<number>;
  isSynced: boolean;
}

async function served(t: TestContext, config: Partial<ProxyConfig> = {}): Promise<Served> {
  const cluster = new TestCluster({ families: [4] });
  const port = await freePort(t);
  const metricsBindAddress = { host: '127.0.0.1', port };
  const rig = new ReconcileRig(cluster, undefined, [], undefined, { metricsBindAddress, ...config });
  let handler: RequestListener | undefined;
  let collected = 0;
  const made: Served = {
    ...{ rig, cluster, port, isSynced: true },
    servers: new Servers({
      dataPlane: rig.dataPlane,
      sources: {
        get isSynced() {
          return made.isSynced;
        },
        node: { isKnown: true, isEligible: true },
        report: { collect: () => void collected++, watches: () => [], skipped: () => [] },
      },
      document: document('rr'),
      environment: { version: '1.2.3', startedAt: 0 },
      health: { port: 10_256, serve: (given: RequestListener) => void (handler = given) },
      notes: () => ['a note'],
    } as unknown as ServersOptions),
    healthz: async () => (await fetchText(await serve(t, { handler: handler! }), '/healthz')).status,
  };
  t.after(() => made.servers.close());
  return made;
}

describe('servers', () => {
  test('the metrics server answers from the start until it is closed, and its port is known meanwhile', async (t) => {
    const { servers, port } = await served(t);
    assert.deepEqual([...servers.ports], [10_256]);
    await servers.start();
    assert.deepEqual([...servers.ports], [10_256, port]);
    assert.match((await fetchText(port, '/metrics')).body, /^kubeproxy_ipvs_virtual_servers/m);
    assert.match((await fetchText(port, '/status', {})).body, /a note/);
    await servers.close();
    assert.deepEqual([...servers.ports], [10_256]);
    await assert.rejects(fetchText(port, '/metrics'), /ECONNREFUSED|hang up/);
  });

  test('none where none is configured', async (t) => {
    const { servers } = await served(t, { metricsBindAddress: undefined });
    await servers.start();
    assert.deepEqual([...servers.ports], [10_256]);
  });

  test('/configz shows what runs now', async (t) => {
    const { servers, port } = await served(t);
    await servers.start();
    const scheduler = async (): Promise<string | undefined> =>
      /"scheduler": ?"([a-z]+)"/.exec((await fetchText(port, '/configz')).body)?.[1];
    assert.equal(await scheduler(), 'rr');
    servers.reconfigured(document('lc'));
    assert.equal(await scheduler(), 'lc');
  });

  test('the health server is handed what knows of the syncs', async (t) => {
    const made = await served(t);
    await made.rig.sync();
    assert.equal(await made.healthz(), 200);
    made.rig.reporter.state.failedSysctls.set('net.ipv4.ip_forward', { message: 'is 0', required: true });
    assert.equal(await made.healthz(), 503);
  });
});

describe('health check node ports', () => {
  const local = (healthCheckNodePort: number) => ({
    ...{ type: 'LoadBalancer', externalTrafficPolicy: 'Local', healthCheckNodePort },
  });
  const weight = async (port: number): Promise<string> => {
    try {
      const { status, headers } = await fetchText(port, '/');
      return `${status} ${String(headers['x-load-balancing-endpoint-weight'])}`;
    } catch {
      return 'nobody';
    }
  };
  /** Waits until the port answers so. */
  const answers = async (port: number, wanted: string): Promise<void> => {
    let found = '';
    for (const end = Date.now() + 60_000; Date.now() < end && found !== wanted; await wait(5))
      found = await weight(port);
    assert.equal(found, wanted);
  };

  test('follow the Services with the syncs, and end with the servers', async (t) => {
    const { servers, rig, cluster } = await served(t);
    await servers.start();
    const check = await freePort(t);
    cluster.service('web', local(check));
    cluster.slice('web', ['10.0.0.1', { ip: '10.0.0.2', node: 'node-0' }]);
    await rig.sync();
    await answers(check, '200 1');
    cluster.slice('web', ['10.0.0.1']);
    await rig.sync();
    await answers(check, '503 0');
    await rig.sync();
    assert.equal(await weight(check), '503 0');
    cluster.state.deleteService('default/web');
    await rig.sync();
    await answers(check, 'nobody');
    cluster.service('web', local(check));
    await rig.sync();
    await answers(check, '503 0');
    await servers.close();
    assert.equal(await weight(check), 'nobody');
    await rig.sync();
    assert.equal(await weight(check), 'nobody');
  });
});
