/** Who is at the other end of a Unix socket, by the kernel's word. */
import ffi from 'ffi-napi';

// asm-generic/socket.h; struct ucred: s32 pid, u32 uid, u32 gid
const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
const UCRED_LENGTH = 12;

/** The process that listened when a connection was made; its number is 0 when it is in another process namespace. */
export function peerCredentials(fd: number): { readonly pid: number; readonly uid: number } {
  const { getsockopt } = ffi.Library(null, { getsockopt: ['int', ['int', 'int', 'int', 'pointer', 'pointer']] });
  const credentials = Buffer.alloc(UCRED_LENGTH);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(UCRED_LENGTH);
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, credentials, length) !== 0)
    throw Object.assign(new Error('cannot tell who holds a socket'), { errno: ffi.errno() });
  return { pid: credentials.readInt32LE(0), uid: credentials.readUInt32LE(4) };
}
