/**
 * The older interface to the IPVS table, getsockopt on any IPv4 socket: include/uapi/linux/ip_vs.h, do_ip_vs_get_ctl of
 * net/netfilter/ipvs/ip_vs_ctl.c. Needs CAP_NET_ADMIN as netlink does. It shows IPv4 only and no persistence engine,
 * but all virtual servers come by one call and all real servers of one by one call, where netlink takes three and 2 KB
 * of statistics.
 *
 * The kernel fills as many entries as there are and does not say how many those were: each is marked before the call,
 * by a value that no entry can have, and the first one still marked is the end.
 *
 * Structures as 64-bit kernels lay them out (byte offsets, from offsetof; numbers in host order, addresses and ports in
 * network order):
 *
 *   struct ip_vs_getinfo        version 0, size 4, num_services 8; 12 bytes
 *   struct ip_vs_get_services   num_services 0, entries from 8
 *   struct ip_vs_service_entry  protocol 0 (u16), addr 4, port 8 (u16), fwmark 12, sched_name 16 (16 bytes), flags 32,
 *                               timeout 36, netmask 40, num_dests 44, statistics 48; 104 bytes
 *   struct ip_vs_get_dests      protocol 0 (u16), addr 4, port 8 (u16), fwmark 12, num_dests 16, entries from 24
 *   struct ip_vs_dest_entry     addr 0, port 4 (u16), conn_flags 8, weight 12, u_threshold 16, l_threshold 20,
 *                               activeconns 24, inactconns 28, persistconns 32, statistics 40; 96 bytes
 */
import { type OpenOptionSocket, type OptionBuffer, type OptionSocket } from '../option-socket.js';
import { protocolName } from '../../values/protocol.js';
import {
  FLAG_HASHED,
  type RealServerKey,
  type VirtualServerKey,
  type VirtualServerSettings,
  fwmarkServerKey,
  isFwmarkKey,
} from '../../values/virtual-server.js';
import { type Forwarding, forwardingOf } from './message.js';
import { type ObservedVirtualServer } from './observed-table.js';

/** The kernel refused a read. */
export class IpvsSockoptError extends Error {
  override readonly name = 'IpvsSockoptError';

  constructor(
    readonly operation: string,
    readonly errno: number,
  ) {
    super(`${operation}: getsockopt failed with errno ${errno}`);
  }
}

const GET_INFO = 1153; // IP_VS_BASE_CTL + 64 + 1
const GET_SERVICES = 1154;
const GET_DESTS = 1156;
const INFO_LENGTH = 12;
const SERVICES_HEADER = 8;
const SERVICE_LENGTH = 104;
const DESTS_HEADER = 24;
const DEST_LENGTH = 96;
// Indexes of 32-bit words from here on.
const SERVICE_WORDS = SERVICE_LENGTH / 4;
const [FWMARK, SCHEDULER, FLAGS, TIMEOUT, NETMASK, DEST_COUNT] = [3, 4, 8, 9, 10, 11] as const;
const DEST_WORDS = DEST_LENGTH / 4;
const FIRST_DEST = DESTS_HEADER / 4;
const [CONN_FLAGS, WEIGHT, ACTIVE, INACTIVE] = [2, 3, 6, 7] as const;
/** No num_dests and no weight is negative. */
const MARK = -1;
const HOST_NETMASK = -1;
/** Virtual servers that may come while the table is read. */
const SPARE_SERVICES = 64;
const ESRCH = 3;
const MIN_DESTS = 128;

/** The IPv4 part of the table. Its entries are read in place; nothing is made for those that are not looked at. */
export class IpvsSockopt {
  readonly #socket: OptionSocket;
  readonly #info: OptionBuffer;
  #services: Words;
  #dests: Words;
  #settings: VirtualServerSettings = { scheduler: '', flags: 0, timeout: 0 };
  #settingsAt = -1;

