import { type Address, type Family, familyOf, isServable, parseAddress } from '../values/address.js';
import { type Protocol, isProtocol } from '../values/protocol.js';
import { SharedValues, names } from './intern.js';
import {
  type JsonObject,
  type Report,
  asArray,
  asInteger,
  asObject,
  asString,
  boundedReport,
  objectMeta,
  shown,
} from './json.js';

/** Bits of an endpoint's flag character in `EndpointSlice.endpoints`. */
export const READY = 1;
export const SERVING = 2;
export const TERMINATING = 4;
export const LOCAL = 8;

export interface EndpointPort {
  readonly name: string;
  readonly protocol: Protocol;
  readonly port: number;
}

/** An EndpointSlice packed: half a million endpoints must fit beside each other. */
export interface EndpointSlice {
  readonly key: string;
  /** `namespace/name` of the Service in the kubernetes.io/service-name label */
  readonly service: string;
  readonly family: Family;
  readonly ports: readonly EndpointPort[];
  /** address (4 or 16 characters) + one flag character (READY | SERVING | ...), per endpoint */
  readonly endpoints: string;
  /** Per endpoint the zones of hints.forZones; undefined when no endpoint has one. */
  readonly zoneHints: readonly (readonly string[] | undefined)[] | undefined;
  readonly nodeHints: readonly (readonly string[] | undefined)[] | undefined;
  /** Unix milliseconds of endpoints.kubernetes.io/last-change-trigger-time; 0 without it. For a latency metric. */
  readonly triggeredAt: number;
}

const TRIGGER_ANNOTATION = 'endpoints.kubernetes.io/last-change-trigger-time';
const SERVICE_LABEL = 'kubernetes.io/service-name';
/** Thousands of slices have the same few lists; about 8 MB of each are kept, an entry counted as ITEM_COST bytes. */
const portLists = new SharedValues<readonly EndpointPort[]>(8_000_000);
const hintLists = new SharedValues<readonly string[]>(8_000_000);
const ITEM_COST = 64;

/**
 * Trims an EndpointSlice. Returns undefined, reported, for FQDN slices and those without service label or name; a bad
 * endpoint or port is reported and left out alone. `nodeName` decides the LOCAL flag. Only the first address of an
 * endpoint counts: the API says the others are meaningless, kube-proxy ignores them.
 */
export function parseEndpointSlice(object: unknown, nodeName: string, reportAll: Report): EndpointSlice | undefined {
  const report = boundedReport(reportAll);
  const root = asObject(object) ?? {};
  const meta = objectMeta(root, report);
  if (meta === undefined) return undefined;
  const serviceName = asString(asObject(meta.metadata['labels'])?.[SERVICE_LABEL]);
  if (serviceName === '') {
    report(`label ${SERVICE_LABEL} is missing`);
    return undefined;
  }
  const addressType = root['addressType'];
  if (addressType !== 'IPv4' && addressType !== 'IPv6') {
    report(`addressType ${shown(addressType)} is not IPv4 or IPv6`);
    return undefined;
  }
  const family = addressType === 'IPv4' ? 4 : 6;
  const packed = packEndpoints(asArray(root['endpoints']), family, nodeName, report);
  return {
    key: meta.key,
    service: names.intern([meta.namespace, serviceName].join('/')),
    family,
    ports: endpointPorts(root, report),
    // Named one by one: what is spread into an object lies in a second one.
    endpoints: packed.endpoints,
    zoneHints: packed.zoneHints,
    nodeHints: packed.nodeHints,
    triggeredAt: Date.parse(asString(asObject(meta.metadata['annotations'])?.[TRIGGER_ANNOTATION])) || 0,
  };
}

function packEndpoints(
  values: readonly unknown[],
  family: Family,
  nodeName: string,
  report: Report,
): Pick<EndpointSlice, 'endpoints' | 'zoneHints' | 'nodeHints'> {
  const bytes: number[] = [];
  const zoneHints: (readonly string[] | undefined)[] = [];
  const nodeHints: (readonly string[] | undefined)[] = [];
  let hasZoneHints = false;
  let hasNodeHints = false;
  for (const value of values) {
    const endpoint = asObject(value) ?? {};
    const text = asArray(endpoint['addresses'])[0];
    const address = endpointAddress(text, family);
    if (address === undefined) {
      report(`endpoints: ${shown(text)} is not a usable IPv${family} address`);
      continue;
    }
    for (let i = 0; i < address.length; i++) bytes.push(address.charCodeAt(i));
    bytes.push(endpointFlags(endpoint, nodeName));
    const hints = asObject(endpoint['hints']);
    const zones = hints === undefined ? undefined : hintNames(hints['forZones']);
    const nodes = hints === undefined ? undefined : hintNames(hints['forNodes']);
    hasZoneHints ||= zones !== undefined;
    hasNodeHints ||= nodes !== undefined;
    zoneHints.push(zones);
    nodeHints.push(nodes);
  }
  return {
    endpoints: latin1(bytes),
    zoneHints: hasZoneHints ? zoneHints : undefined,
    nodeHints: hasNodeHints ? nodeHints : undefined,
  };
}

/** One flat one-byte string; concatenating piece by piece would leave a tree of small strings on the heap. */
function latin1(bytes: readonly number[]): string {
  return bytes.length === 0 ? '' : Buffer.from(bytes).toString('latin1');
}

function endpointAddress(text: unknown, family: Family): Address | undefined {
  const address = parseAddress(asString(text));
  if (address === undefined || familyOf(address) !== family) return undefined;
  return isServable(address) ? address : undefined;
}

/** Unset conditions mean ready and serving, not terminating (EndpointConditions in discovery/v1). */
function endpointFlags(endpoint: JsonObject, nodeName: string): number {
  const conditions = asObject(endpoint['conditions']);
  let flags = 0;
  if ((conditions?.['ready'] ?? true) === true) flags |= READY;
  if ((conditions?.['serving'] ?? true) === true) flags |= SERVING;
  if (conditions?.['terminating'] === true) flags |= TERMINATING;
  if (nodeName !== '' && endpoint['nodeName'] === nodeName) flags |= LOCAL;
  return flags;
}

function hintNames(value: unknown): readonly string[] | undefined {
  const list = asArray(value);
  if (list.length === 0) return undefined;
  const hinted = list.map((entry) => asString(asObject(entry)?.['name'])).filter((name) => name !== '');
  return hinted.length === 0
    ? undefined
    : shared(hintLists, hinted.join('\0'), hinted.length, () => hinted.map((n) => names.intern(n)));
}

function endpointPorts(root: JsonObject, report: Report): readonly EndpointPort[] {
  const ports: EndpointPort[] = [];
  for (const value of asArray(root['ports'])) {
    const entry = asObject(value) ?? {};
    const protocol = entry['protocol'] ?? 'TCP';
    const port = asInteger(entry['port'], 1, 65535);
    if (!isProtocol(protocol)) report(`ports: unknown protocol ${shown(protocol)}`);
    else if (port === undefined) report(`ports: port ${shown(entry['port'])} is not 1..65535`);
    else ports.push({ name: asString(entry['name']), protocol, port });
  }
  const identity = ports.map((port) => `${port.name}\0${port.protocol}\0${port.port}`).join('\x01');
  return shared(portLists, identity, ports.length, () =>
    ports.map((port) => ({ ...port, name: names.intern(port.name) })),
  );
}

function shared<T>(known: SharedValues<T>, identity: string, items: number, make: () => T): T {
  return known.get(identity, identity.length + ITEM_COST * (items + 1), make);
}
