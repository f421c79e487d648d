import { dryRun } from '../daemon/dry-run.js';
import { type Environment } from '../daemon/environment.js';
import { type PlanOptions } from './options.js';
import { countActions, formatPlan } from './plan-text.js';

/** Exit code when there is something to change and `--exit-code` asks for it. */
const HAS_CHANGES = 2;

/** Prints what a sync would change. `look` is for tests. */
export async function runPlan(options: PlanOptions, environment: Environment, look = dryRun): Promise<number> {
  const { changes } = await look(options, environment);
  if (options.json) environment.out(`${JSON.stringify({ summary: countActions(changes), changes })}\n`);
  else environment.out(formatPlan(changes, options.diff));
  return options.exitCode && changes.length > 0 ? HAS_CHANGES : 0;
}
