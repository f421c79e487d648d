/**
 * Names, types, labels and bucket layouts of kube-proxy 1.36's metrics (recorded in
 * test/fixtures/kube-proxy-1.36/metrics.txt) and of our own, which begin with kubeproxy_ipvs_.
 */
import { Counter, Gauge, Histogram, type Registry } from 'prom-client';

const SYNC_BUCKETS = exponential(0.001, 2, 15);
const CHANGE_BUCKETS = [0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1, 5, 30];
const CLIENT_BUCKETS = [0.005, 0.025, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60];
const LOCK_BUCKETS = [0.001, 0.01, 0.1, 0.5, 1, 2, 5, 10, 20, 30, 60];
const PROGRAMMING_BUCKETS = [
  0,
  ...linear(0.25, 0.25, 2),
  ...linear(1, 1, 59),
  ...linear(60, 5, 12),
  ...linear(120, 30, 7),
];

export type Instruments = ReturnType<typeof kubeProxyInstruments> & ReturnType<typeof ownInstruments>;

/** Creates every instrument in `register`. */
export function createInstruments(register: Registry): Instruments {
  return { ...kubeProxyInstruments(register), ...ownInstruments(register) };
}

function kubeProxyInstruments(register: Registry) {
  const make = makers(register);
  return {
    syncDuration: make.histogram(
      'kubeproxy_sync_proxy_rules_duration_seconds',
      'Time of one sync of the data plane',
      SYNC_BUCKETS,
      ['ip_family'],
    ),
    lastSync: make.gauge('kubeproxy_sync_proxy_rules_last_timestamp_seconds', 'Unix time of the last successful sync', [
      'ip_family',
    ]),
    lastQueued: make.gauge(
      'kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds',
      'Unix time when a sync was last asked for',
      ['ip_family'],
    ),
    programmingDuration: make.histogram(
      'kubeproxy_network_programming_duration_seconds',
      'Time from the change of a pod or Service, as the API object dates it, to the kernel',
      PROGRAMMING_BUCKETS,
      ['ip_family'],
    ),
    endpointChangesPending: make.gauge(
      'kubeproxy_sync_proxy_rules_endpoint_changes_pending',
      'EndpointSlice changes seen and not yet in the kernel',
    ),
    endpointChanges: make.counter('kubeproxy_sync_proxy_rules_endpoint_changes_total', 'EndpointSlice changes seen'),
    serviceChangesPending: make.gauge(
      'kubeproxy_sync_proxy_rules_service_changes_pending',
      'Service changes seen and not yet in the kernel',
    ),
    serviceChanges: make.counter('kubeproxy_sync_proxy_rules_service_changes_total', 'Service changes seen'),
    noLocalEndpoints: make.gauge(
      'kubeproxy_sync_proxy_rules_no_local_endpoints_total',
      'Service ports with a Local traffic policy and endpoints, none of them on this node',
      ['ip_family', 'traffic_policy'],
    ),
    restoreFailures: make.counter(
      'kubeproxy_sync_proxy_rules_iptables_restore_failures_total',
      'Failed runs of iptables-restore',
      ['ip_family'],
    ),
    conntrackDuration: make.histogram(
      'kubeproxy_conntrack_reconciler_sync_duration_seconds',
      'Time of one removal of stale conntrack entries',
      SYNC_BUCKETS,
      ['ip_family'],
    ),
    conntrackDeleted: make.counter(
      'kubeproxy_conntrack_reconciler_deleted_entries_total',
      'Stale conntrack entries removed',
      ['ip_family'],
    ),
    healthz: make.counter('kubeproxy_proxy_healthz_total', 'Answers of /healthz by HTTP status', ['code']),
    livez: make.counter('kubeproxy_proxy_livez_total', 'Answers of /livez by HTTP status', ['code']),
    clientDuration: make.histogram(
      'rest_client_request_duration_seconds',
      'Time of requests to the API server until the answer began',
      CLIENT_BUCKETS,
      ['host', 'verb'],
    ),
    clientRequests: make.counter('rest_client_requests_total', 'Requests to the API server by HTTP status', [
      'code',
      'host',
      'method',
    ]),
  };
}

