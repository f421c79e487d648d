import { type Family } from '../values/address.js';
import { type RealServerKey, type VirtualServerKey } from '../values/virtual-server.js';
import { Drift } from './drift.js';
import { type Failure } from './failures.js';
import { StopFlag } from '../time/pacer.js';
import { type SysctlOutcome } from './sysctl-keeper.js';

export interface IpvsCounts {
  virtualServersAdded: number;
  virtualServersChanged: number;
  virtualServersDeleted: number;
  realServersAdded: number;
  realServersChanged: number;
  realServersDeleted: number;
}

/** A UDP backend that went away: its conntrack entries must go too, or clients with a fixed source port black-hole. */
export interface StaleUdp {
  readonly server: VirtualServerKey;
  /** undefined: the virtual server itself is new, so entries made before it existed are stale. */
  readonly real: RealServerKey | undefined;
}

/** One clean-up of conntrack entries of UDP backends. */
export interface ConntrackCleanup {
  readonly family: Family;
  readonly ms: number;
  readonly deleted: number;
  /** Entries that the kernel would not delete, and why. */
  readonly failures: readonly Error[];
  /** The entries could not be listed; `servers` are some of those whose backends went. */
  readonly error: { readonly cause: unknown; readonly servers: readonly VirtualServerKey[] } | undefined;
  /** The one before failed, too. */
  readonly isRepeated: boolean;
}

/** What one sync did and found: made by the reconciler, filled on the way, and then asked. */
export class SyncRecord {
  /** `stop`: the sync breaks off when it is set. */
  constructor(readonly stop = new StopFlag()) {}

  servicesChanged = 0;
  readonly ipvs: IpvsCounts = {
    virtualServersAdded: 0,
    virtualServersChanged: 0,
    virtualServersDeleted: 0,
    realServersAdded: 0,
    realServersChanged: 0,
    realServersDeleted: 0,
  };
  /** Addresses bound and removed. */
  addresses = 0;
  /** Entries of ipsets added and removed. */
  setEntries = 0;
  /** UDP backends that this sync took away. */
  readonly staleUdp: StaleUdp[] = [];
  /** How many of them had their conntrack entries cleaned up. */
  staleUdpCleaned = 0;
  readonly conntrack: ConntrackCleanup[] = [];
  /** What differed from what this program had left in the kernel: noticed between the syncs, or by this one. */
  readonly drift = new Drift();
  /** Changes that the kernel refused, or whose fate is unknown; they will be tried again. */
  readonly failures: Failure[] = [];
  /** Objects that the kernel refused once too often: they are skipped from now on. In words. */
  readonly newlySkipped: string[] = [];
  /** For the log: what happened that an operator may want to know. */
  readonly warnings: string[] = [];
  /** True for the sync that took over the kernel's state. */
  adopted = false;
  /** undefined when the kernel state was not read back. */
  verified: { readonly ms: number; readonly sysctls: SysctlOutcome } | undefined;
  /** Why the sync broke off: the kernel could not be read at all. */
  error: unknown;
  /** From its beginning to its end. */
  ms = 0;

  get conntrackDeleted(): number {
    return this.conntrack.reduce((sum, { deleted }) => sum + deleted, 0);
  }

  /** True when nothing has to be tried again. */
  get ok(): boolean {
    return this.error === undefined && this.failures.length === 0;
  }
}
