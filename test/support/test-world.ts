/**
 * A DataPlane over a world of fakes: its real wiring, real clients, real bytes; no kernel, no process, no time of its
 * own.
 */
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { type Logger, pino } from 'pino';
import { loadConfigDocument } from '../../src/config/load.js';
import { type ProxyConfig } from '../../src/config/proxy-config.js';
import { DataPlane, type DataPlaneOptions } from '../../src/daemon/data-plane.js';
import { type World } from '../../src/daemon/world.js';
import { SyncReporter } from '../../src/daemon/report/sync-reporter.js';
import { type Clock } from '../../src/time/clock.js';
import { Metrics } from '../../src/serve/metrics.js';
import { FAMILIES } from '../../src/values/address.js';
import { FakeIptables } from './fake-iptables.js';

const DOCUMENT = { apiVersion: 'kubeproxy.config.k8s.io/v1alpha1', kind: 'KubeProxyConfiguration' };

/** As they must be, in a kernel that needs no conn_reuse_mode. */
const SYSCTLS: Readonly<Record<string, string>> = {
  'kernel/osrelease': '6.1.0',
  'net/ipv4/ip_forward': '1',
  'net/ipv4/vs/conntrack': '1',
  'net/ipv4/vs/expire_nodest_conn': '1',
  'net/ipv4/vs/expire_quiescent_template': '1',
  'net/netfilter/nf_conntrack_max': '100000000',
  'net/netfilter/nf_conntrack_tcp_timeout_established': '86400',
  'net/netfilter/nf_conntrack_tcp_timeout_close_wait': '3600',
};

/** A directory of its own in the form of /proc/sys. */
export function sysctlDirectory(changes: Readonly<Record<string, string>> = {}): string {
  const root = mkdtempSync(join(tmpdir(), 'sysctl-'));
  for (const [name, value] of Object.entries({ ...SYSCTLS, ...changes })) {
    mkdirSync(dirname(join(root, name)), { recursive: true });
    writeFileSync(join(root, name), `${value}\n`);
  }
  return root;
}

let shared: string | undefined;

/** kube-proxy's defaults, but for what is said. */
export function testConfig(changes: Partial<ProxyConfig> = {}): ProxyConfig {
  return { ...loadConfigDocument(DOCUMENT, 'test').config, ...changes };
}

/** Time as `now` tells it; no timer ever fires, so that syncs are made by hand alone. */
export function stoppedClock(now: () => number): Clock {
  return { now, after: () => () => undefined };
}

export interface TestWorld extends Pick<World, 'openNetlinkSocket' | 'clock'> {
  readonly openOptionSocket?: World['openOptionSocket'];
  readonly iptables?: FakeIptables;
  readonly sysctlRoot?: string;
  readonly table?: World['table'];
  readonly config?: Partial<ProxyConfig>;
  readonly families?: DataPlaneOptions['families'];
  readonly nodeName?: string;
  readonly updater?: DataPlaneOptions['updater'];
  readonly reporter?: SyncReporter;
  readonly handover?: DataPlaneOptions['handover'];
  readonly log?: Logger;
}

export function testDataPlane(world: TestWorld): DataPlane {
  const { iptables = new FakeIptables(), openNetlinkSocket, openOptionSocket, clock, table, updater } = world;
  const log = world.log ?? pino({ level: 'silent' });
  return new DataPlane({
    world: {
      openNetlinkSocket,
      openOptionSocket,
      runCommand: iptables.run,
      clock,
      sysctlRoot: world.sysctlRoot ?? (shared ??= sysctlDirectory()),
      ...(table && { table }),
    },
    config: testConfig(world.config),
    nodeName: world.nodeName ?? 'node-0',
    families: world.families ?? FAMILIES,
    iptables: world.config?.rules === 'nftables' ? undefined : iptables.tools,
    log,
    reporter: world.reporter ?? new SyncReporter(new Metrics({ version: '0.0.0' }), log),
    ...(updater && { updater }),
    ...(world.handover && { handover: world.handover }),
  });
}
