/**
 * getsockopt, cheap enough to be called ten thousand times in a row. The function objects of ffi-napi allocate and look
 * up types for each argument of each call: 30 us on a machine where the system call takes 0.2. Here all five arguments
 * lie in memory that is set up once, and a call is one step into the addon (0.7 us): what changes is written by plain
 * stores.
 */
import { closeSync } from 'node:fs';
import ffi from 'ffi-napi';
// @ts-expect-error -- the addon itself, a module that has no types; ADDON below says what is used of it
import addon from 'ffi-napi/lib/bindings.js';
import ref from 'ref-napi';
import { type OptionBuffer } from '../src/kernel/option-socket.js';

interface Addon {
  /**
   * Calls `target` as `signature` says; `values` holds a pointer to each argument. All four must outlive the call only.
   */
  ffi_call(signature: Buffer, target: Buffer, result: Buffer, values: Buffer): void;
  readonly StaticFunctions: { readonly _errno: Buffer };
}

const ADDON = addon as Addon;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
/** Address family (AF_INET, AF_INET6) and level of the options (IPPROTO_IP, IPPROTO_IPV6). */
const FAMILIES = { 4: { domain: 2, level: 0 }, 6: { domain: 10, level: 41 } } as const;
const WORD = 8;
const { int, uint64 } = ref.types;
const NONE = Buffer.alloc(WORD);

let shared: { getsockopt: Buffer; signature: Buffer; errnoSignature: Buffer } | undefined;

function prepared(): NonNullable<typeof shared> {
  // The package's types leave this function out.
  const signatureOf = (ffi as unknown as { CIF: (this: void, result: unknown, values: unknown[]) => Buffer }).CIF;
  shared ??= {
    getsockopt: new ffi.DynamicLibrary().get('getsockopt'),
    signature: signatureOf(int, [int, int, int, uint64, uint64]),
    errnoSignature: signatureOf(int, []),
  };
  return shared;
}

/** Opens a UDP socket for getsockopt(IPPROTO_IP or IPPROTO_IPV6, ...). Throws an Error with `errno`. */
export function openOptionSocket(family: 4 | 6 = 4): { buffer(size: number): OptionBuffer; close(): void } {
  const { socket } = ffi.Library(null, { socket: ['int', ['int', 'int', 'int']] });
  const { domain, level } = FAMILIES[family];
  const fd = socket(domain, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) throw Object.assign(new Error('cannot open a UDP socket'), { errno: ffi.errno() });
  let closed = false;
  return {
    buffer: (size) => optionBuffer(fd, level, size),
    close: () => {
      if (!closed) closeSync(fd);
      closed = true;
    },
  };
}

function optionBuffer(fd: number, level: number, size: number): OptionBuffer {
  const { getsockopt, signature, errnoSignature } = prepared();
  // Not from the pool, and not moved by the garbage collector: their addresses stay.
  const bytes = Buffer.allocUnsafeSlow(size);
  const block = Buffer.allocUnsafeSlow(12 * WORD).fill(0);
  const [values, pointers, length, result] = [0, 5, 10, 11].map((word) => word * WORD) as [
    number,
    number,
    number,
    number,
  ];
  const base = BigInt(ref.address(block));
  block.writeInt32LE(fd, values);
  block.writeInt32LE(level, values + WORD);
  block.writeBigUInt64LE(BigInt(ref.address(bytes)), values + 3 * WORD);
  block.writeBigUInt64LE(base + BigInt(length), values + 4 * WORD);
  for (let i = 0; i < 5; i++) block.writeBigUInt64LE(base + BigInt(values + i * WORD), pointers + i * WORD);
  const [argumentList, answer] = [block.subarray(pointers, length), block.subarray(result)];
  const words = new Int32Array(block.buffer, block.byteOffset, block.length / 4);
  const [nameAt, lengthAt, answerAt] = [(values + 2 * WORD) / 4, length / 4, result / 4];
  return {
    bytes,
    get(option, optionLength) {
      words[nameAt] = option;
      words[lengthAt] = optionLength;
      ADDON.ffi_call(signature, getsockopt, answer, argumentList);
      if (words[answerAt] === 0) return 0;
      ADDON.ffi_call(errnoSignature, ADDON.StaticFunctions._errno, answer, NONE);
      return words[answerAt]!;
    },
  };
}
