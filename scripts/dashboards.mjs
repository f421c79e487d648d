#!/usr/bin/env node
/**
 * Makes the Grafana dashboards of deploy/monitoring: one for a fleet, in which no panel has a line per node but those
 * of the ten worst, and one for a node. `node scripts/dashboards.mjs` writes them; a test holds that they are written.
 */
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import prettier from 'prettier';

const DIRECTORY = new URL('../deploy/monitoring/', import.meta.url);
const DATASOURCE = { type: 'prometheus', uid: '${datasource}' };
/** The cluster label is there where one Prometheus looks after several; no label is as good as any. */
const FLEET = '{cluster=~"$cluster",job=~"$job"}';
const NODE = '{cluster=~"$cluster",job=~"$job",instance=~"$instance"}';
const QUEUED = 'kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds';
const SYNCED = 'kubeproxy_sync_proxy_rules_last_timestamp_seconds';
/** Seconds since the last good sync where one is owed, else 0. Both stand still while a node hangs: time does not. */
const behind = (of) => `(time() - ${SYNCED}${of}) * (${QUEUED}${of} > bool ${SYNCED}${of})`;
const quantile = (q, name, of, by = 'le') =>
  `histogram_quantile(${q}, sum by (${by}) (rate(${name}_bucket${of}[$__rate_interval])))`;
const rate = (name, of, by) => `sum by (${by}) (rate(${name}${of}[$__rate_interval]))`;
const increase = (name, of, by) => `sum by (${by}) (increase(${name}${of}[$__rate_interval]))`;
const red = (of) => `kubeproxy_ipvs_unhealthy{category!="node",${of.slice(1)}`;
/** Nodes for which the expression has a value: 0, and not nothing, when there is none. */
const nodes = (expression) => `count(max by (cluster, instance) (${expression})) or vector(0)`;
const worst = (expression) => `topk(10, max by (cluster, instance) (${expression}))`;

const row = (title) => ({ type: 'row', title });
const graph = (title, unit, targets, description = '') => ({ type: 'timeseries', title, unit, targets, description });
/** A number that is red from `bad` on; without it never. */
const stat = (title, unit, expr, bad, description = '') => ({
  ...{ type: 'stat', title, unit, targets: [[expr, '']], bad, description },
});
const table = (title, expr, description = '') => ({ type: 'table', title, targets: [[expr, '']], description });
const ten = (title, unit, expression, description = '') =>
  graph(title, unit, [[worst(expression), '{{instance}}']], description);

