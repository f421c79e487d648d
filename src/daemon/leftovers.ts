import { type Logger } from 'pino';
import { KUBE_PROXY_TABLE, deleteTables } from '../kernel/nftables/tables.js';
import { isModulePresent } from '../kernel/node/modules.js';
import { type OpenNetlinkSocket } from '../netlink/socket.js';
import { errorMessage } from '../values/errors.js';

/**
 * Removes what kube-proxy's nftables mode left, as kube-proxy does when it starts in IPVS mode: its rules would go on
 * translating Services to pods that are long gone, before IPVS sees the packets. Best effort; never throws.
 */
export function removeNftablesLeftovers(open: OpenNetlinkSocket, log: Logger): void {
  if (!isModulePresent()('nf_tables')) return;
  try {
    const families = deleteTables(open, KUBE_PROXY_TABLE);
    if (families.length > 0) log.info({ families }, "removed the tables of kube-proxy's nftables mode");
  } catch (error) {
    log.warn({ error: errorMessage(error) }, "the tables of kube-proxy's nftables mode could not be removed");
  }
}
