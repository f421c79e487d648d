/** The alerts fire when they should and only then: test/alerts/*.yaml, run by Prometheus' own promtool. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { parse, stringify } from 'yaml';

interface Alert {
  readonly alert: string;
  readonly expr: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
}

const SCENARIOS = 'test/alerts/alerts.yaml';
const resource = parse(readFileSync('deploy/monitoring/prometheus-rules.yaml', 'utf8')) as {
  spec: { groups: { name: string; rules: (Alert | { readonly record: string })[] }[] };
};
const rules = resource.spec.groups.flatMap((group) => group.rules.filter((rule) => 'alert' in rule));
const directory = mkdtempSync(join(tmpdir(), 'alerts-'));
after(() => rmSync(directory, { recursive: true, force: true }));

function promtool(...args: string[]): { status: number | null; output: string } {
  const found = spawnSync('sh', ['scripts/promtool.sh'], { encoding: 'utf8' });
  assert.equal(found.status, 0, `promtool cannot be had: ${found.stderr}`);
  const { status, stdout, stderr } = spawnSync(found.stdout.trim(), args, { cwd: directory, encoding: 'utf8' });
  return { status, output: stdout + stderr };
}

/** What makes a node's alert fire, from the first minute on: series without `instance`, and their values. */
const FAULTS: Readonly<Record<string, readonly (readonly [series: string, values: string])[]>> = {
  Down: [['up{job="kube-system/kube-proxy-ipvs"}', '0x60']],
  Unhealthy: [
    ['kubeproxy_ipvs_unhealthy{category="rules"}', '1x60'],
    ['kubeproxy_ipvs_unhealthy{category="sysctl"}', '1x60'],
  ],
  SyncBehind: [
    ['kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{ip_family="IPv4"}', '60x60'],
    ['kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family="IPv4"}', '50x60'],
  ],
  WatchSilent: ['services', 'endpointslices', 'nodes'].map((resource) => [
    `kubeproxy_ipvs_watch_last_event_timestamp_seconds{resource="${resource}"}`,
    '0x60',
  ]),
  VerificationStale: [['kubeproxy_ipvs_last_verification_timestamp_seconds{}', '0x60']],
  Drift: [['kubeproxy_ipvs_drift_repaired_total{object="address", kind="missing"}', '0+1x60']],
  NetlinkFailures: [['kubeproxy_ipvs_netlink_failures_total{operation="add-address", errno="EPERM"}', '0+1x60']],
  RuleWriteFailures: [['kubeproxy_sync_proxy_rules_iptables_restore_failures_total{ip_family="IPv6"}', '0+1x60']],
  XtablesLockContention: [
    ['kubeproxy_ipvs_xtables_lock_wait_seconds_bucket{le="5"}', '0x60'],
    ['kubeproxy_ipvs_xtables_lock_wait_seconds_bucket{le="30"}', '0+1x60'],
    ['kubeproxy_ipvs_xtables_lock_wait_seconds_bucket{le="+Inf"}', '0+1x60'],
  ],
  ObjectsRefused: [['kubeproxy_ipvs_refused_objects{object="real_server"}', '1x60']],
  KubeProxyRunning: [['kubeproxy_ipvs_kube_proxy_running{seen_by="port"}', '1x60']],
  FamilyNotServed: [['kubeproxy_ipvs_unserved_services{ip_family="IPv6"}', '12x60']],
  NodeUnknown: [['kubeproxy_ipvs_node_known{}', '0x60']],
  DrainCutOff: [['kubeproxy_ipvs_drains_finished_total{reason="deadline"}', '0+1x60']],
  ConntrackNearlyFull: [
    ['kubeproxy_ipvs_conntrack_entries{}', '950x60'],
    ['kubeproxy_ipvs_conntrack_limit{}', '1000x60'],
  ],
  ConnectionTableCrowded: [
    ['kubeproxy_ipvs_connections{}', '100000x60'],
    ['kubeproxy_ipvs_connection_buckets{}', '4000x60'],
  ],
  EventLoopStalled: [['kubeproxy_ipvs_event_loop_longest_stall_seconds{}', '2x60']],
};

/**
 * A cluster in which the first `ill` of all nodes have the faults. After so many minutes each fault is one alert per
 * ill node, or one alert that names none.
 */
function scenario(faults: readonly string[], nodes: number, ill: number, told: 'by node' | 'once', after = 60): object {
  const names = Array.from({ length: nodes }, (_, number) => `node-${number}`);
  const input = names.flatMap((name, number) => {
    const own = number < ill ? faults.flatMap((fault) => FAULTS[fault]!) : [];
    return [...own, ['kubeproxy_ipvs_build_info{version="0.1.0"}', '1x60'] as const].map(([series, values]) => ({
      series: series.replace(/\}$/, `,instance="${name}"}`).replace('{,', '{'),
      values,
    }));
  });
  const samples = faults.flatMap((fault) =>
    (told === 'once' ? [''] : names.slice(0, ill).map((name) => `, instance="${name}"`)).map((instance) => ({
      labels: `{alertname="KubeProxyIpvs${fault}"${instance}}`,
      value: 1,
    })),
  );
  const expr = 'sum by (alertname, instance) (ALERTS{alertstate="firing"})';
  return {
    ...{ name: `${ill} of ${nodes} nodes`, interval: '1m', input_series: input },
    promql_expr_test: [{ expr, eval_time: `${after}m`, exp_samples: samples }],
  };
}

/** The operator's resource wraps what Prometheus reads. */
function writeRules(): void {
  writeFileSync(join(directory, 'rules.yaml'), stringify({ groups: resource.spec.groups }));
}

describe('the alerts', () => {
  test('do in each scenario what it says', () => {
    writeRules();
    copyFileSync(SCENARIOS, join(directory, 'alerts.yaml'));
    const checked = promtool('check', 'rules', 'rules.yaml');
    assert.equal(checked.status, 0, checked.output);
    const tested = promtool('test', 'rules', 'alerts.yaml');
    assert.equal(tested.status, 0, tested.output);
  });

  test('of nodes name each node while they are few, and are one for the cluster, with their number, when many', () => {
    writeRules();
    const all = Object.keys(FAULTS);
    const tests = [
      scenario(all, 1, 1, 'by node'),
      scenario(all, 4, 2, 'by node'),
      scenario(all, 4, 3, 'once'),
      scenario(all, 12, 5, 'by node'),
      scenario(all, 12, 6, 'once'),
      scenario(['WatchSilent'], 1000, 1000, 'once', 20),
    ];
    const file = { rule_files: ['rules.yaml'], evaluation_interval: '1m', tests };
    writeFileSync(join(directory, 'nodes.yaml'), stringify(file));
    const tested = promtool('test', 'rules', 'nodes.yaml');
    assert.equal(tested.status, 0, tested.output);
  });

  test('that name a node are all tried so', () => {
    const ofNodes = rules.filter(({ annotations }) => annotations['summary']!.includes('$labels.instance'));
    assert.deepEqual(ofNodes.map(({ alert }) => alert.replace('KubeProxyIpvs', '')).sort(), Object.keys(FAULTS).sort());
    for (const { alert, annotations } of ofNodes)
      assert.match(
        annotations['summary']!,
        /^\{\{ if \$labels\.instance \}\}.*\{\{ else \}\}.*\{\{ \$value \}\} nodes.*\{\{ end \}\}$/,
        alert,
      );
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
