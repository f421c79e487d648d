/**
 * Tells whether any iptables rule may have changed since the last look, without starting a program: iptables-save costs
 * a process per family, and the time to print and parse what may be tens of thousands of rules of others.
 *
 * iptables-legacy: the tables as getsockopt gives them (include/uapi/linux/netfilter_ipv4/ip_tables.h, and ipv6),
 * hashed without their packet counters. iptables-nft: the generation number of the whole rule set (NFT_MSG_GETGEN),
 * which every transaction raises.
 */
import { type OpenOptionSocket } from '../option-socket.js';
import { createHash } from 'node:crypto';
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
import { ENTRY_LAYOUT, TableEntries } from './table-entries.js';

/** Equal fingerprints of one family: no rule changed in between. Undefined: cannot be known this time. */
export interface RuleFingerprints {
  read(family: Family): string | undefined;
  close(): void;
}

const COUNTERS_LENGTH = 16;

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
  readonly #entries: TableEntries;

  /** `procNet` is the directory of ip_tables_names and ip6_tables_names. */
  constructor(open: OpenOptionSocket, procNet?: string) {
    this.#entries = new TableEntries(open, procNet);
  }

  read(family: Family): string | undefined {
    const hash = createHash('sha256');
    const names = this.#entries.names(family);
    if (names === undefined) return undefined;
    for (const name of [...names].sort()) {
      const entries = this.#entries.read(family, name);
      if (entries === undefined || !clearCounters(entries, family)) return undefined;
      hash.update(`${name}\n`).update(entries);
    }
    return hash.digest('base64');
  }

  close(): void {
    this.#entries.close();
  }
}

/** Sets every entry's counters to 0; false when this is no chain of entries. */
function clearCounters(entries: Buffer, family: Family): boolean {
  const { next, counters, length } = ENTRY_LAYOUT[family];
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
    this.#connection = new NetlinkConnection(() => open(NETLINK_NETFILTER));
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
