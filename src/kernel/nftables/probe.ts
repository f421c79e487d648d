import { NetlinkError } from '../../netlink/errors.js';
import { type OpenNetlinkSocket } from '../../netlink/socket.js';
import { type NftOperation, type NftSet, type NftTable } from '../../values/nftables.js';
import { NftClient } from './client.js';

/**
 * Why the kernel does not take this table with these sets; undefined when it does. It is made and deleted in one
 * transaction, under a name of its own: the kernel loads what it needs for it, and nothing is left. Without hooks,
 * which packets would pass before the transaction is done (nf_tables_addchain registers them at once).
 */
export function nftablesRefusal(open: OpenNetlinkSocket, table: NftTable, sets: readonly NftSet[]): string | undefined {
  const operations: NftOperation[] = [
    { verb: 'add-table' },
    ...sets.map((set): NftOperation => ({ verb: 'add-set', set })),
    ...table.chains.map(({ name }): NftOperation => ({ verb: 'add-chain', chain: { name } })),
    ...table.chains.flatMap(({ name, rules }) =>
      rules.map((rule): NftOperation => ({ verb: 'add-rule', chain: name, rule })),
    ),
    { verb: 'delete-table' },
  ];
  try {
    const client = new NftClient(open, `${table.name}-probe`);
    try {
      client.commit(table.family, 'try nftables', operations);
      return undefined;
    } finally {
      client.close();
    }
  } catch (error) {
    if (error instanceof NetlinkError) return error.message;
    throw error;
  }
}
