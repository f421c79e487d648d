import { loadDaemonConfig } from '../daemon/daemon-options.js';
import { type Environment } from '../daemon/environment.js';
import { type ServiceReport } from '../serve/inspection.js';
import { DaemonApi } from './daemon-api.js';
import { KernelView, serverKeyOf } from './kernel-view.js';
import { NothingFoundError, type SeeOptions, show } from './see.js';
import { type Connections, type SeenService, servicesAnswer } from './service-view.js';

export interface ServicesOptions extends SeeOptions {
  /** Empty: every namespace. */
  readonly namespace: string;
  /** A name, an address of a Service or of one of its backends; empty: every Service. */
  readonly match: string;
}

/** The Services that this node serves, with what the kernel counts. Rejects when nothing matches, or nobody answers. */
export async function runServices(options: ServicesOptions, environment: Environment): Promise<number> {
  const { config } = await loadDaemonConfig(options);
  const api = new DaemonApi(config);
  const kernel = new KernelView(environment);
  try {
    return await show(options, environment, async () => {
      const reports = await findServices(api, options);
      const services = await withConnections(reports, kernel);
      return servicesAnswer(services, kernel.notes, options.format);
    });
  } finally {
    kernel.close();
  }
}

/** Throws NothingFoundError when something is asked for and no Service matches. */
export async function findServices(
  api: DaemonApi,
  { namespace, match }: Pick<ServicesOptions, 'namespace' | 'match'>,
): Promise<ServiceReport[]> {
  const found = await api.services(namespace, match);
  if (found.length > 0 || (namespace === '' && match === '')) return found;
  const where = namespace === '' ? '' : ` in namespace ${namespace}`;
  if (match === '') throw new NothingFoundError(`the daemon serves no Service${where}`);
  throw new NothingFoundError(
    `no Service${where} has the name, an address or a backend ${match} ` +
      '(headless and ExternalName Services are served by no proxy)',
  );
}

async function withConnections(reports: readonly ServiceReport[], kernel: KernelView): Promise<SeenService[]> {
  const seen: SeenService[] = [];
  for (const report of reports) {
    const virtualServers: SeenService['virtualServers'][number][] = [];
    for (const server of report.virtualServers) {
      const counts = server.contestedBy === null ? await connectionsOf(kernel, serverKeyOf(server)) : UNKNOWN;
      virtualServers.push({ ...server, ...counts });
    }
    seen.push({ ...report, virtualServers });
  }
  return seen;
}

const UNKNOWN: Connections = { activeConnections: null, inactiveConnections: null };

async function connectionsOf(kernel: KernelView, key: ReturnType<typeof serverKeyOf>): Promise<Connections> {
  const listed = await kernel.realServers(key);
  if (listed === undefined) return UNKNOWN;
  const sum = { activeConnections: 0, inactiveConnections: 0 };
  for (const { activeConnections, inactiveConnections } of listed) {
    sum.activeConnections += activeConnections;
    sum.inactiveConnections += inactiveConnections;
  }
  return sum;
}
