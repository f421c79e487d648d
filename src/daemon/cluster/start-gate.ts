import { type Log } from '../../values/log.js';
import { type Clock } from '../../time/clock.js';
import { type NodeInfo } from '../../model/node.js';
import { type ResourceName } from './cluster-feed.js';

/**
 * What the configuration takes from the Node object: without it NodePorts or rules would be wrong, not merely coarser.
 */
export interface NodeNeeds {
  /** nodePortAddresses `primary`. */
  readonly addresses: boolean;
  /** detectLocalMode NodeCIDR. */
  readonly podCIDRs: boolean;
}

export interface StartGateOptions {
  readonly nodeName: string;
  readonly needs: NodeNeeds;
  /**
   * How long to wait for a Node that the configuration does not need, from when Services and EndpointSlices are listed.
   */
  readonly nodeWaitMs: number;
  /** The same once the source has said that there is no such Node. */
  readonly absentNodeWaitMs: number;
  readonly clock: Pick<Clock, 'after'>;
  readonly log: Log;
  /** Called once: what is known is enough to begin with. */
  readonly onOpen: () => void;
}

const REMIND_MS = 60_000;

/**
 * Holds the data plane back until what is known is enough to begin with: Services, EndpointSlices and this Node. A Node
 * that the configuration needs is waited for without limit, with the kernel left as it is; another one for a while.
 */
export class StartGate {
  readonly #listed = new Set<ResourceName>();
  #node: NodeInfo | undefined;
  #isOpen = false;
  #isClosed = false;
  #cancelWait: (() => void) | undefined;
  #cancelReminder = (): void => undefined;

  readonly #options: StartGateOptions;

  constructor(options: StartGateOptions) {
    this.#options = options;
  }

  get isOpen(): boolean {
    return this.#isOpen;
  }

  isListed(resource: ResourceName): boolean {
    return this.#listed.has(resource);
  }

  /** What has to come before the data plane may begin, in words; undefined once it may. */
  get waitsFor(): string | undefined {
    if (this.#isOpen) return undefined;
    const missing = (['services', 'endpointslices'] as const).filter((resource) => !this.#listed.has(resource));
    if (missing.length > 0) return `the first lists of ${missing.join(' and ')}`;
    return `the Node object ${this.#options.nodeName}${this.#why()}`;
  }

  /** The first list of a resource is complete. */
  listed(resource: ResourceName): void {
    this.#listed.add(resource);
    this.#consider();
  }

  nodeSeen(node: NodeInfo): void {
    this.#node = node;
    this.#consider();
  }

  close(): void {
    this.#isClosed = true;
    this.#cancelWait?.();
    this.#cancelReminder();
  }

  #consider(): void {
    if (this.#isOpen || this.#isClosed) return;
    if (!this.#listed.has('services') || !this.#listed.has('endpointslices')) return;
    if (this.#isNodeEnough()) return this.#open();
    const { needs, nodeWaitMs, absentNodeWaitMs } = this.#options;
    if (needs.addresses || needs.podCIDRs) return this.#remind();
    const isAbsent = this.#listed.has('nodes');
    if (isAbsent && absentNodeWaitMs === 0) return this.#giveUp();
    if (this.#cancelWait !== undefined) return;
    const wait = isAbsent ? absentNodeWaitMs : nodeWaitMs;
    this.#options.log.info(
      { node: this.#options.nodeName, waitMs: wait },
      'Services are listed; waiting for this Node',
    );
    this.#cancelWait = this.#options.clock.after(wait, () => this.#giveUp());
  }

  #isNodeEnough(): boolean {
    const { needs } = this.#options;
    if (this.#node === undefined) return false;
    return (!needs.addresses || this.#node.addresses.length > 0) && (!needs.podCIDRs || this.#node.podCIDRs.length > 0);
  }

  /** Says now, and every minute, what is waited for. */
  #remind(): void {
    this.#cancelReminder();
    const { log, nodeName, clock } = this.#options;
    const kept = 'what is in the kernel stays as it is meanwhile';
    log.warn({ node: nodeName }, `waiting for ${this.waitsFor}; ${kept}`);
    this.#cancelReminder = clock.after(REMIND_MS, () => this.#remind());
  }

  #why(): string {
    const { needs } = this.#options;
    const parts = [
      ...(needs.addresses ? ['its addresses (nodePortAddresses "primary")'] : []),
      ...(needs.podCIDRs ? ['its podCIDRs (detectLocalMode NodeCIDR)'] : []),
    ];
    return parts.length === 0 ? '' : ` and ${parts.join(' and ')}, which the configuration needs`;
  }

  #giveUp(): void {
    const { log, nodeName } = this.#options;
    const message = 'no Node object of this name yet: starting without its zone, addresses and pod CIDRs';
    log.warn({ node: nodeName }, message);
    this.#open();
  }

  #open(): void {
    this.#isOpen = true;
    this.#cancelWait?.();
    this.#cancelReminder();
    this.#options.onOpen();
  }
}
