/** What `preflight` says of the ports on which the daemon is to listen. */
import { type BindAddress, formatBindAddress } from '../config/bind-address.js';
import { type ProxyConfig } from '../config/proxy-config.js';
import { isOwnServer } from '../daemon/takeover/kube-proxy-signs.js';
import { isTaken, tcpListeners } from '../kernel/node/tcp-listeners.js';
import { type Check } from './preflight-check.js';

/**
 * One line per port: free, this program's, or somebody else's. The daemon runs without them, and tries again and again,
 * so that one that is taken is no reason to fail; but who asks it hears somebody else's answer.
 */
export async function checkPorts(
  { healthzBindAddress, metricsBindAddress }: Pick<ProxyConfig, 'healthzBindAddress' | 'metricsBindAddress'>,
  procRoot?: string,
): Promise<Check[]> {
  const wanted: readonly [string, BindAddress | undefined][] = [
    ['healthzBindAddress', healthzBindAddress],
    ['metricsBindAddress', metricsBindAddress],
  ];
  const listeners = tcpListeners(procRoot);
  return Promise.all(
    wanted.flatMap(([field, address]) =>
      address === undefined
        ? []
        : [
            checkPort(
              field,
              address,
              listeners.some((one) => isTaken(address, one)),
            ),
          ],
    ),
  );
}

async function checkPort(field: string, address: BindAddress, taken: boolean): Promise<Check> {
  const name = `port ${address.port}`;
  const shown = `${field} ${formatBindAddress(address)}`;
  if (!taken) return { name, state: 'ok', detail: `${shown} is free` };
  if (await isOwnServer(address)) return { name, state: 'ok', detail: `${shown} is the running daemon's` };
  const see = `\`ss -ltnp sport = :${address.port}\` says whose`;
  return { name, state: 'warn', detail: `${shown} is taken by another program (${see}): end it, or set ${field}` };
}
