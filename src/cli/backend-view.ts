/** What `backends` shows: the endpoints that the daemon knows beside the real servers that the kernel has. Pure. */
import { type DumpedRealServer } from '../kernel/ipvs/message.js';
import { type BackendServer, type BackendsPage, type EndpointReport } from '../serve/inspection.js';
import { formatAddress } from '../values/address.js';
import { realServerAddress, realServerPort } from '../values/virtual-server.js';
import { type Answer, type SeeOptions } from './see.js';
import { hostPort, serviceState, virtualServerText } from './service-view.js';
import { type Cell, type Colour } from './table-text.js';

/** As daemon/pod-names.ts finds them; empty texts where nothing is known. */
export interface BackendNames {
  readonly pod: string;
  readonly node: string;
  readonly zone: string;
}

export type BackendState = 'active' | 'draining' | 'missing' | 'leftOut' | 'notWanted';

export interface SeenBackend extends BackendNames {
  readonly address: string;
  readonly port: number;
  readonly state: BackendState;
  /** One word for programs; null where there is nothing to explain. */
  readonly reason: string | null;
  /** null: it is in no EndpointSlice. */
  readonly ready: boolean | null;
  readonly serving: boolean | null;
  readonly terminating: boolean | null;
  readonly local: boolean | null;
  readonly zoneHints: readonly string[];
  readonly nodeHints: readonly string[];
  /** null: not in the kernel, or not known. */
  readonly weight: number | null;
  readonly activeConnections: number | null;
  readonly inactiveConnections: number | null;
}

export type SeenBackendServer = Omit<BackendServer, 'list'> & { readonly backends: readonly SeenBackend[] };

/** The real servers of a virtual server; undefined when the kernel cannot be read. */
export type RealServersOf = (server: BackendServer) => readonly DumpedRealServer[] | undefined;

const NO_NAMES: BackendNames = { pod: '', node: '', zone: '' };
const NOT_THERE = { weight: null, activeConnections: null, inactiveConnections: null };
const NO_ENDPOINT = { ready: null, serving: null, terminating: null, local: null, zoneHints: [], nodeHints: [] };

/**
 * Every virtual server of the Service with its backends: wanted ones, left out ones, and what else the kernel has
 * there.
 */
export function seenBackends(
  { groups, endpoints }: Pick<BackendsPage, 'groups' | 'endpoints'>,
  realServersOf: RealServersOf,
  names: ReadonlyMap<string, BackendNames>,
): SeenBackendServer[] {
  return groups.flatMap(({ virtualServers }, group) => {
    const own = endpoints.filter((endpoint) => endpoint.group === group);
    return virtualServers.map((server) => {
      const { list: _list, ...rest } = server;
      const kernel = server.contestedBy === null ? realServersOf(server) : [];
      return { ...rest, backends: joined(server, own, kernel, names) };
    });
  });
}

function joined(
  server: BackendServer,
  endpoints: readonly EndpointReport[],
  kernel: readonly DumpedRealServer[] | undefined,
  names: ReadonlyMap<string, BackendNames>,
): SeenBackend[] {
  const left = new Map((kernel ?? []).map((real) => [textOf(real), real]));
  const backends = endpoints.map((endpoint): SeenBackend => {
    const { address, port, group: _group, leftOut, ...conditions } = endpoint;
    const why = leftOut[server.list];
    const text = hostPort(address, port);
    const real = why === 'duplicate' ? undefined : left.get(text);
    if (real !== undefined) left.delete(text);
    const judged = judge(server, text, why, kernel === undefined ? 'unknown' : real);
    return { address, port, ...judged, ...conditions, ...countsOf(real), ...(names.get(address) ?? NO_NAMES) };
  });
  const others = [...left.values()].map((real): SeenBackend => {
    const address = formatAddress(realServerAddress(real.key));
    const [state, reason] = real.weight === 0 ? (['draining', 'gone'] as const) : (['notWanted', 'unknown'] as const);
    const place = { address, port: realServerPort(real.key) };
    return { ...place, state, reason, ...NO_ENDPOINT, ...countsOf(real), ...(names.get(address) ?? NO_NAMES) };
  });
  return [...backends, ...others];
}

