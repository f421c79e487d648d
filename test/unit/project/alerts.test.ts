/** The alerts fire when they should and only then: test/alerts/*.yaml, run by Prometheus' own promtool. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { parse, stringify } from 'yaml';

interface Rule {
  readonly alert: string;
  readonly expr: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
}

const SCENARIOS = 'test/alerts/alerts.yaml';
const resource = parse(readFileSync('deploy/monitoring/prometheus-rules.yaml', 'utf8')) as {
  spec: { groups: { name: string; rules: Rule[] }[] };
};
const rules = resource.spec.groups.flatMap((group) => group.rules);
const directory = mkdtempSync(join(tmpdir(), 'alerts-'));
after(() => rmSync(directory, { recursive: true, force: true }));

function promtool(...args: string[]): { status: number | null; output: string } {
  const found = spawnSync('sh', ['scripts/promtool.sh'], { encoding: 'utf8' });
  assert.equal(found.status, 0, `promtool cannot be had: ${found.stderr}`);
  const { status, stdout, stderr } = spawnSync(found.stdout.trim(), args, { cwd: directory, encoding: 'utf8' });
  return { status, output: stdout + stderr };
}

describe('the alerts', () => {
  test('do in each scenario what it says', () => {
    // The operator's resource wraps what Prometheus reads.
    writeFileSync(join(directory, 'rules.yaml'), stringify({ groups: resource.spec.groups }));
    copyFileSync(SCENARIOS, join(directory, 'alerts.yaml'));
    const checked = promtool('check', 'rules', 'rules.yaml');
    assert.equal(checked.status, 0, checked.output);
    const tested = promtool('test', 'rules', 'alerts.yaml');
    assert.equal(tested.status, 0, tested.output);
  });

  test('are all seen firing in some scenario', () => {
    const text = readFileSync(SCENARIOS, 'utf8');
    const firing = (name: string): boolean =>
      new RegExp(`alertname: ${name}\\n\\s+exp_alerts:\\n\\s+- exp_labels`).test(text) ||
      text.includes(`{alertname="${name}", `);
    assert.deepEqual(
      rules.map(({ alert }) => alert).filter((name) => !firing(name)),
      [],
    );
  });

  test('each have severity, summary, description and a runbook that exists', () => {
    const headings = readFileSync('docs/operations.md', 'utf8').match(/^#+ .*$/gm)!;
    const anchors = headings.map((line) => line.replace(/^#+ /, '').toLowerCase().replaceAll(' ', '-'));
    for (const { alert, labels, annotations } of rules) {
      assert.match(labels['severity'] ?? '', /^(critical|warning|info)$/, alert);
      for (const name of ['summary', 'description'])
        assert.ok((annotations[name] ?? '').length > 20, `${alert} ${name}`);
      const [, file = '', anchor = ''] = /\/blob\/main\/([^#]+)#(.+)$/.exec(annotations['runbook_url'] ?? '') ?? [];
      assert.ok(existsSync(file) && anchors.includes(anchor), `${alert}: ${annotations['runbook_url']}`);
      assert.equal(anchor, alert.toLowerCase());
    }
  });
});
