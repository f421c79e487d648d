/**
 * The generic netlink controller and the IPVS family of the fake kernel: the semantics of ip_vs_genl_set_cmd, in
 * memory.
 */
import { NETLINK_GENERIC } from '../../src/netlink/socket.js';
import {
  type RealServerKey,
  type VirtualServerKey,
  type VirtualServerSettings,
  formatRealServer,
  formatVirtualServer,
  virtualServerFamily,
} from '../../src/values/virtual-server.js';
import { type FakeAnswer, type FakeKernel, type FakeMessage } from './fake-kernel.js';
import { type WireMessage, attribute, attributeMap, packed, text, u16, u16be, u32, u8 } from './netlink-bytes.js';

export interface FakeRealServer {
  weight: number;
  /** IP_VS_CONN_F_FWD_MASK bits: 0 masquerade. */
  forwarding: number;
  active: number;
  inactive: number;
}

export interface FakeVirtualServer {
  settings: VirtualServerSettings;
  /** The persistence netmask, as the attribute has it. */
  netmask: number;
  readonly realServers: Map<RealServerKey, FakeRealServer>;
  /** Connections, packets in and out, bytes in and out; nothing unless it is set. */
  statistics?: readonly bigint[];
  /** A kernel before Linux 4.1: without the numbers of 64 bits. */
  isOld?: boolean;
}

const IPVS_TYPE = 0x1f;
const CONTROLLER_TYPE = 0x10;
const FLAG_HASHED = 2;
const [NEW_SERVICE, SET_SERVICE, DELETE_SERVICE, GET_SERVICE] = [1, 2, 3, 4];
const [NEW_DESTINATION, SET_DESTINATION, DELETE_DESTINATION, GET_DESTINATION] = [5, 6, 7, 8];
const [SET_CONFIG, GET_CONFIG, SET_INFO, GET_INFO] = [12, 13, 14, 15];

export class FakeIpvs {
  readonly table = new Map<VirtualServerKey, FakeVirtualServer>();
  readonly timeouts = { tcp: 900, tcpFin: 120, udp: 300 };
  schedulers = new Set('rr wrr lc wlc lblc lblcr dh sh mh sed nq fo ovf'.split(' '));
  /** Set to false, the family does not exist: the module is not loaded. */
  loaded = true;
  /** The errno name with which a virtual server, or one of its real servers, is refused when it is to be added. */
  refuse: (server: VirtualServerKey, real: RealServerKey | undefined) => string | undefined = () => undefined;
  /** Commands handled, by number. */
  readonly commands = new Map<number, number>();

  constructor(kernel: FakeKernel) {
    kernel.addFamily(NETLINK_GENERIC, (request, isDump) => this.#handle(request, isDump));
  }

  /** The table for comparing, one line per virtual and real server, sorted. */
  dump(): string[] {
    const lines: string[] = [];
    for (const [key, { settings, realServers }] of this.table) {
      const name = formatVirtualServer(key);
      lines.push(`${name} ${settings.scheduler} flags=${settings.flags} timeout=${settings.timeout}`);
      for (const [real, { weight }] of realServers) lines.push(`${name} -> ${formatRealServer(real)} weight=${weight}`);
    }
    return lines.sort();
  }

  #handle({ type, body }: WireMessage, isDump: boolean): FakeAnswer {
    if (body.length < 4) return { error: 'EINVAL' };
    const command = body[0]!;
    const attributes = attributeMap(body.subarray(4));
    if (type === CONTROLLER_TYPE) return this.#controller(command, attributes);
    if (type !== IPVS_TYPE || !this.loaded) return { error: 'ENOENT' };
    this.commands.set(command, (this.commands.get(command) ?? 0) + 1);
    if (isDump) return this.#dumpCommand(command, attributes);
    if (command === GET_CONFIG || command === GET_INFO) return this.#info(command);
    if (command === SET_CONFIG) return this.#setConfig(attributes);
    if (command === GET_SERVICE) return this.#oneService(attributes);
    return this.#change(command, attributes);
  }

