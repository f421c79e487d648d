import { type Family } from '../values/address.js';
import { type ClusterState } from '../model/cluster-state.js';
import { type EndpointSlice, parseEndpointSlice } from '../model/endpoint-slice.js';
import { type NodeInfo, parseNode } from '../model/node.js';
import { type Service, parseService } from '../model/service.js';
import { type ObjectParser, type ResourceSink } from '../kube/sink.js';

export type ResourceName = 'services' | 'endpointslices' | 'nodes';

/** Told what came from the cluster. */
export interface FeedEvents {
  changed(resource: ResourceName): void;
  synced(resource: ResourceName): void;
  /** An EndpointSlice says when its change was triggered (Unix ms). */
  triggered(family: Family, at: number): void;
  nodeChanged(node: NodeInfo | undefined): void;
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
        upsert: (service) => cluster.setService(service),
        delete: (key) => cluster.deleteService(key),
      }),
    };
    this.slices = {
      parse: (object, report) => parseEndpointSlice(object, nodeName, report),
      sink: sink('endpointslices', events, {
        upsert: (slice) => {
          cluster.setSlice(slice);
          if (slice.triggeredAt > 0) events.triggered(slice.family, slice.triggeredAt);
        },
        delete: (key) => cluster.deleteSlice(key),
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
        },
        // The daemon goes on with what it knew: a Node object deleted by mistake must not unmake the data plane.
        delete: () => cluster.node !== undefined && events.nodeChanged({ ...cluster.node, eligible: false }),
      }),
    };
  }
}

function sink<T>(
  resource: ResourceName,
  events: FeedEvents,
  actions: { upsert: (value: T) => void; delete: (key: string) => unknown },
): ResourceSink<T> {
  return {
    replaceStart: () => undefined,
    upsert: (_key, value) => {
      actions.upsert(value);
      events.changed(resource);
    },
    delete: (key) => {
      actions.delete(key);
      events.changed(resource);
    },
    replaceEnd: () => undefined,
    synced: () => events.synced(resource),
  };
}
