/** One Service: its addresses and its endpoints, what is wanted of each and what the kernel has. */
import {
  type BackendGroup,
  type BackendsPage,
  type EndpointReport,
  type KernelAnswer,
  type KernelRealServer,
  type KernelServer,
  type LeftOutReport,
  type VirtualServerReport,
} from '../inspection.js';
import { type Html, type HtmlValue, html } from './html.js';
import { type RowGroup, table } from './layout.js';
import { type Paging, beyondText, pager } from './paging.js';
import { KINDS, stateOf } from './services.js';
import { bytes, counted, grouped, hostPort } from './text.js';

export interface ShownService {
  readonly backends: BackendsPage;
  readonly kernel: KernelAnswer;
  readonly askedPage: number;
  readonly paging: Paging;
}

export const DEFAULT_ENDPOINTS = 100;
/** Rows of addresses. */
const MOST_ADDRESSES = 100;
/** Rows of what the kernel has besides. */
const MOST_OTHERS = 50;

export function serviceSections(shown: ShownService): Html {
  const { backends, kernel } = shown;
  const notes = backends.notes.map((note) => html`<li>${note}</li>`);
  const failure = 'failure' in kernel ? html`<li>the kernel cannot be read: ${kernel.failure}</li>` : undefined;
  const attention =
    notes.length === 0 && failure === undefined
      ? undefined
      : html`<section class="attention" aria-labelledby="attention">
          <h2 id="attention">Attention</h2>
          <ul>
            ${notes}${failure}
          </ul>
        </section>`;
  return html`${attention}${addresses(shown)}${endpoints(shown)}`;
}

function addresses({ backends, kernel }: ShownService): Html {
  const all = backends.groups.flatMap(({ virtualServers }) => virtualServers);
  const groups = all.slice(0, MOST_ADDRESSES).map((server): RowGroup => {
    const seen = server.contestedBy === null ? seenServer(kernel, server) : undefined;
    return {
      header: html`<code>${server.protocol} ${hostPort(server.address, server.port)}</code>`,
      rows: [[...settings(server), grouped(server.ready), ...kernelCells(seen), state(server, seen)]],
    };
  });
  const columns = [
    ...['Address', 'Kind', 'Policy', 'Scheduler'].map((label) => ({ name: label, label })),
    ...['Wanted', 'In the kernel', 'Active', 'Inactive', 'Connections', 'In / out'].map((label) => ({
      ...{ name: label, label, isNumber: true },
    })),
    { name: 'State', label: 'State' },
  ];
  const more =
    all.length > MOST_ADDRESSES
      ? html`<p class="muted">and ${grouped(all.length - MOST_ADDRESSES)} more addresses</p>`
      : undefined;
  const body = all.length === 0 ? html`<p>No address of it is served here.</p>` : table('Addresses', columns, groups);
  return html`<section aria-labelledby="addresses">
    <h2 id="addresses">Addresses</h2>
    ${body}${more}
    <p class="muted">
      In the kernel: backends at work, and as many that drain. Active and inactive are open connections now; connections
      and bytes count since the virtual server was made.
    </p>
  </section>`;
}

function settings(server: VirtualServerReport): HtmlValue[] {
  const affinity = server.affinitySeconds === 0 ? '' : `, ClientIP for ${server.affinitySeconds} s`;
  const name = server.portName === '' ? '' : ` (${server.portName})`;
  return [`${KINDS[server.kind]}${name}`, server.policy, `${server.scheduler}${affinity}`];
}

function seenServer(kernel: KernelAnswer, server: VirtualServerReport): KernelServer | undefined {
  if ('failure' in kernel) return undefined;
  const { protocol, address, port } = server;
  return kernel.servers.find((one) => one.protocol === protocol && one.address === address && one.port === port);
}

function kernelCells(seen: KernelServer | undefined): HtmlValue[] {
  if (seen === undefined || !seen.exists) return ['', '', '', '', ''];
  const { realServers, connections, inBytes, outBytes } = seen;
  const working = realServers.filter(({ weight }) => weight > 0).length;
  const draining = realServers.length - working;
  const sum = (of: (real: KernelRealServer) => number): number =>
    realServers.reduce((total, real) => total + of(real), 0);
  return [
    `${grouped(working)}${draining === 0 ? '' : ` + ${grouped(draining)} draining`}`,
    grouped(sum(({ activeConnections }) => activeConnections)),
    grouped(sum(({ inactiveConnections }) => inactiveConnections)),
    grouped(connections),
    `${bytes(inBytes)} / ${bytes(outBytes)}`,
  ];
}

/** As the list has it, but the kernel's own word counts more than the daemon's books. */
function state(server: VirtualServerReport, seen: KernelServer | undefined): Html {
  if (server.contestedBy !== null || seen === undefined) return stateOf(server);
  if (!seen.exists && server.written)
    return html`<span class="bad">gone from the kernel: written anew at the next verification</span>`;
  const working = seen.realServers.filter(({ weight }) => weight > 0).length;
  if (seen.exists && working !== server.ready && working !== server.inKernel)
    return html`<span class="bad">the kernel differs: put right at the next verification</span>`;
  return stateOf(server);
}

function endpoints(shown: ShownService): Html {
  const { backends, paging, askedPage } = shown;
  const { namespace, name, groups } = backends;
  const service = `${namespace}/${name}`;
  const urlOf = (page: number): string => {
    const parameters = new URLSearchParams({ name: service });
    if (page > 1) parameters.set('page', String(page));
    if (paging.limit !== DEFAULT_ENDPOINTS) parameters.set('limit', String(paging.limit));
    return `/status/service?${parameters.toString()}#endpoints`;
  };
  const tables = groups.map((group, index) => groupTable(shown, group, index));
  const list =
    paging.total === 0 ? html`<p>No EndpointSlice has an endpoint for it: connections are refused.</p>` : tables;
  return html`<section id="endpoints" aria-labelledby="endpoints-title">
    <h2 id="endpoints-title">Endpoints</h2>
    ${beyondText(askedPage, paging)}${list}${paging.total === 0 ? undefined : pager('endpoint', paging, urlOf)}
    <p class="muted">Names of pods: <code>kube-proxy-ipvs backends -o wide ${service}</code></p>
  </section>`;
}

