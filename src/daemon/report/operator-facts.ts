/** What an operator must act on, as facts about one object each; Events are made of them. */
import { type Conflict } from '../../desired/conflict-pairs.js';
import { type EventSubject } from '../../kube/event-writer.js';
import { type SkippedObject } from '../../kube/skipped-objects.js';
import { type Family } from '../../values/address.js';
import { formatClaimed } from './event-ring.js';

export interface OperatorFact {
  readonly regarding: EventSubject;
  readonly reason: string;
  /** What else tells it from others of the same reason and object, the same on every node. */
  readonly detail: string;
  readonly note: string;
}

export interface OperatorFactsOptions {
  readonly nodeName: string;
  /** What the kernel keeps refusing. */
  readonly refused: { readonly count: number; readonly messages: readonly string[] };
  /** Families that are left out here although Services want them, and why. */
  readonly lostFamilies: ReadonlyMap<Family, string>;
  /** Why the changed configuration is refused. */
  readonly configProblem: string | undefined;
  readonly conflicts: Iterable<Conflict>;
  /** By Service, what of it is refused: addresses that the cluster's nodes need themselves. */
  readonly refusals: Iterable<readonly [service: string, reasons: readonly { readonly text: string }[]]>;
  readonly skipped: Iterable<SkippedObject>;
}

/** Of facts about Services as many are told; a cluster with more has one problem and not that many. */
const MOST = 50;
/** Of what the kernel refuses as much is named. */
const NAMED = 3;

/** Facts about this node: every node has its own. */
export function nodeFacts({ nodeName, refused, lostFamilies, configProblem }: OperatorFactsOptions): OperatorFact[] {
  const regarding = { kind: 'Node', name: nodeName } as const;
  const facts: OperatorFact[] = [];
  if (refused.count > 0) {
    const named = refused.messages.slice(0, NAMED);
    const more = refused.count > named.length ? ` and ${refused.count - named.length} more` : '';
    const note = `the kernel refuses, and traffic to it is not served here: ${named.join('; ')}${more} (\`kube-proxy-ipvs status\` on the node has all)`;
    facts.push({ regarding, reason: 'ServiceProxyObjectRefused', detail: '', note });
  }
  for (const [family, why] of lostFamilies)
    facts.push({ regarding, reason: 'ServiceProxyFamilyLost', detail: `IPv${family}`, note: why });
  if (configProblem !== undefined)
    facts.push({ regarding, reason: 'ServiceProxyConfigRefused', detail: '', note: configProblem });
  return facts;
}

/** Facts that every node comes to by itself, since they follow from the cluster's objects. */
export function clusterFacts({ conflicts, refusals, skipped }: OperatorFactsOptions): OperatorFact[] {
  const facts: OperatorFact[] = [];
  for (const { winner, loser, example } of first(conflicts)) {
    const note = `${formatClaimed(example)} is claimed by ${winner}, too, which serves it; this Service does not`;
    facts.push({ regarding: serviceOf(loser), reason: 'ServiceClaimConflict', detail: winner, note });
  }
  for (const [service, [refusal, ...more]] of first(refusals)) {
    const note = `${refusal?.text ?? ''}${more.length > 0 ? ` (and ${more.length} more)` : ''}`;
    facts.push({ regarding: serviceOf(service), reason: 'ServiceAddressRefused', detail: '', note });
  }
  for (const { resource, key, problem } of first(skipped)) {
    if (resource !== 'services' && resource !== 'endpointslices') continue;
    const kind = resource === 'services' ? 'Service' : 'EndpointSlice';
    const note = `malformed, and left out in whole or in part: ${problem}`;
    facts.push({ regarding: { ...serviceOf(key), kind }, reason: 'ServiceObjectSkipped', detail: '', note });
  }
  return facts;
}

function serviceOf(key: string): Extract<EventSubject, { namespace: string }> {
  const [namespace = '', name = ''] = key.split('/');
  return { kind: 'Service', namespace, name };
}

function* first<T>(items: Iterable<T>): Generator<T> {
  let count = 0;
  for (const item of items) {
    if (count++ >= MOST) return;
    yield item;
  }
}
