/**
 * The tables of iptables-legacy as getsockopt gives them: struct ipt_entry and ip6t_entry one after the other
 * (include/uapi/linux/netfilter_ipv4/ip_tables.h, netfilter_ipv6/ip6_tables.h, netfilter/x_tables.h).
 */
import { readFileSync } from 'node:fs';
import { type Family } from '../../values/address.js';
import { type OpenOptionSocket, type OptionBuffer, type OptionSocket } from '../option-socket.js';

const GET_INFO = 64; // IPT_BASE_CTL, IP6T_BASE_CTL
const GET_ENTRIES = 65;
const NAME_LENGTH = 32; // XT_TABLE_MAXNAMELEN
/** struct ipt_getinfo: name, valid_hooks, hook_entry[5], underflow[5], num_entries, size. */
const INFO_LENGTH = 84;
const INFO_SIZE_AT = 80;
/** struct ipt_get_entries: name, size, padding, then the entries. */
const ENTRIES_AT = 40;
/** target_offset and next_offset (u16), and two counters of 8 bytes: packets, bytes. */
export const ENTRY_LAYOUT: Readonly<
  Record<Family, { readonly target: number; readonly next: number; readonly counters: number; readonly length: number }>
> = {
  4: { target: 88, next: 90, counters: 96, length: 112 },
  6: { target: 140, next: 142, counters: 152, length: 168 },
};
const FIRST_BUFFER = 64 * 1024;
/** A table this large is left to iptables-save, which does not block the event loop. */
const LARGEST = 16 * 1024 * 1024;

export class TableEntries {
  readonly #sockets: Readonly<Record<Family, OptionSocket>>;
  readonly #buffers = new Map<Family, OptionBuffer>();
  /** The directory of ip_tables_names and ip6_tables_names. */
  readonly #procNet: string;

  /** Throws an Error with `errno` when there is no such socket: no IPv6. */
  constructor(open: OpenOptionSocket, procNet = '/proc/net') {
    this.#procNet = procNet;
    this.#sockets = { 4: open(4), 6: open(6) };
  }

  /** The tables that exist: asking for others would make them. Undefined when that cannot be known. */
  names(family: Family): readonly string[] | undefined {
    try {
      const text = readFileSync(`${this.#procNet}/${family === 4 ? 'ip' : 'ip6'}_tables_names`, 'latin1');
      return text.split('\n').filter((name) => name !== '');
    } catch {
      return undefined;
    }
  }

  /** Valid until the next read of the family; undefined when the table is too large, gone, or replaced meanwhile. */
  read(family: Family, table: string): Buffer | undefined {
    let buffer = this.#bufferFor(family, FIRST_BUFFER);
    writeName(buffer, table, INFO_LENGTH);
    if (buffer.get(GET_INFO, INFO_LENGTH) !== 0) return undefined;
    const size = buffer.bytes.readUInt32LE(INFO_SIZE_AT);
    if (size > LARGEST) return undefined;
    buffer = this.#bufferFor(family, ENTRIES_AT + size);
    writeName(buffer, table, ENTRIES_AT + size);
    buffer.bytes.writeUInt32LE(size, NAME_LENGTH);
    // EAGAIN when the table was replaced in between.
    if (buffer.get(GET_ENTRIES, ENTRIES_AT + size) !== 0) return undefined;
    return buffer.bytes.subarray(ENTRIES_AT, ENTRIES_AT + size);
  }

  close(): void {
    this.#sockets[4].close();
    this.#sockets[6].close();
  }

  #bufferFor(family: Family, size: number): OptionBuffer {
    const known = this.#buffers.get(family);
    if (known !== undefined && known.bytes.length >= size) return known;
    const made = this.#sockets[family].buffer(Math.max(size, FIRST_BUFFER));
    this.#buffers.set(family, made);
    return made;
  }
}

/** Clears what the answer may take up, too: the kernel leaves out the bytes behind the end of a name. */
function writeName(buffer: OptionBuffer, table: string, length: number): void {
  buffer.bytes.fill(0, 0, length);
  buffer.bytes.write(table, 0, NAME_LENGTH - 1, 'latin1');
}
