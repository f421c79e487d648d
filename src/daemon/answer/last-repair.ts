import { type Address, parseAddress } from '../../values/address.js';
import { type Protocol } from '../../values/protocol.js';
import { type VirtualServerKey, addressServerKey } from '../../values/virtual-server.js';
import { type StatusRepair } from '../../serve/status.js';
import { type DataPlane } from '../data-plane.js';
import { type LastRepair } from '../report/repair-log.js';

/** Services named of an address that several have. */
const NAMED = 3;

/** What was repaired last, with the Services that it belongs to as far as they are still known. */
export function describeRepair(
  repair: LastRepair | undefined,
  { updater, cluster }: Pick<DataPlane, 'updater' | 'cluster'>,
): StatusRepair | undefined {
  if (repair === undefined) return undefined;
  const { at, object, kind, name, total } = repair;
  const owners = (): readonly string[] => {
    if (object === 'address') {
      const address = parseAddress(name);
      return address === undefined ? [] : [...cluster.servicesNaming(address)].slice(0, NAMED);
    }
    const server = serverIn(name);
    const owner = server === undefined ? undefined : updater.desired.virtualServers.get(server)?.service;
    return owner === undefined ? [] : [owner];
  };
  return { at: new Date(at), object, kind, name, services: owners(), total };
}

/** The virtual server that a name begins with: `TCP 10.96.0.1:80 -> 10.1.2.3:8080`. */
function serverIn(name: string): VirtualServerKey | undefined {
  const [, protocol, ipv6, ipv4, port] = /^(TCP|UDP|SCTP) (?:\[([^\]]+)\]|([0-9.]+)):([0-9]+)/.exec(name) ?? [];
  const address: Address | undefined = parseAddress(ipv6 ?? ipv4 ?? '');
  return address === undefined ? undefined : addressServerKey(protocol as Protocol, address, Number(port));
}