  #controller(command: number, attributes: Attributes): FakeAnswer {
    if (command !== 3) return { error: 'EOPNOTSUPP' };
    const name = attributes.get(2)?.toString('utf8').replace(/\0.*/, '') ?? '';
    if (name !== 'IPVS' || !this.loaded) return { error: 'ENOENT' };
    const body = [
      Buffer.from([1, 2, 0, 0]),
      attribute(2, text(name)),
      attribute(1, u16(IPVS_TYPE)),
      attribute(3, u32(1)),
    ];
    return { messages: [{ type: CONTROLLER_TYPE, body: Buffer.concat(body) }] };
  }

  #dumpCommand(command: number, attributes: Attributes): FakeAnswer {
    if (command === GET_SERVICE) {
      return { messages: [...this.table].map(([key, server]) => ipvsMessage(NEW_SERVICE, serviceBytes(key, server))) };
    }
    if (command !== GET_DESTINATION) return { error: 'EOPNOTSUPP' };
    const key = readParts(attributes)?.key;
    const servers = key === undefined ? [] : [...(this.table.get(key)?.realServers ?? [])];
    return { messages: servers.map(([real, state]) => ipvsMessage(NEW_DESTINATION, destinationBytes(real, state))) };
  }

  #oneService(attributes: Attributes): FakeAnswer {
    const key = readParts(attributes)?.key;
    const server = key === undefined ? undefined : this.table.get(key);
    if (server === undefined) return { error: 'ESRCH' };
    return { messages: [ipvsMessage(NEW_SERVICE, serviceBytes(key!, server))] };
  }

  #info(command: number): FakeAnswer {
    const { tcp, tcpFin, udp } = this.timeouts;
    if (command === GET_INFO) {
      return { messages: [ipvsMessage(SET_INFO, attribute(1, u32(0x010201)), attribute(2, u32(4096)))] };
    }
    const timeouts = [attribute(4, u32(tcp)), attribute(5, u32(tcpFin)), attribute(6, u32(udp))];
    return { messages: [ipvsMessage(SET_CONFIG, ...timeouts)] };
  }

  #setConfig(attributes: Attributes): FakeAnswer {
    // 0 leaves a timeout as it is
    this.timeouts.tcp = attributes.get(4)?.readUInt32LE() || this.timeouts.tcp;
    this.timeouts.tcpFin = attributes.get(5)?.readUInt32LE() || this.timeouts.tcpFin;
    this.timeouts.udp = attributes.get(6)?.readUInt32LE() || this.timeouts.udp;
    return {};
  }

  #change(command: number, attributes: Attributes): FakeAnswer {
    const parts = readParts(attributes);
    if (parts === undefined) return { error: 'EINVAL' };
    const isAddition = command === NEW_SERVICE || command === NEW_DESTINATION;
    const refusal = isAddition ? this.refuse(parts.key, parts.real) : undefined;
    if (refusal !== undefined) return { error: refusal };
    const existing = this.table.get(parts.key);
    if (existing === undefined && command !== NEW_SERVICE) return { error: 'ESRCH' };
    if (command >= NEW_DESTINATION && command <= DELETE_DESTINATION) {
      return { error: changeDestination(command, parts, existing!) };
    }
    if (command === DELETE_SERVICE) {
      this.table.delete(parts.key);
      return {};
    }
    return { error: this.#changeService(command, parts, existing) };
  }

  #changeService(command: number, parts: Parts, existing: FakeVirtualServer | undefined): string | undefined {
    if (command !== NEW_SERVICE && command !== SET_SERVICE) return 'EOPNOTSUPP';
    if (parts.settings === undefined) return 'EINVAL';
    if (existing !== undefined && command === NEW_SERVICE) return 'EEXIST';
    if (!this.schedulers.has(parts.settings.scheduler)) return 'ENOENT';
    if (existing === undefined) {
      this.table.set(parts.key, { settings: parts.settings, netmask: parts.netmask, realServers: new Map() });
    } else Object.assign(existing, { settings: parts.settings, netmask: parts.netmask });
    return undefined;
  }
}

function changeDestination(command: number, { real, state }: Parts, server: FakeVirtualServer): string | undefined {
  if (real === undefined) return 'EINVAL';
  const known = server.realServers.get(real);
  if (command === DELETE_DESTINATION) return server.realServers.delete(real) ? undefined : 'ENOENT';
  if (state === undefined) return 'EINVAL';
  if (state.weight < 0) return 'ERANGE';
  if (command === NEW_DESTINATION && known !== undefined) return 'EEXIST';
  if (command === SET_DESTINATION && known === undefined) return 'ENOENT';
  if (known === undefined) server.realServers.set(real, state);
  else Object.assign(known, { weight: state.weight, forwarding: state.forwarding });
  return undefined;
}

/** A request taken apart; `settings` and `state` only when all that the kernel demands is there. */
interface Parts {
  key: VirtualServerKey;
  settings: VirtualServerSettings | undefined;
  netmask: number;
  real: RealServerKey | undefined;
  state: FakeRealServer | undefined;
}

/** Attribute payloads by type. */
type Attributes = Map<number, Buffer>;

