/**
 * What nf_tables holds, as plain values: a table with its chains, rules as lists of expressions, sets. Expressions are
 * those of the kernel (include/uapi/linux/netfilter/nf_tables.h), as `nft --debug=netlink` prints them. Registers are
 * counted in words of 32 bits from 0 to 15; data is packed into Latin-1 strings, as it stands in the packet.
 */
import { type Family } from './address.js';

/** The name of our table, of either family. */
export const NFTABLES_TABLE = 'kube-proxy-ipvs';

/** Where a payload begins: NFT_PAYLOAD_NETWORK_HEADER and NFT_PAYLOAD_TRANSPORT_HEADER. */
export type PayloadBase = 1 | 2;

export type NftExpression =
  | {
      readonly name: 'payload';
      readonly register: number;
      readonly base: PayloadBase;
      readonly offset: number;
      readonly length: number;
    }
  /** Loads a fact into `register`, or sets it from `source`. */
  | { readonly name: 'meta'; readonly key: number; readonly register?: number; readonly source?: number }
  | { readonly name: 'ct'; readonly key: number; readonly register: number }
  | { readonly name: 'fib'; readonly result: number; readonly flags: number; readonly register: number }
  | { readonly name: 'cmp'; readonly source: number; readonly operator: number; readonly data: string }
  | {
      readonly name: 'bitwise';
      readonly source: number;
      readonly register: number;
      readonly length: number;
      readonly mask: string;
      readonly xor: string;
    }
  | { readonly name: 'lookup'; readonly set: string; readonly source: number; readonly flags?: number }
  | { readonly name: 'immediate'; readonly register: number; readonly data: string }
  | { readonly name: 'verdict'; readonly code: number; readonly chain?: string }
  | { readonly name: 'counter' }
  | { readonly name: 'reject'; readonly type: number; readonly code?: number }
  | {
      readonly name: 'nat';
      readonly type: number;
      readonly family: number;
      readonly address?: number;
      readonly port?: number;
    }
  | { readonly name: 'masq'; readonly flags?: number }
  /** One that this program has no use for; equal to none of the others. */
  | { readonly name: 'foreign'; readonly text: string };

export type NftRule = readonly NftExpression[];

/** Where a base chain stands; its policy is to accept. */
export interface NftHook {
  readonly type: 'filter' | 'nat';
  /** NF_INET_PRE_ROUTING (0), LOCAL_IN, FORWARD, LOCAL_OUT, POST_ROUTING (4). */
  readonly hook: number;
  readonly priority: number;
}

export interface NftChain {
  readonly name: string;
  /** Undefined for one that other chains jump to. */
  readonly hook?: NftHook;
  readonly rules: readonly NftRule[];
}

/** The chains of one table. */
export interface NftTable {
  readonly family: Family;
  readonly name: string;
  readonly chains: readonly NftChain[];
  /** None of its chains sees a packet (NFT_TABLE_F_DORMANT). */
  readonly isDormant?: boolean;
}

/** One field of a set's key: the datatype by which `nft list` prints it, and its length in bytes. */
export interface NftKeyField {
  readonly datatype: number;
  readonly length: number;
}

export interface NftSet {
  readonly name: string;
  /** More than one: each is padded to four bytes. */
  readonly key: readonly NftKeyField[];
  /** Elements are ranges: of the last field, between two keys. */
  readonly isInterval: boolean;
}

/** An element of a set; `end` is there where the set's elements are ranges: the last key that belongs to it. */
export interface NftElement {
  readonly key: string;
  readonly end?: string;
}

/** One step of a transaction on one table. */
export type NftOperation =
  | { readonly verb: 'add-table' | 'delete-table' }
  /** Ends that the table is dormant; in a transaction of its own, since none may add base chains as well. */
  | { readonly verb: 'wake-table' }
  /** Removes all rules of all chains. */
  | { readonly verb: 'flush-rules' }
  | { readonly verb: 'add-chain'; readonly chain: Omit<NftChain, 'rules'> }
  /** Removes all rules of a chain. */
  | { readonly verb: 'flush-chain' | 'delete-chain'; readonly name: string }
  | { readonly verb: 'add-rule'; readonly chain: string; readonly rule: NftRule }
  | { readonly verb: 'add-set'; readonly set: NftSet }
  | { readonly verb: 'delete-set'; readonly name: string }
  | {
      readonly verb: 'add-elements' | 'delete-elements';
      readonly set: string;
      readonly elements: readonly NftElement[];
    };
