/** The example in docs/operations.md is what the program prints. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { FakeApiServer } from '../../fakes/api-server.js';
import { TestCluster } from '../../support/desired-cluster.js';
import { fetchText } from '../../support/http.js';
import { PageRig } from '../../support/page-rig.js';
import { SeeRig, server } from '../../support/see-rig.js';

const DOCS = join(import.meta.dirname, '../../../../docs/operations.md');
const CONNECTION = `Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData
TCP CB007109 9C40 0A600101 0050 0A80000B 1F90 ESTABLISHED     899
`;
const IPS = ['10.128.0.11', '10.128.1.12', '10.128.2.13'];

test('services and backends print what docs/operations.md shows', async (t) => {
  const cluster = new TestCluster({ families: [4] });
  cluster.service('web', {
    ...{ type: 'NodePort', clusterIP: '10.96.1.1', externalTrafficPolicy: 'Local' },
    ports: [{ name: 'http', port: 80, nodePort: 30080 }],
  });
  const slice = { ports: [{ name: 'http', port: 8080, protocol: 'TCP' }] };
  const endpoints = IPS.map((ip, i) => ({ ip, node: `node-${i}` }));
  cluster.slice('web', endpoints, slice);
  const rig = new SeeRig(cluster);
  await rig.sync();
  const web = server('10.96.1.1', 80);
  rig.connect(web, '10.128.1.12:8080', 2);
  const down = { ready: false, serving: false };
  cluster.slice('web', [endpoints[0]!, { ...endpoints[1]!, ...down }, { ...endpoints[2]!, ...down }], slice);
  await rig.sync();
  rig.connect(web, '10.128.0.11:8080', 3, 1);
  await rig.listen(t);
  const kubeconfig = await apiServer(t);
  let text = '';
  for (const command of ['services 10.128.2.13', 'backends default/web -o wide']) {
    const { out, err } = await rig.type(`${command} --kubeconfig ${kubeconfig}`);
    assert.equal(err, '');
    text += `$ kube-proxy-ipvs ${command}\n${out}`;
  }
  assert.ok(readFileSync(DOCS, 'utf8').includes(`\`\`\`console\n${text}\`\`\`\n`), `docs/operations.md lacks\n${text}`);
});

test('the troubleshooting page shows what the commands say of Services that are in trouble', async (t) => {
  const cluster = new TestCluster({ families: [4] });
  const at = (clusterIP: string, more: Record<string, unknown> = {}): Record<string, unknown> => {
    return { clusterIP, ports: [{ name: 'http', port: 80 }], ...more };
  };
  const balanced = { type: 'LoadBalancer', externalTrafficPolicy: 'Local' };
  const [old, young] = [{ created: '2023-01-01T00:00:00Z' }, { created: '2024-01-01T00:00:00Z' }];
  cluster.service('early', at('10.96.2.1', { externalIPs: ['192.0.2.7'] }), old);
  cluster.service('late', at('10.96.2.2', { externalIPs: ['192.0.2.7'] }), young);
  cluster.service('nobody', at('10.96.2.3'));
  cluster.service('elsewhere', at('10.96.2.4', balanced), { ingress: [{ ip: '192.0.2.8' }] });
  const slice = { ports: [{ name: 'http', port: 8080, protocol: 'TCP' }] };
  for (const [i, name] of ['early', 'late', 'elsewhere'].entries())
    cluster.slice(name, [{ ip: `10.128.1.2${i}`, node: 'node-1' }], slice);
  cluster.slice('nobody', [{ ip: '10.128.1.30', node: 'node-1', ready: false, serving: false }], slice);
  const rig = new SeeRig(cluster);
  await rig.sync();
  await rig.listen(t);
  let text = '';
  for (const command of ['services', 'backends default/nobody', 'backends default/late']) {
    const { out, err } = await rig.type(command);
    text += `$ kube-proxy-ipvs ${command}\n${err}${out}`;
  }
  assert.ok(readFileSync(DOCS, 'utf8').includes(`\`\`\`console\n${text}\`\`\`\n`), `docs/operations.md lacks\n${text}`);
});

/** Of `| name | keys |` rows of the table of JSON: every word in backticks, without its `[]`. */
function documentedKeys(...rows: readonly string[]): Set<string> {
  const text = readFileSync(DOCS, 'utf8');
  const words = rows.flatMap((row) => {
    const line = text.split('\n').find((one) => one.startsWith(`| ${row} | `));
    assert.ok(line, `no row ${row}`);
    return [...line.slice(row.length + 4).matchAll(/`(\w+)(?:\[\])?`/g)].map(([, key]) => key!);
  });
  return new Set(words);
}