const fleet = [
  row('Nodes'),
  stat('Nodes', 'none', nodes(`kubeproxy_ipvs_build_info${FLEET}`)),
  stat(
    'Not scraped',
    'none',
    'count(up{cluster=~"$cluster",job=~"$job"} == 0) or vector(0)',
    1,
    'Prometheus reaches no daemon there.',
  ),
  stat('Red', 'none', nodes(`${red(FLEET)} > 0`), 1, '/healthz is 503 for a reason of its own.'),
  stat(
    'Behind',
    'none',
    nodes(`${behind(FLEET)} > 60`),
    1,
    'A change has waited for a good sync for more than a minute.',
  ),
  stat(
    'Not verified',
    'none',
    nodes(`time() - kubeproxy_ipvs_last_verification_timestamp_seconds${FLEET} > 300`),
    1,
    'Nobody has read the kernel back for five minutes.',
  ),
  stat(
    'Drifting',
    'none',
    nodes(`increase(kubeproxy_ipvs_drift_repaired_total${FLEET}[1h]) > 0`),
    1,
    'Somebody else changed the kernel there in the last hour.',
  ),
  stat(
    'Without the API server',
    'none',
    nodes(`time() - kubeproxy_ipvs_watch_last_event_timestamp_seconds${FLEET} > 200`),
    1,
    'They go on serving what they know.',
  ),
  stat('Refused configurations', 'none', nodes(`kubeproxy_ipvs_config_refused${FLEET} > 0`), 1),
  stat(
    'kube-proxy runs, too',
    'none',
    nodes(`kubeproxy_ipvs_kube_proxy_running${FLEET} > 0`),
    1,
    'Each undoes what the other does there.',
  ),
  graph(
    'Red nodes, by reason',
    'none',
    [[`sum by (category) (kubeproxy_ipvs_unhealthy${FLEET})`, '{{category}}']],
    'node: it is being deleted or drained.',
  ),
  ten('Behind: the ten worst', 's', behind(FLEET), 'Time since the last good sync where one is owed.'),
  table('Versions', `count by (cluster, version, git_commit) (kubeproxy_ipvs_build_info${FLEET})`),
  row('Cluster: the same facts on every node, told once'),
  graph('Claim conflicts and objects left out', 'none', [
    [`max by (cluster) (kubeproxy_ipvs_claim_conflicts${FLEET})`, '{{cluster}} claim conflicts'],
    [`max by (cluster, resource) (kubeproxy_ipvs_skipped_objects${FLEET})`, '{{cluster}} malformed {{resource}}'],
    [
      `max by (cluster, object) (kubeproxy_ipvs_refused_objects${FLEET})`,
      '{{cluster}} refused by a kernel: {{object}}',
    ],
  ]),
  graph(
    'Virtual servers',
    'none',
    [[`max by (cluster, ip_family) (kubeproxy_ipvs_virtual_servers${FLEET})`, '{{cluster}} {{ip_family}}']],
    'Those of the node that has the most.',
  ),
  graph('Changes a node sees', 'ops', [
    [
      `max by (cluster) (rate(kubeproxy_sync_proxy_rules_endpoint_changes_total${FLEET}[$__rate_interval]))`,
      '{{cluster}} EndpointSlices',
    ],
    [
      `max by (cluster) (rate(kubeproxy_sync_proxy_rules_service_changes_total${FLEET}[$__rate_interval]))`,
      '{{cluster}} Services',
    ],
  ]),
  row('Speed'),
  graph(
    'Network programming latency',
    's',
    [0.5, 0.99, 0.999].map((q) => [
      quantile(q, 'kubeproxy_network_programming_duration_seconds', FLEET),
      `p${q * 100}`,
    ]),
    'From the change of a pod to the kernel, over all nodes.',
  ),
  graph(
    'Sync duration',
    's',
    [0.5, 0.99].map((q) => [quantile(q, 'kubeproxy_sync_proxy_rules_duration_seconds', FLEET), `p${q * 100}`]),
  ),
  ten(
    'Verification p99: the ten slowest',
    's',
    quantile(0.99, 'kubeproxy_ipvs_verification_duration_seconds', FLEET, 'cluster, instance, le'),
  ),
  row('The ten worst nodes'),
  ten(
    'Drift repaired',
    'none',
    increase('kubeproxy_ipvs_drift_repaired_total', FLEET, 'cluster, instance'),
    "What others changed behind the daemon's back.",
  ),
  ten('Failed syncs', 'ops', rate('kubeproxy_ipvs_sync_failures_total', FLEET, 'cluster, instance')),
  ten('Netlink failures', 'ops', rate('kubeproxy_ipvs_netlink_failures_total', FLEET, 'cluster, instance')),
  ten('Draining real servers', 'none', `kubeproxy_ipvs_draining_real_servers${FLEET}`),
  ten('Packets refused or dropped', 'pps', rate('kubeproxy_ipvs_refused_packets_total', FLEET, 'cluster, instance')),
  ten(
    'Age of the last word from the API server',
    's',
    `time() - kubeproxy_ipvs_watch_last_event_timestamp_seconds${FLEET}`,
  ),
  ten('Resident memory', 'bytes', `process_resident_memory_bytes${FLEET}`),
  ten('CPU', 'percentunit', `rate(process_cpu_seconds_total${FLEET}[$__rate_interval])`),
  ten('Longest stall of the event loop', 's', `kubeproxy_ipvs_event_loop_longest_stall_seconds${FLEET}`),
];

