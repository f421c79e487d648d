import { type ApiRequest } from '../../values/api-request.js';
import { KubeClient } from '../../kube/client.js';
import { type WallClock, systemClock } from '../../time/clock.js';
import { EventWriter } from '../../kube/event-writer.js';
import { type SkippedObject } from '../../kube/skipped-objects.js';
import { type Service } from '../../model/service.js';
import { FAMILIES, type Family, familyOf } from '../../values/address.js';
import { type DaemonOptions } from '../daemon-options.js';
import { type DataPlane } from '../data-plane.js';
import { EventPublisher } from './event-publisher.js';
import { clusterFacts, nodeFacts } from './operator-facts.js';

export interface ClusterEventsOptions extends Pick<DaemonOptions, 'manifests'> {
  readonly skipped: () => Iterable<SkippedObject>;
  /** Why the changed configuration file is refused. */
  readonly configProblem: () => string | undefined;
  readonly onRequest: (record: ApiRequest) => void;
  readonly clock?: WallClock;
}

/**
 * Writes Events about what an operator must act on, until it is closed; over a connection of its own, and nothing
 * waits for it. Undefined where none are wanted, or there is no API server. Throws KubeError when there is no usable
 * configuration.
 */
export function startClusterEvents(
  dataPlane: Pick<DataPlane, 'cluster' | 'updater' | 'options'>,
  { manifests, skipped, configProblem, onRequest, clock = systemClock }: ClusterEventsOptions,
): { close(): Promise<void> } | undefined {
  const { config, nodeName, log, reporter } = dataPlane.options;
  if (config.events === 'none' || manifests !== undefined) return undefined;
  const { kubeconfig, master } = config;
  const client = new KubeClient({
    ...(kubeconfig === undefined ? {} : { kubeconfig }),
    ...(master === undefined ? {} : { master }),
    ...{ clock, onRequest, headerTimeoutMs: TIMEOUT_MS },
  });
  const writer = new EventWriter(client, nodeName, () => clock.wall());
  const publisher = new EventPublisher({
    ...{ nodeName, clock, log },
    write: (event, signal) => writer.write(event, signal),
    facts: () => {
      const { claims, refusals } = dataPlane.updater;
      const options = {
        ...{ nodeName, refused: reporter.state.refused, lostFamilies: lostFamilies(dataPlane) },
        ...{ configProblem: configProblem(), conflicts: claims.pairs, refusals, skipped: skipped() },
      };
      return { node: nodeFacts(options), cluster: config.events === 'all' ? clusterFacts(options) : [] };
    },
  });
  publisher.start();
  return {
    close: async () => {
      await publisher.close();
      client.close();
    },
  };
}

const TIMEOUT_MS = 10_000;

/** A family that no Service has is no loss: most clusters are IPv4 alone. */
function lostFamilies({ cluster, options }: Pick<DataPlane, 'cluster' | 'options'>): Map<Family, string> {
  const lost = new Map<Family, string>();
  for (const family of FAMILIES) {
    if (options.families.includes(family)) continue;
    const why = options.leftOut?.find((line) => line.startsWith(`IPv${family} `));
    if (why !== undefined && isWanted(family, cluster.services.values())) lost.set(family, why);
  }
  return lost;
}

function isWanted(family: Family, services: Iterable<Service>): boolean {
  for (const { clusterIPs } of services) if (clusterIPs.some((address) => familyOf(address) === family)) return true;
  return false;
}