function oneService(): TestCluster {
  const cluster = new TestCluster({ families: [4] });
  cluster.service('web', { clusterIP: '10.96.1.1', ports: [{ name: 'http', port: 80 }] });
  cluster.slice('web', [IPS[0]!], { ports: [{ name: 'http', port: 8080, protocol: 'TCP' }] });
  return cluster;
}

/** Those of an answer, however deep; what is below `states` or `fields` is data. */
function keysOf(data: unknown): string[] {
  if (Array.isArray(data)) return data.flatMap(keysOf);
  if (typeof data !== 'object' || data === null) return [];
  return Object.entries(data).flatMap(([key, value]) => [key, ...(key === 'states' ? [] : keysOf(value))]);
}

test('the keys of JSON are those that docs/operations.md has, no more and no fewer', async (t) => {
  const rig = new SeeRig(oneService());
  await rig.sync();
  await rig.listen(t);
  const connectionTable = join(mkdtempSync(join(tmpdir(), 'docs-')), 'ip_vs_conn');
  writeFileSync(connectionTable, CONNECTION);
  for (const [command, ...rows] of [
    ['services', '`services`', 'each virtual server'],
    ['backends default/web', '`backends`', 'each virtual server', 'each backend'],
    ['connections default/web', '`connections`'],
    ['table', '`table`'],
  ] as const) {
    const { out, err, code } = await rig.type(`${command} -o json`, { connectionTable });
    assert.equal(code, 0, err);
    const documented = documentedKeys(...rows);
    const keys = new Set(keysOf(JSON.parse(out)));
    const unknown = [...keys].filter((key) => !documented.has(key));
    assert.deepEqual(unknown, [], `${command}: not in docs/operations.md`);
    // The row of virtual servers names the command that has more of them.
    const absent = [...documented].filter((key) => !keys.has(key) && key !== 'services');
    assert.deepEqual(absent, [], `${command}: in docs/operations.md alone`);
  }
});

test('so are those of status, none of which has a space in it', async (t) => {
  const rig = new PageRig(oneService());
  await rig.sync();
  const { body } = await fetchText(await rig.listen(t), '/status.json');
  // The command hands on all but the question.
  const { query: _query, ...page } = JSON.parse(body) as Record<string, unknown>;
  const keys = new Set(keysOf(page));
  assert.ok(keys.size > 20);
  const documented = documentedKeys('`status`');
  assert.deepEqual(
    [...keys].filter((key) => !documented.has(key)),
    [],
    'not in docs/operations.md',
  );
});

/** Where the names of the pods are. */
async function apiServer(t: { after(end: () => Promise<void>): void }): Promise<string> {
  const api = new FakeApiServer();
  api.set({
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { namespace: 'default', name: 'web-1', labels: { 'kubernetes.io/service-name': 'web' } },
    addressType: 'IPv4',
    ports: [{ name: 'http', port: 8080, protocol: 'TCP' }],
    endpoints: IPS.map((address, i) => ({
      ...{ addresses: [address], nodeName: `node-${i}`, zone: `zone-${i % 2}` },
      targetRef: { kind: 'Pod', name: `web-${i}` },
    })),
  });
  await api.start();
  t.after(() => api.stop());
  const path = join(mkdtempSync(join(tmpdir(), 'docs-')), 'kubeconfig');
  const context = { name: 'fake', context: { cluster: 'fake', user: 'fake' } };
  const clusters = [{ name: 'fake', cluster: { server: api.url } }];
  const users = [{ name: 'fake', user: {} }];
  const config = { apiVersion: 'v1', kind: 'Config', clusters, users, contexts: [context], 'current-context': 'fake' };
  writeFileSync(path, JSON.stringify(config));
  return path;
}
