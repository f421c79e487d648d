/**
 * Which endpoints a service port sends traffic to. The rules are kube-proxy 1.36's (pkg/proxy/topology.go, KEP-1669,
 * KEP-2433, KEP-3015): ready ones; else serving ones that terminate; hints only when every ready candidate has one and
 * one is for us.
 */
import { type Address, type Family, addressLength } from '../values/address.js';
import { type RealServerKey, type RealServerList, realServerKey, realServerList } from '../values/virtual-server.js';
import { type EndpointSlice, LOCAL, READY, SERVING, TERMINATING } from '../model/endpoint-slice.js';
import { type ServicePort } from '../model/service.js';

/** Where this node stands; decides hints. */
export interface Topology {
  readonly nodeName: string;
  readonly zone: string;
}

/** Which of the two lists a service port can need; computing the other would be waste. */
export interface EndpointUse {
  readonly cluster: boolean;
  readonly local: boolean;
}

export interface EndpointChoice {
  /** For traffic with policy Cluster. Empty when `use.cluster` is false. */
  readonly cluster: RealServerList;
  /** For traffic with policy Local. Empty when `use.local` is false. */
  readonly local: RealServerList;
  /** True when some endpoint, anywhere, could serve. */
  readonly hasAny: boolean;
  /** Endpoints of either list that run on this node: they may reach themselves through the Service (hairpin). */
  readonly onThisNode: readonly RealServerKey[];
}

interface Candidate {
  readonly key: RealServerKey;
  readonly slice: EndpointSlice;
  readonly flags: number;
  readonly zones: readonly string[] | undefined;
  readonly nodes: readonly string[] | undefined;
}

const EMPTY = '' as RealServerList;
const NOTHING: EndpointChoice = { cluster: EMPTY, local: EMPTY, hasAny: false, onThisNode: [] };

export function chooseEndpoints(
  slices: readonly EndpointSlice[],
  family: Family,
  port: ServicePort,
  use: EndpointUse,
  topology: Topology,
): EndpointChoice {
  const simple = use.local ? undefined : readyInOneSlice(slices, family, port);
  if (simple !== undefined) return simple;
  const candidates = collectCandidates(slices, family, port);
  if (candidates.length === 0) return NOTHING;
  const cluster = use.cluster ? clusterCandidates(candidates, topology) : [];
  const local = use.local ? localCandidates(candidates) : [];
  const onThisNode = new Set<RealServerKey>();
  for (const candidate of cluster) if (candidate.flags & LOCAL) onThisNode.add(candidate.key);
  for (const candidate of local) onThisNode.add(candidate.key);
  return {
    cluster: toList(cluster),
    local: toList(local),
    hasAny: cluster.length > 0 || (use.local && candidates.some(isUsable)),
    onThisNode: [...onThisNode],
  };
}

/**
 * The common case, without a candidate object per endpoint: one slice, one matching port, no hints, every endpoint ready.
 * undefined when it is not that case.
 */
function readyInOneSlice(
  slices: readonly EndpointSlice[],
  family: Family,
  port: ServicePort,
): EndpointChoice | undefined {
  const slice = slices[0];
  if (slices.length !== 1 || slice!.family !== family || slice!.ports.length !== 1) return undefined;
  const { ports, endpoints, zoneHints, nodeHints } = slice!;
  const { name, protocol, port: number } = ports[0]!;
  if (zoneHints !== undefined || nodeHints !== undefined || endpoints === '') return undefined;
  if (name !== port.name || protocol !== port.protocol) return undefined;
  const length = addressLength(family);
  const keys: RealServerKey[] = [];
  const onThisNode: RealServerKey[] = [];
  for (let offset = 0; offset < endpoints.length; offset += length + 1) {
    const flags = endpoints.charCodeAt(offset + length);
    if ((flags & READY) === 0) return undefined;
    const key = realServerKey(endpoints.slice(offset, offset + length) as Address, number);
    keys.push(key);
    if (flags & LOCAL && !onThisNode.includes(key)) onThisNode.push(key);
  }
  return { cluster: realServerList(keys), local: EMPTY, hasAny: true, onThisNode };
}

