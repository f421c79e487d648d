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

/** How people read the names of counts; in JSON they are words without a space. */
const COUNT_LABELS: Readonly<Record<string, string>> = {
  services: 'Services',
  endpointSlices: 'EndpointSlices',
  virtualServers: 'virtual servers',
  realServers: 'real servers',
  contestedAddresses: 'contested addresses',
  waitingServices: 'waiting Services',
  drainingRealServers: 'draining real servers',
};

/** As it is where nobody knows it: a daemon of another version counts other things. */
export function countLabel(name: string): string {
  return COUNT_LABELS[name] ?? name;
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

/** What was found to differ last, and was repaired. */
export interface StatusRepair {
  readonly at: Date;
  readonly object: string;
  readonly kind: string;
  /** `TCP 10.96.0.1:80 -> 10.1.2.3:8080`; of several things the first. */
  readonly name: string;
  /** `namespace/name` of those that it belongs to, as far as they are known. */
  readonly services: readonly string[];
  /** Differences repaired at once. */
  readonly total: number;
}

/** What the page draws: bounded, whatever the cluster's size and the daemon's age. */
export interface StatusHistory {
  /** The last syncs that changed something, from the oldest. */
  readonly syncs: readonly { readonly at: Date; readonly seconds: number }[];
  /** Repairs in each of the last sixty minutes, from the oldest. */
  readonly repairs: readonly number[];
}

/** A change of late, in words. */
export interface StatusChange {
  readonly at: Date;
  readonly service: string | undefined;
  readonly text: string;
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
  /** At most a thousand: `kernel.counts` says how many there are. */
  readonly drains: readonly StatusDrain[];
  /** What was found to differ in the last hour and was repaired, by object. */
  readonly repairs: Readonly<Record<string, number>>;
  readonly lastRepair: StatusRepair | undefined;
  readonly history: StatusHistory;
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

/** Asked when somebody looks; answers in pieces, with other work of the event loop in between. */
export interface StatusSource {
  status(): Promise<StatusReport>;
  /** One page of Services, so that 50,000 never make one answer. */
  services(query: ServiceQuery): Promise<{ readonly total: number; readonly services: readonly StatusService[] }>;
  /** The last changes from the newest on, of one Service (`namespace/name`) or of all; at most `most`. */
  changes(service: string | undefined, most: number): readonly StatusChange[];
}

/** What /status.json shows. */
export interface StatusPage {
  readonly report: StatusReport;
  readonly query: ServiceQuery;
  readonly total: number;
  readonly services: readonly StatusService[];
}

const DEFAULT_PAGE = 100;
const LARGEST_PAGE = 1000;

/** Reads `search`, `offset` and `limit` (1 to 1,000); nonsense becomes the default, beyond the end is the last page. */
export async function statusPage(source: StatusSource, parameters: URLSearchParams): Promise<StatusPage> {
  const query = {
    search: (parameters.get('search') ?? '').slice(0, 253).toLowerCase(),
    offset: whole(parameters.get('offset'), Number.MAX_SAFE_INTEGER) ?? 0,
    limit: whole(parameters.get('limit'), LARGEST_PAGE) || DEFAULT_PAGE,
  };
  const page = { report: await source.status(), query, ...(await source.services(query)) };
  if (query.offset === 0 || query.offset < page.total) return page;
  const last = { ...query, offset: Math.max(0, Math.ceil(page.total / query.limit) - 1) * query.limit };
  return { ...page, query: last, ...(await source.services(last)) };
}

function whole(text: string | null, largest: number): number | undefined {
  return text !== null && /^[0-9]{1,15}$/.test(text) ? Math.min(Number(text), largest) : undefined;
}
