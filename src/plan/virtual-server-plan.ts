/**
 * From one virtual server's desired and applied state to the messages that close the gap. Pure: the messages go to an
 * `IpvsOperations`, which a test makes of arrays and the kernel layer of netlink batches.
 */
import {
  type RealServerKey,
  type RealServerList,
  type VirtualServerKey,
  type VirtualServerSettings,
  isTcp,
  realServerKeyLength,
  realServerKeys,
  realServerList,
  virtualServerFamily,
} from '../values/virtual-server.js';
import { type AppliedVirtualServer, sameSettings } from './applied.js';

/** Verbs of the IPVS table; weights as `ipvsadm -w`. */
export interface IpvsOperations {
  addVirtualServer(key: VirtualServerKey, settings: VirtualServerSettings): void;
  setVirtualServer(key: VirtualServerKey, settings: VirtualServerSettings): void;
  /** Adds real servers of weight 1, those from offset `from` on first, then those before it. */
  addRealServers(server: VirtualServerKey, reals: RealServerList, from: number): void;
  setRealServer(server: VirtualServerKey, real: RealServerKey, weight: number): void;
  deleteRealServer(server: VirtualServerKey, real: RealServerKey): void;
}

/** Of a DesiredVirtualServer, what the kernel is to hold. */
export interface DesiredServer {
  readonly settings: VirtualServerSettings;
  readonly realServers: RealServerList;
}

const EMPTY = '' as RealServerList;

/**
 * Emits what turns `applied` into `desired` and returns what the kernel then holds. Additions come before removals,
 * so a
 * virtual server that has a usable backend before and after has one at every moment between. A removed TCP backend is
 * left with weight 0 (the drain tracker deletes it later); a UDP or SCTP one is deleted at once, as kube-proxy does:
 * UDP has no end of connection to wait for, and an SCTP association lives on until its peers find the path dead.
 * `rotation` shifts the order in which new backends are added, so that not every node's round robin starts at the same
 * one.
 */
export function planVirtualServer(
  key: VirtualServerKey,
  desired: DesiredServer,
  applied: AppliedVirtualServer | undefined,
  operations: IpvsOperations,
  rotation: number,
): AppliedVirtualServer {
  if (applied === undefined) {
    operations.addVirtualServer(key, desired.settings);
    addRotated(key, desired.realServers, operations, rotation);
    return { settings: desired.settings, realServers: desired.realServers, draining: EMPTY, modified: EMPTY };
  }
  if (!sameSettings(applied.settings, desired.settings)) operations.setVirtualServer(key, desired.settings);
  if (applied.realServers === desired.realServers && applied.modified === '' && applied.draining === '')
    return { ...applied, settings: desired.settings };
  const draining = planRealServers(key, desired.realServers, applied, operations, rotation);
  return { settings: desired.settings, realServers: desired.realServers, draining, modified: EMPTY };
}

function planRealServers(
  key: VirtualServerKey,
  desired: RealServerList,
  applied: AppliedVirtualServer,
  operations: IpvsOperations,
  rotation: number,
): RealServerList {
  const family = virtualServerFamily(key);
  const desiredKeys = realServerKeys(desired, family);
  const active = new Set(realServerKeys(applied.realServers, family));
  const draining = new Set(realServerKeys(applied.draining, family));
  const modified = new Set(realServerKeys(applied.modified, family));
  const added: RealServerKey[] = [];
  for (const real of desiredKeys) {
    if (active.delete(real)) continue;
    if (draining.delete(real) || modified.delete(real)) operations.setRealServer(key, real, 1);
    else added.push(real);
  }
  addRotated(key, realServerList(added), operations, rotation);
  for (const real of [...active, ...modified]) {
    if (!drains(key)) operations.deleteRealServer(key, real);
    else {
      operations.setRealServer(key, real, 0);
      draining.add(real);
    }
  }
  if (drains(key)) return realServerList([...draining]);
  for (const real of draining) operations.deleteRealServer(key, real);
  return EMPTY;
}

/** Whether a removed backend keeps its connections, at weight 0: TCP's alone. */
export function drains(key: VirtualServerKey): boolean {
  return isTcp(key);
}

function addRotated(key: VirtualServerKey, reals: RealServerList, operations: IpvsOperations, rotation: number): void {
  if (reals === '') return;
  const length = realServerKeyLength(virtualServerFamily(key));
  operations.addRealServers(key, reals, (rotation % (reals.length / length)) * length);
}

/** The keys in the order in which `addRealServers` adds them. */
export function inAddingOrder(server: VirtualServerKey, reals: RealServerList, from: number): RealServerKey[] {
  return realServerKeys((reals.slice(from) + reals.slice(0, from)) as RealServerList, virtualServerFamily(server));
}

/** FNV-1a of the node's name and the virtual server's identity, a non-negative number: the `rotation` above. */
export function rotationOf(nodeSeed: number, key: VirtualServerKey): number {
  let hash = nodeSeed;
  for (let i = 0; i < key.length; i++) hash = Math.imul(hash ^ key.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}
