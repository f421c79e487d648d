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
  /** undefined: it drains until its last connection has gone. */
  readonly deadline: Date | undefined;
}

/** What the page and the `status` command say of health; unlike a 503's body it names names. */
export interface StatusHealth {
  /** The proxy's own health, without the Node's state. */
  readonly healthy: boolean;
  /** False while the Node is being deleted or drained by the cluster autoscaler. */
  readonly nodeEligible: boolean;
  readonly lastUpdated: Date | undefined;
  /** Why /healthz is red, the Node's state included; one line each. */
  readonly reasons: readonly string[];
}

/** What this daemon has put into the kernel, and how far that is known to be there. */
export interface StatusKernel {
  /** Named counts by the daemon's own books, in the order of display. */
  readonly counts: Readonly<Record<string, number>>;
  /** Seconds that the sync or repair under way has taken; the books are not settled while one is. */
  readonly syncingFor: number | undefined;
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
  readonly health: StatusHealth;
  /** What the cluster wants here: named counts in the order of display. */
  readonly counts: Readonly<Record<string, number>>;
  readonly kernel: StatusKernel;
  readonly lastSync: StatusEvent | undefined;
  readonly lastVerification: StatusEvent | undefined;
  readonly drains: readonly StatusDrain[];
  /** What was found to differ in the last hour and was repaired, by object. */
  readonly repairs: Readonly<Record<string, number>>;
  /** By name: `kernel`, `iptables`, `families`. */
  readonly versions: Readonly<Record<string, string>>;
  /**
   * Things an operator should know: failures being retried, silent watches, claim conflicts and skipped objects by
   * name.
   */
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

const DEFAULT_PAGE = 100;
const LARGEST_PAGE = 1000;

/** Reads `search`, `offset` and `limit` (1 to 1,000); nonsense becomes the default, beyond the end is the last page. */
export function statusPage(source: StatusSource, parameters: URLSearchParams): StatusPage {
  const query = {
    search: (parameters.get('search') ?? '').slice(0, 253).toLowerCase(),
    offset: whole(parameters.get('offset'), Number.MAX_SAFE_INTEGER) ?? 0,
    limit: whole(parameters.get('limit'), LARGEST_PAGE) || DEFAULT_PAGE,
  };
  const page = { report: source.status(), query, ...source.services(query) };
  if (query.offset === 0 || query.offset < page.total) return page;
  const last = { ...query, offset: Math.max(0, Math.ceil(page.total / query.limit) - 1) * query.limit };
  return { ...page, query: last, ...source.services(last) };
}

function whole(text: string | null, largest: number): number | undefined {
  return text !== null && /^[0-9]{1,15}$/.test(text) ? Math.min(Number(text), largest) : undefined;
}
