/** One fixed seed and one new one for every fuzz test; FUZZ_SEED repeats a run, FUZZ_RUNS makes it longer. */
import { randomInt } from 'node:crypto';

const FIXED = 20261;

/** The seeds to test with, printed so that a failure can be repeated. */
export function fuzzSeeds(what: string): number[] {
  const given = process.env['FUZZ_SEED'];
  const seeds = given === undefined ? [FIXED, randomInt(1, 0x7fffffff)] : given.split(',').map(Number);
  console.log(`fuzz ${what}: seeds ${seeds.join(', ')} (repeat with FUZZ_SEED=${seeds.at(-1)})`);
  return seeds;
}

/** Runs per property, `factor` times the usual number. */
export function fuzzRuns(usual: number): number {
  return Math.ceil(usual * Number(process.env['FUZZ_RUNS'] ?? 1));
}
