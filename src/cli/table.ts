import { loadDaemonConfig } from '../daemon/daemon-options.js';
import { type Environment } from '../daemon/environment.js';
import { IpvsClient } from '../kernel/ipvs/client.js';
import { type ServiceReport } from '../serve/inspection.js';
import { STEPS_PER_READ, Turns } from '../time/turns.js';
import { errorMessage } from '../values/errors.js';
import { type VirtualServerKey } from '../values/virtual-server.js';
import { DaemonApi } from './daemon-api.js';
import { type ServerOwner, type TableServer, serverOwners, tableAnswer } from './ipvs-text.js';
import { NothingFoundError, show } from './see.js';
import { type ServicesOptions, findServices } from './services.js';

/**
 * The kernel's IPVS table with Service names; with a namespace or something to match, of those Services alone.
 * Without the
 * daemon the table is shown all the same, without names, and the exit code is 1. Rejects when the kernel cannot be
 * read.
 */
export async function runTable(options: ServicesOptions, environment: Environment): Promise<number> {
  const { config } = await loadDaemonConfig(options);
  const client = new IpvsClient(environment.openNetlinkSocket);
  const isFiltered = options.namespace !== '' || options.match !== '';
  try {
    return await show(options, environment, async () => {
      const notes: string[] = [];
      let services: readonly ServiceReport[] = [];
      try {
        services = await findServices(new DaemonApi(config), options);
      } catch (error) {
        // Without names nothing can be chosen by them.
        if (isFiltered || error instanceof NothingFoundError) throw error;
        notes.push(`Service names are not known: ${errorMessage(error)}`);
      }
      const owners = serverOwners(services);
      const table = await readTable(client, isFiltered ? owners : undefined, environment.stop);
      return { ...tableAnswer(table, owners, notes, options.headers), code: notes.length === 0 ? 0 : 1 };
    });
  } finally {
    client.close();
  }
}

/** The table in the kernel's order; only what `wanted` names, if that is given. */
async function readTable(
  client: IpvsClient,
  wanted: ReadonlyMap<VirtualServerKey, ServerOwner> | undefined,
  stop: AbortSignal,
): Promise<TableServer[]> {
  const table: TableServer[] = [];
  const turns = new Turns(); // a signal can end it in between
  for (const server of client.listVirtualServers().servers) {
    if (wanted !== undefined && !wanted.has(server.key)) continue;
    table.push({ server, realServers: client.listRealServers(server.key) });
    if (turns.spend(STEPS_PER_READ)) await turns.next();
    stop.throwIfAborted();
  }
  return table;
}
