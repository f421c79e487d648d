import { dryRun } from '../daemon/dry-run.js';
import { type Environment } from '../daemon/environment.js';
import { type Drift } from '../reconcile/drift.js';
import { type VerifyOptions } from './options.js';

/** Exit code when the kernel differs from the desired state. */
const DIFFERS = 2;
/** Names printed of each kind of difference unless all are asked for. */
const FEW = 10;

/** Compares the kernel with the desired state and says what differs. `look` is for tests. */
export async function runVerify(options: VerifyOptions, environment: Environment, look = dryRun): Promise<number> {
  const { drift } = await look(options, environment);
  environment.out(options.json ? `${JSON.stringify(driftJson(drift))}\n` : formatDrift(drift, options.all));
  return drift.total === 0 ? 0 : DIFFERS;
}

/** Each kind of difference with its names, the first ten of them unless `all`. */
export function formatDrift(drift: Drift, all: boolean): string {
  if (drift.total === 0) return 'the kernel is as desired\n';
  const lines: string[] = [];
  for (const { object, kind, count, names } of drift.counts.values()) {
    lines.push(`${count} ${kind} ${object}`);
    const shown = all ? names : names.slice(0, FEW);
    for (const name of shown) lines.push(`  ${name}`);
    if (shown.length < count) lines.push(`  and ${count - shown.length} more (--all names them)`);
  }
  return `${lines.join('\n')}\n`;
}

export function driftJson(drift: Drift): object {
  const entries = [...drift.counts.values()];
  return {
    total: drift.total,
    counts: entries.map(({ object, kind, count }) => ({ object, kind, count })),
    differences: entries.flatMap(({ object, kind, names }) => names.map((name) => ({ object, kind, name }))),
  };
}
