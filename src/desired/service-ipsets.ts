/**
 * What one service port puts into the ipsets. Content equals kube-proxy's for its own sets; where packets needed
 * more, there are the two sets NO-ENDPOINTS (refuse) and NO-LOCAL-ENDPOINTS (a Local policy that this node cannot
 * honour).
 */
import { type Address, type Family } from '../values/address.js';
import {
  addressEntry,
  addressPortAddressEntry,
  addressPortEntry,
  addressPortNetEntry,
  portEntry,
  type IpsetEntry,
} from '../values/ipset.js';
import { type Prefix, prefixContains, prefixFamily } from '../values/prefix.js';
import { addressServerKey, realServerAddress, type RealServerKey, realServerPort } from '../values/virtual-server.js';
import { type Service, type ServicePort } from '../model/service.js';
import { type DesiredContext } from './context.js';
import { type EndpointChoice } from './endpoints.js';
import { type Exposure } from './exposures.js';
import { type IpsetName, ipsetName, type IpsetRole } from './ipset-definitions.js';

/** What decides the entries of one service port in one family, beside its exposures. */
export interface ServiceIpsetFacts {
  readonly service: Pick<
    Service,
    'externalLocal' | 'internalLocal' | 'loadBalancerSourceRanges' | 'healthCheckNodePort'
  >;
  readonly port: Pick<ServicePort, 'protocol' | 'nodePort'>;
  readonly family: Family;
  readonly choice: Pick<EndpointChoice, 'cluster' | 'local' | 'onThisNode'>;
  readonly context: Pick<DesiredContext, 'localAddresses' | 'nodeIP' | 'widestRangesOnly'>;
}

/** Adds one entry to one set; called with the same pair twice when Services overlap. */
export type AddIpsetEntry = (set: IpsetName, entry: IpsetEntry) => void;

type AddToRole = (role: IpsetRole, entry: IpsetEntry) => void;

/** Calls `add` for each entry that one exposure of the service port needs. */
export function exposureIpsetEntries(exposure: Exposure, facts: ServiceIpsetFacts, add: AddIpsetEntry): void {
  const addTo: AddToRole = (role, entry) => add(ipsetName(facts.family, role), entry);
  switch (exposure.kind) {
    case 'clusterIP':
      return clusterAddressEntries(exposure, facts, addTo);
    case 'externalIP':
      return externalAddressEntries(exposure, facts, addTo);
    case 'loadBalancer':
      return loadBalancerEntries(exposure, facts, addTo);
    case 'nodePort':
      return nodePortEntries(exposure, facts, addTo);
  }
}

/** Calls `add` for each entry that the service port needs however it is exposed. */
export function servicePortIpsetEntries(
  { service, port, family, choice }: ServiceIpsetFacts,
  add: AddIpsetEntry,
): void {
  const addTo: AddToRole = (role, entry) => add(ipsetName(family, role), entry);
  if (service.healthCheckNodePort !== 0) addTo('HEALTH-CHECK-NODE-PORT', portEntry(service.healthCheckNodePort));
  for (const endpoint of choice.onThisNode) addTo('LOOP-BACK', hairpinEntry(port, endpoint));
}

function hairpinEntry({ protocol }: Pick<ServicePort, 'protocol'>, endpoint: RealServerKey): IpsetEntry {
  const address = realServerAddress(endpoint);
  return addressPortAddressEntry(addressServerKey(protocol, address, realServerPort(endpoint)), address);
}

/**
 * With internal policy Local and nothing local, the table may still hold cluster endpoints, for external traffic:
 * refuse by rule, as the API has it. kube-proxy sends pods there.
 */
