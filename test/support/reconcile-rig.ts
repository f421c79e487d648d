/** The whole reconciler over fake kernels that take real netlink bytes, with a small cluster and a clock moved by hand. */
import { setDefinitions } from '../../src/desired/set-definitions.js';
import { Iptables } from '../../src/kernel/iptables/iptables.js';
import { IpvsTable } from '../../src/kernel/ipvs/table.js';
import { type NetlinkSocket, NETLINK_NETFILTER, type OpenNetlinkSocket } from '../../src/netlink/socket.js';
import { AddressApplier } from '../../src/reconcile/address-applier.js';
import { DrainTracker } from '../../src/reconcile/drain.js';
import { type Drift } from '../../src/reconcile/drift.js';
import { IpvsApplier, type StaleUdp } from '../../src/reconcile/ipvs-applier.js';
import { type KernelClients, messagesSent, openKernelClients } from '../../src/kernel/clients.js';
import { type ObservedSources } from '../../src/reconcile/observer.js';
import { Reconciler, type SyncReport } from '../../src/reconcile/reconciler.js';
import { RulesKeeper } from '../../src/reconcile/rules-keeper.js';
import { SetApplier } from '../../src/reconcile/set-applier.js';
import { FAMILIES } from '../../src/values/address.js';
import { parsePrefix } from '../../src/values/prefix.js';
import { FakeIpvs } from '../fakes/fake-kernel-ipvs.js';
import { FakeLinks } from '../fakes/fake-kernel-links.js';
import { FakeKernel } from '../fakes/fake-kernel.js';
import { FakeNetfilter } from '../fakes/fake-nfnetlink.js';
import { fakeOptionSocket } from '../fakes/fake-option-socket.js';
import { HandClock } from '../fakes/hand-clock.js';
import { TestCluster } from './desired-cluster.js';

export const VERIFY_MS = 30_000;
export const DRAIN_MS = 900_000;

/** One Service with two endpoints. */
export function web(): TestCluster {
  const cluster = new TestCluster({ families: [4] });
  cluster.service('web');
  cluster.slice('web', ['10.0.0.1', '10.0.0.2']);
  return cluster;
}

/** The kernel alone, so that one reconciler can follow another on it, as after a restart. */
export class TestKernel {
  readonly netlink = new FakeKernel();
  readonly ipvs = new FakeIpvs(this.netlink);
  readonly links = new FakeLinks(this.netlink);
  readonly netfilter = new FakeNetfilter();

  constructor() {
    this.links.addLink('eth0');
    this.links.addAddress('eth0', '10.200.0.2', 24);
    this.links.addAddress('eth0', 'fd00:200::2', 64);
  }

  readonly open: OpenNetlinkSocket = (protocol, groups): NetlinkSocket =>
    protocol === NETLINK_NETFILTER ? this.netfilter.open(protocol) : this.netlink.open(protocol, groups);
}

export class ReconcileRig {
  readonly clock = new HandClock();
  readonly clients: KernelClients;
  readonly ipvs: IpvsApplier;
  readonly drains: DrainTracker;
  readonly reconciler: Reconciler;
  readonly sources: ObservedSources;
  readonly reports: SyncReport[] = [];
  readonly stale: StaleUdp[] = [];
  sysctlDrift: (drift: Drift) => void = () => undefined;

  constructor(
    readonly cluster = new TestCluster({ families: [4] }),
    readonly kernel = new TestKernel(),
    excluded: readonly string[] = [],
  ) {
    const excludeCIDRs = excluded.map((text) => parsePrefix(text)!);
    const { updater, state } = cluster;
    const clients = (this.clients = openKernelClients(kernel.open));
    const definitions = new Map(FAMILIES.flatMap(setDefinitions).map((one) => [one.name, one]));
    this.ipvs = new IpvsApplier(clients.ipvs, 0, excludeCIDRs, (server) => this.drains.note(server));
    const sameRights = {
      get permitted() {
        return kernel.netlink.permitted;
      },
    };
    const table = new IpvsTable(clients.ipvs, { openOptionSocket: fakeOptionSocket(kernel.ipvs, sameRights) });
    const connections: IpvsTable['connections'] = (server, expected) => table.connections(server, expected);
    this.drains = new DrainTracker(this.ipvs, this.clock, DRAIN_MS, () => undefined, connections);
    const sources = (this.sources = { table, links: clients.links, ipset: clients.ipset, definitions });
    this.reconciler = new Reconciler({
      cluster: state,
      updater,
      ipvs: this.ipvs,
      addresses: new AddressApplier(clients.links, () => state.localAddresses),
      sets: new SetApplier(clients.ipset, definitions),
      drains: this.drains,
      rules: noRules(),
      sources,
      definitions,
      excludeCIDRs,
      clock: this.clock,
      verifyInterval: VERIFY_MS,
      minInterval: 0,
      cleanConntrack: (stale) => {
        this.stale.push(...stale);
        return stale.length;
      },
      ensureSysctls: (drift) => this.sysctlDrift(drift),
      onSync: (report) => this.reports.push(report),
      onInterleaved: () => undefined,
    });
  }

  /** One sync; its report. */
  async sync(): Promise<SyncReport> {
    await this.reconciler.sync();
    return this.reports.at(-1)!;
  }

  /** A sync at which verification is due; what it found, as `missing address`. */
  async verify(): Promise<string[]> {
    await this.clock.advance(VERIFY_MS);
    const { verified } = await this.sync();
    return [...verified!.drift.counts.values()].map(({ kind, object, count }) => `${count} ${kind} ${object}`).sort();
  }

  /** Netlink messages of all clients so far. */
  get messages(): number {
    return Object.values(messagesSent(this.clients)).reduce((sum, count) => sum + count, 0);
  }

  /** Everything of ours in the kernel, as lines. */
  state(): string[] {
    const { ipvs, links, netfilter } = this.kernel;
    const sets = [...netfilter.ipset!.sets].flatMap(([name, { elements }]) =>
      [...elements.keys()].map((element) => `${name} ${element}`),
    );
    return [...ipvs.dump(), ...links.addressesOf('kube-ipvs0'), ...sets.sort()];
  }

  /** The virtual server's real servers with their weights: `10.0.0.1:8080=1 10.0.0.2:8080=0`. */
  weights(server: string): string {
    const lines = this.kernel.ipvs.dump().filter((line) => line.startsWith(`${server} -> `));
    return lines.map((line) => line.replace(/.* -> (\S+) weight=/, '$1=')).join(' ');
  }
}

function noRules(): RulesKeeper {
  const command = { save: 'save', restore: 'restore' };
  const tools = { backend: 'nft', version: '1.8.9', randomFully: true, restoreWaits: true } as const;
  const iptables = new Iptables({ ...tools, commands: { 4: command, 6: command }, reason: 'test' }, async () => ({
    stdout: '',
    stderr: '',
  }));
  return new RulesKeeper(
    iptables,
    () => [],
    () => undefined,
    () => undefined,
  );
}
