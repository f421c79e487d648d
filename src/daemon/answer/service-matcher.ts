import { type Address, addressLength, familyOf, parseAddress } from '../../values/address.js';
import { type DesiredContext } from '../../desired/context.js';
import { servedFamilies } from '../../desired/exposures.js';
import { type ClusterState } from '../../model/cluster-state.js';
import { type EndpointSlice } from '../../model/endpoint-slice.js';
import { type Service } from '../../model/service.js';

/**
 * Whether a Service is meant by `text`: its name, its `namespace/name`, one of its addresses (a node's own for
 * NodePorts), or the address of one of its endpoints; an address may have a port. Empty means every Service.
 */
export function serviceMatcher(
  text: string,
  cluster: Pick<ClusterState, 'slicesOf'>,
  context: DesiredContext,
): (service: Service) => boolean {
  if (text === '') return () => true;
  const place = parsePlace(text);
  if (place === undefined) return ({ key }) => key === text || key.slice(key.indexOf('/') + 1) === text;
  const { address, port } = place;
  return (service) =>
    hasAddress(service, address, port, context) ||
    cluster.slicesOf(service.key).some((slice) => hasEndpoint(slice, address, port));
}

interface Place {
  readonly address: Address;
  /** 0: any */
  readonly port: number;
}

/** `10.0.0.1`, `10.0.0.1:80`, `fd00::1`, `[fd00::1]:80`; undefined for what is no address. */
function parsePlace(text: string): Place | undefined {
  const bare = parseAddress(text);
  if (bare !== undefined) return { address: bare, port: 0 };
  const [, bracketed, plain, port] = /^(?:\[([^\]]*)\]|([0-9.]+))(?::([0-9]{1,5}))?$/.exec(text) ?? [];
  const address = parseAddress(bracketed ?? plain ?? '');
  return address === undefined ? undefined : { address, port: Number(port ?? 0) };
}

function hasAddress(service: Service, address: Address, port: number, context: DesiredContext): boolean {
  const family = familyOf(address);
  if (!servedFamilies(service, context).includes(family)) return false;
  const { clusterIPs, externalIPs, loadBalancerIPs, ports } = service;
  const has = (number: number): boolean => number > 0 && (port === 0 || port === number);
  if ([clusterIPs, externalIPs, loadBalancerIPs].some((list) => list.includes(address)))
    return ports.some((one) => has(one.port));
  return context.nodePortAddresses[family].includes(address) && ports.some(({ nodePort }) => has(nodePort));
}

function hasEndpoint(slice: EndpointSlice, address: Address, port: number): boolean {
  const length = addressLength(slice.family);
  if (length !== address.length || (port !== 0 && !slice.ports.some((one) => one.port === port))) return false;
  const { endpoints } = slice;
  for (let at = endpoints.indexOf(address); at >= 0; at = endpoints.indexOf(address, at + 1))
    if (at % (length + 1) === 0) return true;
  return false;
}
