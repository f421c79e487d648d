/** The status page as HTML, over a data plane of fakes: what it says, and what it can be asked. */
import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { TERMINATING, TestCluster } from '../../support/desired-cluster.js';
import { fetchText } from '../../support/http.js';
import { PageRig } from '../../support/page-rig.js';

/** shop/web with a drain and somebody left out, shop/empty without endpoints, and two that claim one address. */
async function shop(): Promise<PageRig> {
  const cluster = new TestCluster({ families: [4] });
  const own = { namespace: 'shop' };
  cluster.service('web', {}, own);
  cluster.slice('web', [{ ip: '10.0.0.1', node: 'node-0' }, '10.0.0.2', '10.0.0.9'], own);
  cluster.service('empty', { clusterIP: '10.96.0.2' }, own);
  cluster.service('early', { clusterIP: '10.96.0.3', externalIPs: ['192.0.2.1'] }, { created: '2023-01-01T00:00:00Z' });
  cluster.slice('early', ['10.0.0.3']);
  cluster.service('late', { clusterIP: '10.96.0.4', externalIPs: ['192.0.2.1'] });
  cluster.slice('late', ['10.0.0.2']);
  const rig = new PageRig(cluster);
  await rig.sync();
  const real = [...rig.kernel.ipvs.table.values()][0]!.realServers;
  for (const state of real.values()) Object.assign(state, { active: 2, inactive: 1 });
  const left = { ip: '10.0.0.4', ready: false, serving: false };
  cluster.slice('web', [{ ip: '10.0.0.1', node: 'node-0' }, '10.0.0.2', { ip: '10.0.0.9', ...TERMINATING }, left], own);
  await rig.sync();
  return rig;
}

/** The page without markup, a line per row, item and heading. */
function words(html: string): string {
  return html
    .replace(/<style>.*?<\/style>|<svg.*?<\/svg>/gs, '')
    .replace(/\s+/g, ' ')
    .replace(/<\/(tr|li|h[1-3]|p|dd|section|nav)>/g, '\n')
    .replace(/<[^>]*>/g, ' ')
    .replace(/[ \t]+/g, ' ')
    .replace(/ *\n[ \n]*/g, '\n')
    .replaceAll('&#39;', "'")
    .replaceAll('&gt;', '>');
}

async function page(t: TestContext, path: string, rig?: PageRig): Promise<string> {
  const { status, body } = await fetchText(await (rig ?? (await shop())).listen(t), path);
  assert.equal(status, 200);
  return words(body);
}

