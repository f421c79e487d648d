import { type Family } from '../../values/address.js';
import { type FamilyHealth, type HealthReason, type HealthReport, type HealthSource } from '../../serve/health.js';
import { type SyncState } from '../report/sync-state.js';

/** A sync that runs for this long is stuck: the process had better be started anew. */
const STUCK_MS = 5 * 60_000;
/** How much longer than two sync periods a verification may take. */
const VERIFICATION_SLACK_MS = 30_000;

/** How far the writing of rules is; both performance.now() milliseconds. */
export interface RulesProgress {
  /** Since when rules that differ wait to be written. */
  readonly waitingSince: number | undefined;
  /** Since when a check or a write of the rules has been under way without an outcome. */
  readonly checkingSince: number | undefined;
}

export interface HealthSourceOptions {
  readonly state: Readonly<SyncState>;
  readonly syncPeriodMs: () => number;
  readonly families: readonly Family[];
  /** Milliseconds since the kernel was last verified; undefined before the first time. */
  readonly verificationAge: () => number | undefined;
  readonly rules: () => RulesProgress;
  /** Services and EndpointSlices were listed. */
  readonly isSynced: () => boolean;
  /** The API server was asked for this Node and has answered. */
  readonly isNodeKnown: () => boolean;
  readonly isEligible: () => boolean;
  /** At the start the kernel held what an earlier run (or kube-proxy) had programmed. */
  readonly hadKernelState: boolean;
  /** performance.now(); for tests. */
  readonly now?: () => number;
}

/**
 * Red when what is known is not in the kernel, and never for what is not known: load balancers act on /healthz, so an
 * API server that is away or a watch that is silent must not take the node out (proxy_health.go has it so, too).
 */
export function healthSource(options: HealthSourceOptions): HealthSource {
  const now = options.now ?? (() => performance.now());
  const report = (reasons: readonly HealthReason[]): HealthReport => ({
    healthy: reasons.length === 0,
    nodeEligible: options.isEligible(),
    lastUpdated: options.state.lastSuccess,
    reasons,
    families: familyHealth(options, reasons),
  });
  return {
    healthz: () => report(reasonsToBeRed(options, now())),
    livez: () => report(reasonsToBeDead(options.state, now())),
    readyz: () => report([...reasonsNotToBeReady(options), ...reasonsToBeRed(options, now())]),
  };
}

function familyHealth({ state, families }: HealthSourceOptions, reasons: readonly HealthReason[]): FamilyHealth[] {
  const { lastSuccess: lastUpdated } = state;
  if (lastUpdated === undefined) return [];
  const concerns = (family: Family) => (reason: HealthReason) => (reason.family ?? family) === family;
  return families.map((family) => ({ family, lastUpdated, healthy: !reasons.some(concerns(family)) }));
}

function reasonsToBeRed(options: HealthSourceOptions, now: number): HealthReason[] {
  return [...starting(options), ...behind(options, now), ...rulesBehind(options, now), ...wrongSysctls(options.state)];
}

/**
 * kube-proxy does not listen before the API server has sent it the Node, and is green from then on. Here the port
 * answers at once: 503 until then, unless the kernel goes on serving what an earlier run left there.
 */
function starting({ isSynced, isNodeKnown, hadKernelState }: HealthSourceOptions): HealthReason[] {
  if (isSynced() || isNodeKnown() || hadKernelState) return [];
  return [{ category: 'starting', summary: 'nothing is known of the cluster yet, and nothing is in the kernel' }];
}

function reasonsNotToBeReady({ isSynced, state }: HealthSourceOptions): HealthReason[] {
  if (state.lastSuccess !== undefined) return [];
  const summary = isSynced()
    ? 'the first sync is not complete'
    : 'the first lists of Services and EndpointSlices are not complete';
  return [{ category: 'starting', summary, detail: state.lastFailure }];
}

function behind({ state, syncPeriodMs, verificationAge }: HealthSourceOptions, now: number): HealthReason[] {
  const limit = 2 * syncPeriodMs();
  const waiting = since(state.waitingSince, now);
  const reasons: HealthReason[] = [];
  if (waiting > limit) {
    const refused = state.failureCount > 0 ? ` (${state.failureCount} failed at the last try)` : '';
    const summary = `changes have waited for ${seconds(waiting)} s to reach the kernel${refused}`;
    reasons.push({ category: 'sync', summary, detail: state.lastFailure });
  }
  const age = verificationAge() ?? 0;
  if (age > limit + VERIFICATION_SLACK_MS) {
    const summary = `the kernel was last verified ${seconds(age)} s ago`;
    reasons.push({ category: 'verification', summary, detail: state.lastFailure });
  }
  return reasons;
}

function rulesBehind({ state, syncPeriodMs, rules }: HealthSourceOptions, now: number): HealthReason[] {
  const limit = 2 * syncPeriodMs();
  const { waitingSince, checkingSince } = rules();
  const failing = since(state.rulesFailingSince, now);
  const waiting = Math.max(since(waitingSince, now), since(checkingSince, now), failing);
  if (waiting <= limit) return [];
  const summary = `${state.rulesBackend} rules have ${failing > 0 ? 'failed' : 'waited'} for ${seconds(waiting)} s`;
  const detail =
    state.rulesFailure ??
    (state.rulesBackend === 'iptables'
      ? 'another process holds the xtables lock, or iptables does not answer'
      : 'nf_tables do not answer');
  return [{ category: 'rules', summary, detail, family: state.rulesFailureFamily }];
}

function wrongSysctls({ failedSysctls }: Readonly<SyncState>): HealthReason[] {
  const required = [...failedSysctls].filter(([, { required }]) => required);
  if (required.length === 0) return [];
  const detail = required.map(([, { message }]) => message).join('; ');
  const summary = `${required.length} kernel settings (sysctls) that Service traffic needs are wrong`;
  return [{ category: 'sysctl', summary, detail }];
}

function reasonsToBeDead(state: Readonly<SyncState>, now: number): HealthReason[] {
  const running = since(state.runningSince, now);
  if (running > STUCK_MS) return [{ category: 'sync', summary: `a sync has been running for ${seconds(running)} s` }];
  const failing = since(state.breakingOffSince, now);
  if (failing <= STUCK_MS) return [];
  const summary = `no sync has come to its end for ${seconds(failing)} s`;
  return [{ category: 'sync', summary, detail: state.lastFailure }];
}

function since(start: number | undefined, now: number): number {
  return start === undefined ? 0 : now - start;
}

function seconds(ms: number): number {
  return Math.round(ms / 1000);
}
