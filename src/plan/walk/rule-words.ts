/** Rules in words: why a packet meets one, and what becomes of it then. */
import { formatPrefix } from '../../values/prefix.js';
import { type Condition, type ParsedRule } from './rule-parse.js';

/** By role of the set, what it means to be in it (or, negated, not to be). */
const SETS: readonly (readonly [role: RegExp, held: string, negated: string])[] = [
  [/NO-LOCAL-ENDPOINTS$/, 'the policy is Local and no endpoint is on this node', 'an endpoint is on this node'],
  [/NO-ENDPOINTS$/, 'the Service has no endpoint for it', 'the Service has endpoints'],
  [/CLUSTER-IP$/, 'this is the cluster IP and port of a Service', 'this is no cluster IP'],
  [/EXTERNAL-IP-LOCAL$/, 'this is an external IP with policy Local', 'this is no external IP with policy Local'],
  [/EXTERNAL-IP$/, 'this is the external IP and port of a Service', 'this is no external IP'],
  [
    /LOAD-BALANCER-LOCAL$/,
    'this is a load balancer IP with policy Local',
    'this is no load balancer IP with policy Local',
  ],
  [/LOAD-BALANCER-FW$/, 'loadBalancerSourceRanges bind it', 'no loadBalancerSourceRanges bind it'],
  [/LOAD-BALANCER-SOURCE-(CIDR|CID|CI)$/, 'the source is in a range', 'the source is in no range'],
  [/LOAD-BALANCER-SOURCE-IP$/, 'the ranges allow this node', 'the ranges do not allow this node'],
  [/LOAD-BALANCER$/, 'this is the load balancer IP and port of a Service', 'this is no load balancer IP'],
  [/NODE-PORT-LOCAL-/, 'this is a NodePort with policy Local', 'this is no NodePort with policy Local'],
  [/HEALTH-CHECK-NODE-PORT$/, 'this is the health check node port of a Service', 'this is no health check node port'],
  [/NODE-PORT-/, 'this is the number of a NodePort', 'this is no NodePort'],
  [/LOOP-BACK$/, 'the backend is the client itself', 'the backend is not the client'],
];

/** `it opens a TCP connection, the Service has no endpoint for it: refused with a TCP reset`. */
export function ruleInWords(rule: ParsedRule): string {
  const reasons = rule.conditions.map(conditionInWords).filter((text) => text !== '');
  const effect = effectInWords(rule);
  return reasons.length === 0 ? effect : `${[...new Set(reasons)].join(', ')}: ${effect}`;
}

function conditionInWords(condition: Condition): string {
  const { negated } = condition;
  switch (condition.kind) {
    case 'protocol':
      return `it is ${negated ? 'not ' : ''}${condition.protocol}`;
    case 'source':
      return `it comes from ${negated ? 'outside of ' : ''}${formatPrefix(condition.prefix)}`;
    case 'destination':
      return `it goes to ${formatPrefix(condition.prefix)}`;
    case 'interface':
      return `it comes in by ${condition.name.replace(/\+$/, '...')}`;
    case 'set':
      return setInWords(condition);
    case 'local':
      return condition.end === 'src' ? 'it comes from an address of this node' : 'it goes to an address of this node';
    case 'port':
      return `it goes to port ${condition.port}`;
    case 'mark':
      return negated ? 'it does not bear the masquerade mark' : 'it bears the masquerade mark';
    case 'states':
      return negated || condition.states.includes('NEW') ? 'it opens a connection' : 'it was sent there by a rule';
    case 'opensTcp':
      return 'it opens a connection';
    case 'reply':
      return 'it is an answer';
    case 'echo':
      return 'it is an echo request';
  }
}

function setInWords({ set, directions, negated }: Extract<Condition, { kind: 'set' }>): string {
  if (set.endsWith('IPVS-IPS')) {
    const end = directions === 'src' ? 'source' : 'destination';
    return `its ${end} is ${negated ? 'no' : 'a'} VIP`;
  }
  const [, held, not] = SETS.find(([role]) => role.test(set)) ?? [undefined, `${set} holds it`, `${set} lacks it`];
  return negated ? not : held;
}

function effectInWords({ target, argument }: ParsedRule): string {
  switch (target) {
    case 'ACCEPT':
      return 'accepted, the table has no more to say';
    case 'RETURN':
      return 'the rest of this chain does not concern it';
    case 'DROP':
      return 'dropped without a word';
    case 'REJECT':
      return argument === 'tcp-reset' ? 'refused with a TCP reset' : 'refused with "port unreachable"';
    case 'DNAT':
      return `sent to port ${argument.replace(':', '')}, where it is reset at once`;
    case 'MASQUERADE':
      return 'its source becomes an address of this node';
    case 'MARK':
      return argument.endsWith('/0x0') || argument.startsWith('0x0/')
        ? 'the mark is taken off'
        : 'marked for masquerading';
    default:
      return `goes on in ${target}`;
  }
}
