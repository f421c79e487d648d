import {
  type RealServerKey,
  type RealServerList,
  type VirtualServerKey,
  type VirtualServerSettings,
  isUdp,
  realServerKeyLength,
  virtualServerFamily,
} from '../values/virtual-server.js';
import { type IpvsClient, type IpvsFailure } from '../kernel/ipvs/client.js';
import { type IpvsOperations } from '../plan/virtual-server-plan.js';
import { type DeletionBudget } from './deletion-budget.js';
import { isIpvsVerdict } from './failures.js';
import { type Round } from './round.js';

const ACTIVE_WEIGHT = 1;

/**
 * Sends one sync's changes of the IPVS table in batches and counts them in its record. The last batch waits for
 * `flush`, and so do deletions of real servers: the kernel searches what was deleted at every addition.
 */
export class IpvsWriter implements IpvsOperations {
  /** Refused for good, so that what the kernel holds is known. */
  readonly verdicts: IpvsFailure[] = [];
  /** Virtual servers that the kernel would not have: their real servers are refused for that alone. */
  readonly #absent = new Set<VirtualServerKey>();
  readonly #deletions: { readonly server: VirtualServerKey; readonly real: RealServerKey }[] = [];

  constructor(
    readonly client: IpvsClient,
    /** Takes the virtual servers of which the kernel may hold anything now. */
    readonly suspects: Set<VirtualServerKey>,
    readonly round: Round,
    readonly budget: DeletionBudget,
  ) {}

  addVirtualServer(key: VirtualServerKey, settings: VirtualServerSettings): void {
    this.round.record.ipvs.virtualServersAdded++;
    if (this.client.addVirtualServer(key, settings)) this.#send();
  }

  setVirtualServer(key: VirtualServerKey, settings: VirtualServerSettings): void {
    this.round.record.ipvs.virtualServersChanged++;
    if (this.client.setVirtualServer(key, settings)) this.#send();
  }

  deleteVirtualServer(key: VirtualServerKey): void {
    this.round.record.ipvs.virtualServersDeleted++;
    if (this.client.deleteVirtualServer(key)) this.#send();
  }

  addRealServers(server: VirtualServerKey, reals: RealServerList, from: number): void {
    this.round.record.ipvs.realServersAdded += reals.length / realServerKeyLength(virtualServerFamily(server));
    this.budget.added();
    this.#addRange(server, reals, from, reals.length);
    this.#addRange(server, reals, 0, from);
  }

  setRealServer(server: VirtualServerKey, real: RealServerKey, weight: number): void {
    this.round.record.ipvs.realServersChanged++;
    if (this.client.setRealServer(server, real, weight)) this.#send();
  }

  deleteRealServer(server: VirtualServerKey, real: RealServerKey): void {
    this.round.record.ipvs.realServersDeleted++;
    this.budget.spend(1);
    if (isUdp(server)) this.round.record.staleUdp.push({ server, real });
    this.#deletions.push({ server, real });
  }

  /** Sends what is queued, deletions of real servers last. */
  flush(): void {
    this.#send();
    for (const { server, real } of this.#deletions.splice(0))
      if (this.client.deleteRealServer(server, real)) this.#send();
    this.#send();
  }

  #send(): void {
    for (const failure of this.client.flush()) {
      if (isAlreadyGone(failure) || this.#isConsequence(failure)) continue;
      this.round.refused.ipvs.push(failure);
      if (isIpvsVerdict(failure)) this.#noteVerdict(failure);
      else this.suspects.add(failure.virtualServer);
    }
  }

  #noteVerdict(failure: IpvsFailure): void {
    this.verdicts.push(failure);
    if (failure.operation === 'add-virtual-server') this.#absent.add(failure.virtualServer);
  }

  #isConsequence({ operation, virtualServer, error }: IpvsFailure): boolean {
    return operation === 'add-real-server' && error.code === 'ESRCH' && this.#absent.has(virtualServer);
  }

  #addRange(server: VirtualServerKey, reals: RealServerList, from: number, to: number): void {
    for (let at = from; at < to;) {
      at = this.client.addRealServers(server, reals, ACTIVE_WEIGHT, at, to);
      if (this.client.isFull) this.#send();
    }
  }
}

/** Deleting what somebody else deleted first is what was desired. */
function isAlreadyGone(failure: IpvsFailure): boolean {
  if (failure.error.resultUnknown) return false;
  const { code } = failure.error;
  if (failure.operation === 'delete-virtual-server') return code === 'ESRCH';
  return failure.operation === 'delete-real-server' && (code === 'ENOENT' || code === 'ESRCH');
}
