const NEWLINE = 0x0a;
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;

/**
 * An object this large is no Service: etcd's limit is 1.5 MiB. It bounds memory against a peer that never ends a line.
 */
const MAX_PIECE = 64 * 1024 * 1024;

/** Bytes that arrive in pieces and are wanted as one Buffer; copied once, whatever the number of pieces. */
class Pieces {
  #parts: Buffer[] = [];
  #length = 0;

  get length(): number {
    return this.#length;
  }

  add(part: Buffer): void {
    if (part.length === 0) return;
    this.#length += part.length;
    if (this.#length > MAX_PIECE) throw new RangeError(`one JSON value is larger than ${MAX_PIECE} bytes`);
    this.#parts.push(part);
  }

  /** All bytes added since the last call. */
  take(): Buffer {
    const whole = this.#parts.length === 1 ? this.#parts[0]! : Buffer.concat(this.#parts, this.#length);
    this.#parts = [];
    this.#length = 0;
    return whole;
  }
}

/** Cuts a stream of bytes at newlines; works on bytes, so a chunk may end in the middle of a character. */
export class LineSplitter {
  readonly #rest = new Pieces();

  /** The lines that `chunk` completes, without their newline and without empty ones. */
  *push(chunk: Buffer): Generator<Buffer, void> {
    let start = 0;
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, start)) {
      this.#rest.add(chunk.subarray(start, end));
      start = end + 1;
      if (this.#rest.length > 0) yield this.#rest.take();
    }
    this.#rest.add(chunk.subarray(start));
  }

  /** Bytes of a last line whose newline never came. */
  get pending(): number {
    return this.#rest.length;
  }
}

/**
 * Cuts the elements of `items` out of a Kubernetes list body as it arrives, so that a page is never held as one string
 * and one tree. What is left when the items are cut out, `{"kind":...,"metadata":{...},"items":[]}`, is `envelope()`.
 */
export class ListSplitter {
  readonly #item = new Pieces();
  readonly #envelope = new Pieces();
  #depth = 0;
  #isString = false;
  #isEscaped = false;
  /** Depth of one element of `items`; 0 outside of the array. */
  #itemDepth = 0;
  /** The last bytes before `[` at depth 1, to tell whether they are `"items":`. */
  #tail = '';

  /** The elements that `chunk` completes. */
  *push(chunk: Buffer): Generator<Buffer, void> {
    let start = 0; // of what is not yet handed to #item or #envelope
    let depth = this.#depth;
    let isString = this.#isString;
    for (let i = 0; i < chunk.length; i++) {
      const byte = chunk[i]!;
      if (isString) {
        if (this.#isEscaped) this.#isEscaped = false;
        else if (byte === BACKSLASH) this.#isEscaped = true;
        else if (byte === QUOTE) isString = false;
        continue;
      }
      if (byte === QUOTE) {
        isString = true;
      } else if (byte === OPEN_BRACE || byte === OPEN_BRACKET) {
        depth++;
        if (byte === OPEN_BRACKET && depth === 2 && this.#itemDepth === 0 && this.#isItems(chunk, start, i)) {
          this.#toEnvelope(chunk.subarray(start, i + 1));
          start = i + 1;
          this.#itemDepth = 3;
        }
      } else if (byte === CLOSE_BRACE || byte === CLOSE_BRACKET) {
        depth--;
        if (this.#itemDepth === 0) continue;
        if (depth === 2 && byte === CLOSE_BRACE) {
          this.#item.add(chunk.subarray(start, i + 1));
          start = i + 1;
          yield this.#item.take();
        } else if (depth === 1) {
          start = i;
          this.#item.take();
          this.#itemDepth = 0;
        }
      } else if (byte === COMMA && depth === 2 && this.#itemDepth !== 0) {
        if (this.#item.length > 0) this.#item.take(); // an element that is no object
        start = i + 1;
      }
    }
    this.#depth = depth;
    this.#isString = isString;
    const rest = chunk.subarray(start);
    if (this.#itemDepth === 0) this.#toEnvelope(rest);
    else if (depth > 2) this.#item.add(rest);
  }

  /** The list without its items: the bytes of a small JSON document once the body is complete. */
  envelope(): Buffer {
    return this.#envelope.take();
  }

  #isItems(chunk: Buffer, start: number, end: number): boolean {
    const text = this.#tail + chunk.subarray(Math.max(start, end - 32), end).toString('latin1');
    return /[{,\s]"items"\s*:\s*$/.test(text);
  }

  #toEnvelope(bytes: Buffer): void {
    if (bytes.length === 0) return;
    this.#tail = (this.#tail + bytes.subarray(-32).toString('latin1')).slice(-32);
    this.#envelope.add(Buffer.from(bytes)); // a copy: a view would keep its whole 64 KiB chunk alive
  }
}
