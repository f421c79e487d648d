import { loadDaemonConfig } from '../daemon/daemon-options.js';
import { type Environment } from '../daemon/environment.js';
import { CONNECTION_TABLE, type IpvsConnection, readConnections } from '../kernel/ipvs/connection-table.js';
import { formatAddress } from '../values/address.js';
import { errorMessage } from '../values/errors.js';
import { formatVirtualServer } from '../values/virtual-server.js';
import { type BackendNames } from './backend-view.js';
import { type ServiceOptions, noSuchService, parseServiceName, podNames } from './backends.js';
import { DaemonApi } from './daemon-api.js';
import { serverKeyOf } from './kernel-view.js';
import { type Answer, type SeeOptions, show } from './see.js';
import { hostPort } from './service-view.js';

export interface ConnectionsOptions extends ServiceOptions {
  /** Show as many; all are counted. */
  readonly limit: number;
}

/** The connections through one Service on this node. Rejects when there is no such Service, or nobody answers. */
export async function runConnections(options: ConnectionsOptions, environment: Environment): Promise<number> {
  const { config } = await loadDaemonConfig(options);
  const { service, limit, format, manifests } = options;
  const { namespace, name } = parseServiceName(service);
  const api = new DaemonApi(config);
  const wantsNames = format !== undefined && format !== 'name';
  return show(options, environment, async () => {
    const [report] = await api.services(namespace, service);
    if (report === undefined) throw noSuchService(service);
    const own = report.virtualServers.filter(({ contestedBy }) => contestedBy === null);
    const counted = new CountedConnections(new Set(own.map(serverKeyOf)), limit);
    try {
      await readConnections((connection) => counted.add(connection), environment.connectionTable);
    } catch (error) {
      throw new Error(`${CONNECTION_TABLE} cannot be read: ${errorMessage(error)} (is the module ip_vs loaded?)`, {
        cause: error,
      });
    }
    const { names, notes } = wantsNames ? await podNames(config, manifests, namespace, name) : NO_NAMES;
    return connectionsAnswer({ namespace, name }, counted, names, notes, format);
  });
}

const NO_NAMES: { names: ReadonlyMap<string, BackendNames>; notes: readonly string[] } = {
  names: new Map(),
  notes: [],
};

/** Counts the connections of some virtual servers and keeps the first ones, so that a million cost no memory. */
export class CountedConnections {
  total = 0;
  readonly first: IpvsConnection[] = [];
  readonly states = new Map<string, number>();

  constructor(
    readonly servers: ReadonlySet<string>,
    readonly limit: number,
  ) {}

  add(connection: IpvsConnection): void {
    if (!this.servers.has(connection.virtualServer)) return;
    this.total++;
    const state = stateOf(connection);
    this.states.set(state, (this.states.get(state) ?? 0) + 1);
    if (this.first.length < this.limit) this.first.push(connection);
  }
}

/** Without a client's port it is no connection, but where a client with affinity is sent. */
function stateOf({ clientPort, state }: IpvsConnection): string {
  return clientPort === 0 ? 'AFFINITY' : state;
}

export function connectionsAnswer(
  service: { readonly namespace: string; readonly name: string },
  { total, first, states }: Pick<CountedConnections, 'total' | 'first' | 'states'>,
  names: ReadonlyMap<string, BackendNames>,
  notes: readonly string[],
  format: SeeOptions['format'],
): Answer {
  const connections = first.map((connection) => {
    const { client, clientPort, virtualServer, backend, backendPort, expiresSeconds } = connection;
    return {
      protocol: formatVirtualServer(virtualServer).split(' ')[0]!,
      client: hostPort(formatAddress(client), clientPort),
      virtualServer: formatVirtualServer(virtualServer).split(' ')[1]!,
      backend: hostPort(formatAddress(backend), backendPort),
      state: stateOf(connection),
      expiresSeconds,
      pod: names.get(formatAddress(backend))?.pod ?? '',
    };
  });
  const isWide = format === 'wide';
  const rows = connections.map(({ protocol, client, virtualServer, backend, state, expiresSeconds, pod }) => [
    ...[protocol, client, virtualServer, backend, state, `${expiresSeconds}s`],
    ...(isWide ? [pod] : []),
  ]);
  const columns = ['PROTOCOL', 'CLIENT', 'VIRTUAL-SERVER', 'BACKEND', 'STATE', 'EXPIRES', ...(isWide ? ['POD'] : [])];
  const sorted = [...states].sort(([a], [b]) => (a < b ? -1 : 1));
  const summary = sorted.map(([state, count]) => `${count} ${state}`).join(', ');
  const shown = first.length < total ? `; the first ${first.length} are shown, --limit shows more` : '';
  return {
    data: { ...service, total, states: Object.fromEntries(sorted), connections, notes },
    text: { columns, rows },
    names: connections.map(({ client }) => client),
    notes: [...notes, `${total} in all${summary === '' ? '' : ` (${summary})`}${shown}`],
  };
}