function ownInstruments(register: Registry) {
  const make = makers(register);
  return {
    // Not kubernetes_build_info: alerts on a cluster of two Kubernetes versions would take ours for one.
    buildInfo: make.gauge('kubeproxy_ipvs_build_info', 'Always 1; the labels tell the version', [
      'version',
      'git_commit',
      'build_date',
      'node_version',
      'platform',
    ]),
    changeDuration: make.histogram(
      'kubeproxy_ipvs_change_duration_seconds',
      'Time from the arrival of a change from the API server to the answer of the kernel that it is made: the own share',
      CHANGE_BUCKETS,
    ),
    unhealthy: make.gauge(
      'kubeproxy_ipvs_unhealthy',
      '1 while /healthz is 503 for a reason of this category (node: it is being deleted or drained), else 0',
      ['category'],
    ),
    estimation: make.gauge(
      'kubeproxy_ipvs_estimation_running',
      '1 while the kernel estimates rates for virtual and real servers; at 0 its rates and counters stand still',
    ),
    connections: make.gauge(
      'kubeproxy_ipvs_connections',
      'Active and inactive connections of all real servers, as of the last verification',
    ),
    connectionBuckets: make.gauge(
      'kubeproxy_ipvs_connection_buckets',
      'Size of the kernel table of IPVS connections; 0 where the kernel sizes it by itself',
    ),
    conntrackEntries: make.gauge(
      'kubeproxy_ipvs_conntrack_entries',
      'Entries of the kernel table of tracked connections',
    ),
    conntrackLimit: make.gauge(
      'kubeproxy_ipvs_conntrack_limit',
      'The most entries that the table of tracked connections takes: beyond, packets of new connections are dropped',
    ),
    driftRepaired: make.counter(
      'kubeproxy_ipvs_drift_repaired_total',
      'Differences between kernel and desired state that verification repaired',
      ['kind', 'object'],
    ),
    lastVerification: make.gauge(
      'kubeproxy_ipvs_last_verification_timestamp_seconds',
      'Unix time of the last completed verification of the whole kernel state',
    ),
    verificationDuration: make.histogram(
      'kubeproxy_ipvs_verification_duration_seconds',
      'Time of one verification of the whole kernel state',
      SYNC_BUCKETS,
    ),
    syncFailures: make.counter('kubeproxy_ipvs_sync_failures_total', 'Syncs of which a part failed and is retried', [
      'stage',
    ]),
    netlinkMessages: make.counter('kubeproxy_ipvs_netlink_messages_total', 'Netlink requests sent', ['operation']),
    netlinkFailures: make.counter('kubeproxy_ipvs_netlink_failures_total', 'Netlink requests that the kernel refused', [
      'operation',
      'errno',
    ]),
    processes: make.counter('kubeproxy_ipvs_processes_spawned_total', 'Processes started', ['command']),
    xtablesLockWait: make.histogram(
      'kubeproxy_ipvs_xtables_lock_wait_seconds',
      'Time that a rule write waited for the xtables lock',
      LOCK_BUCKETS,
    ),
    virtualServers: make.gauge('kubeproxy_ipvs_virtual_servers', 'Virtual servers that this daemon keeps', [
      'ip_family',
    ]),
    realServers: make.gauge(
      'kubeproxy_ipvs_real_servers',
      'Real servers that this daemon keeps, draining ones included',
      ['ip_family'],
    ),
    boundAddresses: make.gauge(
      'kubeproxy_ipvs_bound_addresses',
      'VIPs that the node takes in: addresses on kube-ipvs0, or routes',
      ['ip_family'],
    ),
    draining: make.gauge(
      'kubeproxy_ipvs_draining_real_servers',
      'Real servers at weight 0 that still have connections',
    ),
    refusedPackets: make.counter(
      'kubeproxy_ipvs_refused_packets_total',
      'Packets to addresses of Services that our rules refused or dropped, by why',
      ['ip_family', 'reason'],
    ),
    lastRepair: make.gauge(
      'kubeproxy_ipvs_last_repair_timestamp_seconds',
      'Unix time when something of this sort was last found changed and repaired; 0: not since the start',
      ['object'],
    ),
    drainsFinished: make.counter('kubeproxy_ipvs_drains_finished_total', 'Drains ended, by how', ['reason']),
    skippedObjects: make.counter(
      'kubeproxy_ipvs_skipped_objects_total',
      'Objects or parts of objects left out: malformed, too many, or an address that the node needs itself',
      ['resource', 'reason'],
    ),
    skippedNow: make.gauge(
      'kubeproxy_ipvs_skipped_objects',
      'Objects of which a part, or all, is left out now because it is malformed',
      ['resource'],
    ),
    refusedObjects: make.gauge(
      'kubeproxy_ipvs_refused_objects',
      'Objects that are skipped because the kernel keeps refusing them',
      ['object'],
    ),
    kubeProxyRunning: make.gauge(
      'kubeproxy_ipvs_kube_proxy_running',
      'Whether a kube-proxy is seen beside this program (1): its process, its ports, or its rules that come back',
      ['seen_by'],
    ),
    familyServed: make.gauge(
      'kubeproxy_ipvs_family_served',
      'Whether this node serves Services of the family (1); not where its iptables, or IPv6 altogether, do not work',
      ['ip_family'],
    ),
    unservedServices: make.gauge(
      'kubeproxy_ipvs_unserved_services',
      'Services with a cluster IP of the family while this node does not serve that family',
      ['ip_family'],
    ),
    nodeKnown: make.gauge('kubeproxy_ipvs_node_known', "Whether the Node object of this node's name has been seen (1)"),
    configRefused: make.gauge(
      'kubeproxy_ipvs_config_refused',
      'Whether the configuration file holds something that cannot be used (1) while the one before runs on',
    ),
    claimConflicts: make.gauge(
      'kubeproxy_ipvs_claim_conflicts',
      'Addresses and ports that several Services claim, of which one has each',
    ),
    watchRestarts: make.counter('kubeproxy_ipvs_watch_restarts_total', 'Watches begun again', ['resource', 'reason']),
    relists: make.counter('kubeproxy_ipvs_relists_total', 'Full lists taken from the API server', [
      'resource',
      'reason',
    ]),
    lastContact: make.gauge(
      'kubeproxy_ipvs_watch_last_event_timestamp_seconds',
      'Unix time of the last event or bookmark from the API server',
      ['resource'],
    ),
  };
}

function makers(register: Registry) {
  const registers = [register];
  return {
    counter: <T extends string = never>(name: string, help: string, labelNames: readonly T[] = []) =>
      new Counter<T>({ name, help, labelNames, registers }),
    gauge: <T extends string = never>(name: string, help: string, labelNames: readonly T[] = []) =>
      new Gauge<T>({ name, help, labelNames, registers }),
    histogram: <T extends string = never>(
      name: string,
      help: string,
      buckets: number[],
      labelNames: readonly T[] = [],
    ) => new Histogram<T>({ name, help, labelNames, buckets, registers }),
  };
}

function exponential(start: number, factor: number, count: number): number[] {
  return Array.from({ length: count }, (_, index) => start * factor ** index);
}

function linear(start: number, width: number, count: number): number[] {
  return Array.from({ length: count }, (_, index) => start + width * index);
}
