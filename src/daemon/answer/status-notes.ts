import { formatAddress } from '../../values/address.js';
import { formatVirtualServer } from '../../values/virtual-server.js';
import { type Claims } from '../../desired/claims.js';
import { type ReflectorState } from '../../kube/reflector-state.js';
import { type SkippedObject } from '../../kube/skipped-objects.js';
import { type DesiredUpdater } from '../../reconcile/desired-updater.js';
import { type SyncState } from '../report/sync-state.js';

/** Of one sort of note as many are named; the rest is a number. */
const NAMED = 20;
/** Bookmarks come about every minute: three missed ones mean that the watch is dead. */
const SILENCE_MS = 200_000;

export interface StatusNotesOptions {
  readonly state: Readonly<SyncState>;
  readonly claims: Pick<Claims, 'pairs'>;
  /** By Service, what of it is refused and why. */
  readonly refusals: DesiredUpdater['refusals'];
  /** States of the watches, by resource; empty for manifests. */
  readonly watches: () => ReadonlyMap<string, ReflectorState>;
  /** What is left out now, because it is malformed. */
  readonly skipped: () => Iterable<SkippedObject>;
}

/**
 * What an operator should know, one line each: failures, silence, conflicts and skipped objects, named up to a bound.
 */
export function statusNotes({ state, claims, refusals, watches, skipped }: StatusNotesOptions): string[] {
  const notes = [...state.failedSysctls.values()].map(({ message }) => message);
  if (state.lastFailure !== undefined) notes.push(`being retried: ${state.lastFailure}`);
  notes.push(
    ...named(state.refused.messages, state.refused.count, (message) => `skipped, the kernel refuses it: ${message}`),
  );
  if (state.rulesFailure !== undefined) notes.push(`${state.rulesBackend} rules: ${state.rulesFailure}`);
  for (const [resource, watch] of watches()) notes.push(...watchNote(resource, watch));
  notes.push(
    ...named(refusals, refusals.size, ([service, [first, ...rest]]) => {
      return `Service ${service}: ${first!.text}${rest.length > 0 ? ` (and ${rest.length} more)` : ''}`;
    }),
  );
  notes.push(
    ...named(claims.pairs, claims.pairs.size, ({ winner, loser, example }) => {
      const what = 'server' in example ? formatVirtualServer(example.server) : formatAddress(example.clusterIP);
      return `claimed more than once: ${what} serves ${winner}, not ${loser}`;
    }),
  );
  const objects = [...skipped()];
  notes.push(
    ...named(objects, objects.length, ({ resource, key, problem }) => `left out of ${resource} ${key}: ${problem}`),
  );
  return notes;
}

function watchNote(resource: string, state: ReflectorState): string[] {
  const { silentMs, lastContactAt, lastError, consecutiveFailures } = state;
  const cause = lastError === undefined ? '' : ` (${lastError})`;
  const consequence = 'what is known goes on being served, changes are not seen';
  if (silentMs === undefined && consecutiveFailures > 0)
    return [`the API server has not answered for ${resource} since the start${cause}: ${consequence}`];
  if (silentMs === undefined || silentMs <= SILENCE_MS) return [];
  const at = new Date(lastContactAt).toISOString();
  return [`the watch of ${resource} has heard nothing since ${at}${cause}: ${consequence}`];
}

function named<T>(items: Iterable<T>, total: number, format: (item: T) => string): string[] {
  const lines: string[] = [];
  for (const item of items) {
    if (lines.length === NAMED) {
      lines.push(`and ${total - NAMED} more of the same sort`);
      break;
    }
    lines.push(format(item));
  }
  return lines;
}
