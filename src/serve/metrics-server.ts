import { type RequestListener } from 'node:http';
import { type StatusAccess, guarded } from './access.js';
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
 * (/status as HTML, /status.json, and /events?since=SECONDS). It says nothing secret, but /configz, /status and /events
 * name every Service and setting: only the node itself gets them unless `access` says otherwise.
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
  const { status, now = () => new Date() } = sources;
  const turnstile = new Turnstile();
  const page = (show: (response: Parameters<Route>[1], page: StatusPage) => void): Route =>
    guarded(access, async (request, response, query) => {
      try {
        await turnstile.run(() => {
          if (!request.socket.destroyed) show(response, statusPage(status, query));
        });
      } catch (error) {
        if (!(error instanceof BusyError)) throw error;
        response.setHeader('Retry-After', '1');
        sendText(response, 503, 'too many ask for this page at once; try again\n');
      }
    });
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
    '/status': page((response, shown) => sendHtml(response, statusHtml(shown, now()))),
    '/status.json': page((response, shown) => sendJson(response, 200, shown)),
    '/status/': (request, response) => {
      response.setHeader('Location', (request.url ?? '').replace('/status/', '/status'));
      sendText(response, 308, 'see /status\n');
    },
  };
}

function sendHtml(response: Parameters<Route>[1], html: string): void {
  response.setHeader('Content-Security-Policy', "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'");
  send(response, 200, 'text/html; charset=utf-8', html);
}
