/** The Grafana dashboards: made by their script, of metrics that exist, in PromQL that Prometheus takes. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { stringify } from 'yaml';
import { Metrics } from '../../../src/serve/metrics.js';

interface Panel {
  readonly id: number;
  readonly type: string;
  readonly title: string;
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number };
  readonly targets?: readonly { readonly expr: string; readonly refId: string }[];
}

interface Dashboard {
  readonly uid: string;
  readonly panels: readonly Panel[];
  readonly links: readonly { readonly url: string }[];
  readonly templating: { readonly list: readonly { readonly name: string }[] };
}

const FILES = ['grafana-fleet.json', 'grafana-node.json'] as const;
const written = new Map(
  FILES.map((file) => [file, JSON.parse(readFileSync(`deploy/monitoring/${file}`, 'utf8')) as Dashboard]),
);
const [fleet, node] = FILES.map((file) => written.get(file)!) as [Dashboard, Dashboard];
const expressions = ({ panels }: Dashboard): string[] =>
  panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr));
const directory = mkdtempSync(join(tmpdir(), 'dashboards-'));
after(() => rmSync(directory, { recursive: true, force: true }));

const metrics = new Metrics({ version: '1.0.0' });
metrics.close();
metrics.serviceTraffic([], 0);
const known = new Set(metrics.names());

/** The metric names in a PromQL expression. */
function namesIn(expression: string): string[] {
  return [...expression.matchAll(/\b((?:kubeproxy|rest_client|process|kubernetes)_[a-z0-9_]+)/g)].map(
    ([, name]) => name!,
  );
}

describe('the dashboards', () => {
  test('are what their script makes', async () => {
    const { dashboards } = (await import(join(process.cwd(), 'scripts/dashboards.mjs'))) as {
      dashboards: () => Record<string, unknown>;
    };
    assert.deepEqual(
      Object.fromEntries(written),
      JSON.parse(JSON.stringify(dashboards())),
      'node scripts/dashboards.mjs',
    );
  });

  test('draw metrics that exist, and every one of our own', () => {
    const names = [...expressions(fleet), ...expressions(node)].flatMap(namesIn);
    for (const name of names)
      assert.ok(known.has(name) || known.has(name.replace(/_(bucket|sum|count)$/, '')), `unknown: ${name}`);
    const drawn = new Set(names.map((name) => name.replace(/_bucket$/, '')));
    const left = [...known].filter((name) => name.startsWith('kubeproxy_ipvs_') && !drawn.has(name));
    // The share of time is drawn from the counter.
    assert.deepEqual(left, ['kubeproxy_ipvs_event_loop_busy_ratio']);
  });

  test('ask in PromQL that Prometheus takes', () => {
    const rules = [...expressions(fleet), ...expressions(node)].map((expr, i) => ({
      record: `panel:${i}`,
      expr: expr.replaceAll('$__rate_interval', '5m').replaceAll(/\$[a-z]+/g, '.*'),
    }));
    assert.ok(rules.length > 60, `${rules.length}`);
    writeFileSync(join(directory, 'rules.yaml'), stringify({ groups: [{ name: 'panels', rules }] }));
    const found = spawnSync('sh', ['scripts/promtool.sh'], { encoding: 'utf8' });
    assert.equal(found.status, 0, `promtool cannot be had: ${found.stderr}`);
    const { status, stdout, stderr } = spawnSync(
      found.stdout.trim(),
      ['check', 'rules', join(directory, 'rules.yaml')],
      {
        encoding: 'utf8',
      },
    );
    assert.equal(status, 0, stdout + stderr);
  });

  test('have panels of their own ids, none on top of another, all in the grid', () => {
    for (const { panels } of [fleet, node]) {
      assert.equal(new Set(panels.map(({ id }) => id)).size, panels.length);
      const taken = new Set<string>();
      for (const { title, gridPos, targets = [], type } of panels) {
        const { x, y, w, h } = gridPos;
        assert.ok(x >= 0 && x + w <= 24, title);
        for (let i = x; i < x + w; i++)
          for (let j = y; j < y + h; j++) {
            assert.ok(!taken.has(`${i} ${j}`), `${title} is on top of another`);
            taken.add(`${i} ${j}`);
          }
        assert.equal(type === 'row', targets.length === 0, title);
        assert.equal(new Set(targets.map(({ refId }) => refId)).size, targets.length);
      }
    }
  });

  test('choose data source, cluster, job and node; each leads to the other', () => {
    const names = ({ templating }: Dashboard): string[] => templating.list.map(({ name }) => name);
    assert.deepEqual(names(fleet), ['datasource', 'cluster', 'job']);
    assert.deepEqual(names(node), ['datasource', 'cluster', 'job', 'instance']);
    assert.deepEqual([fleet.links[0]!.url, node.links[0]!.url], [`/d/${node.uid}`, `/d/${fleet.uid}`]);
    for (const expr of [...expressions(fleet), ...expressions(node)])
      assert.match(expr, /cluster=~"\$cluster",job=~"\$job"/);
    for (const expr of expressions(node)) assert.match(expr, /instance=~"\$instance"/);
  });

  test('have no line per node in a fleet: at most the ten worst', () => {
    const perNode = expressions(fleet).filter((expr) => {
      const outer =
        /^(?:topk\(10, |count\(|sum by \((?:category)\)|max by \((?!cluster, instance)|count by |histogram_quantile\([0-9.]+, sum by \(le\))/;
      return !outer.test(expr);
    });
    assert.deepEqual(perNode, []);
    for (const title of ['Red', 'Behind', 'Drifting', 'Not verified'])
      assert.match(
        fleet.panels.find((panel) => panel.title === title)!.targets![0]!.expr,
        /^count\(.*\) or vector\(0\)$/,
      );
  });
});
