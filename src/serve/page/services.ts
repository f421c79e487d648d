/** The list of Services on the status page: search, filters, order and pages, all by links and one form. */
import {
  type ServiceFilter,
  type ServiceOrder,
  type ServiceReport,
  type ServicesPage,
  type ServicesQuery,
  type VirtualServerReport,
} from '../inspection.js';
import { type Html, type HtmlValue, html } from './html.js';
import { type Column, type RowGroup, table } from './layout.js';
import { serviceLink } from './overview.js';
import { type Paging, beyondText, pager } from './paging.js';
import { grouped, hostPort } from './text.js';

/** What was asked for: the query, and the page as it was asked for and as it is. */
export interface ShownServices {
  readonly query: ServicesQuery;
  readonly askedPage: number;
  readonly paging: Paging;
  readonly found: ServicesPage;
}

export const DEFAULT_LIMIT = 50;

const FILTER_NAMES: Readonly<Record<ServiceFilter, string>> = {
  all: 'All',
  noEndpoints: 'No endpoints',
  draining: 'Draining',
  contested: 'Contested',
  unwritten: 'Not in the kernel',
};

const ORDERS: readonly { readonly value: string; readonly name: string }[] = [
  { value: 'name', name: 'Name' },
  { value: 'backends', name: 'Backends, fewest first' },
  { value: 'backends-desc', name: 'Backends, most first' },
  { value: 'draining-desc', name: 'Draining, most first' },
];

type Change = Partial<Pick<ServicesQuery, 'search' | 'filter' | 'order' | 'descending'>> & { readonly page?: number };

export function servicesSection(shown: ShownServices): Html {
  const { query, askedPage, paging, found } = shown;
  const pages = pager('Service', paging, (page) => urlOf(shown, { page }));
  const list = found.services.length === 0 ? nothing(shown) : servicesTable(shown);
  return html`<section id="services" aria-labelledby="services-title">
    <h2 id="services-title">Services</h2>
    ${searchForm(shown)} ${filters(shown)} ${beyondText(askedPage, paging)} ${list}
    ${paging.total === 0 ? undefined : pages}
    <p class="muted">
      ${query.search === '' ? 'Wanted and In the kernel count the backends of each address that get traffic.' : undefined}
    </p>
  </section>`;
}

function urlOf({ query, paging }: ShownServices, change: Change): string {
  const { search, filter, order, descending, page } = { ...query, page: 1, ...change };
  const parameters = new URLSearchParams();
  if (search !== '') parameters.set('search', search);
  if (filter !== 'all') parameters.set('show', filter);
  if (order !== 'name' || descending) parameters.set('sort', `${order}${descending ? '-desc' : ''}`);
  if (page > 1) parameters.set('page', String(page));
  if (paging.limit !== DEFAULT_LIMIT) parameters.set('limit', String(paging.limit));
  const text = parameters.toString();
  return `/status${text === '' ? '' : `?${text}`}#services`;
}

function searchForm({ query, paging }: ShownServices): Html {
  const chosen = `${query.order}${query.descending ? '-desc' : ''}`;
  const options = ORDERS.map(
    ({ value, name }) =>
      html`<option value="${value}" ${value === chosen ? html` selected` : undefined}>${name}</option>`,
  );
  const hidden = (name: string, value: string): Html => html`<input type="hidden" name="${name}" value="${value}" />`;
  const kept = [
    query.filter === 'all' ? undefined : hidden('show', query.filter),
    paging.limit === DEFAULT_LIMIT ? undefined : hidden('limit', String(paging.limit)),
  ];
  return html`<form action="/status#services" role="search" aria-label="Services">
    ${kept}
    <div class="search">
      <label for="search">Name, address or pod IP</label
      ><input
        id="search"
        name="search"
        type="search"
        value="${query.search}"
        placeholder="shop/web, 10.96.0.1:80, 10.1.2.3"
        autocomplete="off"
        spellcheck="false"
      />
    </div>
    <div>
      <label for="sort">Sort by</label
      ><select id="sort" name="sort">
        ${options}
      </select>
    </div>
    <button>Show</button>
  </form>`;
}

