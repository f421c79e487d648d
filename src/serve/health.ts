import { type RequestListener, type ServerResponse } from 'node:http';
import { type Family } from '../values/address.js';
import { router, sendJson } from './respond.js';

export interface FamilyHealth {
  readonly family: Family;
  readonly healthy: boolean;
  readonly lastUpdated: Date | undefined;
}

/** What the daemon knows of its own health at this moment. */
export interface HealthReport {
  /** The proxy's own health, without the Node's state. */
  readonly healthy: boolean;
  /** False while the Node is being deleted or has the taint ToBeDeletedByClusterAutoscaler. */
  readonly nodeEligible: boolean;
  /** When the data plane was last brought up to date; undefined before the first sync. */
  readonly lastUpdated: Date | undefined;
  /** Why it is not healthy, one short sentence each; shown only when red. */
  readonly reasons: readonly string[];
  readonly families?: readonly FamilyHealth[];
}

/** Asked at every probe; must be cheap and must not throw. */
export interface HealthSource {
  healthz(): HealthReport;
  livez(): HealthReport;
}

/** Told the HTTP status of each answer; `Metrics` fits. */
export interface HealthCounters {
  healthzAnswered(code: number): void;
  livezAnswered(code: number): void;
}

/** Go's zero time.Time, which kube-proxy answers before the first sync. */
const NEVER = '0001-01-01T00:00:00Z';

/**
 * /healthz and /livez as kube-proxy 1.36's proxy_health server answers them, plus `reasons` when the answer is 503.
 * A green answer has the current time as lastUpdated, as kube-proxy's has; /livez leaves the Node's state out.
 */
export function healthHandler(
  source: HealthSource,
  counters: HealthCounters,
  now: () => Date = () => new Date(),
): RequestListener {
  return router({
    '/healthz': (_request, response) => {
      const report = source.healthz();
      const isGreen = report.healthy && report.nodeEligible;
      const reasons = report.nodeEligible ? report.reasons : [...report.reasons, NODE_GOES];
      counters.healthzAnswered(isGreen ? 200 : 503);
      respond(response, isGreen, { ...report, reasons }, now(), { nodeEligible: report.nodeEligible });
    },
    '/livez': (_request, response) => {
      const report = source.livez();
      counters.livezAnswered(report.healthy ? 200 : 503);
      respond(response, report.healthy, report, now(), {});
    },
  });
}

const NODE_GOES = 'the node is being deleted or is tainted ToBeDeletedByClusterAutoscaler';

function respond(
  response: ServerResponse,
  isGreen: boolean,
  report: HealthReport,
  now: Date,
  extra: { nodeEligible?: boolean },
): void {
  const families = (report.families ?? []).map(({ family, healthy, lastUpdated }): [string, object] => [
    family === 4 ? 'IPv4' : 'IPv6',
    { lastUpdated: lastUpdated?.toISOString() ?? NEVER, healthy },
  ]);
  sendJson(response, isGreen ? 200 : 503, {
    lastUpdated: (isGreen ? now : report.lastUpdated)?.toISOString() ?? NEVER,
    currentTime: now.toISOString(),
    ...extra,
    healthy: report.healthy,
    ...(families.length > 0 && { status: Object.fromEntries(families) }),
    ...(!isGreen && { reasons: report.reasons }),
  });
}
