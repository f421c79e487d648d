/** A small cluster written as API objects, and the table that the pure core makes of it, as lines. */
import { type NodePortSelection } from '../../src/values/node-port-selection.js';
import { type Touched, newTouched } from '../../src/desired/desired-state.js';
import { allIpsetDefinitions, type IpsetName } from '../../src/desired/ipset-definitions.js';
import { ClusterState } from '../../src/model/cluster-state.js';
import { parseEndpointSlice } from '../../src/model/endpoint-slice.js';
import { parseNode } from '../../src/model/node.js';
import { parseService } from '../../src/model/service.js';
import { DesiredUpdater } from '../../src/reconcile/desired-updater.js';
import { type Address, type Family, formatAddress, parseAddress } from '../../src/values/address.js';
import { formatIpsetEntry } from '../../src/values/ipset.js';
import {
  formatRealServer,
  formatVirtualServer,
  realServerKeys,
  virtualServerFamily,
} from '../../src/values/virtual-server.js';

export type Fields = Record<string, unknown>;

/** `ip` and what of the endpoint is not the default: ready, serving, on node-1. */
export interface TestEndpoint {
  readonly ip: string;
  readonly ready?: boolean;
  readonly serving?: boolean;
  readonly terminating?: boolean;
  readonly node?: string;
  readonly zones?: readonly string[];
  readonly nodes?: readonly string[];
}

export const TERMINATING: Omit<TestEndpoint, 'ip'> = { ready: false, serving: true, terminating: true };

export interface Settings {
  readonly scheduler: string;
  readonly families: readonly Family[];
  readonly nodePorts: Readonly<Record<Family, NodePortSelection>>;
  readonly allowsExternalIPs: boolean;
  readonly widestRangesOnly: boolean;
  readonly nodeIP: Address;
}

interface ServiceFields {
  readonly namespace?: string;
  readonly created?: string;
  readonly ingress?: readonly Fields[];
}

const EVERYWHERE: NodePortSelection = { all: true, primary: false, cidrs: [] };

/** This node is `node-0` in zone `a`, with 10.200.0.2 and fd00:200::2. */
export class TestCluster {
  readonly state = new ClusterState();
  readonly updater: DesiredUpdater;
  readonly problems: string[] = [];
  readonly conflicts: string[] = [];
  readonly refused: string[] = [];

  constructor(settings: Partial<Settings> = {}) {
    this.updater = new DesiredUpdater(
      this.state,
      {
        nodeName: 'node-0',
        scheduler: 'rr',
        families: [4, 6],
        nodePorts: { 4: EVERYWHERE, 6: EVERYWHERE },
        ...settings,
      },
      {
        conflicts: (pairs) => {
          for (const { winner, loser, example } of pairs) {
            const what = 'server' in example ? formatVirtualServer(example.server) : formatAddress(example.clusterIP);
            this.conflicts.push(`${loser} yields ${what} to ${winner}`);
          }
        },
        refused: (service, { reason, text }) => void this.refused.push(`${service} ${reason}: ${text}`),
      },
    );
    this.node({ zone: 'a', addresses: ['10.200.0.2', 'fd00:200::2'] });
    this.local('10.200.0.2', 'fd00:200::2', '127.0.0.1', '::1');
  }

  node({ zone, addresses }: { zone: string; addresses: readonly string[] }): void {
    const object = {
      metadata: { name: 'node-0', labels: { 'topology.kubernetes.io/zone': zone } },
      status: { addresses: addresses.map((address) => ({ type: 'InternalIP', address })) },
    };
    this.state.setNode(parseNode(object, (problem) => this.problems.push(problem)));
  }

  /** What the node's own interfaces have. */
  local(...addresses: string[]): void {
    this.state.setLocalAddresses(new Set(addresses.map((text) => parseAddress(text)!)));
  }

