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
import { isIpvsVerdict } from './failures.js';
import { type Round } from './round.js';

const ACTIVE_WEIGHT = 1;

/**
 * Sends one sync's changes of the IPVS table in batches and counts them in its record. The last batch waits for
 * `flush`.
 */
export class IpvsWriter implements IpvsOperations {
  /** Refused for good, so that what the kernel holds is known. */
  readonly verdicts: IpvsFailure[] = [];
  /** Virtual servers that the kernel would not have: their real servers are refused for that alone. */
  readonly #absent = new Set<VirtualServerKey>();

  constructor(
    readonly client: IpvsClient,
    /** Takes the virtual servers of which the kernel may hold anything now. */
    readonly suspects: Set<VirtualServerKey>,
    readonly round: Round,
  ) {}

  addVirtualServer(key: VirtualServerKey, settings: VirtualServerSettings): void {
    this.round.record.ipvs.virtualServersAdded++;
    if (this.client.addVirtualServer(key, settings)) this.flush();
  }

  setVirtualServer(key: VirtualServerKey, settings: VirtualServerSettings): void {
    this.round.record.ipvs.virtualServersChanged++;
    if (this.client.setVirtualServer(key, settings)) this.flush();
  }

  deleteVirtualServer(key: VirtualServerKey): void {
    this.round.record.ipvs.virtualServersDeleted++;
    if (this.client.deleteVirtualServer(key)) this.flush();
  }

  addRealServers(server: VirtualServerKey, reals: RealServerList, from: number): void {
    this.round.record.ipvs.realServersAdded += reals.length / realServerKeyLength(virtualServerFamily(server));
    this.#addRange(server, reals, from, reals.length);
    this.#addRange(server, reals, 0, from);
  }

  setRealServer(server: VirtualServerKey, real: RealServerKey, weight: number): void {
    this.round.record.ipvs.realServersChanged++;
    if (this.client.setRealServer(server, real, weight)) this.flush();
  }

  deleteRealServer(server: VirtualServerKey, real: RealServerKey): void {
    this.round.record.ipvs.realServersDeleted++;
    if (isUdp(server)) this.round.record.staleUdp.push({ server, real });
    if (this.client.deleteRealServer(server, real)) this.flush();
  }

  /** Sends what is queued. */
  flush(): void {
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
      if (this.client.isFull) this.flush();
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
