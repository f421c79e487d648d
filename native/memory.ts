/** Memory that is free already goes back to the kernel. */
import ffi from 'ffi-napi';

interface Allocator {
  malloc_trim(pad: number): number;
}

let allocator: Allocator | undefined;

/** A full garbage collection of so much takes some 15 ms; of more V8 decides by itself. */
const SMALL_HEAP = 32 * 1024 * 1024;

/**
 * Gives memory that the C library has freed, and keeps in case of need, back to the kernel: after a start that is
 * several megabytes (parsed certificates, compilation). Takes about a millisecond; nothing where the C library has no
 * such call (musl). A small heap is cleaned up before: on a quiet node V8 would put that off for hours.
 */
export function releaseFreedMemory(): void {
  if (process.memoryUsage().heapUsed < SMALL_HEAP) globalThis.gc?.(); // with --expose-gc
  try {
    allocator ??= ffi.Library(null, { malloc_trim: ['int', ['size_t']] }) as unknown as Allocator;
    allocator.malloc_trim(0);
  } catch {
    // Then it stays with the process.
  }
}
