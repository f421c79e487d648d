/**
 * A program: prints how many bytes of heap one Service with ten endpoints keeps, from its JSON to what is applied.
 *
 *   node --expose-gc build/test/support/kept-memory.js [SERVICES]
 */
import { ClusterFeed, type FeedEvents } from '../../src/daemon/cluster/cluster-feed.js';
import { newTouched } from '../../src/desired/desired-state.js';
import { ObjectFeed } from '../../src/kube/object-feed.js';
import { parseJson } from '../../src/kube/wire.js';
import { ClusterState } from '../../src/model/cluster-state.js';
import { type AppliedVirtualServer } from '../../src/plan/applied.js';
import { DesiredUpdater } from '../../src/reconcile/desired-updater.js';
import { type VirtualServerKey } from '../../src/values/virtual-server.js';
import { ApiStore, itemJson } from '../fakes/api-server-store.js';
import { scaleCluster } from '../fakes/cluster-generator.js';

const services = Number(process.argv[2] ?? 10_000);
const nothing = (): void => undefined;

function heapUsed(): number {
  for (let i = 0; i < 3; i++) globalThis.gc!();
  return process.memoryUsage().heapUsed;
}

const cluster = new ClusterState();
const events: FeedEvents = {
  changed: nothing,
  synced: nothing,
  triggered: nothing,
  nodeChanged: nothing,
  nodeDeleted: nothing,
  apiServers: nothing,
};
const feed = new ClusterFeed(cluster, 'node-0', events);
const onProblem = (key: string, problem: string): never => {
  throw new Error(`${key}: ${problem}`);
};
const keyOf = ({ key }: { readonly key: string }): string => key;
const feeds = {
  Service: new ObjectFeed({ ...feed.services, onProblem, keyOf }),
  EndpointSlice: new ObjectFeed({ ...feed.slices, onProblem, keyOf }),
};
const everywhere = { all: true, primary: false, cidrs: [] };
const updater = new DesiredUpdater(
  cluster,
  { nodeName: 'node-0', scheduler: 'rr', families: [4, 6], nodePorts: { 4: everywhere, 6: everywhere } },
  { conflicts: nothing, refused: nothing },
);
const applied = new Map<VirtualServerKey, AppliedVirtualServer>();

const before = heapUsed();
for (const kind of ['Service', 'EndpointSlice'] as const) {
  for (const object of scaleCluster({ services, endpointsPerService: 10 })) {
    if (object.kind !== kind) continue;
    const { event } = new ApiStore({ realObjects: true }).set(object);
    feeds[kind].put(parseJson('list', Buffer.from(itemJson(event.after!))));
  }
}
await updater.updateDirty(newTouched());
const none = '' as AppliedVirtualServer['draining'];
for (const { key, settings, realServers } of updater.desired.virtualServers.values())
  applied.set(key, { settings, realServers, draining: none, modified: none });
const after = heapUsed();
if (applied.size !== services || updater.desired.services.size !== services) throw new Error('something is missing');
console.log(Math.round((after - before) / services));
