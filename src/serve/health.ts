import { type RequestListener, type ServerResponse } from 'node:http';
import { type Family } from '../values/address.js';
import { router, sendJson } from './respond.js';

/** What kind of thing is wrong; the words are part of the 503 body and stay what they are. */
export const REASON_CATEGORIES = ['starting', 'sync', 'verification', 'rules', 'sysctl', 'node'] as const;
export type ReasonCategory = (typeof REASON_CATEGORIES)[number];

/** Why the proxy is not healthy. */
export interface HealthReason {
  readonly category: ReasonCategory;
  /** For everybody who reaches the health port: no address, no object's name, no text of the kernel or of a peer. */
  readonly summary: string;
  /** For the status page: what exactly, and what to do about it. */
  readonly detail?: string | undefined;
  /** The family that it concerns; both when absent. */
  readonly family?: Family | undefined;
}

export interface FamilyHealth {
  readonly family: Family;
  readonly healthy: boolean;
  readonly lastUpdated: Date;
}

/** What the daemon knows of its own health at this moment. */
export interface HealthReport {
  /** The proxy's own health, without the Node's state. */
  readonly healthy: boolean;
  /** False while the Node is being deleted or has the taint ToBeDeletedByClusterAutoscaler. */
  readonly nodeEligible: boolean;
  /** When the data plane was last brought up to date; undefined before the first sync. */
  readonly lastUpdated: Date | undefined;
  /** Why `healthy` is false. */
  readonly reasons: readonly HealthReason[];
  /** One entry per served family once it has been synced. */
  readonly families: readonly FamilyHealth[];
}

/** Asked at every probe; must be cheap and must not throw. */
export interface HealthSource {
  healthz(): HealthReport;
  livez(): HealthReport;
  /** `healthy` when this process has brought the kernel up to date at least once, and is healthy. */
  readyz(): HealthReport;
}

/** Notified of the HTTP status of each answer; `Metrics` fits. */
export interface HealthCounters {
  healthzAnswered(code: number): void;
  livezAnswered(code: number): void;
}

/** Go's zero time.Time, which kube-proxy answers before the first sync. */
const NEVER = '0001-01-01T00:00:00Z';

const NODE_GOES: HealthReason = {
  category: 'node',
  summary:
    'the node is being deleted, is tainted ToBeDeletedByClusterAutoscaler, or the API server knows none of this name',
};

/** Where a 503 sends its reader: addresses and names are for those who may see them. */
const DETAILS = 'see "kube-proxy-ipvs status" on the node, or /status on its metrics address';

/** True when /healthz answers 200: the proxy is healthy and the node stays. */
export function isGreen({ healthy, nodeEligible }: Pick<HealthReport, 'healthy' | 'nodeEligible'>): boolean {
  return healthy && nodeEligible;
}

/** Every reason for red, the Node's included. */
export function allReasons(report: HealthReport): readonly HealthReason[] {
  return report.nodeEligible ? report.reasons : [...report.reasons, NODE_GOES];
}

/** One line of text with the details, for those who may see them. */
export function formatReason({ category, summary, detail }: HealthReason): string {
  return detail === undefined ? `${category}: ${summary}` : `${category}: ${summary}: ${detail}`;
}

/**
 * /healthz and /livez as kube-proxy 1.36's proxy_health server answers them, plus `reasons` and `details` when the
 * answer is 503. A green answer has the current time as lastUpdated, as kube-proxy's has; /livez leaves the Node's
 * state out. /readyz, which kube-proxy has not, is for the DaemonSet's rollout.
 */
export function healthHandler(
  source: HealthSource,
  counters: HealthCounters,
  now: () => Date = () => new Date(),
): RequestListener {
  return router({
    '/healthz': (_request, response) => {
      const report = source.healthz();
      counters.healthzAnswered(isGreen(report) ? 200 : 503);
      const reasons = allReasons(report);
      respond(response, isGreen(report), { ...report, reasons }, now(), { nodeEligible: report.nodeEligible });
    },
    '/livez': (_request, response) => {
      const report = source.livez();
      counters.livezAnswered(report.healthy ? 200 : 503);
      respond(response, report.healthy, report, now(), {});
    },
    '/readyz': (_request, response) => {
      const report = source.readyz();
      respond(response, report.healthy, report, now(), {});
    },
  });
}

function respond(
  response: ServerResponse,
  isOk: boolean,
  report: HealthReport,
  now: Date,
  extra: { nodeEligible?: boolean },
): void {
  const families = report.families.map(({ family, healthy, lastUpdated }): [string, object] => [
    family === 4 ? 'IPv4' : 'IPv6',
    { lastUpdated: lastUpdated.toISOString(), healthy },
  ]);
  sendJson(response, isOk ? 200 : 503, {
    lastUpdated: (isOk ? now : report.lastUpdated)?.toISOString() ?? NEVER,
    currentTime: now.toISOString(),
    ...extra,
    healthy: report.healthy,
    ...(families.length > 0 && { status: Object.fromEntries(families) }),
    ...(!isOk && {
      reasons: report.reasons.map(({ category, summary }) => `${category}: ${summary}`),
      details: DETAILS,
    }),
  });
}
