import { MessageWriter } from './attribute-writer.js';
import { NetlinkProtocolError } from './errors.js';

const MOST_BYTES = 512;

/**
 * Bytes of which only those differ that a packed string of fixed length decides: written once, then copied and patched,
 * which costs a fraction of writing them attribute by attribute. Where each character goes is found by writing strings
 * that differ in it alone.
 */
export class MessageTemplate {
  readonly bytes: Uint8Array;
  /** For each character in turn, the places that hold it. */
  readonly #places: readonly (readonly number[])[];

  /** `write` must put characters unchanged into the message, and nothing else may depend on them. */
  constructor(
    readonly length: number,
    write: (writer: MessageWriter, value: string) => void,
  ) {
    const written = (value: string): Uint8Array => {
      const writer = new MessageWriter(Buffer.alloc(MOST_BYTES));
      write(writer, value);
      return writer.buffer.subarray(0, writer.offset);
    };
    const blank = '\0'.repeat(length);
    this.bytes = written(blank);
    this.#places = Array.from({ length }, (_, i) =>
      differences(this.bytes, written(`${blank.slice(0, i)}\xff${blank.slice(i + 1)}`)),
    );
  }

  /** Writes the message of `value` to `buffer` from `at` on, where there is room for `bytes`. */
  copy(buffer: Uint8Array, at: number, value: string): void {
    buffer.set(this.bytes, at);
    this.patch(buffer, at, value);
  }

  /** Puts `value` into a copy of `bytes` that begins at `at`. */
  patch(buffer: Uint8Array, at: number, value: string): void {
    const places = this.#places;
    for (let i = 0; i < value.length; i++) {
      const code = value.charCodeAt(i);
      const own = places[i]!;
      for (let j = 0; j < own.length; j++) buffer[at + own[j]!] = code;
    }
  }
}

/** The offsets at which two writings of one message differ; throws NetlinkProtocolError when their lengths do. */
export function differences(a: Uint8Array, b: Uint8Array): number[] {
  if (a.length !== b.length) throw new NetlinkProtocolError('a template must not change its length');
  const places: number[] = [];
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) places.push(i);
  return places;
}
