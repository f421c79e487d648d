/** One fixed seed and one new one for every fuzz test; FUZZ_SEED repeats a run, FUZZ_RUNS makes it longer. */
import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';

const FIXED = 20261;

/** The seeds to test with, printed so that a failure can be repeated. */
export function fuzzSeeds(what: string): number[] {
  const given = process.env['FUZZ_SEED'];
  const seeds = given === undefined ? [FIXED, randomInt(1, 0x7fffffff)] : given.split(',').map(Number);
  console.log(`fuzz ${what}: seeds ${seeds.join(', ')} (repeat with FUZZ_SEED=${seeds.at(-1)})`);
  return seeds;
}

/**
 * Fails when a test drew fewer than `least` interesting cases and so proved little. Only the fixed seed is held to it:
 * a new seed may be unlucky, and that is no fault of the code under test.
 */
export function assertReach(seed: number, count: number, least: number, what: string): void {
  if (seed === FIXED) assert.ok(count >= least, `only ${count} ${what}, ${least} wanted`);
}

/** Runs per property, `factor` times the usual number. */
export function fuzzRuns(usual: number): number {
  return Math.ceil(usual * Number(process.env['FUZZ_RUNS'] ?? 1));
}
