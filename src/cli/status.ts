import { type Environment } from '../daemon/environment.js';
import { loadDaemonConfig } from '../daemon/daemon-options.js';
import { isGreen } from '../serve/health.js';
import { type StatusService } from '../serve/status.js';
import { type StatusOptions } from './options.js';
import { show } from './see.js';
import { daemonUrl, fetchPage } from './daemon-page.js';
import { type StatusJson, formatStatus } from './status-text.js';

/** The daemon's largest page: 10,000 Services are ten requests. */
const PAGE = 1000;

/**
 * Asks the daemon on this node what it is doing, and with `search` or as JSON for its Services, page by page; 1 when it
 * does not answer, is not healthy, or the node is going.
 */
export async function runStatus(options: StatusOptions, environment: Environment): Promise<number> {
  const { config } = await loadDaemonConfig(options);
  const url = daemonUrl(config, '/status.json');
  const { search, format } = options;
  const wantsServices = search !== undefined || (format !== undefined && format !== 'wide');
  return show(options, environment, async () => {
    const page = await fetchPages(url, search ?? '', wantsServices);
    const { report, services } = page;
    const text = formatStatus(report, new Date(), format === 'wide')
      .trimEnd()
      .split('\n');
    const names = services.map(({ namespace, name }) => `${namespace}/${name}`);
    const found = search === undefined ? [] : renderServices(services);
    return { data: page, text: [...text, ...found], names, notes: [], code: isGreen(report.health) ? 0 : 1 };
  });
}

interface PageJson {
  readonly report: StatusJson;
  readonly total: number;
  readonly services: readonly StatusService[];
}

/**
 * The report, and every page of Services when they are wanted. Those that come or go meanwhile may be reported or
 * not.
 */
async function fetchPages(url: string, search: string, wantsServices: boolean): Promise<PageJson> {
  const services = new Map<string, StatusService>();
  for (let offset = 0; ; offset += PAGE) {
    const query = new URLSearchParams({ search, offset: String(offset), limit: String(wantsServices ? PAGE : 1) });
    const { report, total, services: shown } = await fetchPage<PageJson>(`${url}?${query.toString()}`, url);
    for (const service of shown) services.set(`${service.namespace}/${service.name}`, service);
    if (!wantsServices || offset + PAGE >= total) return { report, total, services: [...services.values()] };
  }
}

function renderServices(services: readonly StatusService[]): string[] {
  if (services.length === 0) return ['no Service matches'];
  return services.flatMap(({ namespace, name, virtualServers }) => [
    `${namespace}/${name}`,
    ...virtualServers.map(
      ({ virtualServer, scheduler, realServers, draining }) =>
        `  ${virtualServer} ${scheduler}: ${realServers} real servers${draining > 0 ? `, ${draining} draining` : ''}`,
    ),
  ]);
}
