/**
 * Whole tables of nf_tables: what kube-proxy's nftables mode leaves behind, and our own. No program `nft` is needed for
 * that.
 */
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
import { FAMILIES, type Family } from '../../values/address.js';
import { ChainAttribute, NFTA_TABLE_NAME, NftMessage, NftTransaction, protocolOf } from './transaction.js';

/** kube-proxy's table in nftables mode, one of each family. */
export const KUBE_PROXY_TABLE = 'kube-proxy';

/** The families that have a table of this name. Throws NetlinkError. */
export function familiesWithTable(open: OpenNetlinkSocket, name: string): Family[] {
  return withConnection(open, (connection) => FAMILIES.filter((family) => hasTable(connection, family, name)));
}

/**
 * Deletes the tables of this name of both families, with all that is in them; returns the families that had one. Throws
 * NetlinkError.
 */
export function deleteTables(open: OpenNetlinkSocket, name: string): Family[] {
  return withConnection(open, (connection) =>
    FAMILIES.filter((family) => {
      if (!hasTable(connection, family, name)) return false;
      const operation = `delete nftables table ${name} (IPv${family})`;
      new NftTransaction(connection, family, name).commit(operation, [{ verb: 'delete-table' }]);
      return true;
    }),
  );
}

/** All chains of a family, by table and name: those of iptables-nft, too. Throws NetlinkError. */
export function chainNames(open: OpenNetlinkSocket, family: Family): { table: string; chain: string }[] {
  const reader = new AttributeReader();
  return withConnection(open, (connection) =>
    connection.dump(
      {
        operation: `list nftables chains (IPv${family})`,
        type: netfilterType(NFNL_SUBSYS_NFTABLES, NftMessage.getChain),
        write: (writer) => writeNetfilterHeader(writer, protocolOf(family)),
      },
      (message, found: { table: string; chain: string }[]) => {
        const names = { table: '', chain: '' };
        const attributes = netfilterAttributes(message, reader);
        while (attributes.next())
          if (attributes.type === ChainAttribute.table) names.table = attributes.string();
          else if (attributes.type === ChainAttribute.name) names.chain = attributes.string();
        found.push(names);
      },
    ),
  );
}

function withConnection<Result>(open: OpenNetlinkSocket, action: (connection: NetlinkConnection) => Result): Result {
  const connection = new NetlinkConnection(() => open(NETLINK_NETFILTER));
  try {
    return action(connection);
  } finally {
    connection.close();
  }
}

/** False as well where the kernel has no nf_tables, or not for this family. */
function hasTable(connection: NetlinkConnection, family: Family, name: string): boolean {
  try {
    connection.request({
      operation: `find nftables table ${name}`,
      type: netfilterType(NFNL_SUBSYS_NFTABLES, NftMessage.getTable),
      write: (writer) => {
        writeNetfilterHeader(writer, protocolOf(family));
        writer.string(NFTA_TABLE_NAME, name);
      },
    });
    return true;
  } catch (error) {
    // nfnetlink answers EINVAL for a subsystem that nobody registered.
    const absent = ['ENOENT', 'EINVAL', 'EOPNOTSUPP', 'EAFNOSUPPORT'];
    if (error instanceof NetlinkError && !error.resultUnknown && absent.includes(error.code)) return false;
    throw error;
  }
}
