/**
 * A cluster fed to the pure core as the daemon feeds it, and its desired state printed as the tools print the kernel.
 */
import { ClusterFeed } from '../../src/daemon/cluster/cluster-feed.js';
import { type IpsetName, allIpsetDefinitions } from '../../src/desired/ipset-definitions.js';
import { type Touched, newTouched } from '../../src/desired/desired-state.js';
import { ClusterState } from '../../src/model/cluster-state.js';
import { DesiredUpdater } from '../../src/reconcile/desired-updater.js';
import { formatAddress, parseAddress } from '../../src/values/address.js';
import { formatIpsetEntry } from '../../src/values/ipset.js';
import {
  FLAG_PERSISTENT,
  formatHostPort,
  formatRealServer,
  realServerKeys,
  virtualServerFamily,
  virtualServerIdentity,
} from '../../src/values/virtual-server.js';
import { type ApiObject } from '../fakes/api-server-store.js';
import { type Expected } from '../kernel/chaos-oracle.js';

export const NODE = 'node-0';
export const LOCAL_ADDRESSES = ['10.200.0.2', 'fd00:200::2', '127.0.0.1', '::1', 'fe80::1', '198.51.100.12'];
export const NODE_OBJECT = {
  kind: 'Node',
  metadata: { name: NODE, labels: { 'topology.kubernetes.io/zone': 'zone-a' } },
  status: { addresses: [...['10.200.0.2', 'fd00:200::2'].map((address) => ({ type: 'InternalIP', address }))] },
};

const OPTIONS = { TCP: '-t', UDP: '-u', SCTP: '--sctp-service' } as const;
const EVERYWHERE = { all: true, primary: false, cidrs: [] };
const UNSELECTED = ['service.kubernetes.io/headless', 'service.kubernetes.io/service-proxy-name'];

/** True for what the API server's label selector lets through; anything else is a deletion. */
export function isSelected(object: ApiObject): boolean {
  return UNSELECTED.every((label) => object.metadata.labels?.[label] === undefined);
}

export class CoreCluster {
  readonly cluster = new ClusterState();
  readonly updater: DesiredUpdater;
  readonly feed: ClusterFeed;
  readonly problems: string[] = [];

  constructor(localAddresses: readonly string[] = LOCAL_ADDRESSES) {
    const ignore = (): void => undefined;
    this.feed = new ClusterFeed(this.cluster, NODE, {
      changed: ignore,
      synced: ignore,
      triggered: ignore,
      nodeChanged: ignore,
      nodeDeleted: ignore,
      apiServers: ignore,
    });
    this.updater = new DesiredUpdater(
      this.cluster,
      { nodeName: NODE, scheduler: 'rr', families: [4, 6], nodePorts: { 4: EVERYWHERE, 6: EVERYWHERE } },
      { conflicts: ignore, refused: ignore },
    );
    this.setLocal(localAddresses);
    this.set(NODE_OBJECT);
  }

  setLocal(addresses: readonly string[]): void {
    this.cluster.setLocalAddresses(new Set(addresses.map((text) => parseAddress(text)!)));
  }

  /** As an ADDED or MODIFIED event, or the DELETED one that the selector makes of it. */
  set(object: ApiObject): void {
    if (!isSelected(object)) return this.delete(object);
    const { parse, sink } = this.#feedOf(object);
    const value = parse(object, (problem) => this.problems.push(problem));
    if (value === undefined) sink.delete(keyOf(object));
    else (sink as { upsert(key: string, value: unknown): void }).upsert(keyOf(object), value);
  }

  delete(object: Pick<ApiObject, 'kind' | 'metadata'>): void {
    this.#feedOf(object).sink.delete(keyOf(object));
  }

  async update(): Promise<Touched> {
    const touched = newTouched();
    await this.updater.updateDirty(touched);
    return touched;
  }

  /** The desired state as text, every table sorted. */
  print(): string[] {
    return printExpected(this.expected());
  }

  expected(): Expected {
    const { desired } = this.updater;
    const servers: Expected['servers'] = new Map();
    for (const { key, settings, realServers } of desired.virtualServers.values()) {
      const identity = virtualServerIdentity(key);
      if (identity.kind !== 'address') throw new Error('a firewall mark is not expected');
      const persistence = (settings.flags & FLAG_PERSISTENT) === 0 ? '' : ` -p ${settings.timeout}`;
      const reals = realServerKeys(realServers, virtualServerFamily(key)).map(formatRealServer);
      servers.set(`${OPTIONS[identity.protocol]} ${formatHostPort(identity.address, identity.port)}`, {
        options: `-s ${settings.scheduler}${persistence}`,
        reals: new Set(reals),
      });
    }
    const local = this.cluster.localAddresses;
    const bound = [...desired.addresses()].filter((address) => !local.has(address)).map(formatAddress);
    const sets: Expected['sets'] = new Map();
    for (const { name, type } of allIpsetDefinitions().values()) {
      const elements = [...desired.entries(name as IpsetName).keys()].map((entry) => formatIpsetEntry(type, entry));
      if (elements.length > 0) sets.set(name, new Set(elements));
    }
    return { servers, addresses: new Set(bound), sets };
  }

  #feedOf({ kind }: Pick<ApiObject, 'kind'>): ClusterFeed['services'] | ClusterFeed['slices'] | ClusterFeed['node'] {
    if (kind === 'Service') return this.feed.services;
    return kind === 'Node' ? this.feed.node : this.feed.slices;
  }
}

export function keyOf({ metadata }: Pick<ApiObject, 'metadata'>): string {
  return `${metadata.namespace ?? ''}/${metadata.name}`;
}

export function printExpected({ servers, addresses, sets }: Expected): string[] {
  const lines: string[] = [];
  for (const [name, { options, reals }] of servers) {
    lines.push(`-A ${name} ${options}`);
    for (const real of reals) lines.push(`-a ${name} -r ${real}`);
  }
  for (const address of addresses) lines.push(`address ${address}`);
  for (const [set, elements] of sets) for (const element of elements) lines.push(`add ${set} ${element}`);
  return lines.sort();
}

/** `- line` for what only `expected` has, `+ line` for what only `actual` has. */
export function differences(actual: readonly string[], expected: readonly string[]): string[] {
  const [has, wants] = [new Set(actual), new Set(expected)];
  const missing = expected.filter((line) => !has.has(line)).map((line) => `- ${line}`);
  const extra = actual.filter((line) => !wants.has(line)).map((line) => `+ ${line}`);
  return [...missing, ...extra];
}
