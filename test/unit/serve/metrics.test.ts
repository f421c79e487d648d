import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Metrics } from '../../../src/serve/metrics.js';

const FIXTURE = readFileSync('test/fixtures/kube-proxy-1.36/metrics.txt', 'utf8');
/** Without kubernetes_build_info, on purpose: a second version in it is an alert of every Kubernetes cluster. */
const [ALWAYS = '', WITH_SAMPLE = ''] = FIXTURE.replace(/^kubernetes_build_info .*\n/m, '').split(/^#.*$/m);

function create(t: TestContext): Metrics {
  const metrics = new Metrics({ version: '1.2.3' });
  t.after(() => metrics.close());
  return metrics;
}

/** `name type label,label` of everything in an exposition text, as the fixture has it. */
function describeExposition(text: string): string[] {
  const types = new Map([...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, name, type]) => [name!, type!]));
  const labels = new Map<string, Set<string>>();
  for (const [, sample, list] of text.matchAll(/^([a-z_0-9]+)(?:\{(.*)\})? \S+$/gm)) {
    const name = types.has(sample!) ? sample! : sample!.replace(/_(bucket|sum|count)$/, '');
    const names = labels.get(name) ?? new Set<string>();
    for (const [, label] of (list ?? '').matchAll(/([a-z_]+)="(?:[^"\\]|\\.)*"/g))
      if (label !== 'le') names.add(label!);
    labels.set(name, names);
  }
  return [...labels].map(([name, names]) => `${name} ${types.get(name)} ${[...names].sort().join(',')}`.trim());
}

function lines(text: string): string[] {
  return text.split('\n').filter((line) => line !== '');
}

function sampleEverythingElse(metrics: Metrics): void {
  metrics.networkProgrammed(4, 0.3);
  metrics.healthzAnswered(200);
  metrics.livezAnswered(503);
  metrics.iptablesRestoreFailed(6);
}

