import { type RequestListener } from 'node:http';
import { type StatusAccess, guarded } from './access.js';
import { type InspectionSource, backendsQuery, servicesQuery } from './inspection.js';
import { type Metrics } from './metrics.js';
import { type Route, router, send, sendJson, sendText } from './respond.js';
import { SliMetrics } from './slis.js';
import { indexHtml } from './status-index.js';
import { statusHtml } from './status-html.js';
import { type StatusPage, type StatusSource, statusPage } from './status.js';
import { BusyError, Turnstile } from './turnstile.js';

export interface MetricsServerSources {
  readonly metrics: Pick<Metrics, 'text' | 'contentType'>;
  readonly status: StatusSource;
  /** Services and endpoints as data; without it there are no such pages. */
  readonly inspection?: InspectionSource;
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
 * (/status as HTML, /status.json, /services.json, /backends.json, and /events?since=SECONDS). It says nothing secret,
 * but
 * /configz, /status and the others name every Service and setting: only the node itself gets them unless `access` says
 * otherwise.
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
  const paths = [...Object.keys(routes).filter((path) => path !== '/status/')].sort();
  routes['/'] = (_request, response) => sendHtml(response, indexHtml(paths));
  return router(routes);
}

function statusRoutes(sources: MetricsServerSources, access: 'loopback' | 'all'): Record<string, Route> {
  const { status, inspection, now = () => new Date() } = sources;
  const turnstile = new Turnstile();
  const inTurn = (show: (response: Parameters<Route>[1], query: URLSearchParams) => void): Route =>
    guarded(access, async (request, response, query) => {
      try {
        await turnstile.run(() => {
          if (!request.socket.destroyed) show(response, query);
        });
      } catch (error) {
        if (!(error instanceof BusyError)) throw error;
        response.setHeader('Retry-After', '1');
        sendText(response, 503, 'too many ask for this page at once; try again\n');
      }
    });
  const page = (show: (response: Parameters<Route>[1], page: StatusPage) => void): Route =>
    inTurn((response, query) => show(response, statusPage(status, query)));
  const { events } = sources;
  return {
    ...(events === undefined
      ? {}
      : {
          '/events': guarded(access, (_request, response, query) => {
            const seconds = Number(query.get('since') ?? NaN);
            sendJson(response, 200, events(seconds >= 0 ? seconds * 1000 : Infinity));
          }),
        }),
    ...(inspection === undefined ? {} : inspectionRoutes(inspection, inTurn)),
    '/status': page((response, shown) => sendHtml(response, statusHtml(shown, now()))),
    '/status.json': page((response, shown) => sendJson(response, 200, shown)),
    '/status/': (request, response) => {
      response.setHeader('Location', (request.url ?? '').replace('/status/', '/status'));
      sendText(response, 308, 'see /status\n');
    },
  };
}

/** What the commands `services` and `backends` ask for, page by page. */
function inspectionRoutes(
  inspection: InspectionSource,
  inTurn: (show: (response: Parameters<Route>[1], query: URLSearchParams) => void) => Route,
): Record<string, Route> {
  return {
    '/services.json': inTurn((response, query) => sendJson(response, 200, inspection.services(servicesQuery(query)))),
    '/backends.json': inTurn((response, query) => {
      const found = inspection.backends(backendsQuery(query));
      if (found === undefined) sendText(response, 404, 'no such Service\n');
      else sendJson(response, 200, found);
    }),
  };
}

function sendHtml(response: Parameters<Route>[1], html: string): void {
  response.setHeader('Content-Security-Policy', "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'");
  send(response, 200, 'text/html; charset=utf-8', html);
}
