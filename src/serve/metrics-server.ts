import { type RequestListener } from 'node:http';
import { type Address, formatAddress } from '../values/address.js';
import { type Prefix, formatPrefix } from '../values/prefix.js';
import { type Metrics } from './metrics.js';
import { router, send, sendJson, sendText } from './respond.js';
import { statusHtml } from './status-html.js';
import { type StatusSource, statusPage } from './status.js';

export interface MetricsServerSources {
  readonly metrics: Pick<Metrics, 'text' | 'contentType'>;
  readonly status: StatusSource;
  /** The configuration in use, for /configz. */
  readonly config: object;
  readonly now?: () => Date;
}

/**
 * What kube-proxy's metrics server has (/metrics, /proxyMode, /healthz, /configz) and the status page (/status as HTML,
 * /status.json). It says nothing secret, but /configz and /status name every Service: hence the loopback default.
 */
export function metricsHandler({
  metrics,
  status,
  config,
  now = () => new Date(),
}: MetricsServerSources): RequestListener {
  return router({
    '/metrics': async (_request, response) => send(response, 200, metrics.contentType, await metrics.text()),
    '/proxyMode': (_request, response) => sendText(response, 200, 'ipvs'),
    '/healthz': (_request, response) => sendText(response, 200, 'ok'),
    '/configz': (_request, response) =>
      send(response, 200, 'application/json', JSON.stringify({ 'kubeproxy.config.k8s.io': config }, readable)),
    '/status.json': (_request, response, query) => sendJson(response, 200, statusPage(status, query)),
    '/status': (_request, response, query) => {
      response.setHeader(
        'Content-Security-Policy',
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'",
      );
      send(response, 200, 'text/html; charset=utf-8', statusHtml(statusPage(status, query), now()));
    },
  });
}

/** Packed addresses are bytes in a string; shown as text. */
function readable(key: string, value: unknown): unknown {
  if (key === 'bindAddress' && typeof value === 'string') return formatAddress(value as Address);
  if (typeof value !== 'object' || value === null || !('address' in value) || !('bits' in value)) return value;
  return formatPrefix(value as Prefix);
}