describe('metrics', () => {
  it('have the names, types and labels that kube-proxy 1.36 shows from the start', async (t) => {
    const metrics = create(t);
    metrics.apiRequest({ verb: 'LIST', method: 'GET', host: 'api:6443', code: '200', seconds: 0.1 });
    const shown = describeExposition(await metrics.text());
    for (const line of lines(ALWAYS)) assert.ok(shown.includes(line), `missing: ${line}`);
    const late = lines(WITH_SAMPLE).map((line) => line.split(' ')[0]!);
    assert.deepEqual(
      shown.filter((line) => late.includes(line.split(' ')[0]!)),
      [],
    );
  });

  it('have those that kube-proxy shows once they have a sample, and no others under its names', async (t) => {
    const metrics = create(t);
    sampleEverythingElse(metrics);
    metrics.apiRequest({ verb: 'LIST', method: 'GET', host: 'api:6443', code: '200', seconds: 0.1 });
    const shown = describeExposition(await metrics.text());
    const wanted = [...lines(ALWAYS), ...lines(WITH_SAMPLE)];
    const kubeProxys = shown.filter((line) => /^(kubeproxy_(?!ipvs_)|kubernetes_|rest_client_)/.test(line));
    assert.deepEqual(kubeProxys.sort(), wanted.filter((line) => !line.startsWith('process_')).sort());
  });

  it('use the bucket layouts of kube-proxy', async (t) => {
    const metrics = create(t);
    sampleEverythingElse(metrics);
    metrics.apiRequest({ verb: 'LIST', method: 'GET', host: 'h', code: '200', seconds: 0.1 });
    const text = await metrics.text();
    const buckets = (name: string): string[] => {
      const found = [...text.matchAll(new RegExp(`^${name}_bucket\\{.*le="([^"]+)"`, 'gm'))].map(([, le]) => le!);
      return [...new Set(found)];
    };
    const sync = buckets('kubeproxy_sync_proxy_rules_duration_seconds');
    assert.deepEqual([sync.length, sync[0], sync[14], sync[15]], [16, '0.001', '16.384', '+Inf']);
    const programming = buckets('kubeproxy_network_programming_duration_seconds');
    assert.deepEqual(programming.slice(0, 5), ['0', '0.25', '0.5', '1', '2']);
    assert.deepEqual(programming.slice(-3), ['270', '300', '+Inf']);
    assert.equal(
      buckets('rest_client_request_duration_seconds').join(' '),
      '0.005 0.025 0.1 0.25 0.5 1 2 4 8 15 30 60 +Inf',
    );
  });

  it('count what they are told', async (t) => {
    const metrics = create(t);
    metrics.serviceChanged();
    metrics.endpointsChanged();
    metrics.endpointsChanged();
    metrics.synced(4, 0.25, 1_700_000_000_500);
    metrics.driftRepaired('virtual_server', 'missing', 3);
    metrics.driftRepaired('rule', 'extra', 0);
    metrics.netlinkSent('NEW_DEST', 128);
    metrics.netlinkFailed('NEW_DEST', 'ENOMEM');
    metrics.conntrackCleaned(6, 0.01, 2);
    metrics.unhealthy(new Set(['rules']));
    metrics.tableSize(4, 10, 100, 9);
    metrics.objectSkipped('services', 'bad "quoted" reason\n');
    metrics.watchRestarted('services', 'failed');
    metrics.relisted('endpointslices', 'ended');
    metrics.watchHeard('nodes', 1_700_000_000_500);
    const text = await metrics.text();
    for (const line of [
      'kubeproxy_sync_proxy_rules_endpoint_changes_pending 2',
      'kubeproxy_sync_proxy_rules_service_changes_total 1',
      'kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family="IPv4"} 1700000000.5',
      'kubeproxy_ipvs_drift_repaired_total{object="virtual_server",kind="missing"} 3',
      'kubeproxy_ipvs_netlink_messages_total{operation="NEW_DEST"} 128',
      'kubeproxy_ipvs_netlink_failures_total{operation="NEW_DEST",errno="ENOMEM"} 1',
      'kubeproxy_conntrack_reconciler_deleted_entries_total{ip_family="IPv6"} 2',
      'kubeproxy_ipvs_real_servers{ip_family="IPv4"} 100',
      'kubeproxy_ipvs_unhealthy{category="rules"} 1',
      'kubeproxy_ipvs_unhealthy{category="node"} 0',
      'kubeproxy_ipvs_skipped_objects_total{resource="services",reason="bad \\"quoted\\" reason\\n"} 1',
      'kubeproxy_ipvs_watch_restarts_total{resource="services",reason="failed"} 1',
      'kubeproxy_ipvs_relists_total{resource="endpointslices",reason="ended"} 1',
      'kubeproxy_ipvs_watch_last_event_timestamp_seconds{resource="nodes"} 1700000000.5',
    ]) {
      assert.ok(text.split('\n').includes(line), `missing: ${line}`);
    }
    metrics.changesTaken();
    assert.match(await metrics.text(), /^kubeproxy_sync_proxy_rules_endpoint_changes_pending 0$/m);
  });

  it('tell about the process', async (t) => {
    const text = await create(t).text();
    const value = (name: string): number => Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(text)?.[1]);
    assert.ok(Math.abs(value('process_start_time_seconds') - Date.now() / 1000) < 3600);
    assert.ok(value('process_resident_memory_bytes') > 1e6);
    assert.ok(value('process_open_fds') > 2 && value('process_max_fds') > value('process_open_fds'));
    assert.ok(value('process_cpu_seconds_total') > 0);
    assert.match(text, /^# TYPE process_cpu_seconds_total counter$/m);
    assert.ok(value('kubeproxy_ipvs_event_loop_busy_ratio') <= 1);
    assert.doesNotMatch(text, /kubernetes_build_info/);
  });

  it('name the build under a name of their own, with commit and date where they are known', async (t) => {
    const text = await create(t).text();
    assert.match(text, /^kubeproxy_ipvs_build_info\{version="1\.2\.3",node_version="v\d[^}]*"\} 1$/m);
    assert.doesNotMatch(text, /git_commit|build_date/);
    const dated = new Metrics({ version: '1.2.3', commit: 'abc', date: '2026-11-26T00:00:00.000Z' });
    t.after(() => dated.close());
    assert.match(await dated.text(), /git_commit="abc",build_date="2026-11-26T00:00:00\.000Z"/);
  });

  it('show a zero from the start where the labels are known, so that the first event is an increase', async (t) => {
    const text = await create(t).text();
    for (const line of [
      ...['missing', 'extra', 'changed'].map(
        (kind) => `drift_repaired_total{object="virtual_server",kind="${kind}"} 0`,
      ),
      'drift_repaired_total{object="sysctl",kind="changed"} 0',
      ...['idle', 'deadline', 'restored'].map((reason) => `drains_finished_total{reason="${reason}"} 0`),
      ...['sync', 'kernel', 'rules'].map((stage) => `sync_failures_total{stage="${stage}"} 0`),
      'skipped_objects_total{resource="services",reason="malformed"} 0',
      'skipped_objects{resource="endpointslices"} 0',
    ])
      assert.ok(text.includes(`\nkubeproxy_ipvs_${line}\n`), `missing: ${line}`);
    for (const family of ['IPv4', 'IPv6'])
      assert.ok(text.includes(`kubeproxy_conntrack_reconciler_deleted_entries_total{ip_family="${family}"} 0\n`));
  });

  it('say the same of the event loop to two scrapers', async (t) => {
    // A process that has been running for a while.
    const now = performance.now.bind(performance);
    let later = 1_000_000;
    t.mock.method(performance, 'now', () => now() + later);
    const metrics = create(t);
    const stall = async (): Promise<number> =>
      Number(/^kubeproxy_ipvs_event_loop_longest_stall_seconds (\S+)$/m.exec(await metrics.text())?.[1]);
    const busy = async (): Promise<number> =>
      Number(/^kubeproxy_ipvs_event_loop_busy_seconds_total (\S+)$/m.exec(await metrics.text())?.[1]);
    metrics.syncRunning(true);
    await sleep(100);
    const end = performance.now() + 300;
    while (performance.now() < end);
    await sleep(100);
    // The sync ends, and another begins, before anybody asks.
    metrics.syncRunning(false);
    metrics.syncRunning(true);
    const first = await stall();
    assert.ok(first > 0.1, `${first} s`);
    // The other scraper comes later, and after another sync; it still hears of the stall.
    metrics.syncRunning(false);
    metrics.syncRunning(true);
    assert.ok((await stall()) >= first);
    assert.ok((await busy()) >= 0.3);
    metrics.syncRunning(false);
    // After two minutes, give and take the slots in which stalls are kept, it is told no more.
    later += 100_000;
    assert.ok((await stall()) >= first);
    later += 40_000;
    assert.equal(await stall(), 0);
  });

  it('show what they are told, as 1 and 0 where the question is whether', async (t) => {
    const metrics = create(t);
    const shown = async (): Promise<string[]> =>
      lines(await metrics.text()).filter((line) =>
        /^kubeproxy_ipvs_(estimation|connection|conntrack|kube_proxy|config_|processes|xtables_lock_wait_seconds_(sum|count)|refused_packets|family_|unserved|virtual_|real_|bound_|draining_|claim|refused_obj|watch_last|skipped_objects\{resource="nodes")/.test(
          line,
        ),
      );
    const isTold = (is: boolean): void => {
      metrics.estimating(is);
      metrics.kubeProxyRunning('port', is);
      metrics.configRefused(is);
      metrics.familyServed(6, is, is ? 0 : 7);
    };
    isTold(true);
    metrics.tableFill({ connections: 5, connectionBuckets: 4096, conntrackEntries: 12, conntrackLimit: 1000 });
    metrics.tableSize(4, 3, 9, 2);
    metrics.processSpawned('iptables-save');
    metrics.xtablesLockWaited(1.5);
    metrics.packetsRefused(4, 'host_port', 4);
    metrics.draining(8);
    metrics.claimConflicts(2);
    metrics.refusedObjects('real_server', 3);
    metrics.watchHeard('services', 1_764_000_000_500);
    metrics.skippedNow('nodes', 6);
    const told = [
      'kubeproxy_ipvs_estimation_running 1',
      'kubeproxy_ipvs_connections 5',
      'kubeproxy_ipvs_connection_buckets 4096',
      'kubeproxy_ipvs_conntrack_entries 12',
      'kubeproxy_ipvs_conntrack_limit 1000',
      'kubeproxy_ipvs_processes_spawned_total{command="iptables-save"} 1',
      'kubeproxy_ipvs_xtables_lock_wait_seconds_sum 1.5',
      'kubeproxy_ipvs_xtables_lock_wait_seconds_count 1',
      'kubeproxy_ipvs_virtual_servers{ip_family="IPv4"} 3',
      'kubeproxy_ipvs_real_servers{ip_family="IPv4"} 9',
      'kubeproxy_ipvs_bound_addresses{ip_family="IPv4"} 2',
      'kubeproxy_ipvs_draining_real_servers 8',
      'kubeproxy_ipvs_refused_packets_total{ip_family="IPv4",reason="host_port"} 4',
      'kubeproxy_ipvs_refused_objects{object="real_server"} 3',
      'kubeproxy_ipvs_kube_proxy_running{seen_by="port"} 1',
      'kubeproxy_ipvs_family_served{ip_family="IPv6"} 1',
      'kubeproxy_ipvs_unserved_services{ip_family="IPv6"} 0',
      'kubeproxy_ipvs_config_refused 1',
      'kubeproxy_ipvs_claim_conflicts 2',
      'kubeproxy_ipvs_skipped_objects{resource="nodes"} 6',
      'kubeproxy_ipvs_watch_last_event_timestamp_seconds{resource="services"} 1764000000.5',
    ];
    assert.deepEqual((await shown()).sort(), told.sort());
    isTold(false);
    metrics.tableFill({
      ...{ connections: 6, connectionBuckets: undefined },
      ...{ conntrackEntries: undefined, conntrackLimit: undefined },
    });
    metrics.packetsRefused(4, 'host_port', 3);
    metrics.processSpawned('iptables-save');
    const changed: Record<string, string> = {
      kubeproxy_ipvs_estimation_running: '0',
      kubeproxy_ipvs_connections: '6',
      'kubeproxy_ipvs_kube_proxy_running{seen_by="port"}': '0',
      kubeproxy_ipvs_config_refused: '0',
      'kubeproxy_ipvs_family_served{ip_family="IPv6"}': '0',
      'kubeproxy_ipvs_unserved_services{ip_family="IPv6"}': '7',
      'kubeproxy_ipvs_refused_packets_total{ip_family="IPv4",reason="host_port"}': '7',
      'kubeproxy_ipvs_processes_spawned_total{command="iptables-save"}': '2',
    };
    const after = told.map((line) => {
      const [name = ''] = line.split(/ (?=\S+$)/);
      return changed[name] === undefined ? line : `${name} ${changed[name]}`;
    });
    assert.deepEqual((await shown()).sort(), after.sort(), 'what the kernel does not say is left as it was');
  });

  it('have buckets of their own that tell a tenth of a millisecond from a quarter, up to half a minute', async (t) => {
    const metrics = create(t);
    metrics.changeApplied(0.01);
    metrics.xtablesLockWaited(1);
    const text = await metrics.text();
    const buckets = (name: string): number[] =>
      [...text.matchAll(new RegExp(`^${name}_bucket\\{le="([0-9.]+)"`, 'gm'))].map(([, edge]) => Number(edge));
    assert.deepEqual(
      buckets('kubeproxy_ipvs_change_duration_seconds'),
      [0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1, 5, 30],
    );
    assert.deepEqual(
      buckets('kubeproxy_ipvs_xtables_lock_wait_seconds'),
      [0.001, 0.01, 0.1, 0.5, 1, 2, 5, 10, 20, 30, 60],
    );
  });
});
