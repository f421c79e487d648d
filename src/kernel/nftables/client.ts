/** Client for one table of nf_tables in each family: its chains, rules and sets, read by dumps, written at once. */
import { AttributeReader } from '../../netlink/attribute-reader.js';
import { type MessageWriter } from '../../netlink/attribute-writer.js';
import { NetlinkConnection, type NetlinkCounters, type NetlinkRequest } from '../../netlink/connection.js';
import { NetlinkError, NetlinkProtocolError } from '../../netlink/errors.js';
import { type NetlinkMessage } from '../../netlink/message.js';
import {
  NFNL_SUBSYS_NFTABLES,
  netfilterAttributes,
  netfilterType,
  writeNetfilterHeader,
} from '../../netlink/nfnetlink.js';
import { NETLINK_NETFILTER, type OpenNetlinkSocket } from '../../netlink/socket.js';
import { type Family } from '../../values/address.js';
import {
  type NftChain,
  type NftElement,
  type NftExpression,
  type NftHook,
  type NftOperation,
  type NftRule,
  type NftTable,
} from '../../values/nftables.js';
import { ExpressionReader } from './expression-codec.js';
import {
  ChainAttribute,
  ElementAttribute,
  ElementPart,
  HookAttribute,
  NFTA_LIST_ELEM,
  NFTA_TABLE_FLAGS,
  NFTA_TABLE_NAME,
  NFT_SET_ANONYMOUS,
  NFT_SET_CONCAT,
  NFT_SET_INTERVAL,
  NFT_SET_MAP,
  NFT_TABLE_F_DORMANT,
  NftMessage,
  NftTransaction,
  RuleAttribute,
  SetAttribute,
  protocolOf,
} from './transaction.js';

const NF_ACCEPT = 1;

/** A set as the kernel lists it, without its elements. */
export interface ObservedNftSet {
  readonly name: string;
  readonly keyType: number;
  readonly keyLength: number;
  readonly isInterval: boolean;
  /** True for one of other flags: a map, a set whose elements expire. */
  readonly isOdd: boolean;
  /** True for a map with a name: its elements may lead to chains. */
  readonly isMap: boolean;
}

export class NftClient {
  readonly #connection: NetlinkConnection;
  readonly #attributes = new AttributeReader();
  readonly #list = new AttributeReader();
  readonly #nested = new AttributeReader();
  readonly #expressions = new ExpressionReader();
  readonly #transactions: Readonly<Record<Family, NftTransaction>>;

