import { get } from 'node:http';
import { errorMessage } from '../values/errors.js';
import { type Environment } from '../daemon/environment.js';
import { loadDaemonConfig } from '../daemon/daemon-options.js';
import { isGreen } from '../serve/health.js';
import { type StatusHealth, type StatusKernel, type StatusService } from '../serve/status.js';
import { type StatusOptions } from './options.js';
import { formatBindAddress } from '../config/bind-address.js';

/** The daemon's largest page: 10,000 Services are ten requests. */
const PAGE = 1000;

/**
 * Asks the daemon on this node what it is doing, and with `search` or as JSON for its Services, page by page; 1 when it
 * does not answer, is not healthy, or the node is going.
 */
export async function runStatus(options: StatusOptions, environment: Environment): Promise<number> {
  const { config } = await loadDaemonConfig(options);
  if (config.metricsBindAddress === undefined) throw new Error('the status page is off: metricsBindAddress is empty');
  if (config.statusAccess === 'off') throw new Error('the status page is off: kubeProxyIpvs.statusAccess is off');
  const { host, port } = config.metricsBindAddress;
  const reachable = host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '::1' : host;
  const url = `http://${formatBindAddress({ host: reachable, port })}/status.json`;
  const { search } = options;
  const wantsServices = options.json || search !== undefined;
  const page = await fetchPages(url, search ?? '', wantsServices);
  const { report, services } = page;
  if (options.json) environment.out(`${JSON.stringify(page)}\n`);
  else environment.out(`${render(report)}${search === undefined ? '' : renderServices(services)}`);
  return isGreen(report.health) ? 0 : 1;
}

interface PageJson {
  readonly report: StatusJson;
  readonly total: number;
  readonly services: readonly StatusService[];
}

/** The report, and every page of Services when they are wanted. Those that come or go meanwhile may be told or not. */
async function fetchPages(url: string, search: string, wantsServices: boolean): Promise<PageJson> {
  const services = new Map<string, StatusService>();
  for (let offset = 0; ; offset += PAGE) {
    const query = new URLSearchParams({ search, offset: String(offset), limit: String(wantsServices ? PAGE : 1) });
    const { report, total, services: shown } = await fetchPage(`${url}?${query.toString()}`, url);
    for (const service of shown) services.set(`${service.namespace}/${service.name}`, service);
    if (!wantsServices || offset + PAGE >= total) return { report, total, services: [...services.values()] };
  }
}

async function fetchPage(url: string, shown: string): Promise<PageJson> {
  try {
    return JSON.parse(await fetchText(url)) as PageJson;
  } catch (error) {
    throw new Error(`no status from the daemon at ${shown}: ${errorMessage(error)} (is it running on this node?)`, {
      cause: error,
    });
  }
}

interface StatusJson {
  readonly node: string;
  readonly version: string;
  readonly health: StatusHealth;
  readonly counts: Readonly<Record<string, number>>;
  readonly kernel: StatusKernel;
  readonly notes: readonly string[];
}

function render({ node, version, health, counts, kernel, notes }: StatusJson): string {
  const lines = [`node ${node}, version ${version}: ${isGreen(health) ? 'healthy' : 'NOT HEALTHY'}`];
  for (const reason of health.reasons) lines.push(`  ${reason}`);
  for (const [name, count] of Object.entries(counts)) lines.push(`${String(count).padStart(8)} ${name} wanted`);
  for (const [name, count] of Object.entries(kernel.counts)) lines.push(`${String(count).padStart(8)} ${name} written`);
  for (const note of notes) lines.push(`note: ${note}`);
  return `${lines.join('\n')}\n`;
}

function renderServices(services: readonly StatusService[]): string {
  if (services.length === 0) return 'no Service matches\n';
  const lines = services.flatMap(({ namespace, name, virtualServers }) => [
    `${namespace}/${name}`,
    ...virtualServers.map(
      ({ virtualServer, scheduler, realServers, draining }) =>
        `  ${virtualServer} ${scheduler}: ${realServers} real servers${draining > 0 ? `, ${draining} draining` : ''}`,
    ),
  ]);
  return `${lines.join('\n')}\n`;
}

function fetchText(url: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const request = get(url, { timeout: 5000 }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => (text += chunk));
      response.on('end', () => {
        if (response.statusCode === 200) resolve(text);
        else reject(new Error(`HTTP ${response.statusCode}: ${text.trim().slice(0, 200)}`));
      });
      response.on('error', reject);
    });
    request.on('timeout', () => request.destroy(new Error('no answer within 5 s')));
    request.on('error', reject);
  });
}
