import {
  type RealServerKey,
  type VirtualServerKey,
  type VirtualServerSettings,
  isUdp,
  realServerKeyLength,
  realServerKeys,
  realServerList,
  virtualServerFamily,
} from '../values/virtual-server.js';
import { type Prefix } from '../values/prefix.js';
import { type DesiredState } from '../desired/desired-state.js';
import { type IpvsClient, type IpvsFailure } from '../kernel/ipvs/client.js';
import { type AppliedVirtualServer } from '../plan/applied.js';
import { isExcluded } from '../plan/ownership.js';
import { planVirtualServer, rotationOf } from '../plan/virtual-server-plan.js';
import { type DeletionBudget } from './deletion-budget.js';
import { observeVirtualServer } from './observe-ipvs.js';
import { IpvsWriter } from './ipvs-writer.js';
import { type Pacer, type StopFlag } from '../time/pacer.js';
import { type Round } from './round.js';

/**
 * So many are asked for one by one. Most come from a change in the middle of a verification; listing the whole table
 * for one of them would cost more the larger the cluster is.
 */
const FEW_SUSPECTS = 256;

type SettingsOf = (key: VirtualServerKey) => VirtualServerSettings | undefined;

/**
 * Brings the kernel's IPVS table to the desired state, one virtual server at a time, and knows what the table holds. A
 * virtual server with a failed change is `suspect`: what the kernel holds of it is read back before the next attempt.
 */
export class IpvsApplier {
  readonly applied = new Map<VirtualServerKey, AppliedVirtualServer>();
  readonly suspects = new Set<VirtualServerKey>();

  constructor(
    readonly client: IpvsClient,
    readonly nodeSeed: number,
    /** May be replaced. */
    public excludeCIDRs: readonly Prefix[],
    readonly onChanged: (server: VirtualServerKey) => void,
    readonly budget: DeletionBudget,
  ) {}

  /**
   * Creates and changes the virtual servers among `servers` that are desired; what the kernel refuses goes into
   * `round`.
   */
  async upsert(servers: Iterable<VirtualServerKey>, desired: DesiredState, round: Round): Promise<void> {
    await this.#refreshSuspects(round.record.stop);
    const writer = this.writer(round);
    const settings = new Map<VirtualServerKey, VirtualServerSettings>();
    const { pacer } = round;
    try {
      for (const key of servers) {
        const desiredServer = desired.virtualServers.get(key);
        if (desiredServer === undefined) continue;
        const before = this.applied.get(key);
        if (before !== undefined && before.settings !== desiredServer.settings) settings.set(key, before.settings);
        if (before === undefined && isUdp(key) && desiredServer.realServers !== '')
          round.record.staleUdp.push({ server: key, real: undefined });
        const after = planVirtualServer(key, desiredServer, before, writer, rotationOf(this.nodeSeed, key));
        this.applied.set(key, after);
        this.onChanged(key);
        if (pacer.isDue) await pacer.yieldIfDue();
      }
    } finally {
      writer.flush();
      this.#correct(writer.verdicts, settings);
    }
  }

  /** Deletes the virtual servers among `servers` that are applied but not desired, with all their real servers. */
  async remove(servers: Iterable<VirtualServerKey>, desired: DesiredState, round: Round): Promise<void> {
    const writer = this.writer(round);
    const { pacer } = round;
    try {
      for (const key of servers) {
        const before = this.applied.get(key);
        if (desired.virtualServers.has(key) || before === undefined) continue;
        this.applied.delete(key);
        if (!isExcluded(key, this.excludeCIDRs)) {
          writer.deleteVirtualServer(key);
          this.budget.spend(realServerCount(key, before));
        }
        this.onChanged(key);
        if (pacer.isDue) await pacer.yieldIfDue();
      }
    } finally {
      writer.flush();
    }
  }

  /** For changes of one sync that its caller works out: what it leaves queued has to be flushed. */
  writer(round: Round): IpvsWriter {
    return new IpvsWriter(this.client, this.suspects, round, this.budget);
  }

  /** The kernel does not hold what it refused; `settings` are those that were to be changed. */
  #correct(verdicts: readonly IpvsFailure[], settings: ReadonlyMap<VirtualServerKey, VirtualServerSettings>): void {
    const refused = new Map<VirtualServerKey, Set<RealServerKey>>();
    for (const { operation, virtualServer: key, realServer } of verdicts) {
      const applied = this.applied.get(key);
      if (operation === 'add-virtual-server' || applied === undefined) this.applied.delete(key);
      else if (realServer === undefined) this.applied.set(key, { ...applied, settings: settings.get(key)! });
      else refused.set(key, (refused.get(key) ?? new Set()).add(realServer));
    }
    for (const [key, reals] of refused) {
      const applied = this.applied.get(key);
      if (applied === undefined) continue;
      const left = realServerKeys(applied.realServers, virtualServerFamily(key)).filter((real) => !reals.has(real));
      this.applied.set(key, { ...applied, realServers: realServerList(left) });
    }
  }

  async #refreshSuspects(stop: StopFlag): Promise<void> {
    if (this.suspects.size === 0) return;
    const pacer = stop.pacer(1);
    const settingsOf = this.suspects.size <= FEW_SUSPECTS ? this.#askFor : await this.#list(pacer);
    for (const key of this.suspects) {
      await pacer.yieldIfDue();
      const settings = settingsOf(key);
      if (settings === undefined) this.applied.delete(key);
      else this.applied.set(key, observeVirtualServer(key, settings, this.client.listRealServers(key)));
    }
    this.suspects.clear();
  }

  readonly #askFor: SettingsOf = (key) => this.client.getVirtualServer(key)?.settings;

  async #list(pacer: Pacer): Promise<SettingsOf> {
    const { servers } = await this.client.listVirtualServersPaced(() => pacer.yieldIfDue());
    const settings = new Map(servers.map((server) => [server.key, server.settings]));
    return (key) => settings.get(key);
  }
}

function realServerCount(key: VirtualServerKey, { realServers, draining, modified }: AppliedVirtualServer): number {
  return (realServers.length + draining.length + modified.length) / realServerKeyLength(virtualServerFamily(key));
}
