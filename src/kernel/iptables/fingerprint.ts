/**
 * Tells whether any iptables rule may have changed since the last look, without starting a program: iptables-save costs
 * a process per family, and the time to print and parse what may be tens of thousands of rules of others.
 *
 * iptables-legacy: the tables as getsockopt gives them (include/uapi/linux/netfilter_ipv4/ip_tables.h, and ipv6),
 * hashed without their packet counters. iptables-nft: the generation number of the whole rule set (NFT_MSG_GETGEN),
 * which every transaction raises.
 */
import { type OpenOptionSocket } from '../option-socket.js';
import { type OptionSocket } from '../option-socket.js';
import { type OptionBuffer } from '../option-socket.js';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { AttributeReader } from '../../netlink/attribute-reader.js';
import { NetlinkConnection } from '../../netlink/connection.js';
import { NetlinkError } from '../../netlink/errors.js';
import {
  NFNL_SUBSYS_NFTABLES,
  netfilterAttributes,
  netfilterType,
  writeNetfilterHeader,
} from '../../netlink/nfnetlink.js';
import { NETLINK_NETFILTER, type OpenNetlinkSocket } from '../../netlink/socket.js';
import { type Family } from '../../values/address.js';
import { type IptablesBackend } from './detect.js';

/** Equal fingerprints of one family: no rule changed in between. Undefined: cannot be known this time. */
export interface RuleFingerprints {
  read(family: Family): string | undefined;
  close(): void;
}

const GET_INFO = 64; // IPT_BASE_CTL, IP6T_BASE_CTL
const GET_ENTRIES = 65;
const NAME_LENGTH = 32; // XT_TABLE_MAXNAMELEN
/** struct ipt_getinfo: name, valid_hooks, hook_entry[5], underflow[5], num_entries, size. */
const INFO_LENGTH = 84;
const INFO_SIZE_AT = 80;
/** struct ipt_get_entries: name, size, padding, then the entries. */
const ENTRIES_AT = 40;
/** struct ipt_entry and ip6t_entry: next_offset (u16), and two counters of 8 bytes. */
const LAYOUT: Readonly<Record<Family, { readonly next: number; readonly counters: number; readonly length: number }>> =
  {
    4: { next: 90, counters: 96, length: 112 },
    6: { next: 142, counters: 152, length: 168 },
  };
const COUNTERS_LENGTH = 16;
const FIRST_BUFFER = 64 * 1024;
/** A table this large is left to iptables-save, which does not block the event loop. */
const LARGEST = 16 * 1024 * 1024;

/** The fingerprints of one backend; undefined when this kernel or process cannot have them. */
export function openRuleFingerprints(
  backend: IptablesBackend,
  open: { readonly netlink: OpenNetlinkSocket; readonly options: OpenOptionSocket | undefined },
): RuleFingerprints | undefined {
  try {
    if (backend === 'nft') return new GenerationFingerprints(open.netlink);
    return open.options === undefined ? undefined : new TableFingerprints(open.options);
  } catch {
    return undefined; // no nfnetlink, no IPv6: the rules are read back by iptables-save then
  }
}

/** iptables-legacy. */
export class TableFingerprints implements RuleFingerprints {
  readonly #sockets: Readonly<Record<Family, OptionSocket>>;
  readonly #buffers = new Map<Family, OptionBuffer>();

  /**
   * The directory of ip_tables_names and ip6_tables_names, the tables that exist: asking for others would make them.
   */
  readonly #procNet: string;

  constructor(
    open: OpenOptionSocket,

    procNet = '/proc/net',
  ) {
    this.#procNet = procNet;
    this.#sockets = { 4: open(4), 6: open(6) };
  }

  read(family: Family): string | undefined {
    const hash = createHash('sha256');
    let names: string;
    try {
      names = readFileSync(`${this.#procNet}/${family === 4 ? 'ip' : 'ip6'}_tables_names`, 'latin1');
    } catch {
      return undefined;
    }
    for (const name of names.split('\n').sort()) {
      if (name === '') continue;
      const entries = this.#entries(family, name);
      if (entries === undefined || !clearCounters(entries, family)) return undefined;
      hash.update(`${name}\n`).update(entries);
    }
    return hash.digest('base64');
  }

  close(): void {
    this.#sockets[4].close();
    this.#sockets[6].close();
  }

  #entries(family: Family, table: string): Buffer | undefined {
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

/** Sets every entry's counters to 0; false when this is no chain of entries. */
function clearCounters(entries: Buffer, family: Family): boolean {
  const { next, counters, length } = LAYOUT[family];
  let at = 0;
  while (at + length <= entries.length) {
    const step = entries.readUInt16LE(at + next);
    if (step < length) return false;
    entries.fill(0, at + counters, at + counters + COUNTERS_LENGTH);
    at += step;
  }
  return at === entries.length;
}

// include/uapi/linux/netfilter/nf_tables.h
const NFT_MSG_GETGEN = 16;
const NFTA_GEN_ID = 1;

/** iptables-nft: one number for all families. */
export class GenerationFingerprints implements RuleFingerprints {
  readonly #connection: NetlinkConnection;
  readonly #reader = new AttributeReader();

  constructor(open: OpenNetlinkSocket) {
    this.#connection = new NetlinkConnection(open(NETLINK_NETFILTER));
  }

  read(): string | undefined {
    let generation: string | undefined;
    try {
      this.#connection.request(
        {
          operation: 'get the generation of nf_tables',
          type: netfilterType(NFNL_SUBSYS_NFTABLES, NFT_MSG_GETGEN),
          write: (writer) => writeNetfilterHeader(writer, 0),
        },
        (message) => {
          const reader = netfilterAttributes(message, this.#reader);
          while (reader.next()) if (reader.type === NFTA_GEN_ID) generation = `generation ${reader.u32be()}`;
        },
      );
    } catch (error) {
      if (!(error instanceof NetlinkError)) throw error;
      return undefined; // no nf_tables in this kernel
    }
    return generation;
  }

  close(): void {
    this.#connection.close();
  }
}