function filters(shown: ShownServices): Html {
  const { query, found } = shown;
  const links = (Object.keys(FILTER_NAMES) as ServiceFilter[]).map((filter) => {
    const current = filter === query.filter ? html` aria-current="true"` : undefined;
    return html`<li>
      <a href="${urlOf(shown, { filter })}" ${current}>${FILTER_NAMES[filter]} (${grouped(found.counts[filter])})</a>
    </li>`;
  });
  return html`<nav aria-label="Filters">
    <ul>
      ${links}
    </ul>
  </nav>`;
}

function nothing(shown: ShownServices): Html {
  const { query, found } = shown;
  if (query.search === '' && query.filter === 'all') return html`<p>No Service yet.</p>`;
  const elsewhere = query.filter !== 'all' && found.counts.all > 0 ? 'of this kind ' : '';
  const clear = query.filter === 'all' ? urlOf(shown, { search: '' }) : urlOf(shown, { filter: 'all' });
  const what = query.search === '' ? '' : ` for ${query.search}`;
  return html`<p>
    No Service ${elsewhere}found${what}.
    <a href="${clear}">${query.filter === 'all' ? 'Show all' : 'Show every kind'}</a>
  </p>`;
}

function servicesTable(shown: ShownServices): Html {
  const { found } = shown;
  return table('Services', columns(shown), found.services.map(rows));
}

function columns(shown: ShownServices): Column[] {
  const { query } = shown;
  const sortable = (label: string, order: ServiceOrder): Pick<Column, 'name' | 'label' | 'sorted'> => {
    const isCurrent = query.order === order;
    // Numbers are asked for by the largest, names by the first.
    const descending = isCurrent ? !query.descending : order !== 'name';
    const name = html`<a href="${urlOf(shown, { order, descending })}">${label}</a>`;
    return { name, label, sorted: isCurrent ? (query.descending ? 'descending' : 'ascending') : undefined };
  };
  const plain = (label: string): Column => ({ name: label, label });
  return [
    sortable('Service', 'name'),
    ...['Address', 'Kind', 'Scheduler'].map(plain),
    { ...sortable('Wanted', 'backends'), isNumber: true },
    { ...plain('In the kernel'), isNumber: true },
    { ...sortable('Draining', 'draining'), isNumber: true },
    plain('State'),
  ];
}

function rows({ namespace, name, virtualServers, more = 0, notes }: ServiceReport): RowGroup {
  const service = `${namespace}/${name}`;
  const shown: HtmlValue[][] = virtualServers.map((server) => [
    html`<code>${server.protocol} ${hostPort(server.address, server.port)}</code>`,
    KINDS[server.kind],
    server.scheduler,
    grouped(server.ready),
    // The virtual server of an address that another Service has is not this one's.
    server.contestedBy === null ? grouped(server.inKernel) : '',
    server.draining === 0 ? '' : grouped(server.draining),
    stateOf(server),
  ]);
  const blank = ['', '', '', '', ''];
  const note = notes[0] === undefined ? '' : html`<span class="warn">${notes[0]}</span>`;
  if (shown.length === 0) shown.push([html`<span class="bad">no address served</span>`, ...blank, note]);
  else if (note !== '') shown.push(['', ...blank, note]);
  if (more > 0) {
    const all = html`<a href="/status/service?name=${encodeURIComponent(service)}">${grouped(more)} more addresses</a>`;
    shown.push([all, ...blank, '']);
  }
  return { header: serviceLink(service), rows: shown };
}

export const KINDS: Readonly<Record<VirtualServerReport['kind'], string>> = {
  clusterIP: 'ClusterIP',
  nodePort: 'NodePort',
  loadBalancer: 'LoadBalancer',
  externalIP: 'ExternalIP',
};

/** What is to be said of a virtual server in few words, by the daemon's books. */
export function stateOf(server: VirtualServerReport): Html {
  if (server.contestedBy !== null)
    return html`<span class="bad">contested: ${serviceLink(server.contestedBy)} has it</span>`;
  if (!server.written) return html`<span class="bad">not in the kernel</span>`;
  if (server.ready === 0) return html`<span class="warn">no endpoints: refused</span>`;
  if (server.ready !== server.inKernel) return html`<span class="warn">being written</span>`;
  if (server.noLocalEndpoint)
    return html`<span class="warn">no endpoint on this node: outside clients are dropped</span>`;
  return html`<span class="ok">ok</span>`;
}
