import { type Logger } from 'pino';
import { type Address, type Family, familyOf, formatAddress } from '../../values/address.js';
import { errorMessage } from '../../values/errors.js';
import { type VirtualServerKey, virtualServerIdentity } from '../../values/virtual-server.js';
import { ipsetDefinitions, ipsetName } from '../../desired/ipset-definitions.js';
import { type KernelClients } from '../../kernel/clients.js';
import { type SetBackend } from '../../kernel/set-backend.js';
import { DUMMY_LINK } from '../../reconcile/address-applier.js';

type Clients = Pick<KernelClients, 'links'> & { readonly sets: SetBackend };

/**
 * Takes those of `needed` off the dummy link, or their routes away, that are VIPs and no cluster IP. A Service with an
 * API server's address among its external IPs makes that address the node's own: nobody on the node could reach the API
 * server any more, nor could this daemon hear that the Service is gone. So it is done before anything is listed.
 * Returns what was taken off; never throws.
 */
export function releaseAddresses(clients: Clients, needed: Iterable<Address>, log: Logger): readonly Address[] {
  try {
    const link = clients.links.findLink(DUMMY_LINK);
    const candidates = new Set(needed);
    const isWrong = ({ address }: { readonly address: Address }): boolean =>
      candidates.has(address) && !mayBeClusterIP(clients, address);
    const { routes } = clients.links;
    const bound = link === undefined ? [] : clients.links.listAddresses(link.index).filter(isWrong);
    const routed = routes.list().filter(isWrong);
    const found = [...new Set([...bound, ...routed].map(({ address }) => address))];
    if (found.length === 0) return [];
    for (const { index, address } of bound) clients.links.deleteAddress(index, address);
    for (const { index, address } of routed) routes.delete(index, address);
    for (const { address, error } of [...clients.links.flush(), ...routes.flush()])
      log.error(
        { address: formatAddress(address), error: error.message },
        `an API server's address stays on ${DUMMY_LINK}`,
      );
    const addresses = found.map(formatAddress);
    log.warn({ addresses }, `taken off ${DUMMY_LINK}: the API server was unreachable behind these addresses`);
    return found;
  } catch (error) {
    log.warn({ error: errorMessage(error) }, `addresses of ${DUMMY_LINK} could not be read before the start`);
    return [];
  }
}

/**
 * A daemon in a pod usually reaches the API server by the cluster IP of default/kubernetes, which has to stay. Where
 * the set of cluster IPs is missing or empty nothing can be decided, and nothing is done.
 */
function mayBeClusterIP({ sets }: Clients, address: Address): boolean {
  const clusterIPs = clusterIPsOf(sets, familyOf(address));
  return clusterIPs.size === 0 || clusterIPs.has(address);
}

function clusterIPsOf(sets: SetBackend, family: Family): ReadonlySet<Address> {
  const name = ipsetName(family, 'CLUSTER-IP');
  const definition = ipsetDefinitions(family).find((one) => one.name === name);
  if (definition === undefined) return new Set();
  const found = new Set<Address>();
  for (const entry of sets.entriesOf(definition)) {
    // An element of a hash:ip,port set is the key of its virtual server.
    const identity = virtualServerIdentity(entry as string as VirtualServerKey);
    if ('address' in identity) found.add(identity.address);
  }
  return found;
}
