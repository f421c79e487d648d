/**
 * The FFI binding to libc: what Node's standard library lacks to open a netlink socket. Reading and writing go through
 * `node:fs` on the descriptor, so that a call through FFI (2 us) is made per socket, not per message.
 */
import { closeSync, readSync, writeSync } from 'node:fs';
import { endianness } from 'node:os';
import ffi from 'ffi-napi';
import ref from 'ref-napi';
import { NetlinkError } from '../src/netlink/errors.js';
import { type NetlinkSocket } from '../src/netlink/socket.js';

/** The few functions of libc in use; -1 means an error whose errno `ffi.errno()` has. */
interface Libc {
  socket(domain: number, type: number, protocol: number): number;
  bind(fd: number, address: Buffer, length: number): number;
  setsockopt(fd: number, level: number, name: number, value: Buffer, length: number): number;
  poll: { async(descriptors: Buffer, count: number, milliseconds: number, done: (error: unknown) => void): void };
}

// asm-generic/socket.h, linux/netlink.h; the same on x86-64 and arm64.
const AF_NETLINK = 16;
const SOCK_RAW = 3;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_SNDBUF = 7;
const SO_RCVBUF = 8;
const SO_ATTACH_FILTER = 26;
const SO_SNDBUFFORCE = 32;
const SO_RCVBUFFORCE = 33;
const SOL_NETLINK = 270;
const NETLINK_ADD_MEMBERSHIP = 1;
const NETLINK_CAP_ACK = 10;
const NETLINK_EXT_ACK = 11;
const NETLINK_GET_STRICT_CHK = 12;
const SOCKADDR_NL_LENGTH = 12;
const POLLIN = 1;
const BPF_INSTRUCTION_LENGTH = 8;

const RECEIVE_BUFFER = 8 * 1024 * 1024;
const SEND_BUFFER = 1024 * 1024;
/** How long a wait for a datagram takes at most: an exit that forgot to close the socket waits this long. */
const WAIT_MILLISECONDS = 1000;

let loaded: Libc | undefined;

function libc(): Libc {
  loaded ??= ffi.Library(null, {
    socket: ['int', ['int', 'int', 'int']],
    bind: ['int', ['int', 'pointer', 'uint']],
    setsockopt: ['int', ['int', 'int', 'int', 'pointer', 'uint']],
    poll: ['int', ['pointer', 'ulong', 'int']],
  }) as unknown as Libc;
  return loaded;
}

/**
 * Opens and binds an AF_NETLINK socket that never blocks, a member of the given multicast groups. Its buffers are as
 * large as the process may have (SO_RCVBUFFORCE needs CAP_NET_ADMIN). Throws NetlinkError.
 */
export function openNetlinkSocket(protocol: number, groups: readonly number[] = []): NetlinkSocket {
  if (endianness() !== 'LE') throw new NetlinkError({ operation: 'netlink on a big-endian host', errno: 95 });
  const fd = libc().socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol);
  if (fd < 0) throw new NetlinkError({ operation: `open netlink socket ${protocol}`, errno: ffi.errno() });
  try {
    configure(fd);
    bindSocket(fd);
    for (const group of groups) {
      if (!setInteger(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)) {
        throw new NetlinkError({ operation: `join netlink group ${group}`, errno: ffi.errno() });
      }
    }
    return new DescriptorSocket(fd);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** Options that help but that an old kernel or a missing capability may refuse. */
function configure(fd: number): void {
  if (!setInteger(fd, SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)) {
    setInteger(fd, SOL_SOCKET, SO_RCVBUF, RECEIVE_BUFFER);
  }
  if (!setInteger(fd, SOL_SOCKET, SO_SNDBUFFORCE, SEND_BUFFER)) setInteger(fd, SOL_SOCKET, SO_SNDBUF, SEND_BUFFER);
  setInteger(fd, SOL_NETLINK, NETLINK_CAP_ACK, 1);
  setInteger(fd, SOL_NETLINK, NETLINK_EXT_ACK, 1);
  setInteger(fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1);
}

function setInteger(fd: number, level: number, name: number, value: number): boolean {
  const buffer = Buffer.alloc(4);
  buffer.writeInt32LE(value);
  return libc().setsockopt(fd, level, name, buffer, 4) === 0;
}

function bindSocket(fd: number): void {
  const address = Buffer.alloc(SOCKADDR_NL_LENGTH);
  address.writeUInt16LE(AF_NETLINK);
  if (libc().bind(fd, address, SOCKADDR_NL_LENGTH) !== 0) {
    throw new NetlinkError({ operation: 'bind netlink socket', errno: ffi.errno() });
  }
}

class DescriptorSocket implements NetlinkSocket {
  #closed = false;

  readonly #fd: number;

  constructor(fd: number) {
    this.#fd = fd;
  }

  send(buffer: Uint8Array, length: number): number {
    return writeSync(this.#fd, buffer, 0, length);
  }

  receive(buffer: Uint8Array): number {
    return readSync(this.#fd, buffer, 0, buffer.length, null);
  }

  /**
   * Waits in libuv's thread pool, through FFI: one such call per burst of events, the events themselves are plain
   * reads.
   */
  waitReadable(): Promise<void> {
    const descriptors = Buffer.alloc(8); // struct pollfd: s32 fd, s16 events, s16 revents
    descriptors.writeInt32LE(this.#fd);
    descriptors.writeInt16LE(POLLIN, 4);
    return new Promise((resolve, reject) => {
      libc().poll.async(descriptors, 1, WAIT_MILLISECONDS, (error) => {
        // Names the buffer, so that it outlives the call.
        if (error == null && descriptors.length > 0) resolve();
        else reject(new Error('poll failed', { cause: error }));
      });
    });
  }

  attachFilter(program: Buffer): void {
    // struct sock_fprog: u16 count, padding, pointer. The kernel copies the program before setsockopt returns.
    const description = Buffer.alloc(16);
    description.writeUInt16LE(program.length / BPF_INSTRUCTION_LENGTH);
    description.writeBigUInt64LE(BigInt(ref.address(program)), 8);
    if (libc().setsockopt(this.#fd, SOL_SOCKET, SO_ATTACH_FILTER, description, 16) !== 0) {
      throw new NetlinkError({ operation: 'attach netlink filter', errno: ffi.errno() });
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeSync(this.#fd);
  }
}
