import { stringify } from 'yaml';
import { runCleanup } from './cleanup.js';
import { type Environment } from '../daemon/environment.js';
import { type DaemonOptions, loadDaemonConfig } from '../daemon/daemon-options.js';
import { errorMessage } from '../values/errors.js';
import { runBackends } from './backends.js';
import { runConfigCheck, runConfigPrint } from './config.js';
import { runDiag } from './diag.js';
import { runEvents } from './events.js';
import { runExplain } from './explain.js';
import { runConnections } from './connections.js';
import { withDaemonConfig } from './daemon-config.js';
import { runMigrate } from './migrate.js';
import { withNodeDefaults } from './node-defaults.js';
import { type CommandHandlers, type OutputOptions } from './options.js';
import { runPlan } from './plan.js';
import { runPreflight } from './preflight.js';
import { runDaemon } from '../daemon/run.js';
import { runServices } from './services.js';
import { runStatus } from './status.js';
import { runTable } from './table.js';
import { runVerify } from './verify.js';

/** One handler per command, bound to the outside world. */
export function commandHandlers(environment: Environment): CommandHandlers {
  const here = <T extends DaemonOptions>(options: T): T => withNodeDefaults(options, environment);
  const checked = async <T extends DaemonOptions>(found: T): Promise<T> => {
    const { warnings } = await loadDaemonConfig(found);
    for (const warning of [...found.warnings, ...warnings]) environment.err(`warning: ${warning}\n`);
    return found;
  };
  const inUse = async <T extends DaemonOptions>(options: T): Promise<T> =>
    checked(await withDaemonConfig(options, environment));
  const file = <T extends DaemonOptions>(options: T): T =>
    withNodeDefaults(options, { ...environment, variables: { ...environment.variables, NODE_NAME: undefined } });
  /** Commands that print one JSON document print it as YAML without knowing. */
  const inForm = ({ yaml }: OutputOptions): Environment =>
    yaml === true ? { ...environment, out: (text) => environment.out(stringify(JSON.parse(text))) } : environment;
  return {
    run: (options) => runLoudly(options, environment),
    cleanup: (options) => runCleanup(here(options), inForm(options)),
    status: (options) => runStatus(here(options), environment),
    events: (options) => runEvents(here(options), environment),
    services: (options) => runServices(here(options), environment),
    backends: (options) => runBackends(here(options), environment),
    connections: (options) => runConnections(here(options), environment),
    table: (options) => runTable(here(options), environment),
    verify: async (options) => runVerify(await inUse(options), inForm(options)),
    plan: async (options) => runPlan(await inUse(options), inForm(options)),
    explain: async (options) => runExplain(await inUse(options), environment),
    migrate: async (options) => runMigrate(await checked(here(options)), environment),
    diag: (options) => runDiag(options, environment),
    preflight: async (options) => runPreflight(await checked(here(options)), inForm(options)),
    configCheck: (options) => runConfigCheck(file(options), inForm(options)),
    configPrint: (options) => runConfigPrint(options.writeTo === undefined ? file(options) : options, inForm(options)),
  };
}

/** What ends the daemon is a line of its log like any other, so that whoever collects those sees it. */
async function runLoudly(options: DaemonOptions, environment: Environment): Promise<number> {
  try {
    return await runDaemon(options, environment);
  } catch (error) {
    environment.logger('info').fatal({ error: errorMessage(error) }, 'the daemon cannot run');
    return 1;
  }
}