  /** Every table is called `table`. Throws NetlinkError. */
  constructor(
    open: OpenNetlinkSocket,
    readonly table: string,
  ) {
    this.#connection = new NetlinkConnection(() => open(NETLINK_NETFILTER));
    this.#transactions = {
      4: new NftTransaction(this.#connection, 4, table),
      6: new NftTransaction(this.#connection, 6, table),
    };
  }

  get counters(): Readonly<NetlinkCounters> {
    return this.#connection.counters;
  }

  close(): void {
    this.#connection.close();
  }

  /** Does all of `operations` on the family's table at once, or none of it. Throws NetlinkError. */
  commit(family: Family, operation: string, operations: readonly NftOperation[]): void {
    if (operations.length > 0) this.#transactions[family].commit(operation, operations);
  }

  /** The family's table with its chains and rules; undefined when there is none. Rejects with NetlinkError. */
  async readTable(family: Family, pause: () => Promise<void>): Promise<NftTable | undefined> {
    const chains = await this.#dump(
      this.#request(family, `list nftables chains (IPv${family})`, NftMessage.getChain),
      (message, found: Map<string, NftChain & { rules: NftRule[] }>) => this.#chain(message, found),
      () => new Map<string, NftChain & { rules: NftRule[] }>(),
      pause,
    );
    const isDormant = await this.#isDormant(family, pause);
    if (chains.size === 0 && !isDormant) return undefined;
    const rules = await this.#dump(
      this.#request(family, `list nftables rules (IPv${family})`, NftMessage.getRule),
      (message, found: [string, NftRule][]) => this.#rule(message, found),
      () => [],
      pause,
    );
    for (const [chain, rule] of rules) chains.get(chain)?.rules.push(rule);
    return { family, name: this.table, chains: [...chains.values()], ...(isDormant && { isDormant }) };
  }

  async #isDormant(family: Family, pause: () => Promise<void>): Promise<boolean> {
    const flags = await this.#dump(
      this.#request(family, `list nftables tables (IPv${family})`, NftMessage.getTable),
      (message, found: number[]) => {
        const attributes = netfilterAttributes(message, this.#attributes);
        let [name, value] = ['', 0];
        while (attributes.next())
          if (attributes.type === NFTA_TABLE_NAME) name = attributes.string();
          else if (attributes.type === NFTA_TABLE_FLAGS) value = attributes.u32be();
        if (name === this.table) found.push(value);
      },
      () => [],
      pause,
    );
    return flags.some((value) => (value & NFT_TABLE_F_DORMANT) !== 0);
  }

  /** The sets of the family's table; none where there is no table. Throws NetlinkError. */
  listSets(family: Family): ObservedNftSet[] {
    const request = this.#request(family, `list nftables sets (IPv${family})`, NftMessage.getSet);
    try {
      return this.#connection.dump(request, (message, sets: ObservedNftSet[]) => {
        const set = this.#set(message);
        if (set !== undefined) sets.push(set);
      });
    } catch (error) {
      if (isAbsent(error)) return [];
      throw error;
    }
  }

  /** All elements of one set; none where there is no such set. Throws NetlinkError. */
  elementsOf(family: Family, set: string): NftElement[] {
    try {
      return this.#connection.dump(this.#elementRequest(family, set), (message, found: NftElement[]) =>
        this.#elements(message, found, (all, element) => all.push(element)),
      );
    } catch (error) {
      if (isAbsent(error)) return [];
      throw error;
    }
  }

  /**
   * Hands every element of one set to `add`, with a `pause` after each datagram; each attempt begins with what `fresh`
   * makes. Rejects with NetlinkError, ENOENT when there is no such set.
   */
  listElements<Found>(
    family: Family,
    set: string,
    fresh: () => Found,
    add: (found: Found, element: NftElement) => void,
    pause: () => Promise<void>,
  ): Promise<Found> {
    const request = this.#elementRequest(family, set);
    return this.#connection.dumpApart(request, (message, found) => this.#elements(message, found, add), fresh, pause);
  }

  #elementRequest(family: Family, set: string): NetlinkRequest {
    return this.#request(family, `list nftables set ${set}`, NftMessage.getElement, (writer) =>
      writer.string(ElementAttribute.set, set),
    );
  }

  #request(
    family: Family,
    operation: string,
    command: number,
    write?: (writer: MessageWriter) => void,
  ): NetlinkRequest {
    return {
      operation,
      type: netfilterType(NFNL_SUBSYS_NFTABLES, command),
      write: (writer) => {
        writeNetfilterHeader(writer, protocolOf(family));
        writer.string(NFTA_TABLE_NAME, this.table);
        write?.(writer);
      },
    };
  }

  /** As dumpApart; nothing is found where there is no table. */
  async #dump<Found>(
    request: NetlinkRequest,
    decode: (message: NetlinkMessage, found: Found) => void,
    fresh: () => Found,
    pause: () => Promise<void>,
  ): Promise<Found> {
    try {
      return await this.#connection.dumpApart(request, decode, fresh, pause);
    } catch (error) {
      if (isAbsent(error)) return fresh();
      throw error;
    }
  }

  #chain(message: NetlinkMessage, found: Map<string, NftChain & { rules: NftRule[] }>): void {
    const attributes = netfilterAttributes(message, this.#attributes);
    let [table, name, type, hook] = ['', '', '', undefined as { hook: number; priority: number } | undefined];
    let policy = NF_ACCEPT;
    while (attributes.next()) {
      if (attributes.type === ChainAttribute.table) table = attributes.string();
      else if (attributes.type === ChainAttribute.name) name = attributes.string();
      else if (attributes.type === ChainAttribute.type) type = attributes.string();
      else if (attributes.type === ChainAttribute.policy) policy = attributes.u32be();
      else if (attributes.type === ChainAttribute.hook) hook = this.#hook(attributes);
    }
    if (table !== this.table) return;
    // One of another policy or type is told apart by its type: it is none of ours.
    const kind = policy === NF_ACCEPT ? type : `${type} of another policy`;
    const place = hook && { hook: { type: kind as NftHook['type'], ...hook } };
    found.set(name, { name, ...place, rules: [] });
  }

  #hook(outer: AttributeReader): { hook: number; priority: number } {
    const nested = this.#nested.enter(outer);
    const found = { hook: 0, priority: 0 };
    while (nested.next()) {
      if (nested.type === HookAttribute.number) found.hook = nested.u32be();
      else if (nested.type === HookAttribute.priority) found.priority = nested.u32be() | 0;
    }
    return found;
  }

  #rule(message: NetlinkMessage, found: [string, NftRule][]): void {
    const attributes = netfilterAttributes(message, this.#attributes);
    let [table, chain] = ['', ''];
    const rule: NftExpression[] = [];
    while (attributes.next()) {
      if (attributes.type === RuleAttribute.table) table = attributes.string();
      else if (attributes.type === RuleAttribute.chain) chain = attributes.string();
      else if (attributes.type === RuleAttribute.expressions) {
        const list = this.#list.enter(attributes);
        while (list.next()) rule.push(this.#expressions.read(list));
      }
    }
    if (table === this.table) found.push([chain, rule]);
  }

  #set(message: NetlinkMessage): ObservedNftSet | undefined {
    const attributes = netfilterAttributes(message, this.#attributes);
    let [table, name, flags, keyType, keyLength] = ['', '', 0, 0, 0];
    while (attributes.next()) {
      if (attributes.type === SetAttribute.table) table = attributes.string();
      else if (attributes.type === SetAttribute.name) name = attributes.string();
      else if (attributes.type === SetAttribute.flags) flags = attributes.u32be();
      else if (attributes.type === SetAttribute.keyType) keyType = attributes.u32be();
      else if (attributes.type === SetAttribute.keyLength) keyLength = attributes.u32be();
    }
    if (table !== this.table) return undefined;
    const isInterval = (flags & NFT_SET_INTERVAL) !== 0;
    const isOdd = flags !== 0 && flags !== (NFT_SET_INTERVAL | NFT_SET_CONCAT);
    const isMap = (flags & NFT_SET_MAP) !== 0 && (flags & NFT_SET_ANONYMOUS) === 0;
    return { name, keyType, keyLength, isInterval, isOdd, isMap };
  }

  #elements<Found>(message: NetlinkMessage, found: Found, add: (found: Found, element: NftElement) => void): void {
    const attributes = netfilterAttributes(message, this.#attributes);
    while (attributes.next()) {
      if (attributes.type !== ElementAttribute.elements) continue;
      const list = this.#list.enter(attributes);
      while (list.next()) if (list.type === NFTA_LIST_ELEM) add(found, this.#element(list));
    }
  }

  #element(list: AttributeReader): NftElement {
    const parts = this.#nested.enter(list);
    let key: string | undefined;
    let end: string | undefined;
    while (parts.next()) {
      if (parts.type === ElementPart.key) key = this.#expressions.dataValue(parts);
      else if (parts.type === ElementPart.end) end = this.#expressions.dataValue(parts);
    }
    if (key === undefined) throw new NetlinkProtocolError('nftables element without a key');
    return end === undefined ? { key } : { key, end };
  }
}

/** No such table, or no nf_tables at all (of this family): nothing is there. */
function isAbsent(error: unknown): boolean {
  const absent = ['ENOENT', 'EINVAL', 'EOPNOTSUPP', 'EAFNOSUPPORT'];
  return error instanceof NetlinkError && !error.resultUnknown && absent.includes(error.code);
}
