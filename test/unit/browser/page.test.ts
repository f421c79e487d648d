/**
 * The status page in a real Chromium: it works without scripts, fits a phone, obeys its own policy, can be read by
 * everybody. With PICTURES=directory the pictures are kept, to be looked at.
 */
import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it, type TestContext } from 'node:test';
import { TERMINATING, TestCluster } from '../../support/desired-cluster.js';
import { Browser, browserProblem } from '../../support/browser.js';
import { PageRig } from '../../support/page-rig.js';

const DESKTOP: readonly [number, number] = [1280, 900];
const PHONE: readonly [number, number] = [375, 812];
const PICTURE_HEIGHT = 1500;
const ENTER = '\uE007';
const TAB = '\uE004';
const problem = browserProblem();
const skip = problem === undefined ? false : `SKIPPED, no browser can be installed: ${problem}`;

/** A node with something of everything: a drain, a conflict, repairs, both families, 180 Services. */
async function node(): Promise<PageRig> {
  const cluster = new TestCluster();
  const own = (namespace: string) => ({ namespace });
  const names = ['web', 'api', 'cart', 'search', 'auth', 'mail', 'queue', 'report', 'ledger'];
  for (let i = 0; i < 180; i++) {
    const name = `${names[i % names.length]}-${i}`;
    cluster.service(name, { clusterIP: `10.96.1.${i}` }, own('bank'));
    if (i % 29 !== 0)
      cluster.slice(name, [`10.128.${i}.1`, `10.128.${i}.2`, `10.128.${i}.3`].slice(0, 1 + (i % 3)), own('bank'));
  }
  const ports = [
    { name: 'http', port: 80, nodePort: 30080 },
    { name: 'https', port: 443, nodePort: 30443 },
  ];
  const both = { clusterIP: '10.96.0.80', clusterIPs: ['10.96.0.80', 'fd00:10:96::80'] };
  const spec = { type: 'LoadBalancer', ports, ...both, externalTrafficPolicy: 'Local' };
  cluster.service('shop', spec, { ...own('bank'), ingress: [{ ip: '203.0.113.80' }] });
  const slice = { ports: ports.map(({ name }) => ({ name, port: 8080, protocol: 'TCP' })), ...own('bank') };
  const endpoints = [{ ip: '10.128.0.11', node: 'node-0' }, '10.128.0.12', '10.128.0.13'];
  cluster.slice('shop', endpoints, slice);
  cluster.slice('shop', ['fd00:10:128::11', 'fd00:10:128::12'], { name: 'shop-v6', ...slice });
  const claims = { externalIPs: ['192.0.2.7'] };
  cluster.service(
    'gateway',
    { clusterIP: '10.96.0.3', ...claims },
    { created: '2023-01-01T00:00:00Z', ...own('edge') },
  );
  cluster.slice('gateway', ['10.128.0.31'], own('edge'));
  cluster.service(
    'a-service-with-a-name-as-long-as-kubernetes-allows-it-to-be-63',
    { clusterIP: '10.96.0.4', ...claims },
    own('edge'),
  );
  const rig = new PageRig(cluster);
  await rig.sync();
  for (const server of rig.kernel.ipvs.table.values()) {
    server.statistics = [4711n, 93_000n, 88_000n, 61_234_567n, 2_345_678_901n];
    for (const real of server.realServers.values()) Object.assign(real, { active: 3, inactive: 12 });
  }
  await rig.verify();
  for (let i = 0; i < 40; i++) {
    cluster.slice('web-9', [`10.128.9.${1 + (i % 7)}`], own('bank'));
    await rig.sync();
  }
  // The rig's clock stands still: times as a node has them.
  for (let i = 0; i < 80; i++)
    rig.reporter.state.history.add(Date.now(), 0.002 * (1 + ((i * 7) % 5)) * (i % 23 === 22 ? 40 : 1));
  const last = { ip: '10.128.0.13', ...TERMINATING };
  cluster.slice('shop', [endpoints[0]!, '10.128.0.12', last, { ip: '10.128.0.14', ready: false }], slice);
  await rig.sync();
  const [first] = [...rig.kernel.ipvs.table.values()].filter(({ realServers }) => realServers.size > 2);
  first!.realServers.delete([...first!.realServers.keys()][0]!);
  await rig.verify();
  return rig;
}

