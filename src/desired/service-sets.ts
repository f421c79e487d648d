/**
 * What one Service port puts into the ipsets. Content equals kube-proxy's for its own sets; where packets needed more, there are
 * the two sets NO-ENDPOINTS (refuse) and NO-LOCAL-ENDPOINTS (a Local policy that this node cannot honour).
 */
import { type Address, type Family } from '../values/address.js';
import {
  addressEntry,
  addressPortAddressEntry,
  addressPortEntry,
  addressPortNetEntry,
  portEntry,
  type SetEntry,
} from '../values/ip-set.js';
import { type Prefix, prefixContains } from '../values/prefix.js';
import { type Protocol } from '../values/protocol.js';
import { addressServerKey, realServerAddress, type RealServerKey, realServerPort } from '../values/virtual-server.js';
import { type SetName, setName, type SetRole } from './set-definitions.js';

/** One Service port in one family; every address and prefix is of `family`. */
export interface ServiceSetInput {
  readonly family: Family;
  readonly protocol: Protocol;
  readonly port: number;
  readonly clusterIP?: Address | undefined;
  readonly externalIPs: readonly Address[];
  readonly loadBalancerIPs: readonly Address[];
  /** 0 when the port has none. */
  readonly nodePort: number;
  /** Addresses on which NodePorts are served. */
  readonly nodeAddresses: readonly Address[];
  /** The node's primary address: decides whether loadBalancerSourceRanges allow the node itself. */
  readonly nodeIP?: Address | undefined;
  /** True for an address that the node owns by itself: it never counts as a VIP, or its host ports would be cut off. */
  readonly isNodeAddress?: ((address: Address) => boolean) | undefined;
  readonly loadBalancerSourceRanges: readonly Prefix[];
  /** True when loadBalancerSourceRanges name anything in either family: then an empty list here means nobody. */
  readonly isSourceRestricted?: boolean | undefined;
  readonly externalLocal: boolean;
  readonly internalLocal: boolean;
  /** Any endpoint, local or not, that traffic could go to. */
  readonly hasEndpoints: boolean;
  readonly hasLocalEndpoints: boolean;
  /** False for a Service that only ever uses local endpoints (internal policy Local and nothing external). */
  readonly usesClusterEndpoints: boolean;
  /** 0 when the Service has none. */
  readonly healthCheckNodePort: number;
  /** Every endpoint on this node that the port's virtual servers hold. */
  readonly localEndpoints: readonly RealServerKey[];
}

/** Adds one entry to one set; called with the same pair twice when Services overlap. */
export type AddSetEntry = (set: SetName, entry: SetEntry) => void;

type AddToRole = (role: SetRole, entry: SetEntry) => void;

/** Calls `add` for each entry that this Service port needs. */
export function serviceSetEntries(input: ServiceSetInput, add: AddSetEntry): void {
  const addTo: AddToRole = (role, entry) => add(setName(input.family, role), entry);
  clusterAddressEntries(input, addTo);
  for (const address of input.externalIPs) externalAddressEntries(input, address, addTo);
  for (const address of input.loadBalancerIPs) loadBalancerEntries(input, address, addTo);
  if (input.nodePort !== 0) nodePortEntries(input, addTo);
  if (input.healthCheckNodePort !== 0) addTo('HEALTH-CHECK-NODE-PORT', portEntry(input.healthCheckNodePort));
  for (const endpoint of input.localEndpoints) {
    const address = realServerAddress(endpoint);
    const target = addressServerKey(input.protocol, address, realServerPort(endpoint));
    addTo('LOOP-BACK', addressPortAddressEntry(target, address));
  }
}

/** With internal policy Local and nothing local, the table may still hold cluster endpoints (kube-proxy's does): refuse by rule. */
function clusterAddressEntries(input: ServiceSetInput, addTo: AddToRole): void {
  if (input.clusterIP === undefined) return;
  const entry = addressPortEntry(addressServerKey(input.protocol, input.clusterIP, input.port));
  addTo('CLUSTER-IP', entry);
  addVirtualAddress(input, input.clusterIP, addTo);
  const lacksLocal = input.internalLocal && !input.hasLocalEndpoints;
  if (!input.hasEndpoints || lacksLocal) addTo('NO-ENDPOINTS', entry);
  if (lacksLocal && input.hasEndpoints && input.usesClusterEndpoints) addTo('NO-LOCAL-ENDPOINTS', entry);
}

function externalAddressEntries(input: ServiceSetInput, address: Address, addTo: AddToRole): void {
  const entry = addressPortEntry(addressServerKey(input.protocol, address, input.port));
  addTo(input.externalLocal ? 'EXTERNAL-IP-LOCAL' : 'EXTERNAL-IP', entry);
  addVirtualAddress(input, address, addTo);
  addExternalEndpointState(input, entry, addTo);
}

function loadBalancerEntries(input: ServiceSetInput, address: Address, addTo: AddToRole): void {
  const server = addressServerKey(input.protocol, address, input.port);
  const entry = addressPortEntry(server);
  addTo('LOAD-BALANCER', entry);
  if (input.externalLocal) addTo('LOAD-BALANCER-LOCAL', entry);
  addVirtualAddress(input, address, addTo);
  addExternalEndpointState(input, entry, addTo);
  const ranges = input.loadBalancerSourceRanges;
  const isRestricted = input.isSourceRestricted ?? ranges.length > 0;
  // A hash:net set cannot hold /0 (kernel: IPSET_ERR_INVALID_CIDR), and /0 allows everybody anyway.
  if (!isRestricted || ranges.some((range) => range.bits === 0)) return;
  addTo('LOAD-BALANCER-FW', entry);
  for (const range of ranges) addTo('LOAD-BALANCER-SOURCE-CIDR', addressPortNetEntry(server, range));
  const nodeIP = input.nodeIP;
  if (nodeIP !== undefined && ranges.some((range) => prefixContains(range, nodeIP))) {
    // A client on the node gets the VIP itself as its source address.
    addTo('LOAD-BALANCER-SOURCE-IP', addressPortAddressEntry(server, address));
  }
}

function nodePortEntries(input: ServiceSetInput, addTo: AddToRole): void {
  if (input.nodeAddresses.length === 0) return;
  if (input.protocol !== 'SCTP') {
    addTo(`NODE-PORT-${input.protocol}`, portEntry(input.nodePort));
    if (input.externalLocal) addTo(`NODE-PORT-LOCAL-${input.protocol}`, portEntry(input.nodePort));
  }
  for (const address of input.nodeAddresses) {
    const entry = addressPortEntry(addressServerKey(input.protocol, address, input.nodePort));
    if (input.protocol === 'SCTP') {
      addTo('NODE-PORT-SCTP-HASH', entry);
      if (input.externalLocal) addTo('NODE-PORT-LOCAL-SCTP-HASH', entry);
    }
    addExternalEndpointState(input, entry, addTo);
  }
}

function addExternalEndpointState(input: ServiceSetInput, entry: SetEntry, addTo: AddToRole): void {
  if (!input.hasEndpoints) addTo('NO-ENDPOINTS', entry);
  else if (input.externalLocal && !input.hasLocalEndpoints) addTo('NO-LOCAL-ENDPOINTS', entry);
}

function addVirtualAddress(input: ServiceSetInput, address: Address, addTo: AddToRole): void {
  const isNodeAddress = input.isNodeAddress?.(address) ?? input.nodeAddresses.includes(address);
  if (!isNodeAddress) addTo('IPVS-IPS', addressEntry(address));
}