describe('the list of Services', () => {
  it('has each address with what is wanted, what the kernel has, and why not', async (t) => {
    const text = await page(t, '/status');
    assert.match(text, /shop\/web TCP 10\.96\.0\.1:80 ClusterIP rr 2 2 1 ok/);
    assert.match(text, /shop\/empty TCP 10\.96\.0\.2:80 ClusterIP rr 0 0 no endpoints: refused/);
    assert.match(text, /TCP 192\.0\.2\.1:80 ExternalIP rr 0 contested: default\/early has it/);
    assert.match(text, /All \(4\)\nNo endpoints \(1\)\nDraining \(1\)\nContested \(2\)\nNot in the kernel \(0\)/);
  });

  it('finds by part of the name, by part of an address, with a port, and by the IP of a pod', async (t) => {
    const rig = await shop();
    const port = await rig.listen(t);
    const found = async (search: string): Promise<string> => {
      const { body } = await fetchText(port, `/status?search=${encodeURIComponent(search)}`);
      return [...body.matchAll(/rowheader[^>]*><a[^>]*>([^<]*)/g)].map(([, name]) => name).join(' ');
    };
    assert.equal(await found('shop/'), 'shop/empty shop/web');
    assert.equal(await found(' SHOP/W '), 'shop/web');
    assert.equal(await found('96.0.3'), 'default/early');
    assert.equal(await found('10.96.0.1:80'), 'shop/web');
    assert.equal(await found('10.96.0.1:81'), '');
    assert.equal(await found('10.0.0.2'), 'default/late shop/web');
    assert.equal(await found('10.0.0.9:8080'), 'shop/web', 'a pod that terminates');
    assert.equal(await found('nobody'), '');
    assert.match(
      words((await fetchText(port, '/status?search=nobody')).body),
      /No Service found for nobody\. Show all/,
    );
  });

  it('has filters that can be combined with a search', async (t) => {
    const rig = await shop();
    const port = await rig.listen(t);
    const found = async (query: string): Promise<string> => {
      const { body } = await fetchText(port, `/status?${query}`);
      return [...body.matchAll(/rowheader[^>]*><a[^>]*>([^<]*)/g)].map(([, name]) => name).join(' ');
    };
    assert.equal(await found('show=noEndpoints'), 'shop/empty');
    assert.equal(await found('show=draining'), 'shop/web');
    assert.equal(await found('show=contested'), 'default/early default/late');
    assert.equal(await found('show=contested&search=late'), 'default/late');
    assert.equal(await found('show=nonsense&sort=draining-desc'), 'shop/web default/early default/late shop/empty');
    assert.equal(await found('sort=backends'), 'shop/empty default/early default/late shop/web');
    assert.equal(await found('sort=name-desc'), 'shop/web shop/empty default/late default/early');
    rig.cluster.service('new', { clusterIP: '10.96.0.9' });
    await rig.cluster.update();
    assert.equal(await found('show=unwritten'), 'default/new', 'wanted, and not in the kernel yet');
    const none = words((await fetchText(port, '/status?show=draining&search=early')).body);
    assert.match(none, /No Service of this kind found for early\. Show every kind/);
  });

  it('has pages without dead ends, and says so when one is asked for that is not there', async (t) => {
    const cluster = new TestCluster({ families: [4] });
    for (let i = 0; i < 25; i++) cluster.service(`s${String(i).padStart(2, '0')}`, { clusterIP: `10.96.1.${i}` });
    const rig = new PageRig(cluster);
    await rig.sync();
    const port = await rig.listen(t);
    const at = async (query: string) => {
      const { body } = await fetchText(port, `/status?${query}`);
      const to: Record<string, string> = {};
      for (const [, url = '', name = ''] of body.matchAll(/<li>\s*<a href="([^"]*)"[^>]*>(First|Previous|Next|Last)</g))
        to[name] = /page=(\d+)/.exec(url)?.[1] ?? '1';
      return { text: words(body), to };
    };
    const first = await at('limit=10');
    assert.match(first.text, /1 to 10 of 25 Services, page 1 of 3/);
    assert.deepEqual(first.to, { Next: '2', Last: '3' });
    assert.deepEqual((await at('limit=10&page=2')).to, { First: '1', Previous: '1', Next: '3', Last: '3' });
    const last = await at('limit=10&page=3');
    assert.match(last.text, /21 to 25 of 25 Services, page 3 of 3/);
    assert.deepEqual(last.to, { First: '1', Previous: '2' });
    const beyond = await at('limit=10&page=99');
    assert.match(beyond.text, /There is no page 99: this is the last one, page 3\.[^]*default\/s24/);
    assert.deepEqual(beyond.to, { First: '1', Previous: '2' });
    for (const nonsense of ['page=0', 'page=-1', 'page=x', 'limit=0', 'limit=x', 'page=1e9'])
      assert.match((await at(nonsense)).text, /25 Services\n/, nonsense);
  });

  it('shows of a Service with many addresses ten, and where the others are', async (t) => {
    const cluster = new TestCluster({ families: [4] });
    const ports = Array.from({ length: 40 }, (_, i) => ({ name: `p${i}`, port: 80 + i }));
    cluster.service('many', { ports });
    cluster.service('none', { clusterIP: '10.96.0.2' });
    const text = await page(t, '/status', await synced(cluster));
    assert.match(text, /TCP 10\.96\.0\.1:89[^\n]*\n30 more addresses\ndefault\/none/);
  });

  it('has what is wanted in numbers, and beside it what is in the kernel', async (t) => {
    assert.match(
      await page(t, '/status'),
      /\nWanted\n[^]*Services \d+\n[^]*by the cluster, for this node\n[^]*In the kernel\n/,
    );
  });

  it('says what was repaired last, of which Service', async (t) => {
    const rig = await shop();
    const server = [...rig.kernel.ipvs.table.values()][0]!;
    server.realServers.delete([...server.realServers.keys()][0]!);
    await rig.verify();
    const text = await page(t, '/status', rig);
    assert.match(text, /Repaired in the last hour\n1 real server\n/);
    assert.match(
      text,
      /Last, [0-9.]+ m?s ago: missing real server TCP 10\.96\.0\.1:80 -> 10\.0\.0\.\d:8080 \( ?shop\/web ?\)/,
    );
    const { lastRepair } = await rig.source.status();
    assert.deepEqual(lastRepair?.services, ['shop/web']);
    assert.deepEqual([lastRepair.object, lastRepair.kind, lastRepair.total], ['real_server', 'missing', 1]);
  });

  it('tells why the node is not healthy before all else, and what is being written', async (t) => {
    const rig = await shop();
    const reasons = [{ category: 'sync', summary: 'no sync for 3 min', detail: 'ip_vs <gone>' }] as const;
    rig.health = { healthy: false, nodeEligible: true, lastUpdated: new Date(), reasons, families: [] };
    rig.reporter.state.runningSince = performance.now() - 62_000;
    const text = await page(t, '/status', rig);
    assert.match(text, /^[^]*Not healthy\nWhy it is not healthy\n[^\n]*ip_vs &lt;gone>\nWanted/);
    assert.match(text, /not settled: a sync or repair has been running for 6\d(\.\d)? s/);
  });
});