  /** `default/NAME` with cluster IP 10.96.0.1 and port 80 -> target 8080, unless `spec` says otherwise. */
  service(name: string, spec: Fields = {}, more: ServiceFields = {}): void {
    const { namespace = 'default' } = more;
    const object = {
      metadata: { namespace, name, creationTimestamp: more.created ?? '2024-01-01T00:00:00Z' },
      spec: { clusterIP: '10.96.0.1', ports: [{ port: 80 }], ...spec },
      status: { loadBalancer: { ingress: more.ingress ?? [] } },
    };
    const parsed = parseService(object, (problem) => this.problems.push(problem));
    if (parsed === undefined) this.state.deleteService(`${namespace}/${name}`);
    else this.state.setService(parsed);
  }

  /** A slice of `default/SERVICE`; the family is that of the first endpoint. */
  slice(
    service: string,
    endpoints: readonly (string | TestEndpoint)[],
    more: Fields & { name?: string; namespace?: string } = {},
  ): void {
    const listed = endpoints.map((one) => (typeof one === 'string' ? { ip: one } : one));
    const { name = `${service}-1`, namespace = 'default', ...fields } = more;
    const object = {
      metadata: { namespace, name, labels: { 'kubernetes.io/service-name': service } },
      addressType: listed[0]?.ip.includes(':') ? 'IPv6' : 'IPv4',
      ports: [{ name: '', port: 8080, protocol: 'TCP' }],
      endpoints: listed.map(apiEndpoint),
      ...fields,
    };
    this.state.setSlice(parseEndpointSlice(object, 'node-0', (problem) => this.problems.push(problem))!);
  }

  async update(): Promise<Touched> {
    const touched = newTouched();
    await this.updater.updateDirty(touched);
    return touched;
  }

  /** `TCP 10.96.0.1:80 -> 10.0.0.1:8080 10.0.0.2:8080`, sorted. */
  async table(): Promise<string[]> {
    await this.update();
    return [...this.updater.desired.virtualServers.values()]
      .map(({ key, realServers }) => {
        const reals = realServerKeys(realServers, virtualServerFamily(key)).map(formatRealServer);
        return [`${formatVirtualServer(key)} ->`, ...reals].join(' ');
      })
      .sort();
  }

  /** `TCP 10.96.0.1:80 rr flags=1 timeout=600` */
  async settings(): Promise<string[]> {
    await this.update();
    return [...this.updater.desired.virtualServers.values()]
      .map(({ key, settings: { scheduler, flags, timeout } }) =>
        [formatVirtualServer(key), scheduler, `flags=${flags}`, `timeout=${timeout}`].join(' '),
      )
      .sort();
  }

  /** Addresses for the dummy link, the node's own not left out. */
  async addresses(): Promise<string[]> {
    await this.update();
    return [...this.updater.desired.addresses()].map(formatAddress).sort();
  }

  /** `KUBE-CLUSTER-IP 10.96.0.1,tcp:80` of the sets whose names contain `part`. */
  async entries(part: string): Promise<string[]> {
    await this.update();
    return [...allIpsetDefinitions().values()]
      .filter(({ name }) => name.includes(part))
      .flatMap(({ name, type }) =>
        [...this.updater.desired.entries(name as IpsetName).keys()].map(
          (one) => `${name} ${formatIpsetEntry(type, one)}`,
        ),
      )
      .sort();
  }
}

function apiEndpoint({ ip, ready, serving, terminating, node, zones, nodes }: TestEndpoint): Fields {
  const named = (names: readonly string[] | undefined): Fields[] | undefined => names?.map((name) => ({ name }));
  return {
    addresses: [ip],
    conditions: { ready, serving, terminating },
    nodeName: node ?? 'node-1',
    hints: { forZones: named(zones), forNodes: named(nodes) },
  };
}

/** What a Service on 10.96.0.1:80 sends its traffic to. */
export async function backends(
  endpoints: readonly (string | TestEndpoint)[],
  spec: Fields = {},
  settings: Partial<Settings> = {},
): Promise<string> {
  const cluster = new TestCluster(settings);
  cluster.service('web', spec);
  cluster.slice('web', endpoints);
  const [line = ''] = (await cluster.table()).filter((one) => one.startsWith('TCP 10.96.0.1:80 '));
  return line.replace(/^.*->\s?/, '').replaceAll(':8080', '');
}
