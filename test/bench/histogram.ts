/** Histograms of the daemon's metrics. */

/** Cumulative counts by upper bound, ascending. */
export type Buckets = readonly (readonly [upperBound: number, count: number])[];

/** One histogram without labels, as it is now. */
export async function histogram(name: string): Promise<Buckets> {
  const text = await (await fetch('http://127.0.0.1:10249/metrics')).text();
  return parseHistogram(text, name);
}

export function parseHistogram(text: string, name: string): Buckets {
  const found = [...text.matchAll(new RegExp(`^${name}_bucket\\{le="([^"]+)"\\} (\\S+)$`, 'gm'))];
  return found.map(([, bound, count]) => [bound === '+Inf' ? Infinity : Number(bound), Number(count)]);
}

/** The upper bound of the bucket that holds the quantile of what came between two looks; NaN when nothing came. */
export function quantileOf(before: Buckets, after: Buckets, share: number): number {
  const earlier = new Map(before);
  const came = after.map(([bound, count]) => [bound, count - (earlier.get(bound) ?? 0)] as const);
  const total = came.at(-1)?.[1] ?? 0;
  if (total === 0) return NaN;
  return came.find(([, count]) => count >= share * total)![0];
}
