/** The seam under the codecs of getsockopt: native/option-socket.ts, or a fake. */
import { type Family } from '../values/address.js';

/** One buffer that getsockopt(IPPROTO_IP or IPPROTO_IPV6, ...) fills. */
export interface OptionBuffer {
  readonly bytes: Buffer;
  /** Reads the option into `bytes`, `length` of them; returns 0 or the errno. */
  get(option: number, length: number): number;
}

export interface OptionSocket {
  buffer(size: number): OptionBuffer;
  /** Idempotent; its buffers must not be used afterwards. */
  close(): void;
}

/** Opens a socket of a family, 4 by default; throws an Error with `errno`. */
export type OpenOptionSocket = (family?: Family) => OptionSocket;