function judge(
  server: BackendServer,
  text: string,
  why: EndpointReport['leftOut']['cluster'],
  real: DumpedRealServer | 'unknown' | undefined,
): Pick<SeenBackend, 'state' | 'reason'> {
  if (server.contestedBy !== null) return { state: 'leftOut', reason: why ?? 'contested' };
  if (real === 'unknown') return why === null ? { state: 'active', reason: null } : { state: 'leftOut', reason: why };
  if (why !== null) {
    if (real === undefined) return { state: 'leftOut', reason: why };
    return { state: real.weight === 0 ? 'draining' : 'notWanted', reason: why };
  }
  if (real !== undefined) return { state: real.weight === 0 ? 'draining' : 'active', reason: null };
  const isRefused = server.refusals.some((said) => said.includes(`-> ${text}: `) || !said.includes(' -> '));
  return { state: 'missing', reason: isRefused ? 'refused' : 'notWritten' };
}

function countsOf(
  real: DumpedRealServer | undefined,
): Pick<SeenBackend, 'weight' | 'activeConnections' | 'inactiveConnections'> {
  if (real === undefined) return NOT_THERE;
  const { weight, activeConnections, inactiveConnections } = real;
  return { weight, activeConnections, inactiveConnections };
}

function textOf({ key }: DumpedRealServer): string {
  return hostPort(formatAddress(realServerAddress(key)), realServerPort(key));
}

const COLOURS: Readonly<Record<BackendState, Colour>> = {
  active: 'green',
  draining: 'yellow',
  missing: 'red',
  leftOut: 'yellow',
  notWanted: 'red',
};
const STATES: Readonly<Record<BackendState, string>> = {
  active: 'active',
  draining: 'draining',
  missing: 'missing',
  leftOut: 'left-out',
  notWanted: 'not-wanted',
};

/** The reason in words. */
export function reasonText(server: Pick<BackendServer, 'contestedBy'>, backend: SeenBackend): string {
  const { reason, terminating, zoneHints, nodeHints } = backend;
  if (reason === 'notReady') return terminating === true ? 'terminating, no longer serving' : 'not ready';
  if (reason === 'otherZone') return `hinted for zone ${zoneHints.join(', ') || '(none)'}`;
  if (reason === 'otherNodeHint') return `hinted for node ${nodeHints.join(', ') || '(none)'}`;
  if (reason === 'contested') return `${server.contestedBy} has this address and port`;
  return reason === null ? '' : REASONS[reason]!;
}

const REASONS: Readonly<Record<string, string>> = {
  terminating: 'terminating, others are ready',
  otherNode: 'on another node, the policy is Local',
  duplicate: 'another EndpointSlice has it, too',
  refused: 'the kernel refuses it: see status',
  notWritten: 'not in the kernel: not written yet, or taken out by somebody',
  gone: 'no longer an endpoint',
  unknown: 'in the kernel, and not wanted: about to go, or written by somebody else',
};

const COLUMNS = ['VIRTUAL-SERVER', 'KIND', 'BACKEND', 'WEIGHT', 'ACTIVE', 'INACTIVE'];
const WIDE = ['POD', 'NODE', 'ZONE', 'CONDITIONS', 'HINTS'];

export function backendsAnswer(
  { namespace, name, notes: own }: Pick<BackendsPage, 'namespace' | 'name' | 'notes'>,
  virtualServers: readonly SeenBackendServer[],
  notes: readonly string[],
  format: SeeOptions['format'],
): Answer {
  const isWide = format === 'wide';
  const rows = virtualServers.flatMap((server): Cell[][] => {
    const place = [virtualServerText(server), server.kind];
    if (server.backends.length > 0)
      return server.backends.map((backend) => [...place, ...cells(server, backend, isWide)]);
    return [[...place, ...Array.from({ length: isWide ? 9 : 4 }, () => ''), serviceState(server), '']];
  });
  const all = virtualServers.flatMap(({ backends }) => backends);
  return {
    data: { namespace, name, virtualServers, notes: [...own, ...notes] },
    text: { columns: [...COLUMNS, ...(isWide ? WIDE : []), 'STATE', 'WHY'], rows },
    names: [...new Set(all.map(({ address, port }) => hostPort(address, port)))],
    notes: [...own, ...notes],
  };
}

function cells(server: SeenBackendServer, backend: SeenBackend, isWide: boolean): Cell[] {
  const { address, port, weight, activeConnections, inactiveConnections, pod, node, zone, state } = backend;
  return [
    hostPort(address, port),
    ...[weight, activeConnections, inactiveConnections].map((count) => count ?? ''),
    ...(isWide ? [pod, node, zone, conditions(backend), [...backend.zoneHints, ...backend.nodeHints].join(',')] : []),
    { text: STATES[state], colour: COLOURS[state] },
    reasonText(server, backend),
  ];
}

function conditions({ ready, serving, terminating, local }: SeenBackend): string {
  const words = { ready, serving, terminating, local };
  return Object.entries(words)
    .filter(([, isSo]) => isSo === true)
    .map(([word]) => word)
    .join(',');
}
