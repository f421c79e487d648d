import { loadDaemonConfig } from '../daemon/daemon-options.js';
import { type Environment } from '../daemon/environment.js';
import { lookUpPodNames } from '../daemon/cluster/pod-names.js';
import { type DumpedRealServer } from '../kernel/ipvs/message.js';
import { type BackendServer, type BackendsPage } from '../serve/inspection.js';
import { errorMessage } from '../values/errors.js';
import { type BackendNames, backendsAnswer, seenBackends } from './backend-view.js';
import { DaemonApi } from './daemon-api.js';
import { KernelView, serverKeyOf } from './kernel-view.js';
import { NothingFoundError, type SeeOptions, show } from './see.js';

export interface ServiceOptions extends SeeOptions {
  /** `namespace/name` */
  readonly service: string;
}

/** The backends of one Service. Rejects when there is no such Service, or nobody answers. */
export async function runBackends(options: ServiceOptions, environment: Environment): Promise<number> {
  const { config } = await loadDaemonConfig(options);
  const { namespace, name } = parseServiceName(options.service);
  const api = new DaemonApi(config);
  const kernel = new KernelView(environment);
  // Tables show names only when asked to, lest every look costs the API server a list.
  const wantsNames = options.format !== undefined && options.format !== 'name';
  try {
    return await show(options, environment, async () => {
      const page = await api.backends(options.service);
      if (page === undefined) throw noSuchService(options.service);
      const { names, notes } = wantsNames
        ? await podNames(config, options.manifests, namespace, name)
        : { names: new Map<string, BackendNames>(), notes: [] };
      const listed = await realServers(page, kernel);
      const seen = seenBackends(page, (server) => listed.get(server), names);
      return backendsAnswer(page, seen, [...kernel.notes, ...notes], options.format);
    });
  } finally {
    kernel.close();
  }
}

/** Throws an Error that says how it is written. */
export function parseServiceName(text: string): { namespace: string; name: string } {
  const [, namespace, name] = /^([a-z0-9.-]+)\/([a-z0-9.-]+)$/.exec(text) ?? [];
  if (namespace === undefined || name === undefined)
    throw new Error(
      `a Service is named NAMESPACE/NAME, or -n NAMESPACE NAME, not ${JSON.stringify(text)} ${hint(text)}`,
    );
  return { namespace, name };
}

function hint(text: string): string {
  return /^[a-z0-9.:[\]-]+$/.test(text) ? `(\`services ${text}\` says which that may be)` : '(`services` lists them)';
}

export function noSuchService(service: string): NothingFoundError {
  return new NothingFoundError(
    `the daemon serves no Service ${service} (\`services\` lists them; headless and ExternalName Services are served by no proxy)`,
  );
}

/** Names by address, and a note instead when they cannot be had. */
export async function podNames(
  config: Parameters<typeof lookUpPodNames>[0],
  manifests: string | undefined,
  namespace: string,
  name: string,
): Promise<{ names: ReadonlyMap<string, BackendNames>; notes: readonly string[] }> {
  try {
    if (manifests !== undefined) throw new Error('--manifests has no API server');
    return { names: await lookUpPodNames(config, namespace, name), notes: [] };
  } catch (error) {
    const note = `pods, nodes and zones are not known: ${errorMessage(error)}`;
    return { names: new Map(), notes: [note] };
  }
}

async function realServers(
  { groups }: BackendsPage,
  kernel: KernelView,
): Promise<ReadonlyMap<BackendServer, readonly DumpedRealServer[]>> {
  const found = new Map<BackendServer, readonly DumpedRealServer[]>();
  for (const { virtualServers } of groups)
    for (const server of virtualServers) {
      const listed = await kernel.realServers(serverKeyOf(server));
      if (listed !== undefined) found.set(server, listed);
    }
  return found;
}