function readParts(top: Attributes): Parts | undefined {
  const service = top.get(1) === undefined ? undefined : attributeMap(top.get(1)!);
  const family = service?.get(1)?.readUInt16LE();
  if (service === undefined || (family !== 2 && family !== 10)) return undefined;
  const length = family === 2 ? 4 : 16;
  const key = identityOf(service, length);
  if (key === undefined) return undefined;
  const [scheduler, flags, timeout, netmask] = [6, 7, 8, 9].map((type) => service.get(type));
  const complete = scheduler !== undefined && flags?.length === 8 && timeout !== undefined && netmask !== undefined;
  const settings = complete
    ? {
        scheduler: scheduler.toString('utf8', 0, scheduler.indexOf(0)),
        flags: flags.readUInt32LE(0) & flags.readUInt32LE(4) & ~FLAG_HASHED,
        timeout: timeout.readUInt32LE(),
      }
    : undefined;
  const destination = top.get(2) === undefined ? undefined : attributeMap(top.get(2)!);
  const [address, port] = [destination?.get(1), destination?.get(2)];
  const real = address?.length === 16 && port !== undefined ? latin1(port, address.subarray(0, length)) : undefined;
  const thresholds = destination?.has(5) === true && destination.has(6);
  const [forwarding, weight] = [destination?.get(3), destination?.get(4)];
  const state =
    thresholds && forwarding !== undefined && weight !== undefined
      ? { weight: weight.readInt32LE(), forwarding: forwarding.readUInt32LE() & 7, active: 0, inactive: 0 }
      : undefined;
  return { key, settings, netmask: netmask?.readUInt32LE() ?? 0, real: real as RealServerKey | undefined, state };
}

function identityOf(service: Attributes, addressLength: number): VirtualServerKey | undefined {
  const mark = service.get(5)?.readUInt32LE();
  if (mark !== undefined) {
    const bytes = Buffer.from([0, mark >>> 24, mark >>> 16, mark >>> 8, mark, addressLength === 4 ? 4 : 6]);
    return latin1(bytes) as VirtualServerKey;
  }
  const [protocol, address, port] = [service.get(2), service.get(3), service.get(4)];
  if (protocol === undefined || port === undefined || address?.length !== 16) return undefined;
  return latin1(protocol.subarray(0, 1), port, address.subarray(0, addressLength)) as VirtualServerKey;
}

function latin1(...parts: Buffer[]): string {
  return Buffer.concat(parts).toString('latin1');
}

function ipvsMessage(command: number, ...attributes: Buffer[]): FakeMessage {
  return { type: IPVS_TYPE, body: Buffer.concat([u8(command), u8(1), u16(0), ...attributes]) };
}

/** IPVS_STATS_ATTR_* from 1 on, as 64-bit numbers; in the older nest connections and packets have 32. */
function statisticsBytes(statistics: readonly bigint[], hasLong: boolean): Buffer[] {
  const short = statistics.map((count, i) => attribute(i + 1, i < 3 ? u32(Number(count & 0xffffffffn)) : u64(count)));
  const long = statistics.map((count, i) => attribute(i + 1, u64(count)));
  return [attribute(10, ...short), ...(hasLong ? [attribute(12, ...long)] : [])];
}

function u64(count: bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(count);
  return bytes;
}

function serviceBytes(key: VirtualServerKey, server: FakeVirtualServer): Buffer {
  const { settings, netmask, statistics = [0n, 0n, 0n, 0n, 0n], isOld = false } = server;
  const bytes = Buffer.from(key, 'latin1');
  const identity =
    bytes[0] === 0
      ? [attribute(5, u32(bytes.readUInt32BE(1)))]
      : [attribute(2, u16(bytes[0]!)), attribute(3, packed(key.slice(3), 16)), attribute(4, bytes.subarray(1, 3))];
  return attribute(
    1,
    attribute(1, u16(virtualServerFamily(key) === 4 ? 2 : 10)),
    ...identity,
    attribute(6, text(settings.scheduler)),
    attribute(7, u32(settings.flags | FLAG_HASHED), u32(0xffffffff)),
    attribute(8, u32(settings.timeout)),
    attribute(9, u32(netmask)),
    ...statisticsBytes(statistics, !isOld),
  );
}

function destinationBytes(key: RealServerKey, server: FakeRealServer): Buffer {
  return attribute(
    2,
    attribute(1, packed(key.slice(2), 16)),
    attribute(2, u16be((key.charCodeAt(0) << 8) | key.charCodeAt(1))),
    attribute(3, u32(server.forwarding)),
    attribute(4, u32(server.weight)),
    attribute(5, u32(0)),
    attribute(6, u32(0)),
    attribute(7, u32(server.active)),
    attribute(8, u32(server.inactive)),
    attribute(9, u32(0)),
    attribute(11, u16(key.length === 6 ? 2 : 10)),
    attribute(10, attribute(1, u32(0))),
  );
}
