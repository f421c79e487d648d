/** How a case of conformance/cases.ts is written. */

/**
 * `packets`: the same is shown with real packets; `part`: with packets, but not all of it; `state`: what the kernel
 * or the program holds is compared; `none`: nothing here; `other`: not a service proxy's matter.
 */
export type Verdict = 'packets' | 'part' | 'state' | 'none' | 'other';

export interface ConformanceCase {
  readonly name: string;
  /** Part of Kubernetes' conformance suite. */
  readonly isConformance: boolean;
  readonly verdict: Verdict;
  /** `FILE: NAME`. */
  readonly tests: readonly string[];
  /** What is lacking, why there is nothing, or whose matter it is. */
  readonly note: string | undefined;
}

export interface Section {
  /** Of test/e2e/network. */
  readonly file: string;
  /** What the names begin with, after [sig-network]. */
  readonly group: string;
  readonly cases: readonly ConformanceCase[];
}

export const packets = (name: string, ...tests: string[]): ConformanceCase => written(name, 'packets', tests);
export const part = (name: string, lacking: string, ...tests: string[]): ConformanceCase =>
  written(name, 'part', tests, lacking);
export const state = (name: string, note: string, ...tests: string[]): ConformanceCase =>
  written(name, 'state', tests, note);
export const none = (name: string, why: string): ConformanceCase => written(name, 'none', [], why);
export const other = (name: string, whose: string): ConformanceCase => written(name, 'other', [], whose);

/** `[C] NAME` is a case of the conformance suite. */
function written(name: string, verdict: Verdict, tests: readonly string[], note?: string): ConformanceCase {
  const isConformance = name.startsWith('[C] ');
  return { name: isConformance ? name.slice(4) : name, isConformance, verdict, tests, note };
}