/** How many distinct addresses on this node have a ready endpoint of the Service: the health check node port's count. */
export function countLocalReady(slices: readonly EndpointSlice[], family: Family): number {
  const ready = new Set<string>();
  for (const slice of slices) {
    if (slice.family !== family || slice.ports.length === 0) continue;
    forEachEndpoint(slice, (address, flags) => {
      if ((flags & LOCAL) !== 0 && (flags & READY) !== 0) ready.add(address);
    });
  }
  return ready.size;
}

function collectCandidates(slices: readonly EndpointSlice[], family: Family, port: ServicePort): readonly Candidate[] {
  const merged = new Map<RealServerKey, Candidate>();
  for (const slice of slices) {
    if (slice.family !== family) continue;
    for (const slicePort of slice.ports) {
      if (slicePort.name !== port.name || slicePort.protocol !== port.protocol) continue;
      forEachEndpoint(slice, (address, flags, index) => {
        const key = realServerKey(address, slicePort.port);
        const zones = slice.zoneHints?.[index];
        const nodes = slice.nodeHints?.[index];
        const candidate = { key, slice, flags, zones, nodes };
        const other = merged.get(key);
        if (other === undefined || supersedes(candidate, other)) merged.set(key, candidate);
      });
    }
  }
  return [...merged.values()];
}

/**
 * The same endpoint twice: local wins (kube-proxy's rule). Across slices (a Pod moving from one to the other) the healthier
 * wins, on a tie the one of the slice that sorts first; kube-proxy leaves it to map order.
 */
function supersedes(candidate: Candidate, other: Candidate): boolean {
  const isLocal = (candidate.flags & LOCAL) !== 0;
  if (candidate.slice === other.slice) return isLocal;
  if (isLocal !== ((other.flags & LOCAL) !== 0)) return isLocal;
  return health(candidate.flags) > health(other.flags);
}

function health(flags: number): number {
  if (flags & READY) return 3;
  return flags & SERVING ? (flags & TERMINATING ? 2 : 1) : 0;
}

function forEachEndpoint(slice: EndpointSlice, visit: (address: Address, flags: number, index: number) => void): void {
  const length = addressLength(slice.family);
  const packed = slice.endpoints;
  for (let offset = 0, index = 0; offset < packed.length; offset += length + 1, index++) {
    visit(packed.slice(offset, offset + length) as Address, packed.charCodeAt(offset + length), index);
  }
}

function clusterCandidates(candidates: readonly Candidate[], topology: Topology): readonly Candidate[] {
  const ready = candidates.filter((candidate) => candidate.flags & READY);
  if (ready.length === 0) return candidates.filter(isServingTerminating);
  if (ready.every((candidate) => candidate.nodes !== undefined)) {
    const here = ready.filter((candidate) => candidate.nodes!.includes(topology.nodeName));
    if (here.length > 0) return here;
  }
  if (topology.zone !== '' && ready.every((candidate) => candidate.zones !== undefined)) {
    const here = ready.filter((candidate) => candidate.zones!.includes(topology.zone));
    if (here.length > 0) return here;
  }
  return ready;
}

function localCandidates(candidates: readonly Candidate[]): readonly Candidate[] {
  const onNode = candidates.filter((candidate) => candidate.flags & LOCAL);
  const ready = onNode.filter((candidate) => candidate.flags & READY);
  return ready.length > 0 ? ready : onNode.filter(isServingTerminating);
}

function isServingTerminating(candidate: Candidate): boolean {
  return (candidate.flags & (SERVING | TERMINATING)) === (SERVING | TERMINATING);
}

function isUsable(candidate: Candidate): boolean {
  return (candidate.flags & READY) !== 0 || isServingTerminating(candidate);
}

function toList(candidates: readonly Candidate[]): RealServerList {
  return candidates.length === 0 ? EMPTY : realServerList(candidates.map((candidate) => candidate.key));
}