  /** Throws IpvsSockoptError when the kernel refuses, the errno error of `open` otherwise. */
  constructor(open: OpenOptionSocket) {
    this.#socket = open();
    this.#info = this.#socket.buffer(INFO_LENGTH);
    this.#services = new Words(this.#socket.buffer(SERVICES_HEADER));
    this.#dests = new Words(this.#socket.buffer(DESTS_HEADER + MIN_DESTS * DEST_LENGTH));
    try {
      this.#virtualServerCount();
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Reads all virtual servers by one call; returns how many there are. Throws IpvsSockoptError. */
  readVirtualServers(): number {
    for (let capacity = this.#virtualServerCount() + SPARE_SERVICES; ; capacity *= 2) {
      const length = SERVICES_HEADER + capacity * SERVICE_LENGTH;
      if (this.#services.buffer.bytes.length < length) this.#services = new Words(this.#socket.buffer(length));
      const { words } = this.#services;
      words[0] = capacity;
      for (let i = 0; i < capacity; i++) words[serviceAt(i) + DEST_COUNT] = MARK;
      check('list virtual servers', this.#services.buffer.get(GET_SERVICES, length));
      this.#settingsAt = -1;
      let count = 0;
      while (count < capacity && words[serviceAt(count) + DEST_COUNT] !== MARK) count++;
      if (count < capacity) return count;
    }
  }

  /** The identity of the virtual server at `index` of the last read; undefined for protocols that no Service has. */
  keyOf(index: number): VirtualServerKey | undefined {
    const at = serviceAt(index);
    const { words } = this.#services;
    if (words[at + FWMARK] !== 0) return fwmarkServerKey(4, words[at + FWMARK]! >>> 0);
    const { bytes } = this.#services.buffer;
    const start = at * 4;
    if (protocolName(words[at]! & 0xffff) === undefined) return undefined;
    return String.fromCharCode(
      bytes[start]!,
      bytes[start + 8]!,
      bytes[start + 9]!,
      bytes[start + 4]!,
      bytes[start + 5]!,
      bytes[start + 6]!,
      bytes[start + 7]!,
    ) as VirtualServerKey;
  }

  /** Its settings; servers with equal ones in a row share one object. */
  settingsOf(index: number): VirtualServerSettings {
    const at = serviceAt(index);
    const last = this.#settingsAt;
    this.#settingsAt = at;
    const { words } = this.#services;
    if (last >= 0 && sameWords(words, last + SCHEDULER, at + SCHEDULER, NETMASK - SCHEDULER)) return this.#settings;
    const name = this.#services.buffer.bytes.subarray((at + SCHEDULER) * 4, (at + FLAGS) * 4);
    const end = name.indexOf(0);
    this.#settings = {
      scheduler: name.toString('latin1', 0, end < 0 ? name.length : end),
      flags: (words[at + FLAGS]! & ~FLAG_HASHED) >>> 0,
      timeout: words[at + TIMEOUT]! >>> 0,
    };
    return this.#settings;
  }

  /** Set up in a way that this program never does: a persistence netmask. (A persistence engine is not shown here.) */
  isModified(index: number): boolean {
    return this.#services.words[serviceAt(index) + NETMASK] !== HOST_NETMASK;
  }

  /** How many real servers it had when the virtual servers were read. */
  realServerCount(index: number): number {
    return this.#services.words[serviceAt(index) + DEST_COUNT]!;
  }

  /**
   * Reads the real servers of the virtual server at `index` into `view`. `gone`: there is no such virtual server any
   * more. `partial`: there are others than were counted, changed meanwhile or with IPv6 addresses, which are not shown
   * here. Throws IpvsSockoptError.
   */
  readRealServers(index: number, view: SockoptView): 'read' | 'gone' | 'partial' {
    const expected = this.realServerCount(index);
    view.count = expected;
    if (expected === 0) return 'read';
    const at = serviceAt(index);
    const words = this.#dests.words;
    for (let i = 0; i <= FWMARK; i++) words[i] = this.#services.words[at + i]!;
    const count = this.#getDests(expected + 1, view);
    if (count === undefined) return 'gone';
    return count === expected ? 'read' : 'partial';
  }

  /**
   * Reads the real servers of one virtual server, of which there are thought to be `expected`, into `view`; `partial`
   * when there are more. Those with IPv6 addresses are not shown. Throws IpvsSockoptError.
   */
  readRealServersOf(key: VirtualServerKey, expected: number, view: SockoptView): 'read' | 'gone' | 'partial' {
    const { bytes } = this.#dests.buffer;
    this.#dests.words.fill(0, 0, FIRST_DEST);
    const isMark = isFwmarkKey(key);
    if (isMark) for (let i = 0; i < 4; i++) bytes[FWMARK * 4 + i] = key.charCodeAt(4 - i);
    else {
      bytes[0] = key.charCodeAt(0);
      for (let i = 0; i < 2; i++) bytes[8 + i] = key.charCodeAt(1 + i);
      for (let i = 0; i < 4; i++) bytes[4 + i] = key.charCodeAt(3 + i);
    }
    view.key = key;
    const count = this.#getDests(expected + 1, view);
    if (count === undefined) return 'gone';
    view.count = count;
    return count <= expected ? 'read' : 'partial';
  }

  close(): void {
    this.#socket.close();
  }

  /** Asks for the virtual server whose identity the buffer begins with; how many came, undefined when there is none. */
  #getDests(capacity: number, view: SockoptView): number | undefined {
    const length = DESTS_HEADER + capacity * DEST_LENGTH;
    if (this.#dests.buffer.bytes.length < length) {
      const larger = new Words(this.#socket.buffer(2 * length));
      larger.words.set(this.#dests.words.subarray(0, FIRST_DEST));
      this.#dests = larger;
    }
    const { words, buffer } = this.#dests;
    words[FWMARK + 1] = capacity;
    for (let i = 0; i < capacity; i++) words[destAt(i) + WEIGHT] = MARK;
    const errno = buffer.get(GET_DESTS, length);
    if (errno === ESRCH) return undefined;
    check('list real servers', errno);
    view.words = words;
    view.bytes = buffer.bytes;
    let count = capacity;
    while (count > 0 && words[destAt(count - 1) + WEIGHT] === MARK) count--;
    return count;
  }

  #virtualServerCount(): number {
    check('count virtual servers', this.#info.get(GET_INFO, INFO_LENGTH));
    return this.#info.bytes.readUInt32LE(8);
  }
}

/** The virtual server that `readRealServers` looked at last, in the buffer that the kernel filled. */
export class SockoptView implements ObservedVirtualServer {
  key = '' as VirtualServerKey;
  settings: VirtualServerSettings = { scheduler: '', flags: 0, timeout: 0 };
  modified = false;
  count = 0;
  words: Int32Array = new Int32Array(0);
  bytes: Uint8Array = new Uint8Array(0);

  weight(index: number): number {
    return this.words[destAt(index) + WEIGHT]!;
  }

  forwarding(index: number): Forwarding {
    return forwardingOf(this.words[destAt(index) + CONN_FLAGS]!);
  }

  /** Active and inactive connections together. */
  connections(index: number): number {
    const at = destAt(index);
    return (this.words[at + ACTIVE]! >>> 0) + (this.words[at + INACTIVE]! >>> 0);
  }

  realServer(index: number): RealServerKey {
    const { bytes } = this;
    const at = destAt(index) * 4;
    return String.fromCharCode(
      bytes[at + 4]!,
      bytes[at + 5]!,
      bytes[at]!,
      bytes[at + 1]!,
      bytes[at + 2]!,
      bytes[at + 3]!,
    ) as RealServerKey;
  }

  compare(index: number, list: string, offset: number): number {
    const { bytes } = this;
    const at = destAt(index) * 4;
    return (
      bytes[at + 4]! - list.charCodeAt(offset) ||
      bytes[at + 5]! - list.charCodeAt(offset + 1) ||
      bytes[at]! - list.charCodeAt(offset + 2) ||
      bytes[at + 1]! - list.charCodeAt(offset + 3) ||
      bytes[at + 2]! - list.charCodeAt(offset + 4) ||
      bytes[at + 3]! - list.charCodeAt(offset + 5)
    );
  }
}

/** A buffer and the same memory as 32-bit words. */
class Words {
  readonly words: Int32Array;

  constructor(readonly buffer: OptionBuffer) {
    const { bytes } = buffer;
    this.words = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2);
  }
}

/** First word of an entry of struct ip_vs_get_services. */
function serviceAt(index: number): number {
  return SERVICES_HEADER / 4 + index * SERVICE_WORDS;
}

/** First word of an entry of struct ip_vs_get_dests. */
function destAt(index: number): number {
  return FIRST_DEST + index * DEST_WORDS;
}

function sameWords(words: Int32Array, a: number, b: number, count: number): boolean {
  for (let i = 0; i < count; i++) if (words[a + i] !== words[b + i]) return false;
  return true;
}

function check(operation: string, errno: number): void {
  if (errno !== 0) throw new IpvsSockoptError(operation, errno);
}
