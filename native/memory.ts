/** What Node cannot say to the C library's allocator. */
import ffi from 'ffi-napi';

interface Allocator {
  malloc_trim(pad: number): number;
}

let allocator: Allocator | undefined;

/**
 * Gives memory that the C library has freed, and keeps in case of need, back to the kernel: after a start that is
 * several megabytes (parsed certificates, compilation). Takes about a millisecond; nothing where the C library has no
 * such call (musl).
 */
export function releaseFreedMemory(): void {
  try {
    allocator ??= ffi.Library(null, { malloc_trim: ['int', ['size_t']] }) as unknown as Allocator;
    allocator.malloc_trim(0);
  } catch {
    // Then it stays with the process.
  }
}
