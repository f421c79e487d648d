import { type HealthReport, type HealthSource } from '../serve/health.js';
import { type ReflectorState } from '../kube/reflector-state.js';
import { type DataPlane } from './data-plane.js';
import { type SyncState } from './sync-reporter.js';

/** Bookmarks come about every minute: three missed ones mean that the watch is dead. */
const SILENCE_MS = 200_000;
const STUCK_MS = 5 * 60_000;

export interface HealthInputs {
  readonly dataPlane: DataPlane;
  readonly state: SyncState;
  readonly syncPeriodMs: number;
  /** States of the watches, by resource; empty for manifests. */
  readonly watches: () => ReadonlyMap<string, ReflectorState>;
  readonly isSynced: () => boolean;
  readonly isEligible: () => boolean;
}

/** Red when the data plane is behind what the cluster wants, or cannot know what it wants; the reasons say which. */
export function healthSource(inputs: HealthInputs): HealthSource {
  const report = (reasons: string[]): HealthReport => ({
    healthy: reasons.length === 0,
    nodeEligible: inputs.isEligible(),
    lastUpdated: inputs.state.lastSuccess,
    reasons,
  });
  return { healthz: () => report(reasonsToBeRed(inputs)), livez: () => report(reasonsToBeDead(inputs)) };
}

function reasonsToBeRed({ dataPlane, state, syncPeriodMs, watches, isSynced }: HealthInputs): string[] {
  const now = performance.now();
  const reasons: string[] = [];
  if (!isSynced()) reasons.push('the first lists of Services and EndpointSlices are not complete');
  else if (state.lastSuccess === undefined)
    reasons.push(withCause('the first sync is not complete', state.lastFailure));
  const waiting = state.waitingSince === undefined ? 0 : now - state.waitingSince;
  if (waiting > 2 * syncPeriodMs)
    reasons.push(withCause(`desired state has been waiting for ${seconds(waiting)} s`, state.lastFailure));
  const age = dataPlane.reconciler.verificationAge ?? 0;
  if (age > 2 * syncPeriodMs + STUCK_MS / 10)
    reasons.push(withCause(`the last verification finished ${seconds(age)} s ago`, state.lastFailure));
  for (const [resource, watch] of watches()) {
    const silence = Date.now() - watch.lastContactAt;
    if (watch.lastContactAt > 0 && silence > SILENCE_MS)
      reasons.push(withCause(`the watch of ${resource} has heard nothing for ${seconds(silence)} s`, watch.lastError));
  }
  if (state.rulesFailure !== undefined) reasons.push(`iptables rules: ${state.rulesFailure}`);
  return reasons;
}

function reasonsToBeDead({ state }: HealthInputs): string[] {
  const running = state.runningSince === undefined ? 0 : performance.now() - state.runningSince;
  return running > STUCK_MS ? [`a sync has been running for ${seconds(running)} s`] : [];
}

function withCause(text: string, cause: string | undefined): string {
  return cause === undefined ? text : `${text}: ${cause}`;
}

function seconds(ms: number): number {
  return Math.round(ms / 1000);
}