const COLUMNS = [
  ...['Endpoint', 'Condition', 'Where', 'Wanted'].map((label) => ({ name: label, label })),
  ...['Weight in the kernel', 'Active', 'Inactive'].map((label) => ({ name: label, label, isNumber: true })),
];

function groupTable(shown: ShownService, group: BackendGroup, index: number): Html | undefined {
  const { backends, kernel, paging } = shown;
  const own = backends.endpoints.filter((endpoint) => endpoint.group === index);
  const servers = group.virtualServers.flatMap((server) =>
    server.contestedBy === null ? (seenServer(kernel, server) ?? []) : [],
  );
  const seen = new Map<string, KernelRealServer[]>();
  for (const { realServers } of servers)
    for (const real of realServers) {
      const place = hostPort(real.address, real.port);
      seen.set(place, [...(seen.get(place) ?? []), real]);
    }
  const rows = own.map((endpoint) => endpointRow(endpoint, group, seen));
  const known = new Set(own.map(({ address, port }) => hostPort(address, port)));
  const isComplete = backends.endpoints.length === paging.total;
  const others = isComplete ? [...seen].filter(([place]) => !known.has(place)).slice(0, MOST_OTHERS) : [];
  if (rows.length + others.length === 0) return undefined;
  const title = html`<h3>
    of
    ${group.virtualServers.slice(0, 3).map((server, i) => html`${i === 0 ? '' : ', '}<code>${server.protocol} ${hostPort(server.address, server.port)}</code>`)}${group.virtualServers.length > 3 ? ` and ${counted(group.virtualServers.length - 3, 'more address', 'more addresses')}` : ''}
  </h3>`;
  const caption = `Endpoints of ${group.virtualServers[0]?.portName || `port ${group.virtualServers[0]?.port ?? ''}`}`;
  return html`${title}${table(caption, COLUMNS, [...rows, ...others.map(otherRow)])}`;
}

function endpointRow(
  endpoint: EndpointReport,
  { virtualServers }: BackendGroup,
  seen: ReadonlyMap<string, readonly KernelRealServer[]>,
): RowGroup {
  const { address, port, local, zoneHints, nodeHints } = endpoint;
  const place = hostPort(address, port);
  const hints = [...zoneHints.map((zone) => `zone ${zone}`), ...nodeHints.map((node) => `node ${node}`)];
  const where = `${local ? 'this node' : 'another node'}${hints.length === 0 ? '' : `, hinted for ${hints.join(', ')}`}`;
  const lists = new Set(virtualServers.map(({ list }) => list));
  return {
    header: html`<code>${place}</code>`,
    rows: [[condition(endpoint), where, wantedText(endpoint, lists), ...countCells(seen.get(place))]],
  };
}

function condition({ ready, serving, terminating }: EndpointReport): Html {
  if (terminating) return html`<span class="warn">terminating${serving ? ', still serving' : ''}</span>`;
  return ready ? html`<span class="ok">ready</span>` : html`<span class="warn">not ready</span>`;
}

const REASONS: Readonly<Record<Exclude<LeftOutReport, null>, string>> = {
  duplicate: 'another EndpointSlice has it, too',
  notReady: 'it is not ready',
  terminating: 'it terminates, others are ready',
  otherNode: 'it is on another node and the policy is Local',
  otherZone: 'it is hinted for other zones',
  otherNodeHint: 'it is hinted for other nodes',
};

function wantedText({ leftOut }: EndpointReport, lists: ReadonlySet<'cluster' | 'local'>): Html {
  const reasons = [...lists].map((list) => ({ list, reason: leftOut[list] }));
  const excluded = reasons.filter(({ reason }) => reason !== null);
  if (excluded.length === 0) return html`<span class="ok">yes</span>`;
  const text = [...new Set(excluded.map(({ reason }) => REASONS[reason!]))].join('; ');
  if (excluded.length === reasons.length) return html`<span class="muted">no: ${text}</span>`;
  return html`<span class="muted"
    >not for addresses with policy ${excluded[0]!.list === 'local' ? 'Local' : 'Cluster'}: ${text}</span
  >`;
}

/** Over all virtual servers that have it. */
function countCells(reals: readonly KernelRealServer[] | undefined): HtmlValue[] {
  if (reals === undefined) return ['', '', ''];
  const weights = [...new Set(reals.map(({ weight }) => weight))];
  const sum = (of: (real: KernelRealServer) => number): string =>
    grouped(reals.reduce((total, real) => total + of(real), 0));
  return [
    weights.map((weight) => (weight === 0 ? '0 (draining)' : String(weight))).join(', '),
    sum(({ activeConnections }) => activeConnections),
    sum(({ inactiveConnections }) => inactiveConnections),
  ];
}

function otherRow([place, reals]: readonly [string, readonly KernelRealServer[]]): RowGroup {
  const drains = reals.every(({ weight }) => weight === 0);
  const wanted = drains
    ? html`<span class="muted">no: it is gone, its last connections drain</span>`
    : html`<span class="bad">no: about to go, or written by somebody else</span>`;
  return {
    header: html`<code>${place}</code>`,
    rows: [[html`<span class="muted">no endpoint any more</span>`, '', wanted, ...countCells(reals)]],
  };
}
