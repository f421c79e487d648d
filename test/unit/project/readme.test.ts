/**
 * What README.md, docs/ and the pages for contributors name exists: dependencies with their reasons, scripts, files,
 * links, metrics, a runbook for each alert, and the traffic table as it is.
 */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { parse } from 'yaml';
import { Metrics } from '../../../src/serve/metrics.js';
import { withTable } from '../../kernel/traffic-markdown.js';

const ROOT = join(import.meta.dirname, '../../../..');
const manifest = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
  dependencies: Record<string, string>;
  scripts: Record<string, string>;
};

/** Path from the root to the text of the page. */
const pages = new Map(
  [
    ...['README.md', 'CONTRIBUTING.md', 'SECURITY.md', 'test/README.md'],
    ...readdirSync(join(ROOT, 'docs')).map((name) => `docs/${name}`),
  ]
    .filter((path) => path.endsWith('.md'))
    .map((path) => [path, readFileSync(join(ROOT, path), 'utf8')]),
);
const everything = [...pages.values()].join('\n');

function page(path: string): string {
  const text = pages.get(path);
  assert.ok(text !== undefined, `no page ${path}`);
  return text;
}

function section(path: string, title: string): string {
  const text = page(path);
  const start = text.indexOf(`# ${title}\n`);
  assert.ok(start >= 0, `no section ${title} in ${path}`);
  const rest = text.slice(start + title.length + 2);
  return rest.slice(0, /^#+ /m.exec(rest)?.index ?? rest.length);
}

/** Rows of the section's table as cells. */
function rows(path: string, title: string): string[][] {
  const lines = section(path, title)
    .split('\n')
    .filter((line) => line.startsWith('|'));
  return lines.slice(2).map((line) =>
    line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim()),
  );
}

/** The anchors that GitHub makes of a page's headings. */
function anchors(text: string): Set<string> {
  const outsideCode = text.replace(/^```.*?^```/gms, '');
  return new Set(
    [...outsideCode.matchAll(/^#+ (.+)$/gm)].map(([, title]) =>
      title!
        .toLowerCase()
        .replace(/[^\p{L}\p{N} _-]/gu, '')
        .replaceAll(' ', '-'),
    ),
  );
}

test('the README is short, and names every page of docs', () => {
  const readme = page('README.md');
  assert.ok(readme.split('\n').length <= 170, 'README.md grows: the details belong into docs/');
  assert.ok(pages.size >= 7);
  for (const path of pages.keys()) if (path.startsWith('docs/')) assert.ok(readme.includes(`](${path}`), path);
  assert.ok(rows('README.md', 'Features against kube-proxy 1.36 in IPVS mode').length >= 18);
});

test('links lead to files and headings that exist', () => {
  let links = 0;
  for (const [path, text] of pages) {
    for (const [, target = ''] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^[a-z]+:/.test(target)) continue;
      const [file = '', anchor] = target.split('#');
      const at = file === '' ? path : join(dirname(path), file);
      assert.ok(existsSync(join(ROOT, at)), `${path}: ${target}`);
      if (anchor !== undefined) assert.ok(anchors(page(at)).has(anchor), `${path}: ${target}`);
      links += 1;
    }
  }
  assert.ok(links >= 10);
});

test('the picture is what its script draws', async () => {
  const { render } = (await import(pathToFileURL(join(ROOT, 'scripts/diagram.mjs')).href)) as { render: () => string };
  const picture = readFileSync(join(ROOT, 'docs/how-it-works.svg'), 'utf8');
  assert.equal(picture, render(), 'node scripts/diagram.mjs');
  assert.ok((picture.match(/<rect class="box/g) ?? []).length >= 15);
  assert.ok(page('README.md').includes('](docs/how-it-works.svg)'));
});

test('every dependency at run time has a reason, and no other is named', () => {
  const reasons = rows('docs/design.md', 'Dependencies at run time');
  const names = reasons.map(([name = '']) => name.replaceAll('`', ''));
  assert.deepEqual(names.sort(), Object.keys(manifest.dependencies).sort());
  for (const [name, reason = ''] of reasons) assert.ok(reason.length > 10, name);
});

test('scripts and files that are named exist', () => {
  const scripts = [...everything.matchAll(/npm run ([a-z:]*[a-z])/g)].map(([, name]) => name!);
  assert.ok(scripts.length >= 6);
  for (const name of scripts) assert.ok(name in manifest.scripts, `npm run ${name}`);
  const paths = [...everything.matchAll(/(?<![\w/])(?:src|test|deploy|native|scripts|docs)\/[\w./-]*\w/g)].map(
    ([path]) => path,
  );
  assert.ok(paths.length >= 20);
  for (const path of paths) assert.ok(existsSync(join(ROOT, path)), path);
});

test('metrics that are named exist, and all of our own are named', () => {
  const metrics = new Metrics({ version: 'test' });
  metrics.serviceTraffic([], 0);
  const known = metrics.names();
  metrics.close();
  const named = rows('docs/operations.md', 'Metrics').flatMap(([cell = '']) =>
    [...cell.matchAll(/`([a-z_]+)`/g)].map(([, name]) => (name!.startsWith('_') ? `kubeproxy_ipvs${name}` : name!)),
  );
  const own = known.filter((name) => name.startsWith('kubeproxy_ipvs_'));
  assert.deepEqual(named.sort(), own.sort());
});

test('every alert has a runbook, and every runbook an alert', () => {
  const rules = parse(readFileSync(join(ROOT, 'deploy/monitoring/prometheus-rules.yaml'), 'utf8')) as {
    spec: { groups: { rules: { alert?: string }[] }[] };
  };
  const alerts = rules.spec.groups.flatMap((group) => group.rules.flatMap(({ alert }) => alert ?? []));
  const runbooks = [...page('docs/operations.md').matchAll(/^### (KubeProxyIpvs\w+)$/gm)].map(([, name]) => name!);
  assert.deepEqual(runbooks.sort(), alerts.sort());
});

test('the traffic table is that of the cases which are walked', () => {
  const text = page('docs/packets.md');
  assert.equal(withTable(text), text, 'node build/test/kernel/traffic-markdown.js --write docs/packets.md');
});