function clusterAddressEntries({ server, address }: Exposure, facts: ServiceIpsetFacts, addTo: AddToRole): void {
  const { cluster, local } = facts.choice;
  const entry = addressPortEntry(server);
  addTo('CLUSTER-IP', entry);
  addVirtualAddress(address, facts, addTo);
  const lacksLocal = facts.service.internalLocal && local === '';
  if (lacksLocal || (cluster === '' && local === '')) addTo('NO-ENDPOINTS', entry);
  if (lacksLocal && cluster !== '') addTo('NO-LOCAL-ENDPOINTS', entry);
}

function externalAddressEntries({ server, address }: Exposure, facts: ServiceIpsetFacts, addTo: AddToRole): void {
  const entry = addressPortEntry(server);
  addTo(facts.service.externalLocal ? 'EXTERNAL-IP-LOCAL' : 'EXTERNAL-IP', entry);
  addVirtualAddress(address, facts, addTo);
  addExternalEndpointState(entry, facts, addTo);
}

function loadBalancerEntries({ server, address }: Exposure, facts: ServiceIpsetFacts, addTo: AddToRole): void {
  const entry = addressPortEntry(server);
  addTo('LOAD-BALANCER', entry);
  if (facts.service.externalLocal) addTo('LOAD-BALANCER-LOCAL', entry);
  addVirtualAddress(address, facts, addTo);
  addExternalEndpointState(entry, facts, addTo);
  const ranges = restrictingRanges(facts);
  if (ranges.length === 0) return;
  addTo('LOAD-BALANCER-FW', entry);
  for (const range of ranges) addTo('LOAD-BALANCER-SOURCE-CIDR', addressPortNetEntry(server, range));
  const nodeIP = facts.context.nodeIP[facts.family];
  if (nodeIP !== undefined && ranges.some((range) => prefixContains(range, nodeIP))) {
    // A client on the node gets the VIP itself as its source address.
    addTo('LOAD-BALANCER-SOURCE-IP', addressPortAddressEntry(server, address));
  }
}

/**
 * As kube-proxy has it (pkg/proxy/serviceport.go), a family without ranges of its own is open, and so is one with
 * /0, which a set of type hash:net could not hold either (IPSET_ERR_INVALID_CIDR).
 */
function restrictingRanges({ service, family, context }: ServiceIpsetFacts): readonly Prefix[] {
  const ranges = service.loadBalancerSourceRanges.filter((range) => prefixFamily(range) === family);
  if (ranges.some((range) => range.bits === 0)) return [];
  return context.widestRangesOnly ? ranges.filter((range) => !ranges.some((one) => isWithin(range, one))) : ranges;
}

/** Whether a range is part of another, wider one. */
function isWithin(range: Prefix, other: Prefix): boolean {
  return other.bits < range.bits && prefixContains(other, range.address);
}

function nodePortEntries({ server }: Exposure, facts: ServiceIpsetFacts, addTo: AddToRole): void {
  const { service, port } = facts;
  const isSctp = port.protocol === 'SCTP';
  const entry = addressPortEntry(server);
  const element = isSctp ? entry : portEntry(port.nodePort);
  addTo(isSctp ? 'NODE-PORT-SCTP-HASH' : `NODE-PORT-${port.protocol}`, element);
  if (service.externalLocal) addTo(isSctp ? 'NODE-PORT-LOCAL-SCTP-HASH' : `NODE-PORT-LOCAL-${port.protocol}`, element);
  addExternalEndpointState(entry, facts, addTo);
}

function addExternalEndpointState(entry: IpsetEntry, { service, choice }: ServiceIpsetFacts, addTo: AddToRole): void {
  if (choice.cluster === '' && choice.local === '') addTo('NO-ENDPOINTS', entry);
  else if (service.externalLocal && choice.local === '') addTo('NO-LOCAL-ENDPOINTS', entry);
}

/** An address that the node owns by itself never counts as a VIP, or its host ports would be cut off. */
function addVirtualAddress(address: Address, { context }: ServiceIpsetFacts, addTo: AddToRole): void {
  if (!context.localAddresses.has(address)) addTo('IPVS-IPS', addressEntry(address));
}