async function synced(cluster: TestCluster): Promise<PageRig> {
  const rig = new PageRig(cluster);
  await rig.sync();
  return rig;
}

describe('the page of a Service', () => {
  it('has its endpoints, why some are left out, and what the kernel counts', async (t) => {
    const text = await page(t, '/status/service?name=shop/web');
    assert.match(text, /TCP 10\.96\.0\.1:80 ClusterIP Cluster rr 2 2 \+ 1 draining 6 3 0 0 B \/ 0 B ok/);
    assert.match(text, /10\.0\.0\.1:8080 ready this node yes 1 2 1\n/);
    assert.match(text, /10\.0\.0\.2:8080 ready another node yes 1 2 1\n/);
    assert.match(
      text,
      /10\.0\.0\.9:8080 terminating, still serving another node no: it terminates, others are ready 0 \(draining\) 2 1/,
    );
    assert.match(text, /10\.0\.0\.4:8080 not ready another node no: it is not ready\n/);
  });

  it('says of a Service without endpoints what that means, and of no other', async (t) => {
    const refused = /No EndpointSlice has an endpoint for it: connections are refused/;
    const rig = await shop();
    const port = await rig.listen(t);
    const text = async (name: string) => words((await fetchText(port, `/status/service?name=shop/${name}`)).body);
    assert.match(await text('empty'), refused);
    assert.doesNotMatch(await text('web'), refused);
  });

  it('tells when the kernel has something else than is wanted', async (t) => {
    const rig = await shop();
    const [key, server] = [...rig.kernel.ipvs.table][0]!;
    const gone = [...server.realServers.keys()].find((real) => real.endsWith('\x01'))!;
    server.realServers.delete(gone);
    const port = await rig.listen(t);
    const text = async (): Promise<string> => words((await fetchText(port, '/status/service?name=shop/web')).body);
    assert.match(await text(), /rr 2 1 \+ 1 draining [^\n]*the kernel differs: put right at the next verification/);
    rig.kernel.ipvs.table.delete(key);
    assert.match(await text(), /rr 2 gone from the kernel: written anew at the next verification/);
    rig.kernel.ipvs.loaded = false;
    assert.match(await text(), /the kernel cannot be read: .*ENOENT/);
    rig.kernel.ipvs.loaded = true;
    assert.doesNotMatch(await text(), /cannot be read/, 'it is tried again');
  });

  it('has a hundred addresses at most, and says how many more there are', async (t) => {
    const cluster = new TestCluster({ families: [4] });
    const ports = Array.from({ length: 50 }, (_, i) => ({ name: `p${i}`, port: 80 + i }));
    cluster.service('two', { ports, externalIPs: ['192.0.2.1'] });
    cluster.service('three', { clusterIP: '10.96.0.3', ports, externalIPs: ['192.0.2.2', '192.0.2.3'] });
    const port = await (await synced(cluster)).listen(t);
    const text = async (name: string) => words((await fetchText(port, `/status/service?name=default/${name}`)).body);
    const two = await text('two');
    assert.equal(two.match(/^ ?TCP [0-9.]+:\d+ (ClusterIP|ExternalIP)/gm)?.length, 100);
    assert.doesNotMatch(two, /more addresses\n/);
    assert.match(await text('three'), /\nand 50 more addresses\n/);
  });

  it('has pages of endpoints, and says which Service there is not', async (t) => {
    const cluster = new TestCluster({ families: [4] });
    cluster.service('big');
    const endpoints = Array.from({ length: 250 }, (_, i) => `10.1.${i >> 8}.${i & 255}`);
    cluster.slice('big', endpoints);
    const rig = await synced(cluster);
    const port = await rig.listen(t);
    const at = async (query: string) => fetchText(port, `/status/service?${query}`);
    const seen = new Set<string>();
    for (const number of [1, 2, 3])
      for (const [, place] of (await at(`name=default/big&page=${number}`)).body.matchAll(
        /<code>(10\.1\.[0-9.]+):8080/g,
      ))
        seen.add(place!);
    assert.deepEqual([...seen], endpoints);
    const links = ({ body }: { body: string }): string[] =>
      body.match(/\/status\/service\?[^"#]*(?=#endpoints)/g) ?? [];
    const middle = links(await at('name=default/big&page=2'));
    for (const query of ['name=default%2Fbig', 'name=default%2Fbig&amp;page=3'])
      assert.ok(middle.includes(`/status/service?${query}`), middle.join(' '));
    const few = links(await at('name=default/big&page=2&limit=50'));
    assert.ok(few.includes('/status/service?name=default%2Fbig&amp;page=3&amp;limit=50'), few.join(' '));
    assert.match(words((await at('name=default/big&page=9')).body), /There is no page 9: this is the last one, page 3/);
    const missing = await at('name=default/%3Cb%3E');
    assert.equal(missing.status, 404);
    assert.match(missing.body, /No such Service[^]*default\/&lt;b&gt;/);
  });
});

describe('every page', () => {
  it('lets nothing in that could become markup, and keeps a policy that lets nothing out', async (t) => {
    const rig = await shop();
    rig.notes = ['<script>alert(1)</script>'];
    const port = await rig.listen(t);
    for (const path of ['/status?search="><img src=x onerror=alert(1)>', '/status/service?name="><script>', '/']) {
      const { headers, body } = await fetchText(port, encodeURI(path));
      assert.match(String(headers['content-type']), /^text\/html/);
      assert.deepEqual([headers['cache-control'], headers['referrer-policy']], ['no-store', 'no-referrer']);
      const policy = String(headers['content-security-policy']);
      assert.match(policy, /default-src 'none'; style-src 'sha256-[A-Za-z0-9+/]{43}='; /, path);
      assert.doesNotMatch(policy, /unsafe/);
      assert.doesNotMatch(body.replace(/"[^"]*"/g, '""'), /<script|<img|<[^>]* (style|on[a-z]+)=/, path);
      assert.match(body, /^<!doctype html>\n<html lang="en">/);
    }
    assert.match((await fetchText(port, '/status')).body, /<li>&lt;script&gt;alert\(1\)&lt;\/script&gt;<\/li>/);
  });
});

it('counts what is in the kernel over both families, and what drains', async () => {
  const cluster = new TestCluster();
  cluster.service('web', { clusterIPs: ['10.96.0.1', 'fd00:96::1'] });
  cluster.slice('web', ['10.0.0.1', '10.0.0.2']);
  cluster.slice('web', ['fd00::1'], { name: 'web-6' });
  const rig = new PageRig(cluster);
  await rig.sync();
  const { kernel } = await rig.source.status();
  assert.deepEqual(kernel.counts, { virtualServers: 2, realServers: 3, drainingRealServers: 0 });
});
