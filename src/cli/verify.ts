import { dryRun } from '../daemon/dry-run.js';
import { type Environment } from '../daemon/environment.js';
import { type OutputOptions } from './options.js';

/** Exit code when the kernel differs from the desired state. */
const DIFFERS = 2;

/** Compares the kernel with the desired state and says what differs. */
export async function runVerify(options: OutputOptions, environment: Environment): Promise<number> {
  const { drift } = await dryRun(options, environment);
  const counts = [...drift.counts.values()];
  if (options.json) environment.out(`${JSON.stringify({ total: drift.total, counts, names: drift.names })}\n`);
  else if (drift.total === 0) environment.out('the kernel is as desired\n');
  else {
    for (const { object, kind, count } of counts) environment.out(`${count} ${kind} ${object}\n`);
    for (const name of drift.names) environment.out(`  ${name}\n`);
  }
  return drift.total === 0 ? 0 : DIFFERS;
}