const node = [
  row('Now'),
  stat('Health', 'none', `max(${red(NODE)})`, 1, '0 is healthy; "kube-proxy-ipvs status" there says why not.'),
  stat('Behind', 's', `max(${behind(NODE)})`, 60, 'Time since the last good sync where one is owed.'),
  stat(
    'Since the last verification',
    's',
    `max(time() - kubeproxy_ipvs_last_verification_timestamp_seconds${NODE})`,
    300,
  ),
  stat(
    'Since the last repair',
    's',
    `time() - max(kubeproxy_ipvs_last_repair_timestamp_seconds${NODE} > 0)`,
    undefined,
    'Nothing: none since the start.',
  ),
  stat('Virtual servers', 'none', `sum(kubeproxy_ipvs_virtual_servers${NODE})`),
  stat('Real servers', 'none', `sum(kubeproxy_ipvs_real_servers${NODE})`),
  stat('Bound addresses', 'none', `sum(kubeproxy_ipvs_bound_addresses${NODE})`),
  stat('Draining', 'none', `sum(kubeproxy_ipvs_draining_real_servers${NODE})`),
  row('Health'),
  graph(
    'Red on /healthz, by reason',
    'none',
    [[`kubeproxy_ipvs_unhealthy${NODE} > 0`, '{{instance}} {{category}}']],
    '1 while the node answers 503; the category says what kind of thing is wrong, "kube-proxy-ipvs status" there the rest.',
  ),
  graph(
    'Behind',
    's',
    [[behind(NODE), '{{instance}} {{ip_family}}']],
    'Time since the last good sync where one is owed; 0 is up to date.',
  ),
  graph(
    'Age of the last word from the API server',
    's',
    [[`time() - kubeproxy_ipvs_watch_last_event_timestamp_seconds${NODE}`, '{{instance}} {{resource}}']],
    'Events and bookmarks; a bookmark comes about once a minute.',
  ),
  row('Changes'),
  graph('Changes seen', 'ops', [
    [rate('kubeproxy_sync_proxy_rules_endpoint_changes_total', NODE, 'instance'), '{{instance}} EndpointSlices'],
    [rate('kubeproxy_sync_proxy_rules_service_changes_total', NODE, 'instance'), '{{instance}} Services'],
  ]),
  graph(
    'Sync duration',
    's',
    [0.5, 0.99].map((q) => [quantile(q, 'kubeproxy_sync_proxy_rules_duration_seconds', NODE), `p${q * 100}`]),
  ),
  graph(
    'Network programming latency',
    's',
    [
      ...[0.5, 0.99].map((q) => [quantile(q, 'kubeproxy_network_programming_duration_seconds', NODE), `p${q * 100}`]),
      [quantile(0.99, 'kubeproxy_ipvs_change_duration_seconds', NODE), 'p99, own share'],
    ],
    'From the change of a pod to the kernel.',
  ),
  graph('Pending changes', 'short', [
    [
      `sum by (instance) (kubeproxy_sync_proxy_rules_endpoint_changes_pending${NODE} + kubeproxy_sync_proxy_rules_service_changes_pending${NODE})`,
      '{{instance}}',
    ],
  ]),
  graph('Failed syncs', 'ops', [
    [rate('kubeproxy_ipvs_sync_failures_total', NODE, 'instance, stage'), '{{instance}} {{stage}}'],
  ]),
  graph('Local traffic policy without a local endpoint', 'short', [
    [
      `sum by (instance, traffic_policy) (kubeproxy_sync_proxy_rules_no_local_endpoints_total${NODE})`,
      '{{instance}} {{traffic_policy}}',
    ],
  ]),
  row('Traffic'),
  graph(
    'Packets refused or dropped, by reason',
    'pps',
    [[rate('kubeproxy_ipvs_refused_packets_total', NODE, 'instance, reason'), '{{instance}} {{reason}}']],
    'no_endpoints: nobody answers; no_local_endpoints: policy Local; source_range: loadBalancerSourceRanges; host_port: a port of the host asked for by a VIP.',
  ),
  graph(
    'Connections by Service: the ten busiest',
    'ops',
    [
      [
        `topk(10, ${rate('kubeproxy_ipvs_service_connections_total', NODE, 'namespace, service, port')})`,
        '{{namespace}}/{{service}}:{{port}}',
      ],
    ],
    'Where kubeProxyIpvs.serviceMetrics is set.',
  ),
  graph('Bytes by Service: the ten busiest', 'Bps', [
    [
      `topk(10, ${rate('kubeproxy_ipvs_service_bytes_total', NODE, 'namespace, service, port, direction')})`,
      '{{namespace}}/{{service}}:{{port}} {{direction}}',
    ],
  ]),
  graph('Packets by Service: the ten busiest', 'pps', [
    [
      `topk(10, ${rate('kubeproxy_ipvs_service_packets_total', NODE, 'namespace, service, port, direction')})`,
      '{{namespace}}/{{service}}:{{port}} {{direction}}',
    ],
  ]),
  graph(
    'Ports of Services without metrics',
    'none',
    [[`kubeproxy_ipvs_service_ports_cut${NODE}`, '{{instance}}']],
    'Others have more connections: kubeProxyIpvs.serviceMetrics says how many have metrics.',
  ),
  graph('Draining real servers', 'short', [[`kubeproxy_ipvs_draining_real_servers${NODE}`, '{{instance}}']]),
  row('Kernel state'),
  graph(
    'Tables of connections',
    'short',
    [
      [
        `max by (instance) (kubeproxy_ipvs_conntrack_entries${NODE} / kubeproxy_ipvs_conntrack_limit${NODE})`,
        '{{instance}} conntrack, share of the limit',
      ],
      [
        `max by (instance) (kubeproxy_ipvs_connections${NODE} / (kubeproxy_ipvs_connection_buckets${NODE} > 0))`,
        '{{instance}} IPVS connections per bucket',
      ],
      [`min by (instance) (kubeproxy_ipvs_estimation_running${NODE})`, '{{instance}} the kernel estimates rates'],
    ],
    'Tracked connections as a share of the limit, IPVS connections per bucket, and whether the kernel estimates rates.',
  ),
  graph('Virtual and real servers', 'short', [
    [`kubeproxy_ipvs_virtual_servers${NODE}`, '{{instance}} {{ip_family}} virtual'],
    [`kubeproxy_ipvs_real_servers${NODE}`, '{{instance}} {{ip_family}} real'],
    [`kubeproxy_ipvs_bound_addresses${NODE}`, '{{instance}} {{ip_family}} addresses'],
  ]),
  graph(
    'Drift repaired',
    'short',
    [
      [
        increase('kubeproxy_ipvs_drift_repaired_total', NODE, 'instance, object, kind'),
        '{{instance}} {{object}} {{kind}}',
      ],
    ],
    "What others changed in the kernel behind this daemon's back.",
  ),
  graph('Ends of drains', 'short', [[increase('kubeproxy_ipvs_drains_finished_total', NODE, 'reason'), '{{reason}}']]),
  graph('Verification duration p99', 's', [
    [quantile(0.99, 'kubeproxy_ipvs_verification_duration_seconds', NODE, 'instance, le'), '{{instance}}'],
  ]),
  graph('Netlink messages', 'ops', [
    [rate('kubeproxy_ipvs_netlink_messages_total', NODE, 'operation'), '{{operation}}'],
  ]),
  graph('Netlink failures', 'ops', [
    [
      rate('kubeproxy_ipvs_netlink_failures_total', NODE, 'instance, operation, errno'),
      '{{instance}} {{operation}} {{errno}}',
    ],
  ]),
  graph('Wait for the xtables lock p99', 's', [
    [quantile(0.99, 'kubeproxy_ipvs_xtables_lock_wait_seconds', NODE, 'instance, le'), '{{instance}}'],
  ]),
  graph('Failed rule writes', 'ops', [
    [
      rate('kubeproxy_sync_proxy_rules_iptables_restore_failures_total', NODE, 'instance, ip_family'),
      '{{instance}} {{ip_family}}',
    ],
  ]),
  graph('Stale conntrack entries removed', 'ops', [
    [
      rate('kubeproxy_conntrack_reconciler_deleted_entries_total', NODE, 'instance, ip_family'),
      '{{instance}} {{ip_family}}',
    ],
  ]),
  row('Objects and the API server'),
  graph('Objects left out and claim conflicts', 'short', [
    [`kubeproxy_ipvs_skipped_objects${NODE}`, '{{instance}} malformed {{resource}}'],
    [`kubeproxy_ipvs_claim_conflicts${NODE}`, '{{instance}} claim conflicts'],
    [`kubeproxy_ipvs_refused_objects${NODE}`, '{{instance}} refused by the kernel: {{object}}'],
    [`kubeproxy_ipvs_node_known${NODE} == bool 0`, '{{instance}} its Node object was not seen'],
    [`kubeproxy_ipvs_config_refused${NODE}`, '{{instance}} refused configuration'],
    [`kubeproxy_ipvs_family_served${NODE} == bool 0`, '{{instance}} leaves {{ip_family}} out'],
    [`max without (seen_by) (kubeproxy_ipvs_kube_proxy_running${NODE})`, '{{instance}} kube-proxy runs, too'],
    [`kubeproxy_ipvs_unserved_services${NODE}`, '{{instance}} Services whose {{ip_family}} is not served'],
  ]),
  graph('Left out, how often', 'short', [
    [increase('kubeproxy_ipvs_skipped_objects_total', NODE, 'resource, reason'), '{{resource}} {{reason}}'],
  ]),
  graph('Requests', 'reqps', [[rate('rest_client_requests_total', NODE, 'code, method'), '{{method}} {{code}}']]),
  graph('Time until the API server answers p99', 's', [
    [quantile(0.99, 'rest_client_request_duration_seconds', NODE, 'verb, le'), '{{verb}}'],
  ]),
  graph('Lists and watches begun again', 'short', [
    [increase('kubeproxy_ipvs_relists_total', NODE, 'resource, reason'), 'list {{resource}} {{reason}}'],
    [increase('kubeproxy_ipvs_watch_restarts_total', NODE, 'resource, reason'), 'watch {{resource}} {{reason}}'],
  ]),
  row('Process'),
  graph('CPU', 'percentunit', [[`rate(process_cpu_seconds_total${NODE}[$__rate_interval])`, '{{instance}}']]),
  graph('Resident memory', 'bytes', [[`process_resident_memory_bytes${NODE}`, '{{instance}}']]),
  graph('Event loop: share of time that it is busy', 'percentunit', [
    [`rate(kubeproxy_ipvs_event_loop_busy_seconds_total${NODE}[$__rate_interval])`, '{{instance}}'],
  ]),
  graph('Longest stall of the event loop', 's', [
    [`kubeproxy_ipvs_event_loop_longest_stall_seconds${NODE}`, '{{instance}}'],
  ]),
  graph('Processes started', 'ops', [[rate('kubeproxy_ipvs_processes_spawned_total', NODE, 'command'), '{{command}}']]),
  table('Version', `kubeproxy_ipvs_build_info${NODE}`),
];

