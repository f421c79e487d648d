import { type Address, FAMILIES, type Family, familyOf } from '../values/address.js';
import { type ClusterState } from '../model/cluster-state.js';
import { Claims } from '../desired/claims.js';
import { type Conflict } from '../desired/conflict-pairs.js';
import { type DesiredContext } from '../desired/context.js';
import { DesiredState, type Touched, newTouched, touchEntry } from '../desired/desired-state.js';
import { type IpsetName } from '../desired/ipset-definitions.js';
import { type IpsetEntry } from '../values/ipset.js';
import { type Refusal, serviceExposureSteps } from '../desired/exposures.js';
import { type PrimaryAddress, nodePortAddresses, primaryAddress, servesNodePorts } from '../desired/node-ports.js';
import { type NodePortSelection } from '../values/node-port-selection.js';
import { type DesiredService, desiredServiceSteps } from '../desired/service.js';
import { type VirtualServerKey } from '../values/virtual-server.js';
import { type EndpointSlice } from '../model/endpoint-slice.js';
import { API_SERVER_SERVICE } from '../model/service.js';
import { StopFlag } from '../time/pacer.js';

/** What of the configuration decides desired state. */
export interface DesiredSettings {
  readonly nodeName: string;
  readonly scheduler: string;
  readonly families: readonly Family[];
  readonly nodePorts: Readonly<Record<Family, NodePortSelection>>;
  /** bindAddress, unless it is 0.0.0.0 or :: : the node's address of its family, whatever the Node object says. */
  readonly nodeIP?: Address | undefined;
  /** featureGates.AllowServiceExternalIPs; allowed unless false. */
  readonly allowsExternalIPs?: boolean;
  /** Of source ranges that lie in each other the widest alone; all of them unless it is said. */
  readonly widestRangesOnly?: boolean;
}

/** What an operator should hear of while desired state is worked out. */
export interface DesiredEvents {
  /** Services claim the same address and port; each pair once, until it is over. */
  conflicts(pairs: readonly Conflict[]): void;
  /** Part of a Service is left out though it is well-formed; once, until that is over. */
  refused(service: string, refusal: Refusal): void;
  /** A Service was worked out anew, whatever came of it; `slices` are its own now. What it does is done in steps. */
  updated?(
    service: string,
    before: DesiredService | undefined,
    after: DesiredService | undefined,
    slices: readonly EndpointSlice[],
  ): Generator<void, void>;
}

const NO_REFUSALS: readonly Refusal[] = [];

/** Keeps DesiredState in step with ClusterState, at a cost of O(what is dirty). */
export class DesiredUpdater {
  readonly desired = new DesiredState();
  readonly claims = new Claims();
  readonly #refusals = new Map<string, readonly Refusal[]>();
  #running: Promise<unknown> | undefined;

  #settings: DesiredSettings;

