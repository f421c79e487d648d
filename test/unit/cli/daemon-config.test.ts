/** `verify`, `plan` and `explain` find the configuration that the daemon runs with. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { type RequestListener, createServer } from 'node:http';
import { type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { withDaemonConfig } from '../../../src/cli/daemon-config.js';
import { configz } from '../../../src/config/configz.js';
import { loadConfigText } from '../../../src/config/load.js';
import { type DaemonOptions, loadDaemonConfig } from '../../../src/daemon/daemon-options.js';

const HEAD = { apiVersion: 'kubeproxy.config.k8s.io/v1alpha1', kind: 'KubeProxyConfiguration' };
const NOTHING: DaemonOptions = {
  ...{ configFile: undefined, document: HEAD, overrides: {}, manifests: undefined, warnings: [] },
};
const text = (fields: object): string => JSON.stringify({ ...HEAD, clusterCIDR: '10.0.0.0/8', ...fields });

/** Everything that the dry run follows from, none of it the default, and none of it in the file. */
const RUNNING = loadConfigText(
  text({
    hostnameOverride: 'node-7',
    ...{ ipvs: { scheduler: 'mh', excludeCIDRs: ['10.97.0.0/16'], strictARP: true, syncPeriod: '7s' } },
    ...{ iptables: { masqueradeAll: true, masqueradeBit: 3 }, nodePortAddresses: ['10.200.0.0/16', 'fd00::/8'] },
    ...{ conntrack: { maxPerCore: 0 }, kubeProxyIpvs: { acceptServiceTraffic: true, drainTimeout: '1m' } },
    ...{ detectLocalMode: 'InterfaceNamePrefix', detectLocal: { interfaceNamePrefix: 'cali' } },
    ...{ featureGates: { AllowServiceExternalIPs: false } },
  }),
  'test',
);

async function daemon(t: TestContext, answer: RequestListener): Promise<number> {
  const server = createServer(answer);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

/** What is found where the usual file names this metrics port. */
async function found(t: TestContext, port: number, options: Partial<DaemonOptions> = {}) {
  const directory = mkdtempSync(join(tmpdir(), 'daemon-config-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const file = join(directory, 'config.conf');
  writeFileSync(file, text({ metricsBindAddress: `0.0.0.0:${port}`, ipvs: { scheduler: 'lc' } }));
  let said = '';
  const variables = { KUBE_PROXY_CONFIG: file, NODE_NAME: 'of-the-environment' };
  const around = { variables, err: (line: string) => void (said += line) };
  const chosen = await withDaemonConfig({ ...NOTHING, ...options }, around);
  return { ...(await loadDaemonConfig(chosen)), said, file };
}

test('the daemon is asked on the address that the file says, and what it runs with is taken whole', async (t) => {
  const port = await daemon(t, (request, response) => {
    assert.equal(request.url, '/configz');
    response.end(JSON.stringify(configz(RUNNING.document)));
  });
  const { config, said, warnings } = await found(t, port);
  assert.deepEqual(config, RUNNING.config);
  assert.deepEqual(warnings, RUNNING.warnings);
  assert.equal(
    said,
    `configuration: that of the running daemon, http://127.0.0.1:${port}/configz (--config chooses another)\n`,
  );
});

test('the command line wins over it; a file or flags that are given are not asked about', async (t) => {
  let asked = 0;
  const port = await daemon(t, (_request, response) => {
    asked++;
    response.end(JSON.stringify(configz(RUNNING.document)));
  });
  const { config } = await found(t, port, { overrides: { hostnameOverride: 'mine', kubeconfig: '/mine' } });
  assert.deepEqual([config.hostnameOverride, config.kubeconfig, config.scheduler], ['mine', '/mine', 'mh']);
  assert.equal(asked, 1);
  const flags = await found(t, port, { document: { ...HEAD, clusterCIDR: '10.0.0.0/8', ipvs: { scheduler: 'sed' } } });
  assert.equal(flags.config.scheduler, 'sed');
  assert.equal(asked, 1);
});

for (const [what, answer] of Object.entries<RequestListener>({
  'kube-proxy itself': (_request, response) => response.end(JSON.stringify({ 'kubeproxy.config.k8s.io': HEAD })),
  'something else': (_request, response) => response.end('hello'),
  'one that refuses': (_request, response) => response.writeHead(403).end('{}'),
  'one that hangs up': (request) => request.socket.destroy(),
  'one that this version does not understand': (_request, response) =>
    response.end(JSON.stringify({ 'kubeproxy.config.k8s.io': { ...HEAD, ipvs: { scheduler: 7 } }, kubeProxyIpvs: {} })),
}))
  test(`from ${what} nothing is taken: the file counts`, async (t) => {
    const { config, said, file } = await found(t, await daemon(t, answer));
    assert.deepEqual([config.scheduler, config.hostnameOverride], ['lc', 'of-the-environment']);
    assert.equal(said, `configuration: ${file} (--config chooses another)\n`);
  });
