import { AttributeReader } from '../../netlink/attribute-reader.js';
import { NetlinkConnection } from '../../netlink/connection.js';
import {
  NFNL_SUBSYS_NFTABLES,
  netfilterAttributes,
  netfilterType,
  writeNetfilterHeader,
} from '../../netlink/nfnetlink.js';
import { NETLINK_NETFILTER, type OpenNetlinkSocket } from '../../netlink/socket.js';
import { type Family } from '../../values/address.js';
import { type ChainPackets, type RuleCounters } from '../iptables/rule-counters.js';
import { NFTA_TABLE_NAME, NftMessage, RuleAttribute, protocolOf } from './transaction.js';

const NFTA_EXPR_NAME = 1;
const NFTA_EXPR_DATA = 2;
const NFTA_COUNTER_PACKETS = 2;

/** The counters of our rules in nf_tables, by one dump; chains are called there by table and name. */
export class NftRuleCounters implements RuleCounters {
  readonly keepMs = 5000;
  readonly #connection: NetlinkConnection;
  readonly #attributes = new AttributeReader();
  readonly #list = new AttributeReader();
  readonly #element = new AttributeReader();
  readonly #data = new AttributeReader();

  /** Throws NetlinkError. */
  constructor(
    open: OpenNetlinkSocket,
    readonly table: string,
  ) {
    this.#connection = new NetlinkConnection(() => open(NETLINK_NETFILTER));
  }

  /** Rejects with NetlinkError. */
  read(family: Family, table: string): Promise<ChainPackets> {
    return Promise.resolve().then(() => this.#read(family, table));
  }

  #read(family: Family, table: string): ChainPackets {
    const prefix = `${table}-`;
    const request = {
      operation: `read nftables counters (IPv${family})`,
      type: netfilterType(NFNL_SUBSYS_NFTABLES, NftMessage.getRule),
      write: (writer: Parameters<typeof writeNetfilterHeader>[0]) => {
        writeNetfilterHeader(writer, protocolOf(family));
        writer.string(NFTA_TABLE_NAME, this.table);
      },
    };
    const rules = this.#connection.dump(request, (message, found: { chain: string; packets: number }[]) => {
      const attributes = netfilterAttributes(message, this.#attributes);
      const rule = { chain: '', packets: 0 };
      while (attributes.next())
        if (attributes.type === RuleAttribute.chain) rule.chain = attributes.string();
        else if (attributes.type === RuleAttribute.expressions) rule.packets = this.#packets(attributes);
      if (rule.chain.startsWith(prefix)) found.push(rule);
    });
    const chains = new Map<string, number[]>();
    for (const { chain, packets } of rules) {
      const name = chain.slice(prefix.length);
      const counts = chains.get(name) ?? [];
      counts.push(packets);
      chains.set(name, counts);
    }
    return chains;
  }

  close(): void {
    this.#connection.close();
  }

  #packets(expressions: AttributeReader): number {
    const list = this.#list.enter(expressions);
    while (list.next()) {
      const element = this.#element.enter(list);
      let name = '';
      while (element.next()) {
        if (element.type === NFTA_EXPR_NAME) name = element.string();
        if (element.type !== NFTA_EXPR_DATA || name !== 'counter') continue;
        const data = this.#data.enter(element);
        while (data.next()) {
          if (data.type !== NFTA_COUNTER_PACKETS) continue;
          data.need(8);
          return Number(data.buffer.readBigUInt64BE(data.start));
        }
      }
    }
    return 0;
  }
}
