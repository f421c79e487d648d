/** What `services` shows, made of what the daemon wants and what the kernel counts. Pure. */
import { type ServiceReport, type VirtualServerReport } from '../serve/inspection.js';
import { type Answer, type SeeOptions } from './see.js';
import { type Cell } from './table-text.js';

export interface Connections {
  readonly activeConnections: number | null;
  readonly inactiveConnections: number | null;
}

export interface SeenService extends ServiceReport {
  readonly virtualServers: readonly (VirtualServerReport & Connections)[];
}

const COLUMNS = ['NAMESPACE', 'NAME', 'VIRTUAL-SERVER', 'KIND', 'SCHEDULER', 'READY', 'DRAINING', 'LEFT-OUT'];
const COUNTS = ['ACTIVE', 'INACTIVE'];
const WIDE = ['PORT-NAME', 'POLICY', 'AFFINITY'];

/** One row for each virtual server; a Service without any has one, too. */
export function servicesAnswer(
  services: readonly SeenService[],
  notes: readonly string[],
  format: SeeOptions['format'],
): Answer {
  const isWide = format === 'wide';
  const rows = services.flatMap(({ namespace, name, virtualServers }) =>
    virtualServers.length === 0
      ? [[namespace, name, ...Array.from({ length: isWide ? 11 : 8 }, () => ''), serviceState(undefined)]]
      : virtualServers.map((server): Cell[] => [
          ...[namespace, name, virtualServerText(server), server.kind, server.scheduler],
          ...[server.ready, server.draining, server.leftOut],
          ...[server.activeConnections ?? '', server.inactiveConnections ?? ''],
          ...(isWide ? [server.portName, server.policy, affinityText(server.affinitySeconds)] : []),
          serviceState(server),
        ]),
  );
  const own = services.flatMap(({ namespace, name, notes: said }) =>
    said.map((text) => `${namespace}/${name}: ${text}`),
  );
  return {
    data: { services, notes },
    text: { columns: [...COLUMNS, ...COUNTS, ...(isWide ? WIDE : []), 'STATE'], rows },
    names: services.map(({ namespace, name }) => `${namespace}/${name}`),
    notes: [...own, ...notes],
  };
}

/** `TCP 10.96.0.1:443`, `UDP [fd00::1]:53` */
export function virtualServerText({ protocol, address, port }: VirtualServerReport): string {
  return `${protocol} ${hostPort(address, port)}`;
}

export function hostPort(address: string, port: number): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}

/** What is to be said of a virtual server in few words; `ok` when nothing. */
export function serviceState(server: VirtualServerReport | undefined): Cell {
  if (server === undefined) return { text: 'no address served', colour: 'red' };
  if (server.contestedBy !== null) return { text: `contested: ${server.contestedBy} has it`, colour: 'red' };
  if (!server.written) return { text: 'not written: see status', colour: 'red' };
  if (server.ready === 0) return { text: 'no endpoints: refused', colour: 'yellow' };
  if (server.noLocalEndpoint)
    return { text: 'no endpoint on this node: outside clients are dropped', colour: 'yellow' };
  return { text: 'ok', colour: 'green' };
}

function affinityText(seconds: number): string {
  return seconds === 0 ? '' : `${seconds}s`;
}
