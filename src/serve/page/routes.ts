/** The pages for people: /status and /status/service, put together from what the sources say. */
import { type ServerResponse } from 'node:http';
import { type InspectionSource, backendsQuery, servicesQuery } from '../inspection.js';
import { send } from '../respond.js';
import { type StatusSource } from '../status.js';
import { html } from './html.js';
import { layout } from './layout.js';
import { changesSection, nodeFooter, nodeHeader, overview, recent } from './overview.js';
import { askedPage, pageCount } from './paging.js';
import { DEFAULT_ENDPOINTS, serviceSections } from './service.js';
import { DEFAULT_LIMIT, servicesSection } from './services.js';
import { CONTENT_SECURITY_POLICY } from './style.js';

export interface PageSources {
  readonly status: StatusSource;
  readonly inspection: InspectionSource;
  readonly now: () => Date;
}

/** With so many addresses of each shown, a page of the list never ends early. */
const LARGEST_LIMIT = 100;
const MOST_SERVERS = 10;
const MOST_CHANGES = 10;

/** The list. `page` counts from 1; beyond the last one is the last one, and it says so. */
export async function statusHtml(
  { status, inspection, now }: PageSources,
  parameters: URLSearchParams,
): Promise<string> {
  const limit = limitOf(parameters, DEFAULT_LIMIT);
  const asked = askedPage(parameters.get('page'));
  const query = { ...servicesQuery(parameters), mostServers: MOST_SERVERS, limit };
  const at = (page: number) => inspection.services({ ...query, offset: (page - 1) * limit });
  let found = await at(asked);
  const page = Math.min(asked, pageCount({ total: found.total, limit }));
  if (page < asked) found = await at(page);
  const report = await status.status();
  const shown = { query, askedPage: asked, paging: { total: found.total, page, limit }, found };
  return layout({
    title: `${report.node}: kube-proxy-ipvs`,
    header: nodeHeader(report),
    skipTo: { id: 'services', what: 'the Services' },
    main: html`${overview(report, now())}${servicesSection(shown)}${recent(report, status.changes(undefined, MOST_CHANGES), now())}`,
    footer: nodeFooter(report, now()),
  });
}

/** One Service (`name=namespace/name`); undefined when there is none. */
export async function serviceHtml(
  { status, inspection, now }: PageSources,
  parameters: URLSearchParams,
): Promise<string | undefined> {
  const service = parameters.get('name') ?? '';
  const limit = limitOf(parameters, DEFAULT_ENDPOINTS);
  const asked = askedPage(parameters.get('page'));
  const at = (page: number) =>
    inspection.backends({ ...backendsQuery(new URLSearchParams({ service })), offset: (page - 1) * limit, limit });
  let backends = await at(asked);
  if (backends === undefined) return undefined;
  const page = Math.min(asked, pageCount({ total: backends.total, limit }));
  if (page < asked) backends = (await at(page)) ?? backends;
  const kernel = await inspection.kernel(service);
  const report = await status.status();
  const shown = { backends, kernel, askedPage: asked, paging: { total: backends.total, page, limit } };
  return layout({
    title: `${service} on ${report.node}: kube-proxy-ipvs`,
    header: nodeHeader(report, service),
    main: html`${serviceSections(shown)}${changesSection(status.changes(service, MOST_CHANGES), now())}`,
    footer: nodeFooter(report, now()),
  });
}

/** Said instead of a Service that is not there. */
export async function missingHtml({ status, now }: PageSources, parameters: URLSearchParams): Promise<string> {
  const report = await status.status();
  const service = parameters.get('name') ?? '';
  return layout({
    title: `No such Service: kube-proxy-ipvs`,
    header: nodeHeader(report, 'No such Service'),
    main: html`<section>
      <p>
        This node serves no Service <code>${service}</code>: there is none, it has no cluster IP, or another proxy has
        it (label <code>service.kubernetes.io/service-proxy-name</code>).
      </p>
      <p><a href="/status">All Services</a></p>
    </section>`,
    footer: nodeFooter(report, now()),
  });
}

/** What `/` shows: the paths that this server has. */
export function indexHtml(paths: readonly (readonly [path: string, what: string])[]): string {
  const links = paths.map(
    ([path, what]) =>
      html`<dt><a href="${path}">${path}</a></dt>
        <dd>${what}</dd>`,
  );
  return layout({
    title: 'kube-proxy-ipvs',
    header: html`<h1>kube-proxy-ipvs</h1>`,
    main: html`<section><dl class="paths">${links}</dl></section>`,
  });
}

/** Sends a page with the policy that it keeps; nobody stores it, for it is of this moment. */
export function sendHtml(response: ServerResponse, status: number, page: string): void {
  response.setHeader('Content-Security-Policy', CONTENT_SECURITY_POLICY);
  response.setHeader('Referrer-Policy', 'no-referrer');
  response.setHeader('Cache-Control', 'no-store');
  send(response, status, 'text/html; charset=utf-8', page);
}

function limitOf(parameters: URLSearchParams, fallback: number): number {
  const text = parameters.get('limit') ?? '';
  return /^[0-9]{1,9}$/.test(text) && Number(text) > 0 ? Math.min(Number(text), LARGEST_LIMIT) : fallback;
}
