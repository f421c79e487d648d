import { type StatusAccess } from '../values/status-access.js';
import { type RequestListener } from 'node:http';
import { guarded } from './access.js';
import { type InspectionSource, backendsQuery, servicesQuery } from './inspection.js';
import { type Metrics } from './metrics.js';
import { type Route, router, send, sendJson, sendText } from './respond.js';
import { SliMetrics } from './slis.js';
import { indexHtml, missingHtml, sendHtml, serviceHtml, statusHtml } from './page/routes.js';
import { type StatusSource, statusPage } from './status.js';
import { BusyError, Turnstile } from './turnstile.js';

export interface MetricsServerSources {
  readonly metrics: Pick<Metrics, 'text' | 'contentType'>;
  readonly status: StatusSource;
  readonly inspection: InspectionSource;
  /** The body of /configz. */
  readonly configz: () => object;
  /** Who may see /configz, and the status page unless it is off. */
  readonly access: StatusAccess;
  /** The body of /events: what changed in the last so many milliseconds. */
  readonly events?: (sinceMs: number) => object;
  readonly now?: () => Date;
}

/**
 * What kube-proxy's metrics server has (/metrics, /metrics/slis, /proxyMode, /healthz, /configz) and the status page
 * (/status and /status/service as HTML, /status.json, /services.json, /backends.json, and /events?since=SECONDS). It
 * says nothing secret, but /configz, /status and the others name every Service and setting: only the node itself gets
 * them unless `access` says otherwise.
 */
export function metricsHandler(sources: MetricsServerSources): RequestListener {
  const { metrics, configz, access } = sources;
  const slis = new SliMetrics();
  const ping: Route = (_request, response, query) => {
    slis.pinged();
    sendText(response, 200, query.has('verbose') ? '[+]ping ok\nhealthz check passed\n' : 'ok');
  };
  const routes: Record<string, Route> = {
    '/metrics': async (_request, response) => send(response, 200, metrics.contentType, await metrics.text()),
    '/metrics/slis': async (_request, response) => send(response, 200, slis.contentType, await slis.text()),
    '/proxyMode': (_request, response) => sendText(response, 200, 'ipvs'),
    '/healthz': ping,
    '/healthz/ping': (_request, response) => sendText(response, 200, 'ok'),
    '/configz': guarded(access === 'all' ? 'all' : 'loopback', (_request, response) =>
      sendJson(response, 200, configz()),
    ),
    ...(access === 'off' ? {} : statusRoutes(sources, access)),
  };
  const paths = Object.entries(PATHS).filter(([path]) => path in routes);
  routes['/'] = (_request, response) => sendHtml(response, 200, indexHtml(paths));
  return router(routes);
}

/** What `/` says of each; the first is what people look for. */
const PATHS: Readonly<Record<string, string>> = {
  '/status': 'this node for people: health, Services, backends, latest changes',
  '/metrics': 'for Prometheus',
  '/metrics/slis': 'health checks of this process, for Prometheus',
  '/healthz': 'whether this server answers; the health of the proxy is on healthzBindAddress',
  '/configz': 'the configuration in use',
  '/proxyMode': 'ipvs',
  '/status.json': 'the status page as data',
  '/services.json': 'Services as data',
  '/events': 'what changed, as data; ?since=SECONDS',
};

/** Answers by what it shows, one after the other. */
type Show = (response: Parameters<Route>[1], query: URLSearchParams) => Promise<void>;

function statusRoutes(sources: MetricsServerSources, access: 'loopback' | 'all'): Record<string, Route> {
  const { status, inspection, events, now = () => new Date() } = sources;
  const turnstile = new Turnstile();
  const inTurn = (show: Show): Route =>
    guarded(access, async (request, response, query) => {
      try {
        await turnstile.run(async () => {
          if (!request.socket.destroyed) await show(response, query);
        });
      } catch (error) {
        if (!(error instanceof BusyError)) throw error;
        response.setHeader('Retry-After', '1');
        sendText(response, 503, 'too many ask for this page at once; try again\n');
      }
    });
  const pages = { status, inspection, now };
  return {
    ...(events === undefined ? {} : { '/events': guarded(access, eventsRoute(events)) }),
    ...inspectionRoutes(inspection, inTurn),
    '/status': inTurn(async (response, query) => sendHtml(response, 200, await statusHtml(pages, query))),
    '/status/service': inTurn(async (response, query) => {
      const page = await serviceHtml(pages, query);
      if (page === undefined) sendHtml(response, 404, await missingHtml(pages, query));
      else sendHtml(response, 200, page);
    }),
    '/status.json': inTurn(async (response, query) => sendJson(response, 200, await statusPage(status, query))),
    '/status/': (request, response) => {
      response.setHeader('Location', (request.url ?? '').replace('/status/', '/status'));
      sendText(response, 308, 'see /status\n');
    },
  };
}

function eventsRoute(events: (sinceMs: number) => object): Route {
  return (_request, response, query) => {
    const seconds = Number(query.get('since') ?? NaN);
    sendJson(response, 200, events(seconds >= 0 ? seconds * 1000 : Infinity));
  };
}

/** What the commands `services` and `backends` ask for, page by page. */
function inspectionRoutes(inspection: InspectionSource, inTurn: (show: Show) => Route): Record<string, Route> {
  return {
    '/services.json': inTurn(async (response, query) =>
      sendJson(response, 200, await inspection.services(servicesQuery(query))),
    ),
    '/backends.json': inTurn(async (response, query) => {
      const found = await inspection.backends(backendsQuery(query));
      if (found === undefined) sendText(response, 404, 'no such Service\n');
      else sendJson(response, 200, found);
    }),
  };
}
