import { runCleanup } from './cleanup.js';
import { type Environment } from '../daemon/environment.js';
import { type CommandHandlers } from './options.js';
import { runPlan } from './plan.js';
import { runPreflight } from './preflight.js';
import { runDaemon } from '../daemon/run.js';
import { runStatus } from './status.js';
import { runVerify } from './verify.js';

/** One handler per command, bound to the outside world. */
export function commandHandlers(environment: Environment): CommandHandlers {
  return {
    run: (options) => runDaemon(options, environment),
    cleanup: (options) => runCleanup(options, environment),
    status: (options) => runStatus(options, environment),
    verify: (options) => runVerify(options, environment),
    plan: (options) => runPlan(options, environment),
    preflight: (options) => runPreflight(options, environment),
  };
}
