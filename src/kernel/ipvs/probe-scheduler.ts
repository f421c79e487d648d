import { fwmarkServerKey } from '../../values/virtual-server.js';
import { type IpvsClient } from './client.js';

/** A firewall mark that nobody uses; the virtual server lives for the blink between two messages of one batch. */
const PROBE_MARK = 0x7fffff01;

/**
 * Whether the kernel has this IPVS scheduler, by using it: module files cannot tell for kernels with everything built
 * in. Throws NetlinkError when the kernel refuses for another reason (EPERM).
 */
export function hasScheduler(ipvs: IpvsClient, scheduler: string): boolean {
  const key = fwmarkServerKey(4, PROBE_MARK);
  ipvs.addVirtualServer(key, { scheduler, flags: 0, timeout: 0 });
  ipvs.deleteVirtualServer(key);
  const refused = ipvs.flush().find(({ operation }) => operation === 'add-virtual-server');
  if (refused === undefined) return true;
  // ip_vs_add_service: ENOENT when no scheduler of that name is registered and none could be loaded.
  if (refused.error.code === 'ENOENT') return false;
  throw refused.error;
}
