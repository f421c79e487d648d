/**
 * Which endpoints a service port sends traffic to. The rules are kube-proxy 1.36's (pkg/proxy/topology.go, KEP-1669,
 * KEP-2433, KEP-3015): ready ones; else serving ones that terminate; hints only when every ready candidate has one and
 * one is for us.
 */
import { type Address, type Family, addressLength } from '../values/address.js';
import {
  type RealServerKey,
  type RealServerList,
  realServerKey,
  realServerKeyLength,
  realServerList,
} from '../values/virtual-server.js';
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

/** One endpoint of one slice that a service port may send traffic to. */
export interface Candidate {
  readonly key: RealServerKey;
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
 * The common case, without a candidate object per endpoint: one slice, one matching port, no hints, every endpoint
 * ready and there once. undefined when it is not that case.
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
    if (flags & LOCAL) onThisNode.push(key);
  }
  const cluster = realServerList(keys);
  if (cluster.length < keys.length * realServerKeyLength(family)) return undefined; // one of them is there twice
  return { cluster, local: EMPTY, hasAny: true, onThisNode };
}

/**
 * How many distinct addresses on this node have a ready endpoint of the Service, whichever port: the health check node
 * port's count. What counts of an endpoint that is there twice is decided port by port, as for traffic.
 */
export function countLocalReady(slices: readonly EndpointSlice[], family: Family): number {
  const best = new Map<string, { readonly address: Address; readonly flags: number }>();
  for (const slice of slices) {
    if (slice.family !== family) continue;
    for (const { name, protocol, port } of slice.ports)
      forEachEndpoint(slice, (address, flags) => {
        const identity = `${address}${protocol} ${port} ${name}`;
        const other = best.get(identity);
        if (other === undefined || supersedes(flags, other.flags)) best.set(identity, { address, flags });
      });
  }
  const ready = new Set<Address>();
  for (const { address, flags } of best.values()) if (flags & LOCAL && flags & READY) ready.add(address);
  return ready.size;
}

function collectCandidates(slices: readonly EndpointSlice[], family: Family, port: ServicePort): readonly Candidate[] {
  const merged = new Map<RealServerKey, Candidate>();
  forEachCandidate(slices, family, port, (candidate) => {
    const other = merged.get(candidate.key);
    if (other === undefined || supersedes(candidate.flags, other.flags)) merged.set(candidate.key, candidate);
  });
  return [...merged.values()];
}

/** Every endpoint of the port in every slice, in their order; the same one may come more than once. */
export function forEachCandidate(
  slices: readonly EndpointSlice[],
  family: Family,
  port: ServicePort,
  visit: (candidate: Candidate) => void,
): void {
  for (const slice of slices) {
    if (slice.family !== family) continue;
    for (const slicePort of slice.ports) {
      if (slicePort.name !== port.name || slicePort.protocol !== port.protocol) continue;
      forEachEndpoint(slice, (address, flags, index) => {
        const key = realServerKey(address, slicePort.port);
        visit({ key, flags, zones: slice.zoneHints?.[index], nodes: slice.nodeHints?.[index] });
      });
    }
  }
}

/**
 * The same address and port twice, in one slice or in several: a Pod that moves from slice to slice, or two Pods, of
 * which the one that terminates has left its address to the other (or both use the node's). What runs beats what
 * terminates, on whichever node (kube-proxy's rule since 1.36); then ready, then serving, then local, where kube-proxy
 * calls the result undefined. Else as it does within a slice: of running ones the last counts, of terminating the
 * first.
 */
export function supersedes(flags: number, other: number): boolean {
  const difference = worth(flags) - worth(other);
  return difference > 0 || (difference === 0 && (flags & TERMINATING) === 0);
}

function worth(flags: number): number {
  return (flags & TERMINATING ? 0 : 8) + (flags & READY ? 4 : 0) + (flags & SERVING ? 2 : 0) + (flags & LOCAL ? 1 : 0);
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

export function isServingTerminating(candidate: Candidate): boolean {
  return (candidate.flags & (SERVING | TERMINATING)) === (SERVING | TERMINATING);
}

function isUsable(candidate: Candidate): boolean {
  return (candidate.flags & READY) !== 0 || isServingTerminating(candidate);
}

function toList(candidates: readonly Candidate[]): RealServerList {
  return candidates.length === 0 ? EMPTY : realServerList(candidates.map((candidate) => candidate.key));
}
