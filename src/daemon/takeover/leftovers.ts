import { type Logger } from 'pino';
import { KUBE_PROXY_TABLE, deleteTables, familiesWithTable } from '../../kernel/nftables/tables.js';
import { isModulePresent } from '../../kernel/node/modules.js';
import { type OpenNetlinkSocket } from '../../netlink/socket.js';
import { type OtherModes } from '../rules/rule-backend.js';
import { errorMessage } from '../../values/errors.js';

/**
 * What kube-proxy's nftables mode left. kube-proxy removes it as it starts in IPVS mode, before its first sync, and
 * what opens a connection then is lost; here it goes when everything else is in place. It must go: its rules would
 * translate Services to pods that are long gone, before IPVS sees the packets. Best effort; nothing throws.
 */
export function nftablesMode(open: OpenNetlinkSocket, log: Logger): OtherModes {
  const areThere = (): boolean => {
    if (!isModulePresent()('nf_tables')) return false;
    try {
      return familiesWithTable(open, KUBE_PROXY_TABLE).length > 0;
    } catch (error) {
      log.debug({ error: errorMessage(error) }, "the tables of kube-proxy's nftables mode could not be looked for");
      return false;
    }
  };
  let isServing = areThere();
  return {
    isBack: () => !isServing && areThere(),
    isServing: () => isServing,
    remove: () => {
      isServing = false;
      removeTables(open, log);
    },
  };
}

function removeTables(open: OpenNetlinkSocket, log: Logger): void {
  try {
    const families = deleteTables(open, KUBE_PROXY_TABLE);
    if (families.length > 0) log.info({ families }, "removed the tables of kube-proxy's nftables mode");
  } catch (error) {
    log.warn({ error: errorMessage(error) }, "the tables of kube-proxy's nftables mode could not be removed");
  }
}