  constructor(
    readonly cluster: ClusterState,
    settings: DesiredSettings,
    readonly events: DesiredEvents,
  ) {
    this.#settings = settings;
    cluster.decideNodePortsBy((address) => {
      const { settings } = this;
      const family = familyOf(address);
      if (!settings.families.includes(family)) return false;
      return servesNodePorts(settings.nodePorts[family], address, this.#primary(family));
    });
  }

  get settings(): DesiredSettings {
    return this.#settings;
  }

  /** Every Service is worked out anew by the next update; what comes out as it was costs the kernel nothing. */
  changeSettings(settings: DesiredSettings): void {
    this.#settings = settings;
    this.cluster.markAllDirty();
  }

  /** What is left out now, by Service. */
  get refusals(): ReadonlyMap<string, readonly Refusal[]> {
    return this.#refusals;
  }

  get context(): DesiredContext {
    const { cluster, settings } = this;
    const servedBy = (family: Family): readonly Address[] =>
      settings.families.includes(family)
        ? nodePortAddresses(settings.nodePorts[family], family, cluster.localAddresses, this.#primary(family))
        : [];
    return {
      scheduler: settings.scheduler,
      topology: { nodeName: settings.nodeName, zone: cluster.node?.zone ?? '' },
      families: FAMILIES.filter((family) => settings.families.includes(family)),
      localAddresses: cluster.localAddresses,
      nodePortAddresses: { 4: servedBy(4), 6: servedBy(6) },
      allowsExternalIPs: settings.allowsExternalIPs ?? true,
      widestRangesOnly: settings.widestRangesOnly ?? false,
      protectedAddresses: cluster.protectedAddresses,
      nodeIP: { 4: this.#primary(4).address, 6: this.#primary(6).address },
    };
  }

  /** What default/kubernetes asks for: it goes to the kernel before everything else. */
  firstService(): Touched {
    const touched = newTouched();
    const service = this.desired.services.get(API_SERVER_SERVICE);
    for (const { key } of service?.virtualServers ?? []) touched.servers.add(key);
    for (const address of service?.addresses ?? []) touched.addresses.add(address);
    const flat = service?.setEntries ?? [];
    for (let i = 0; i < flat.length; i += 2) touchEntry(touched, flat[i] as IpsetName, flat[i + 1] as IpsetEntry);
    return touched;
  }

  /**
   * Brings every dirty Service up to date; returns how many there were. Cluster state may change meanwhile: what gets
   * dirty then is left for the next call. A call that is still at it is waited for, whatever comes of it: what it took
   * is up to date, too, when this one resolves.
   */
  async updateDirty(touched: Touched, stop = new StopFlag()): Promise<number> {
    while (this.#running !== undefined) await this.#running.catch(() => undefined);
    const running = this.#updateDirty(touched, stop).finally(() => (this.#running = undefined));
    this.#running = running;
    return running;
  }

  async #updateDirty(touched: Touched, stop: StopFlag): Promise<number> {
    const dirty = this.cluster.takeDirty();
    const context = this.context;
    const pacer = stop.pacer();
    let updated = 0;
    try {
      // A Set's iteration visits what is added on the way: Services that gained or lost an address to another.
      // Those that were visited before are visited again.
      for (const key of dirty) {
        const steps = this.#update(key, context, touched, dirty);
        let step = steps.next();
        // A Service with thousands of virtual servers is not worked out in one go.
        for (; step.done !== true; step = steps.next()) if (pacer.isDue) await pacer.yieldIfDue();
        dirty.delete(key);
        updated++;
        if (pacer.isDue) await pacer.yieldIfDue();
      }
    } finally {
      for (const key of dirty) this.cluster.markDirty(key);
      const conflicts = this.claims.pairs.takeNew();
      if (conflicts.length > 0) this.events.conflicts(conflicts);
    }
    return updated;
  }

  /** Adds the other Services whose virtual servers this changes to `affected`. */
  *#update(
    key: string,
    context: DesiredContext,
    touched: Touched,
    affected: Pick<Set<string>, 'add'>,
  ): Generator<void, void> {
    const service = this.cluster.services.get(key);
    const found = service === undefined ? undefined : yield* serviceExposureSteps(service, context);
    this.#noteRefusals(key, found?.refusals ?? NO_REFUSALS);
    yield* this.claims.update(key, service?.createdAt ?? 0, found?.ports ?? [], affected);
    const owns = (server: VirtualServerKey): boolean => this.claims.owns(key, server);
    const slices = this.cluster.slicesOf(key);
    const next =
      service === undefined ? undefined : yield* desiredServiceSteps(service, slices, context, owns, found!.ports);
    const events = this.events.updated?.(key, this.desired.services.get(key), next, slices);
    if (events !== undefined) yield* events;
    yield* this.desired.updateSteps(key, next, touched);
  }

  /** The node's one address of a family, as kube-proxy finds it (detectNodeIPs in cmd/kube-proxy/app/server.go). */
  #primary(family: Family): PrimaryAddress {
    return primaryAddress(this.cluster.node, this.settings.nodeIP, family);
  }

  #noteRefusals(service: string, refusals: readonly Refusal[]): void {
    const before = this.#refusals.get(service) ?? NO_REFUSALS;
    if (refusals.length === 0) this.#refusals.delete(service);
    else this.#refusals.set(service, refusals);
    if (refusals.length === 0) return;
    const known = new Set(before.map(({ text }) => text));
    for (const refusal of refusals) if (!known.has(refusal.text)) this.events.refused(service, refusal);
  }
}
