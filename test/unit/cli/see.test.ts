/** `services`, `backends`, `connections` and `table` as typed, over a data plane and a kernel of fakes. */
import assert from 'node:assert/strict';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test, type TestContext } from 'node:test';
import { parse } from 'yaml';
import { backendsPage } from '../../../src/daemon/answer/backends-page.js';
import { TERMINATING, TestCluster } from '../../support/desired-cluster.js';
import { SeeRig, cells, server } from '../../support/see-rig.js';

const WEB = server('10.96.0.1', 80);

/** default/web with a NodePort, a drain and endpoints left out; default/late that claims what default/early has. */
async function shop(t: TestContext): Promise<SeeRig> {
  const cluster = new TestCluster({ families: [4] });
  const ports = [{ name: 'http', port: 80, nodePort: 30080 }];
  const slice = { ports: [{ name: 'http', port: 8080, protocol: 'TCP' }] };
  cluster.service('web', { type: 'NodePort', externalTrafficPolicy: 'Local', ports });
  cluster.slice('web', [{ ip: '10.0.0.1', node: 'node-0' }, '10.0.0.2', '10.0.0.9'], slice);
  const external = { externalIPs: ['192.0.2.1'] };
  cluster.service('early', { clusterIP: '10.96.0.2', ...external }, { created: '2023-01-01T00:00:00Z' });
  cluster.slice('early', ['10.0.0.3']);
  cluster.service('late', { clusterIP: '10.96.0.3', ...external });
  cluster.slice('late', ['10.0.0.2']);
  cluster.service('empty', { clusterIP: '10.96.0.4', sessionAffinity: 'ClientIP' });
  const rig = new SeeRig(cluster);
  await rig.sync();
  rig.connect(WEB, '10.0.0.9:8080', 2, 1);
  const changed = [{ ip: '10.0.0.1', node: 'node-0' }, '10.0.0.2', { ip: '10.0.0.9', ...TERMINATING }];
  cluster.slice('web', [...changed, { ip: '10.0.0.4', ready: false, serving: false }], slice);
  await rig.sync();
  rig.connect(WEB, '10.0.0.1:8080', 5, 7);
  await rig.listen(t);
  return rig;
}