const SIZES = { row: [24, 1], stat: [3, 4], timeseries: [8, 8], table: [8, 8] };

/** Places panels from left to right, row by row. */
function placed(panels) {
  let [x, y, height] = [0, 0, 0];
  return panels.map((panel, index) => {
    const [w, h] = SIZES[panel.type];
    if (x + w > 24) [x, y, height] = [0, y + height, 0];
    const gridPos = { x, y, w, h };
    [x, height] = [x + w, Math.max(height, h)];
    return rendered(panel, index + 1, gridPos);
  });
}

function rendered({ type, title, unit, targets, description, bad }, id, gridPos) {
  if (type === 'row') return { id, type, title, collapsed: false, gridPos, panels: [] };
  const steps = [{ color: 'green', value: null }, ...(bad === undefined ? [] : [{ color: 'red', value: bad }])];
  const defaults = {
    timeseries: { unit, min: 0, custom: { fillOpacity: 8, lineWidth: 1, showPoints: 'never' } },
    stat: { unit, thresholds: { mode: 'absolute', steps } },
    table: {},
  }[type];
  const options = {
    timeseries: { legend: { displayMode: 'list', placement: 'bottom' }, tooltip: { mode: 'multi', sort: 'desc' } },
    stat: {
      colorMode: bad === undefined ? 'none' : 'background',
      graphMode: 'none',
      reduceOptions: { calcs: ['lastNotNull'] },
    },
    table: { showHeader: true },
  }[type];
  return {
    ...{ id, type, title, ...(description !== '' && { description }), datasource: DATASOURCE, gridPos },
    fieldConfig: { defaults, overrides: [] },
    targets: targets.map(([expr, legendFormat], i) => ({
      ...{ refId: String.fromCharCode(65 + i), datasource: DATASOURCE, expr, legendFormat },
      ...(type !== 'timeseries' && { instant: true, range: false }),
      ...(type === 'table' && { format: 'table' }),
    })),
    options,
    ...(type === 'table' && {
      transformations: [{ id: 'organize', options: { excludeByName: { Time: true, __name__: true, job: true } } }],
    }),
  };
}

