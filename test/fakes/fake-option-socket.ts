/**
 * getsockopt on the fake kernel's IPVS table: the bytes that do_ip_vs_get_ctl would write, in a 64-bit kernel's layout.
 */
import { type OpenOptionSocket } from '../../src/kernel/option-socket.js';
import { type RealServerKey, type VirtualServerKey, virtualServerFamily } from '../../src/values/virtual-server.js';
import { type FakeIpvs, type FakeRealServer, type FakeVirtualServer } from './fake-kernel-ipvs.js';

const EINVAL = 22;
const EPERM = 1;
const ESRCH = 3;
const FLAG_HASHED = 2;

export interface FakeOptionFaults {
  /** Set to false, everything is refused. */
  permitted?: boolean;
  /** Called before each read of an option, to change the table under the reader's hands. */
  before?: (option: number) => void;
  /** Options read so far. */
  calls?: number;
}

/** IPv4 only, as the real one; real servers of IPv6 addresses are counted, but not shown. */
export function fakeOptionSocket(ipvs: FakeIpvs, faults: FakeOptionFaults = {}): OpenOptionSocket {
  return () => ({
    buffer(size) {
      const bytes = Buffer.alloc(size, 0xee);
      const get = (option: number, length: number): number => {
        faults.calls = (faults.calls ?? 0) + 1;
        faults.before?.(option);
        if (faults.permitted === false) return EPERM;
        if (length > size) throw new Error(`${length} bytes asked for in a buffer of ${size}`);
        return answer(ipvs, option, bytes.subarray(0, length));
      };
      return { bytes, get };
    },
    close: () => undefined,
  });
}

function answer(ipvs: FakeIpvs, option: number, bytes: Buffer): number {
  const servers = [...ipvs.table].filter(([key]) => virtualServerFamily(key) === 4);
  if (option === 1153) {
    bytes.writeUInt32LE(0x010201, 0);
    bytes.writeUInt32LE(4096, 4);
    bytes.writeUInt32LE(servers.length, 8);
    return 0;
  }
  if (option === 1154) return services(servers, bytes);
  if (option === 1156) return destinations(servers, bytes);
  return EINVAL;
}

function services(servers: readonly [VirtualServerKey, FakeVirtualServer][], bytes: Buffer): number {
  const capacity = bytes.readUInt32LE(0);
  if (bytes.length !== 8 + 104 * capacity) return EINVAL;
  for (const [index, [key, server]] of servers.slice(0, capacity).entries())
    serviceEntry(key, server).copy(bytes, 8 + 104 * index);
  return 0;
}

function serviceEntry(key: VirtualServerKey, { settings, netmask, realServers }: FakeVirtualServer): Buffer {
  const entry = Buffer.alloc(104);
  identity(key).copy(entry);
  entry.write(settings.scheduler, 16, 'latin1');
  entry.writeUInt32LE((settings.flags | FLAG_HASHED) >>> 0, 32);
  entry.writeUInt32LE(settings.timeout, 36);
  entry.writeUInt32LE(netmask, 40);
  entry.writeUInt32LE(realServers.size, 44);
  entry.fill(0x55, 48); // statistics
  return entry;
}

/** protocol, address, port and mark, as both structures begin. */
function identity(key: VirtualServerKey): Buffer {
  const bytes = Buffer.from(key, 'latin1');
  const start = Buffer.alloc(16);
  if (bytes[0] === 0) start.writeUInt32LE(bytes.readUInt32BE(1), 12);
  else {
    start.writeUInt16LE(bytes[0]!, 0);
    bytes.copy(start, 4, 3, 7);
    bytes.copy(start, 8, 1, 3);
  }
  return start;
}

function destinations(servers: readonly [VirtualServerKey, FakeVirtualServer][], bytes: Buffer): number {
  const capacity = bytes.readUInt32LE(16);
  if (bytes.length !== 24 + 96 * capacity) return EINVAL;
  const found = servers.find(([key]) => identity(key).equals(bytes.subarray(0, 16)));
  if (found === undefined) return ESRCH;
  const shown = [...found[1].realServers].filter(([key]) => key.length === 6).reverse();
  for (const [index, [key, server]] of shown.slice(0, capacity).entries())
    destinationEntry(key, server).copy(bytes, 24 + 96 * index);
  return 0;
}

function destinationEntry(key: RealServerKey, server: FakeRealServer): Buffer {
  const bytes = Buffer.from(key, 'latin1');
  const entry = Buffer.alloc(96);
  bytes.copy(entry, 0, 2, 6);
  bytes.copy(entry, 4, 0, 2);
  entry.writeUInt32LE(0x100 | server.forwarding, 8); // IP_VS_CONN_F_INACTIVE stands for any other flag
  entry.writeInt32LE(server.weight, 12);
  entry.writeUInt32LE(server.active, 24);
  entry.writeUInt32LE(server.inactive, 28);
  entry.fill(0x55, 40); // statistics
  return entry;
}