describe('the status page in a browser', { skip }, () => {
  let browser: Browser;
  before(async () => (browser = await Browser.start()));
  after(() => browser.close());

  async function serve(t: TestContext, rig?: PageRig): Promise<string> {
    return `http://127.0.0.1:${await (rig ?? (await node())).listen(t)}`;
  }

  async function keep(name: string, height = PICTURE_HEIGHT): Promise<void> {
    const directory = process.env['PICTURES'];
    if (directory === undefined) return;
    mkdirSync(directory, { recursive: true });
    writeFileSync(join(directory, `${name}.png`), await browser.picture(height));
  }

  const names = (): Promise<string> =>
    browser.evaluate(
      `[...document.querySelectorAll('#services tbody th')].map((cell) => cell.textContent.trim()).join(' ')`,
    );

  it('is used without scripts: found, filtered, sorted, paged, and one Service looked into', async (t) => {
    const base = await serve(t);
    await browser.screen(...DESKTOP);
    await browser.allowScripts(false);
    t.after(() => browser.allowScripts(true));
    await browser.open(`${base}/`);
    await browser.clickLink('/status');
    assert.equal(await browser.url(), `${base}/status`);
    await browser.type('#search', `10.128.0.12${ENTER}`);
    assert.equal(await names(), 'bank/shop');
    await browser.clickLink('bank/shop');
    const text = await browser.evaluate<string>('document.body.innerText');
    assert.match(text, /10\.128\.0\.13:8080\s+terminating, still serving\s+another node/);
    assert.match(text, /203\.0\.113\.80:443\s+LoadBalancer \(https\)\s+Local/);
    await browser.clickLink('node-0');
    await browser.clickLink('Contested (2)');
    assert.match(await names(), /^edge\/a-service-\S+ edge\/gateway$/);
    await browser.clickLink('All (183)');
    await browser.clickLink('Last');
    assert.match(await browser.evaluate<string>('document.body.innerText'), /151 to 183 of 183 Services, page 4 of 4/);
    await browser.clickLink('Previous');
    await browser.clickLink('First');
    await browser.clickLink('Wanted');
    assert.match(await names(), /^bank\/cart-101 bank\/cart-11 /, 'most backends first');
    assert.equal(
      await browser.evaluate(
        `document.querySelector('[aria-sort]').textContent.trim() + ' ' + document.querySelector('[aria-sort]').getAttribute('aria-sort')`,
      ),
      'Wanted descending',
    );
  });

  it('keeps its own policy: nothing is refused, nothing fails, nothing comes from elsewhere', async (t) => {
    const base = await serve(t);
    await browser.log();
    for (const path of [
      '/',
      '/status',
      '/status?search="><script>document.title="owned"</script>',
      '/status/service?name=bank/shop',
    ]) {
      await browser.open(`${base}${encodeURI(path)}`);
      assert.notEqual(await browser.evaluate('document.title'), 'owned');
      assert.equal(
        await browser.evaluate('getComputedStyle(document.querySelector("section")).borderTopStyle'),
        'solid',
      );
      const loaded = await browser.evaluate<string[]>(
        `performance.getEntriesByType('resource').map(({ name }) => name)`,
      );
      assert.deepEqual(loaded, [], path);
    }
    assert.deepEqual(await browser.log(), []);
  });

  for (const [screen, size] of Object.entries({ desktop: DESKTOP, phone: PHONE }))
    for (const scheme of ['light', 'dark'] as const)
      it(`fits ${screen} in ${scheme}: nothing scrolls sideways, every text can be read`, async (t) => {
        const rig = await node();
        const base = await serve(t, rig);
        await browser.screen(...size, scheme);
        for (const [name, path] of Object.entries({
          status: '/status',
          service: '/status/service?name=bank/shop',
          index: '/',
        })) {
          await browser.open(`${base}${path}`);
          const width = await browser.evaluate<number>('document.documentElement.scrollWidth');
          assert.ok(width <= size[0], `${path} is ${width} px wide on ${size[0]}`);
          assert.deepEqual(await browser.evaluate(OUTSIDE), [], `${path}: outside the screen`);
          assert.deepEqual(await browser.evaluate(FAINT), [], `${path}: too little contrast`);
          await keep(`${name}-${screen}-${scheme}`);
        }
        const reasons = [
          { category: 'sync', summary: 'no sync has succeeded for 3 min', detail: 'netlink: EPERM' },
        ] as const;
        rig.health = { healthy: false, nodeEligible: true, lastUpdated: new Date(), reasons, families: [] };
        await browser.open(`${base}/status?show=draining`);
        assert.deepEqual(await browser.evaluate(FAINT), [], 'unhealthy: too little contrast');
        await keep(`unhealthy-${screen}-${scheme}`);
      });

  it('is as the picture in the documentation shows it', async (t) => {
    const base = await serve(t);
    await browser.screen(1100, 800);
    await browser.open(`${base}/status?search=o`);
    assert.match(await names(), /^bank\/report-106 /);
    await keep('documentation', 800);
  });

  it('can be used by keyboard and read aloud: landmarks, names, headings in order, visible focus', async (t) => {
    const base = await serve(t);
    await browser.screen(...DESKTOP);
    await browser.open(`${base}/status`);
    assert.deepEqual(
      await browser.evaluate(
        `['header', 'main', 'footer', 'h1'].map((name) => document.querySelectorAll(name).length)`,
      ),
      [1, 1, 1, 1],
    );
    assert.equal(await browser.evaluate('document.documentElement.lang'), 'en');
    assert.deepEqual(await browser.evaluate(NAMELESS), []);
    const levels = await browser.evaluate<number[]>(
      `[...document.querySelectorAll('h1,h2,h3')].map(({ tagName }) => Number(tagName[1]))`,
    );
    levels.forEach((level, i) => assert.ok(level <= (levels[i - 1] ?? 0) + 1, `headings ${levels.join(' ')}`));
    await browser.press(TAB);
    const focused = await browser.evaluate(
      `[document.activeElement.textContent, getComputedStyle(document.activeElement).outlineStyle]`,
    );
    assert.deepEqual(focused, ['Skip to the Services', 'solid']);
    await browser.press(ENTER);
    assert.match(await browser.url(), /#services$/);
  });
});

/** Elements with text that reach beyond the screen. */
const OUTSIDE = `[...document.querySelectorAll('body *')].filter((one) => {
  const { right, left, width } = one.getBoundingClientRect();
  return width > 0 && !one.matches('.skip') && (right > innerWidth + 1 || left < -1);
}).map((one) => one.outerHTML.slice(0, 80))`;

/** Texts whose contrast with what is behind them is below 4.5 (WCAG 2.2, 1.4.3). */
const FAINT = `(() => {
  const parse = (text) => text.match(/[0-9.]+/g).map(Number);
  const luminance = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (one) => {
    for (let at = one; at !== null; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const faint = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const one = walker.currentNode.parentElement;
    if (walker.currentNode.data.trim() === '' || one.closest('style,svg') !== null || one.getClientRects().length === 0) continue;
    const [a, b] = [luminance(parse(getComputedStyle(one).color)), luminance(ground(one))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) faint.push(contrast.toFixed(2) + ' ' + walker.currentNode.data.trim().slice(0, 40));
  }
  return faint;
})()`;

/** Controls, drawings and tables that a screen reader has no name for, and links that all sound alike. */
const NAMELESS = `[...document.querySelectorAll('input:not([type=hidden]),select,button,a,svg,table,nav,section')].filter((one) => {
  const named = one.getAttribute('aria-label') ?? document.getElementById(one.getAttribute('aria-labelledby') ?? '')?.textContent;
  const label = one.labels?.length > 0 ? one.labels[0].textContent : undefined;
  const text = ['A', 'BUTTON'].includes(one.tagName) ? one.textContent : undefined;
  return !(named ?? label ?? text)?.trim();
}).map((one) => one.outerHTML.slice(0, 80))`;
