/** Every endpoint of a service port with the reason why it gets no traffic here, for people who ask. */
import { type Family } from '../values/address.js';
import { type RealServerKey, type RealServerList, realServerKeys } from '../values/virtual-server.js';
import { type EndpointSlice, LOCAL, READY } from '../model/endpoint-slice.js';
import { type ServicePort } from '../model/service.js';
import {
  type Candidate,
  type EndpointChoice,
  type Topology,
  forEachCandidate,
  isServingTerminating,
  supersedes,
} from './endpoints.js';

/**
 * Why an endpoint is not among those of a list: another slice has it too and that one counts; it is not ready; it
 * terminates while others are ready; it runs elsewhere under policy Local; it is hinted for other zones or nodes.
 */
export type LeftOut = 'duplicate' | 'notReady' | 'terminating' | 'otherNode' | 'otherZone' | 'otherNodeHint';

export interface ReportedEndpoint {
  readonly key: RealServerKey;
  /** READY | SERVING | TERMINATING | LOCAL */
  readonly flags: number;
  readonly zoneHints: readonly string[];
  readonly nodeHints: readonly string[];
  /** For traffic with policy Cluster; undefined: it gets such traffic. */
  readonly cluster: LeftOut | undefined;
  /** For traffic with policy Local. */
  readonly local: LeftOut | undefined;
}

const NO_NAMES: readonly string[] = [];

/** The endpoints in the order of their slices; `choice` is what chooseEndpoints says of the same. */
export function reportEndpoints(
  slices: readonly EndpointSlice[],
  family: Family,
  port: ServicePort,
  choice: EndpointChoice,
  topology: Topology,
): ReportedEndpoint[] {
  const candidates: Candidate[] = [];
  const counted = new Map<RealServerKey, Candidate>();
  forEachCandidate(slices, family, port, (candidate) => {
    candidates.push(candidate);
    const other = counted.get(candidate.key);
    if (other === undefined || supersedes(candidate.flags, other.flags)) counted.set(candidate.key, candidate);
  });
  const ready = [...counted.values()].filter(({ flags }) => flags & READY);
  const isForUs = ({ nodes }: Candidate): boolean => nodes?.includes(topology.nodeName) === true;
  const byNode = ready.every(({ nodes }) => nodes !== undefined) && ready.some(isForUs);
  const cluster = members(choice.cluster, family);
  const local = members(choice.local, family);

  function unhealthy(candidate: Candidate): LeftOut | undefined {
    if (candidate.flags & READY) return undefined;
    return isServingTerminating(candidate) ? 'terminating' : 'notReady';
  }
  function leftOut(candidate: Candidate): Pick<ReportedEndpoint, 'cluster' | 'local'> {
    if (counted.get(candidate.key) !== candidate) return { cluster: 'duplicate', local: 'duplicate' };
    const isHere = (candidate.flags & LOCAL) !== 0;
    const hinted = byNode ? 'otherNodeHint' : 'otherZone';
    return {
      cluster: cluster.has(candidate.key) ? undefined : (unhealthy(candidate) ?? hinted),
      local: local.has(candidate.key) ? undefined : isHere ? (unhealthy(candidate) ?? 'otherNode') : 'otherNode',
    };
  }
  return candidates.map((candidate) => ({
    key: candidate.key,
    flags: candidate.flags,
    zoneHints: candidate.zones ?? NO_NAMES,
    nodeHints: candidate.nodes ?? NO_NAMES,
    ...leftOut(candidate),
  }));
}

/** The endpoints that the port has, each once, whatever their state. */
export function endpointKeys(slices: readonly EndpointSlice[], family: Family, port: ServicePort): Set<RealServerKey> {
  const keys = new Set<RealServerKey>();
  forEachCandidate(slices, family, port, ({ key }) => void keys.add(key));
  return keys;
}

function members(list: RealServerList, family: Family): ReadonlySet<RealServerKey> {
  return new Set(realServerKeys(list, family));
}
