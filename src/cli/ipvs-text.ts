/** The IPVS table as `ipvsadm -Ln` prints it, with the Service's name beside each virtual server. Pure. */
import { type DumpedRealServer, type DumpedVirtualServer } from '../kernel/ipvs/message.js';
import { type ServiceReport, type VirtualServerReport } from '../serve/inspection.js';
import { formatAddress } from '../values/address.js';
import {
  FLAG_PERSISTENT,
  FLAG_SCHED_FALLBACK,
  FLAG_SCHED_PORT,
  type VirtualServerKey,
  formatRealServer,
  formatVirtualServer,
  realServerAddress,
  realServerPort,
  virtualServerIdentity,
} from '../values/virtual-server.js';
import { type Answer } from './see.js';
import { serverKeyOf } from './kernel-view.js';

export interface TableServer {
  readonly server: DumpedVirtualServer;
  readonly realServers: readonly DumpedRealServer[];
}

/** Who asked for a virtual server. */
export interface ServerOwner {
  readonly namespace: string;
  readonly name: string;
  readonly portName: string;
  readonly kind: VirtualServerReport['kind'];
}

export function serverOwners(services: readonly ServiceReport[]): ReadonlyMap<VirtualServerKey, ServerOwner> {
  const owners = new Map<VirtualServerKey, ServerOwner>();
  for (const { namespace, name, virtualServers } of services)
    for (const server of virtualServers)
      if (server.contestedBy === null) {
        const { portName, kind } = server;
        owners.set(serverKeyOf(server), { namespace, name, portName, kind });
      }
  return owners;
}

const HEADING = [
  'Prot LocalAddress:Port Scheduler Flags',
  '  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn',
];
const FORWARDS = { masquerade: 'Masq', local: 'Local', tunnel: 'Tunnel', route: 'Route', bypass: 'Bypass' } as const;
const KINDS = {
  clusterIP: '',
  nodePort: ' (node port)',
  loadBalancer: ' (load balancer)',
  externalIP: ' (external IP)',
};
/** Where the names begin, unless a line is longer. */
const NAME_COLUMN = 72;

export function tableAnswer(
  table: readonly TableServer[],
  owners: ReadonlyMap<VirtualServerKey, ServerOwner>,
  notes: readonly string[],
  headers: boolean,
): Answer {
  const lines = table.flatMap(({ server, realServers }) => [
    `${serverLine(server).padEnd(NAME_COLUMN)} # ${ownerText(owners.get(server.key))}`,
    ...realServers.map(realServerLine),
  ]);
  return {
    data: { virtualServers: table.map((one) => tableData(one, owners.get(one.server.key))), notes },
    text: headers ? [...HEADING, ...lines] : lines,
    names: table.map(({ server }) => formatVirtualServer(server.key)),
    notes,
  };
}

/** `shop/web:http (node port)`; `?` for what no Service here has asked for. */
export function ownerText(owner: ServerOwner | undefined): string {
  if (owner === undefined) return '?';
  const { namespace, name, portName, kind } = owner;
  return `${namespace}/${name}${portName === '' ? '' : `:${portName}`}${KINDS[kind]}`;
}

function serverLine({ key, settings }: DumpedVirtualServer): string {
  const [protocol = '', ...place] = formatVirtualServer(key).split(' ');
  return [protocol.padEnd(4), place.join(' '), settings.scheduler, ...flagTexts(settings)].join(' ');
}

function flagTexts({ scheduler, flags, timeout }: DumpedVirtualServer['settings']): string[] {
  const named = [
    ...(flags & FLAG_SCHED_FALLBACK ? [`${scheduler}-fallback`] : []),
    ...(flags & FLAG_SCHED_PORT ? [`${scheduler}-port`] : []),
  ];
  return [
    ...(named.length === 0 ? [] : [`(${named.join(',')})`]),
    ...(flags & FLAG_PERSISTENT ? [`persistent ${timeout}`] : []),
  ];
}

function realServerLine({ key, forwarding, weight, activeConnections, inactiveConnections }: DumpedRealServer): string {
  const counts = [String(weight).padEnd(6), String(activeConnections).padEnd(10), String(inactiveConnections)];
  return `  -> ${formatRealServer(key).padEnd(28)} ${FORWARDS[forwarding].padEnd(7)} ${counts.join(' ')}`;
}

function tableData({ server, realServers }: TableServer, owner: ServerOwner | undefined): object {
  const identity = virtualServerIdentity(server.key);
  const place =
    identity.kind === 'fwmark'
      ? { protocol: null, address: null, port: null, mark: identity.mark, family: identity.family }
      : { protocol: identity.protocol, address: formatAddress(identity.address), port: identity.port, mark: null };
  const { scheduler, flags, timeout } = server.settings;
  return {
    ...place,
    scheduler,
    flags: flagTexts({ scheduler, flags: flags & ~FLAG_PERSISTENT, timeout }).join(' '),
    persistentSeconds: flags & FLAG_PERSISTENT ? timeout : 0,
    service: owner === undefined ? null : `${owner.namespace}/${owner.name}`,
    portName: owner?.portName ?? null,
    kind: owner?.kind ?? null,
    realServers: realServers.map(({ key, forwarding, weight, activeConnections, inactiveConnections }) => {
      const counts = { weight, activeConnections, inactiveConnections };
      return { address: formatAddress(realServerAddress(key)), port: realServerPort(key), forwarding, ...counts };
    }),
  };
}
