/** `explain`: what a dry run finds, asked about one packet. */
import { type DryRunOptions, dryRunWith } from '../dry-run.js';
import { type Environment } from '../environment.js';
import { type Explanation, type PacketQuestion, explanation } from './explanation.js';

export type { Explanation, PacketQuestion } from './explanation.js';
export type { PacketWalk, WalkBackend, WalkStep, WalkVerdict } from '../../plan/walk/packet-walk.js';

/**
 * Reads cluster and kernel as `plan` does, and changes nothing. Rejects as `dryRun` does, and when the family is not
 * served.
 */
export async function explain(
  question: PacketQuestion,
  options: DryRunOptions,
  environment: Environment,
): Promise<Explanation> {
  return dryRunWith(options, environment, (found) => explanation(question, found));
}