describe('services', () => {
  test('has a row for every address and port, with what the daemon wants and the kernel counts', async (t) => {
    const rig = await shop(t);
    const { code, out } = await rig.type('services');
    assert.equal(code, 0);
    assert.deepEqual(
      cells(out).map((row) => row.join('|')),
      [
        'NAMESPACE|NAME|VIRTUAL-SERVER|KIND|SCHEDULER|READY|DRAINING|LEFT-OUT|ACTIVE|INACTIVE|STATE',
        'default|early|TCP 10.96.0.2:80|clusterIP|rr|1|0|0|0|0|ok',
        'default|early|TCP 192.0.2.1:80|externalIP|rr|1|0|0|0|0|ok',
        'default|empty|TCP 10.96.0.4:80|clusterIP|rr|0|0|0|0|0|no endpoints: refused',
        'default|late|TCP 10.96.0.3:80|clusterIP|rr|1|0|0|0|0|ok',
        'default|late|TCP 192.0.2.1:80|externalIP|rr|0|0|1|-|-|contested: default/early has it',
        'default|web|TCP 10.96.0.1:80|clusterIP|rr|2|1|1|7|8|ok',
        'default|web|TCP 10.200.0.2:30080|nodePort|rr|1|0|3|0|0|ok',
      ],
    );
  });

  test('finds by name, by namespace/name, by each address, with a port, and by the address of a pod', async (t) => {
    const rig = await shop(t);
    const found = async (match: string): Promise<string> =>
      (await rig.type(`services -o name ${match}`)).out.trimEnd().replaceAll('\n', ' ');
    assert.equal(await found('web'), 'default/web');
    assert.equal(await found('default/late'), 'default/late');
    assert.equal(await found('10.96.0.2'), 'default/early');
    assert.equal(await found('192.0.2.1'), 'default/early default/late');
    assert.equal(await found('192.0.2.1:80'), 'default/early default/late');
    assert.equal(await found('10.200.0.2:30080'), 'default/web');
    assert.equal(await found('10.0.0.2'), 'default/late default/web');
    assert.equal(await found('10.0.0.4:8080'), 'default/web');
    assert.equal(await found('-n default'), 'default/early default/empty default/late default/web');
    for (const nothing of ['10.0.0.4:80', 'we', '192.0.2.1:81', '-n kube-system web', '0.0.10.0', '-n defaul']) {
      const { code, out, err } = await rig.type(`services ${nothing}`);
      assert.deepEqual([code, out], [1, ''], nothing);
      assert.match(err, /no Service/, nothing);
    }
  });

  test('as JSON and YAML has the same facts under stable keys; -o wide and --no-headers', async (t) => {
    const rig = await shop(t);
    const data = JSON.parse((await rig.type('services -o json empty')).out) as unknown;
    assert.deepEqual(data, {
      services: [
        {
          namespace: 'default',
          name: 'empty',
          virtualServers: [
            {
              ...{ protocol: 'TCP', address: '10.96.0.4', port: 80, portName: '', kind: 'clusterIP' },
              ...{ policy: 'Cluster', scheduler: 'rr', affinitySeconds: 10800, ready: 0, draining: 0, leftOut: 0 },
              ...{ contestedBy: null, written: true, inKernel: 0, noLocalEndpoint: false },
              ...{ activeConnections: 0, inactiveConnections: 0 },
            },
          ],
          notes: [],
        },
      ],
      notes: [],
    });
    assert.deepEqual(parse((await rig.type('services -o=yaml empty')).out), data);
    const wide = cells((await rig.type('services -o wide --no-headers empty')).out);
    const row = 'default|empty|TCP 10.96.0.4:80|clusterIP|rr|0|0|0|0|0|-|Cluster|10800s|no endpoints: refused';
    assert.deepEqual(wide, [row.split('|')]);
  });

  test('cuts nothing, and colours for a person only, unless NO_COLOR is set', async (t) => {
    const rig = await shop(t);
    const escape = '\x1b[32mok\x1b[0m';
    assert.ok(!(await rig.type('services')).out.includes('\x1b'));
    const seen = await rig.type('services', { isTerminal: true });
    assert.ok(seen.out.includes(escape));
    assert.equal(seen.out.replaceAll(/\p{Cc}\[\d+m/gu, ''), (await rig.type('services')).out);
    const plain = await rig.type('services', { isTerminal: true, variables: { NO_COLOR: '1' } });
    assert.ok(!plain.out.includes('\x1b'));
    const json = await rig.type('services -o json', { isTerminal: true });
    assert.ok(!json.out.includes('\x1b'));
  });

  test('lets no name move the cursor', async (t) => {
    const cluster = new TestCluster({ families: [4] });
    cluster.service('a\x1b[2Jb');
    const rig = new SeeRig(cluster);
    await rig.sync();
    await rig.listen(t);
    const { out } = await rig.type('services', { isTerminal: true, variables: { NO_COLOR: '1' } });
    assert.ok(!out.includes('\x1b') && out.includes('a?[2Jb'), out);
  });

  test('asks on where a page ended early, behind a Service of many addresses', async (t) => {
    const cluster = new TestCluster({ families: [4] });
    const ports = Array.from({ length: 700 }, (_, i) => ({ name: `p${i}`, port: i + 1 }));
    for (let i = 1; i <= 5; i++) cluster.service(`s${i}`, { clusterIP: `10.96.0.${i}`, ports });
    const rig = new SeeRig(cluster);
    await rig.sync();
    await rig.listen(t);
    assert.equal(cells((await rig.type('services --no-headers')).out).length, 3500);
    assert.equal(rig.asked.length, 3);
  });

  test('a page may begin in the middle of one port and end in the middle of another', async () => {
    const cluster = new TestCluster({ families: [4] });
    const names = ['a', 'b', 'c'];
    cluster.service('web', { ports: names.map((name, i) => ({ name, port: 80 + i })) });
    const ports = names.map((name, i) => ({ name, port: 8080 + i, protocol: 'TCP' }));
    cluster.slice('web', ['10.1.0.1', '10.1.0.2', '10.1.0.3'], { ports });
    const rig = new SeeRig(cluster);
    await rig.sync();
    const page = async (offset: number, limit: number): Promise<string> => {
      const { endpoints, total } = (await backendsPage(rig.dataPlane, [], { service: 'default/web', offset, limit }))!;
      assert.equal(total, 9);
      return endpoints.map(({ group, address, port }) => `${group} ${address.slice(-1)}:${port}`).join(', ');
    };
    assert.equal(await page(0, 2), '0 1:8080, 0 2:8080');
    assert.equal(await page(2, 5), '0 3:8080, 1 1:8081, 1 2:8081, 1 3:8081, 2 1:8082');
    assert.equal(await page(7, 5), '2 2:8082, 2 3:8082');
    assert.equal(await page(9, 5), '');
  });

  test('asks page by page', async (t) => {
    const cluster = new TestCluster({ families: [4] });
    for (let i = 0; i < 450; i++) cluster.service(`s${i}`, { clusterIP: `10.97.${i >> 8}.${i & 255}` });
    const rig = new SeeRig(cluster);
    await rig.sync();
    await rig.listen(t);
    assert.equal(cells((await rig.type('services --no-headers')).out).length, 450);
    assert.equal(rig.asked.length, 3);
  });

  test('without leave to read the kernel shows the rest with a note', async (t) => {
    const rig = await shop(t);
    rig.kernel.permitted = false;
    const { code, out, err } = await rig.type('services web --no-headers');
    assert.equal(code, 0);
    assert.match(out, /TCP 10\.96\.0\.1:80 .*2 +1 +1 +- +- +ok/);
    assert.match(err, /^note: weights and connections are not known: .*EPERM/);
  });

  test('says which address did not answer, and what to do', async (t) => {
    const rig = await shop(t);
    const silent = Object.assign(Object.create(rig) as SeeRig, { port: 1 });
    for (const command of ['services', 'backends default/web', 'connections default/web']) {
      const { code, out, err } = await silent.type(command);
      assert.deepEqual([code, out], [1, '']);
      assert.match(
        err,
        /no answer from the daemon at http:\/\/127\.0\.0\.1:1\/.*ECONNREFUSED.*is it running on this node/,
      );
    }
    const off = new SeeRig(new TestCluster());
    await off.listen(t, 'off');
    assert.match((await off.type('services')).err, /answers HTTP 404: is it kube-proxy/);
  });

  test('--watch shows every change once where nobody looks at a terminal, and survives a daemon that is away', async (t) => {
    const rig = await shop(t);
    const stop = new AbortController();
    const outs: string[] = [];
    const errs: string[] = [];
    const watching = rig.type('services web --no-headers --watch 200ms', {
      stop: stop.signal,
      out: (text) => void outs.push(text),
      err: (text) => void errs.push(text),
    });
    const until = async (condition: () => boolean): Promise<void> => {
      for (let i = 0; !condition(); i++) {
        assert.ok(i < 3000, `${outs.join('')} ${errs.join('')}`);
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
    };
    await until(() => rig.asked.length > 2);
    assert.deepEqual([outs.length, errs], [1, ['']]);
    rig.connect(WEB, '10.0.0.1:8080', 77);
    await until(() => outs.length === 3);
    assert.deepEqual([outs[1], /\b79\b/.test(outs[2]!)], ['\n', true]);
    rig.cluster.state.deleteService('default/web');
    await until(() => errs.some((text) => text.includes('no Service')));
    stop.abort();
    assert.equal((await watching).code, 0);
  });
});

describe('backends', () => {
  test('has every endpoint by every address, those left out with the reason, and what drains', async (t) => {
    const rig = await shop(t);
    const { code, out } = await rig.type('backends default/web');
    assert.equal(code, 0);
    const [internal, external] = ['TCP 10.96.0.1:80|clusterIP', 'TCP 10.200.0.2:30080|nodePort'];
    assert.deepEqual(
      cells(out).map((row) => row.join('|')),
      [
        'VIRTUAL-SERVER|KIND|BACKEND|WEIGHT|ACTIVE|INACTIVE|STATE|WHY',
        `${internal}|10.0.0.1:8080|1|5|7|active|-`,
        `${internal}|10.0.0.2:8080|1|0|0|active|-`,
        `${internal}|10.0.0.9:8080|0|2|1|draining|terminating, others are ready`,
        `${internal}|10.0.0.4:8080|-|-|-|left-out|not ready`,
        `${external}|10.0.0.1:8080|1|0|0|active|-`,
        `${external}|10.0.0.2:8080|-|-|-|left-out|on another node, the policy is Local`,
        `${external}|10.0.0.9:8080|-|-|-|left-out|on another node, the policy is Local`,
        `${external}|10.0.0.4:8080|-|-|-|left-out|on another node, the policy is Local`,
      ],
    );
    const names = await rig.type('backends default/web -o name');
    assert.equal(names.out, '10.0.0.1:8080\n10.0.0.2:8080\n10.0.0.9:8080\n10.0.0.4:8080\n');
  });

  test('names who has a contested address, what the kernel refuses, what is missing and what is too many', async (t) => {
    const rig = await shop(t);
    const rows = async (service: string): Promise<string[]> =>
      cells((await rig.type(`backends default/${service} --no-headers`)).out).map((row) => row.slice(2).join('|'));
    assert.deepEqual(await rows('late'), [
      '10.0.0.2:8080|1|0|0|active|-',
      '10.0.0.2:8080|-|-|-|left-out|default/early has this address and port',
    ]);
    assert.deepEqual(await rows('empty'), ['-|-|-|-|no endpoints: refused|-']);
    const { realServers } = rig.kernel.ipvs.table.get(server('10.96.0.2', 80))!;
    const [[key, real]] = [...realServers] as [[typeof realServers extends Map<infer K, unknown> ? K : never, never]];
    realServers.clear();
    const missing = '10.0.0.3:8080|-|-|-|missing';
    assert.equal((await rows('early'))[0], `${missing}|not in the kernel: not written yet, or taken out by somebody`);
    rig.refusals = ['add-real-server TCP 10.96.0.2:80 -> 10.0.0.3:8080: EINVAL'];
    assert.equal((await rows('early'))[0], `${missing}|the kernel refuses it: see status`);
    rig.refusals = [
      'add-real-server TCP 10.96.0.2:8080 -> 10.0.0.3:8080: EINVAL',
      'add TCP 10.96.0.2:80 -> 10.0.0.3:80: EINVAL',
    ];
    assert.match((await rows('early'))[0]!, /not written yet/);
    realServers.set(key, real);
    const web = rig.kernel.ipvs.table.get(WEB)!.realServers;
    web.set(key, { weight: 3, forwarding: 0, active: 1, inactive: 0 });
    const foreign =
      '10.0.0.3:8080|3|1|0|not-wanted|in the kernel, and not wanted: about to go, or written by somebody else';
    assert.ok((await rows('web')).includes(foreign));
  });

  test('says who is hinted for another zone, and which endpoint another slice has', async (t) => {
    const cluster = new TestCluster({ families: [4] });
    cluster.service('web');
    cluster.slice('web', [
      { ip: '10.0.0.1', zones: ['a'] },
      { ip: '10.0.0.2', zones: ['b', 'c'] },
    ]);
    cluster.slice('web', [{ ip: '10.0.0.1', ready: false, zones: ['a'] }], { name: 'web-2' });
    const rig = new SeeRig(cluster);
    await rig.sync();
    await rig.listen(t);
    const rows = cells((await rig.type('backends default/web --no-headers')).out).map((row) => row.slice(2).join('|'));
    assert.deepEqual(rows, [
      '10.0.0.1:8080|1|0|0|active|-',
      '10.0.0.2:8080|-|-|-|left-out|hinted for zone b, c',
      '10.0.0.1:8080|-|-|-|left-out|another EndpointSlice has it, too',
    ]);
  });

  test('without a Service of that name, or with a name that is none', async (t) => {
    const rig = await shop(t);
    assert.match((await rig.type('backends default/none')).err, /serves no Service default\/none/);
    assert.match(
      (await rig.type('backends web')).err,
      /NAMESPACE\/NAME, or -n NAMESPACE NAME, not "web" \(`services web` says which that may be\)/,
    );
    assert.match((await rig.type('connections Web!')).err, /not "Web!" \(`services` lists them\)/);
    assert.equal((await rig.type('backends -n default web')).out, (await rig.type('backends default/web')).out);
    assert.match((await rig.type('connections default/none')).err, /serves no Service default\/none/);
    const wide = await rig.type('backends default/web -o json --kubeconfig /does/not/exist');
    assert.equal(wide.code, 0);
    assert.match(wide.out, /"pods, nodes and zones are not known: /);
  });

  test('pages endpoints, and asks for none twice', async (t) => {
    const cluster = new TestCluster({ families: [4] });
    cluster.service('web');
    const ips = Array.from({ length: 2300 }, (_, i) => `10.1.${i >> 8}.${i & 255}`);
    for (let i = 0; i < 23; i++) cluster.slice('web', ips.slice(i * 100, i * 100 + 100), { name: `web-${i}` });
    const rig = new SeeRig(cluster);
    await rig.sync();
    await rig.listen(t);
    const { out } = await rig.type('backends default/web -o name');
    assert.equal(new Set(out.trimEnd().split('\n')).size, 2300);
    assert.equal(rig.asked.length, 3);
  });
});

describe('connections', () => {
  const HEADING = 'Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\n';
  const line = (client: number, state = 'ESTABLISHED', to = '0A600001 0050'): string =>
    `TCP 0A80000A ${client.toString(16).toUpperCase().padStart(4, '0')} ${to} 0A000001 1F90 ${state.padEnd(11)} 899\n`;

  function file(text: string): string {
    const path = join(mkdtempSync(join(tmpdir(), 'see-')), 'ip_vs_conn');
    writeFileSync(path, HEADING + text);
    return path;
  }

  test('shows those of all addresses of the Service, the first of them, and counts the rest', async (t) => {
    const rig = await shop(t);
    const many = Array.from({ length: 300 }, (_, i) => line(1000 + i)).join('');
    const nodePort = line(5, 'FIN_WAIT', '0AC80002 7580');
    const connectionTable = file(line(1, 'ESTABLISHED', '0A600002 0050') + nodePort + line(0, 'NONE') + many);
    const { out, err } = await rig.type('connections default/web --limit 3', { connectionTable });
    assert.deepEqual(
      cells(out).map((row) => row.join('|')),
      [
        'PROTOCOL|CLIENT|VIRTUAL-SERVER|BACKEND|STATE|EXPIRES',
        'TCP|10.128.0.10:5|10.200.0.2:30080|10.0.0.1:8080|FIN_WAIT|899s',
        'TCP|10.128.0.10:0|10.96.0.1:80|10.0.0.1:8080|AFFINITY|899s',
        'TCP|10.128.0.10:1000|10.96.0.1:80|10.0.0.1:8080|ESTABLISHED|899s',
      ],
    );
    const all = '302 in all (1 AFFINITY, 300 ESTABLISHED, 1 FIN_WAIT)';
    assert.equal(err, `note: ${all}; the first 3 are shown, --limit shows more\n`);
    const json = await rig.type('connections default/web -o json', { connectionTable });
    const data = JSON.parse(json.out) as { total: number; connections: object[] };
    assert.deepEqual([data.total, data.connections.length], [302, 100]);
  });

  test('without the table says what is missing', async (t) => {
    const rig = await shop(t);
    const { code, err } = await rig.type('connections default/web', { connectionTable: '/does/not/exist' });
    assert.equal(code, 1);
    assert.match(err, /ENOENT.*is the module ip_vs loaded/);
  });
});

describe('table', () => {
  test('is that of ipvsadm with names, of all or of what is asked for', async (t) => {
    const rig = await shop(t);
    const { code, out } = await rig.type('table');
    assert.equal(code, 0);
    const lines = out.split('\n');
    assert.equal(lines[0], 'Prot LocalAddress:Port Scheduler Flags');
    assert.ok(lines.includes(`${'TCP  10.96.0.1:80 rr'.padEnd(72)} # default/web:http`), out);
    assert.ok(lines.includes(`${'TCP  10.96.0.4:80 rr persistent 10800'.padEnd(72)} # default/empty`), out);
    assert.ok(lines.includes(`${'TCP  10.200.0.2:30080 rr'.padEnd(72)} # default/web:http (node port)`));
    assert.ok(lines.includes(`${'TCP  192.0.2.1:80 rr'.padEnd(72)} # default/early (external IP)`));
    assert.ok(lines.includes('  -> 10.0.0.1:8080                Masq    1      5          7'));
    const some = (await rig.type('table --no-headers 10.0.0.3')).out.trimEnd().split('\n');
    assert.equal(some.length, 4);
    const names = (await rig.type('table -o name default/web')).out;
    assert.equal(names, 'TCP 10.96.0.1:80\nTCP 10.200.0.2:30080\n');
  });

  test('without the daemon is shown without names, says why, and ends with 1', async (t) => {
    const rig = await shop(t);
    const silent = Object.assign(Object.create(rig) as SeeRig, { port: 1 });
    const { code, out, err } = await silent.type('table');
    assert.equal(code, 1);
    assert.match(out, /^TCP {2}10\.96\.0\.1:80 rr +# \?$/m);
    assert.match(err, /Service names are not known: no answer from the daemon at http:\/\/127\.0\.0\.1:1\//);
    assert.equal((await silent.type('table default/web')).out, '');
  });
});
