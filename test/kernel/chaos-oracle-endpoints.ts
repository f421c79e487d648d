/** Which endpoints serve a port, written from KEP-1669, KEP-2086, KEP-2433 and KEP-3015; part of chaos-oracle.ts. */
import { type RawObject, type RawPort, canonical, hostPort } from './chaos-oracle.js';

export interface Chosen {
  /** For traffic with policy Cluster, and with policy Local: `address:port`. */
  readonly cluster: readonly string[];
  readonly local: readonly string[];
  /** Those of either list that are on this node. */
  readonly here: readonly { readonly address: string; readonly port: number }[];
}

interface RawEndpoint {
  readonly addresses?: readonly string[];
  readonly conditions?: { readonly ready?: boolean; readonly serving?: boolean; readonly terminating?: boolean };
  readonly nodeName?: string;
  readonly hints?: {
    readonly forZones?: readonly { readonly name: string }[];
    readonly forNodes?: readonly { readonly name: string }[];
  };
}

interface Endpoint {
  readonly address: string;
  readonly port: number;
  readonly isReady: boolean;
  readonly isServing: boolean;
  readonly isTerminating: boolean;
  readonly isLocal: boolean;
  readonly zones: readonly string[];
  readonly nodes: readonly string[];
}

/** `slices` in the order of their names: where records are equally good, the order decides. */
export function chooseEndpoints(
  slices: readonly RawObject[],
  family: 4 | 6,
  port: RawPort,
  use: { readonly cluster: boolean; readonly local: boolean },
  node: { readonly nodeName: string; readonly zone: string },
): Chosen {
  const all = matching(slices, family, port, node.nodeName);
  const ready = all.filter(({ isReady }) => isReady);
  const isDraining = (one: Endpoint): boolean => one.isServing && one.isTerminating;
  const cluster = !use.cluster ? [] : ready.length > 0 ? nearest(ready, node) : all.filter(isDraining);
  const readyHere = ready.filter(({ isLocal }) => isLocal);
  const drainingHere = all.filter((one) => one.isLocal && isDraining(one));
  const local = !use.local ? [] : readyHere.length > 0 ? readyHere : drainingHere;
  const name = ({ address, port: number }: Endpoint): string => hostPort(address, number);
  return {
    cluster: cluster.map(name),
    local: local.map(name),
    here: [...new Set([...cluster, ...local])].filter(({ isLocal }) => isLocal),
  };
}

/**
 * How many addresses of this node have a ready endpoint under any port: LocalReadyEndpoints in kube-proxy's
 * endpointsmap, which counts what is left of each port's endpoints once doubles are decided.
 */
export function countReadyHere(slices: readonly RawObject[], family: 4 | 6, nodeName: string): number {
  const ports = slices.flatMap((slice) => (slice['ports'] ?? []) as RawPort[]);
  const endpoints = ports.flatMap((port) => matching(slices, family, port, nodeName));
  const here = endpoints.filter(({ isLocal, isReady }) => isLocal && isReady);
  return new Set(here.map(({ address }) => address)).size;
}

/** Hints count only when every ready endpoint has one of the kind and at least one is for us; nodes before zones. */
function nearest(ready: readonly Endpoint[], node: { nodeName: string; zone: string }): readonly Endpoint[] {
  if (ready.every(({ nodes }) => nodes.length > 0)) {
    const here = ready.filter(({ nodes }) => nodes.includes(node.nodeName));
    if (here.length > 0) return here;
  }
  if (node.zone !== '' && ready.every(({ zones }) => zones.length > 0)) {
    const here = ready.filter(({ zones }) => zones.includes(node.zone));
    if (here.length > 0) return here;
  }
  return ready;
}

function matching(slices: readonly RawObject[], family: 4 | 6, port: RawPort, nodeName: string): Endpoint[] {
  const found = new Map<string, Endpoint>();
  for (const slice of slices) {
    if (slice['addressType'] !== `IPv${family}`) continue;
    for (const slicePort of (slice['ports'] ?? []) as RawPort[]) {
      const isSamePort =
        (slicePort.name ?? '') === (port.name ?? '') &&
        (slicePort.protocol ?? 'TCP') === (port.protocol ?? 'TCP') &&
        slicePort.port > 0;
      if (!isSamePort) continue;
      for (const raw of (slice['endpoints'] ?? []) as RawEndpoint[]) {
        const address = canonical(raw.addresses?.[0] ?? '');
        if (address === undefined || address.includes(':') !== (family === 6)) continue;
        const endpoint = read(raw, address, slicePort.port, nodeName);
        const other = found.get(hostPort(address, slicePort.port));
        if (other === undefined || isBetter(endpoint, other)) found.set(hostPort(address, slicePort.port), endpoint);
      }
    }
  }
  return [...found.values()];
}

function read(raw: RawEndpoint, address: string, port: number, nodeName: string): Endpoint {
  const { conditions, hints } = raw;
  const names = (list: readonly { readonly name: string }[] | undefined): string[] =>
    (list ?? []).map(({ name }) => name).filter((name) => name !== '');
  return {
    address,
    port,
    isReady: conditions?.ready ?? true,
    isServing: conditions?.serving ?? true,
    isTerminating: conditions?.terminating ?? false,
    isLocal: raw.nodeName === nodeName,
    zones: names(hints?.forZones),
    nodes: names(hints?.forNodes),
  };
}

/**
 * Of two records with one address and port the running one counts, not the terminating one: endpointslicecache.go of
 * kube-proxy 1.36 and its changelog entry #135593, "correctly handles the case where a pod IP gets assigned to a
 * newly-created pod". Two running ones are undefined there; what serves best is then right, and the nearer of equals.
 * What is left are records that differ in hints: kube-proxy takes the last running one, or the first terminating one.
 */
function isBetter(one: Endpoint, other: Endpoint): boolean {
  if (one.isTerminating !== other.isTerminating) return !one.isTerminating;
  if (one.isReady !== other.isReady) return one.isReady;
  if (one.isServing !== other.isServing) return one.isServing;
  if (one.isLocal !== other.isLocal) return one.isLocal;
  return !one.isTerminating;
}
