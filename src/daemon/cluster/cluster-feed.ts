import { type Address, type Family, addressLength } from '../../values/address.js';
import { type ClusterState } from '../../model/cluster-state.js';
import { type EndpointSlice, parseEndpointSlice } from '../../model/endpoint-slice.js';
import { type NodeInfo, parseNode } from '../../model/node.js';
import { API_SERVER_SERVICE, type Service, isSameService, parseService } from '../../model/service.js';
import { type ObjectParser, type ResourceSink } from '../../kube/sink.js';

export type ResourceName = 'services' | 'endpointslices' | 'nodes';

/** Notified of what came from the cluster. */
export interface FeedEvents {
  changed(resource: ResourceName): void;
  synced(resource: ResourceName): void;
  /** An EndpointSlice says when its change was triggered (Unix ms). */
  triggered(family: Family, at: number): void;
  nodeChanged(node: NodeInfo): void;
  /** The Node object is gone. */
  nodeDeleted(): void;
  /** Where the EndpointSlices of default/kubernetes say that API servers are. */
  apiServers(addresses: readonly Address[]): void;
}

export interface Feed<T> {
  readonly parse: ObjectParser<T>;
  readonly sink: ResourceSink<T>;
}

/** Sinks that keep ClusterState equal to the cluster, whatever source feeds them. */
export class ClusterFeed {
  readonly services: Feed<Service>;
  readonly slices: Feed<EndpointSlice>;
  readonly node: Feed<NodeInfo>;

  constructor(cluster: ClusterState, nodeName: string, events: FeedEvents) {
    this.services = {
      parse: parseService,
      sink: sink('services', events, {
        upsert: (service) => {
          const known = cluster.services.get(service.key);
          // A list that is taken anew must not make every Service wait to be worked out, and a change behind them.
          if (known !== undefined && isSameService(known, service)) return false;
          cluster.setService(service);
          return true;
        },
        delete: (key) => cluster.deleteService(key),
      }),
    };
    this.slices = {
      parse: (object, report) => parseEndpointSlice(object, nodeName, report),
      sink: sink('endpointslices', events, {
        upsert: (slice) => {
          const known = cluster.slicesOf(slice.service).find(({ key }) => key === slice.key);
          // A list that is taken anew brings every slice again: nothing happened to those that are as they were.
          if (known !== undefined && isSameSlice(known, slice)) return false;
          cluster.setSlice(slice);
          if (slice.triggeredAt > 0) events.triggered(slice.family, slice.triggeredAt);
          if (slice.service === API_SERVER_SERVICE) events.apiServers(apiServers(cluster));
          return true;
        },
        delete: (key) => {
          cluster.deleteSlice(key);
          if (key.startsWith(API_SERVER_SERVICE)) events.apiServers(apiServers(cluster));
        },
      }),
    };
    this.node = {
      parse: (object, report) => {
        const node = parseNode(object, report);
        return node?.name === nodeName ? node : undefined;
      },
      sink: sink('nodes', events, {
        upsert: (node) => {
          cluster.setNode(node);
          events.nodeChanged(node);
          return true;
        },
        // Everything goes on with what the Node said last, as in kube-proxy: one that was deleted by mistake must not
        // unmake the data plane, nor turn health checks red.
        delete: () => events.nodeDeleted(),
      }),
    };
  }
}

function sink<T>(
  resource: ResourceName,
  events: FeedEvents,
  actions: {
    /** True when something changed. */
    upsert: (value: T) => boolean;
    delete: (key: string) => void;
  },
): ResourceSink<T> {
  return {
    replaceStart: () => undefined,
    upsert: (_key, value) => {
      if (actions.upsert(value)) events.changed(resource);
    },
    delete: (key) => {
      actions.delete(key);
      events.changed(resource);
    },
    replaceEnd: () => undefined,
    synced: () => events.synced(resource),
  };
}

/**
 * True when both mean the same for traffic. Ports and hints are shared lists (parseEndpointSlice), so they are compared
 * as such.
 */
function isSameSlice(one: EndpointSlice, other: EndpointSlice): boolean {
  return (
    one.service === other.service &&
    one.family === other.family &&
    one.endpoints === other.endpoints &&
    isSameList(one.ports, other.ports) &&
    isSameList(one.zoneHints, other.zoneHints) &&
    isSameList(one.nodeHints, other.nodeHints)
  );
}

function isSameList(one: readonly unknown[] | undefined, other: readonly unknown[] | undefined): boolean {
  if (one === other) return true;
  if (one?.length !== other?.length) return false;
  return one?.every((item, i) => item === other?.[i]) ?? false;
}

/** Every endpoint counts, ready or not: a node needs an API server that is starting, too. */
function apiServers(cluster: ClusterState): Address[] {
  return cluster.slicesOf(API_SERVER_SERVICE).flatMap(({ endpoints, family }) => {
    const length = addressLength(family);
    const count = endpoints.length / (length + 1);
    return Array.from(
      { length: count },
      (_, i) => endpoints.slice(i * (length + 1), i * (length + 1) + length) as Address,
    );
  });
}
