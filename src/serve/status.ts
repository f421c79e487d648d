import { type HealthReport } from './health.js';

export interface StatusVirtualServer {
  /** As formatVirtualServer writes it: `TCP 10.96.0.1:443`. */
  readonly virtualServer: string;
  readonly scheduler: string;
  readonly realServers: number;
  readonly draining: number;
}

export interface StatusService {
  readonly namespace: string;
  readonly name: string;
  readonly virtualServers: readonly StatusVirtualServer[];
}

export interface StatusDrain {
  readonly virtualServer: string;
  readonly realServer: string;
  /** Active plus inactive connections when last read. */
  readonly connections: number;
  readonly deadline: Date;
}

/** One line of the page's overview: what happened last, and what came of it. */
export interface StatusEvent {
  readonly at: Date;
  readonly seconds: number;
  /** `12 virtual servers, 40 real servers changed`, `nothing drifted`. */
  readonly result: string;
}

export interface StatusReport {
  readonly node: string;
  readonly version: string;
  readonly startedAt: Date;
  readonly health: HealthReport;
  /** Named counts, in the order of display: Services, virtual servers, ... */
  readonly counts: Readonly<Record<string, number>>;
  readonly lastSync: StatusEvent | undefined;
  readonly lastVerification: StatusEvent | undefined;
  readonly drains: readonly StatusDrain[];
  /** Things an operator should know: claim conflicts, skipped objects, failures being retried. */
  readonly notes: readonly string[];
}

export interface ServiceQuery {
  /** Lower-cased; matches inside `namespace/name` and virtual server texts. Empty: all. */
  readonly search: string;
  readonly offset: number;
  readonly limit: number;
}

/** Asked when somebody looks; `services` returns one page so that 50,000 Services never make one answer. */
export interface StatusSource {
  status(): StatusReport;
  services(query: ServiceQuery): { readonly total: number; readonly services: readonly StatusService[] };
}

export interface StatusPage {
  readonly report: StatusReport;
  readonly query: ServiceQuery;
  readonly total: number;
  readonly services: readonly StatusService[];
}

const LARGEST_PAGE = 1000;

/** Reads `search`, `offset` and `limit` (at most 1,000); nonsense becomes the default. */
export function statusPage(source: StatusSource, parameters: URLSearchParams): StatusPage {
  const query = {
    search: (parameters.get('search') ?? '').slice(0, 253).toLowerCase(),
    offset: whole(parameters.get('offset'), 0, Number.MAX_SAFE_INTEGER),
    limit: whole(parameters.get('limit'), 100, LARGEST_PAGE),
  };
  return { report: source.status(), query, ...source.services(query) };
}

function whole(text: string | null, otherwise: number, largest: number): number {
  return text !== null && /^[0-9]{1,15}$/.test(text) ? Math.min(Number(text), largest) : otherwise;
}
