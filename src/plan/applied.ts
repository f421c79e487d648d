import { type RealServerList, type VirtualServerSettings } from '../values/virtual-server.js';

/**
 * One virtual server as the kernel holds it, as far as this program knows. A real server is in exactly one list.
 * Statistics are kept out, so that equality means "nothing to do".
 */
export interface AppliedVirtualServer {
  readonly settings: VirtualServerSettings;
  /** Weight 1, masquerading: what this program and kube-proxy set. */
  readonly realServers: RealServerList;
  /** Weight 0: draining. */
  readonly draining: RealServerList;
  /** Any other weight or forwarding method: somebody modified them. */
  readonly modified: RealServerList;
}

/** Same scheduler, flags and timeout. */
export function sameSettings(a: VirtualServerSettings, b: VirtualServerSettings): boolean {
  return a === b || (a.scheduler === b.scheduler && a.flags === b.flags && a.timeout === b.timeout);
}
