/** `migrate`: may this node be moved from kube-proxy to this program, and what would that change? */
import { setTimeout as sleep } from 'node:timers/promises';
import { loadDaemonConfig } from '../daemon/daemon-options.js';
import { dryRunWith } from '../daemon/dry-run.js';
import { type Environment } from '../daemon/environment.js';
import { type Change } from '../reconcile/change.js';
import { type MigrateOptions } from './options.js';
import { countActions, formatPlan } from './plan-text.js';
import { checkNode } from './preflight.js';
import { type Answer, show } from './see.js';

/** Exit code when the node is not ready. */
const NOT_READY = 2;
/** kube-proxy is at work meanwhile, and a difference that it is about to mend is none. */
const LOOKS = 3;
const PAUSE_MS = 3000;

/** What a takeover of this node would do; the keys are part of the interface. */
export interface Migration {
  readonly node: string;
  readonly ready: boolean;
  readonly virtualServers: {
    /** That the cluster's state asks for on this node. */
    readonly wanted: number;
    /** That would come, go or change, their backends and addresses included. */
    readonly changed: number;
  };
  /** Of virtual servers, real servers and addresses. */
  readonly changes: readonly Change[];
  /** Of sets, rules, the link and sysctls, which carry no connection: how many. */
  readonly others: { readonly add: number; readonly change: number; readonly delete: number };
  /** What of `preflight` fails. */
  readonly problems: readonly string[];
}

/**
 * Compares what this program would write with the kernel as kube-proxy left it; changes nothing. 0: ready, no virtual
 * server would change; 2: not ready. Rejects when it cannot be told.
 */
export async function runMigrate(
  options: MigrateOptions,
  environment: Environment,
  { look = lookAtNode, pauseMs = PAUSE_MS } = {},
): Promise<number> {
  return show(options, environment, async () => {
    let found = await look(options, environment);
    for (let i = 1; i < LOOKS && found.changes.length > 0; i++) {
      await sleep(pauseMs, undefined, { signal: environment.stop });
      found = await look(options, environment);
    }
    return migrationAnswer(found, options.format === 'wide');
  });
}

async function lookAtNode(options: MigrateOptions, environment: Environment): Promise<Migration> {
  const { config } = await loadDaemonConfig(options);
  const node = config.hostnameOverride ?? environment.hostname.toLowerCase();
  const checks = await checkNode(config, false, environment);
  const problems = checks.filter(({ state }) => state === 'failed').map(({ name, detail }) => `${name}: ${detail}`);
  return dryRunWith(options, environment, ({ inspection, dataPlane }) =>
    migrationOf(node, inspection.changes, dataPlane.updater.desired.virtualServers.size, problems),
  );
}

export function migrationOf(
  node: string,
  all: readonly Change[],
  wanted: number,
  problems: readonly string[],
): Migration {
  const changes = all.filter(carriesConnections);
  const others = countActions(all.filter((change) => !carriesConnections(change)));
  const changed = new Set(changes.map(serverOf)).size;
  const ready = changes.length === 0 && problems.length === 0;
  return { node, ready, virtualServers: { wanted, changed }, changes, others, problems };
}

function carriesConnections({ object }: Change): boolean {
  return object === 'virtual_server' || object === 'real_server' || object === 'address';
}

/** An address by itself counts as a virtual server: whatever is on it is met by that. */
function serverOf(change: Change): string {
  if (change.object === 'address') return change.address;
  if (change.object === 'virtual_server' || change.object === 'real_server')
    return JSON.stringify(change.virtualServer);
  return change.object;
}

/** One line for each node, and what is in the way below it; all of that if `isWide`. */
export function migrationAnswer(found: Migration, isWide: boolean): Answer {
  const { node, ready, virtualServers, changes, others, problems } = found;
  const { wanted, changed } = virtualServers;
  const rest = `sets, rules and settings: ${others.add} to add, ${others.change} to change, ${others.delete} to delete`;
  const lines = [
    `${node}: ${ready ? 'ready' : 'NOT READY'}: ${changed} virtual servers would change (of ${wanted}); ${rest}`,
    ...problems.map((problem) => `  FAIL ${problem}`),
  ];
  if (changes.length > 0) {
    const plan = formatPlan(changes, isWide).trimEnd().split('\n').slice(0, -1);
    const shown = isWide ? plan : plan.slice(0, FEW);
    lines.push(...shown.map((line) => `  ${line}`));
    if (plan.length > shown.length) lines.push(`  and ${plan.length - shown.length} lines more (-o wide has them)`);
  }
  return { data: found, text: lines, names: [node], notes: [], code: ready ? 0 : NOT_READY };
}

const FEW = 20;