function variable(name, label, query, multi = true) {
  return {
    ...{ name, label, type: 'query', datasource: DATASOURCE, query: { query, refId: name }, refresh: 2, sort: 1 },
    ...{ multi, includeAll: true, allValue: '.*', current: { selected: true, text: ['All'], value: ['$__all'] } },
  };
}

function dashboard(uid, title, panels, variables, link) {
  const datasource = { name: 'datasource', label: 'Data source', type: 'datasource', query: 'prometheus', current: {} };
  return {
    ...{ title, uid, tags: ['kubernetes', 'networking', 'kube-proxy-ipvs'], schemaVersion: 39, version: 1 },
    ...{ editable: true, time: { from: 'now-3h', to: 'now' }, refresh: '30s', timezone: 'browser' },
    links: [{ type: 'link', title: link.title, url: `/d/${link.uid}`, includeVars: true, keepTime: true }],
    templating: { list: [datasource, ...variables] },
    annotations: { list: [] },
    panels: placed(panels),
  };
}

const CLUSTER = variable('cluster', 'Cluster', 'label_values(kubeproxy_ipvs_build_info, cluster)');
const JOB = variable('job', 'Job', 'label_values(kubeproxy_ipvs_build_info{cluster=~"$cluster"}, job)');
const INSTANCE = variable('instance', 'Node', `label_values(kubeproxy_ipvs_build_info${FLEET}, instance)`);

/** By file name. */
export function dashboards() {
  const [fleetId, nodeId] = ['kube-proxy-ipvs-fleet', 'kube-proxy-ipvs'];
  return {
    'grafana-fleet.json': dashboard(fleetId, 'kube-proxy-ipvs: fleet', fleet, [CLUSTER, JOB], {
      title: 'One node',
      uid: nodeId,
    }),
    'grafana-node.json': dashboard(nodeId, 'kube-proxy-ipvs: node', node, [CLUSTER, JOB, INSTANCE], {
      title: 'Fleet',
      uid: fleetId,
    }),
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url))
  for (const [file, content] of Object.entries(dashboards())) {
    const path = fileURLToPath(new URL(file, DIRECTORY));
    const options = { ...(await prettier.resolveConfig(path)), filepath: path };
    writeFileSync(path, await prettier.format(JSON.stringify(content), options));
  }
