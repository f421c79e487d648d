import { dryRun } from '../daemon/dry-run.js';
import { type Environment } from '../daemon/environment.js';
import { type OutputOptions } from './options.js';

/** Prints what a sync would change. */
export async function runPlan(options: OutputOptions, environment: Environment): Promise<number> {
  const { changes } = await dryRun(options, environment);
  if (options.json) environment.out(`${JSON.stringify({ changes })}\n`);
  else environment.out(changes.length === 0 ? 'nothing to change\n' : `${changes.join('\n')}\n`);
  return 0;
}
