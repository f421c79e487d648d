/** What the README names exists: dependencies with their reasons, scripts, files, metrics, and the traffic table as it is. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Metrics } from '../../../src/serve/metrics.js';
import { withTable } from '../../kernel/traffic-markdown.js';

const ROOT = join(import.meta.dirname, '../../../..');
const text = readFileSync(join(ROOT, 'README.md'), 'utf8');
const manifest = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
  dependencies: Record<string, string>;
  scripts: Record<string, string>;
};

function section(title: string): string {
  const start = text.indexOf(`# ${title}\n`);
  assert.ok(start >= 0, `no section ${title}`);
  const rest = text.slice(start + title.length + 2);
  return rest.slice(0, /^#+ /m.exec(rest)?.index ?? rest.length);
}

/** Rows of the section's table as cells. */
function rows(title: string): string[][] {
  const lines = section(title)
    .split('\n')
    .filter((line) => line.startsWith('|'));
  return lines.slice(2).map((line) =>
    line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim()),
  );
}

test('every dependency at run time has a reason, and no other is named', () => {
  const reasons = rows('Dependencies at run time');
  const names = reasons.map(([name = '']) => name.replaceAll('`', ''));
  assert.deepEqual(names.sort(), Object.keys(manifest.dependencies).sort());
  for (const [name, reason = ''] of reasons) assert.ok(reason.length > 10, name);
});

test('scripts and files that are named exist', () => {
  const scripts = [...text.matchAll(/npm run ([a-z]+)/g)].map(([, name]) => name!);
  assert.ok(scripts.length >= 6);
  for (const name of scripts) assert.ok(name in manifest.scripts, `npm run ${name}`);
  const paths = [...text.matchAll(/(?<![\w/])(?:src|test|deploy|native)\/[\w./-]*\w/g)].map(([path]) => path);
  assert.ok(paths.length >= 20);
  for (const path of paths) assert.ok(existsSync(join(ROOT, path)), path);
});

test('metrics that are named exist, and all of our own are named', () => {
  const metrics = new Metrics({ version: 'test' });
  const known = metrics.names();
  metrics.close();
  const named = rows('Metrics').flatMap(([cell = '']) =>
    [...cell.matchAll(/`([a-z_]+)`/g)].map(([, name]) => (name!.startsWith('_') ? `kubeproxy_ipvs${name}` : name!)),
  );
  const own = known.filter((name) => name.startsWith('kubeproxy_ipvs_'));
  assert.deepEqual(named.sort(), own.sort());
});

test('the traffic table is that of the cases which are walked', () => {
  assert.equal(withTable(text), text, 'node build/test/kernel/traffic-markdown.js --write README.md');
});
