/**
 * Tables of nf_tables, deleted whole: what kube-proxy's nftables mode leaves behind. No program `nft` is needed for
 * that. include/uapi/linux/netfilter/nf_tables.h and nfnetlink.h: a change is a batch, that is its messages between
 * NFNL_MSG_BATCH_BEGIN and NFNL_MSG_BATCH_END in one datagram.
 */
import { answerErrno, answerText } from '../../netlink/answer.js';
import { MessageWriter } from '../../netlink/attribute-writer.js';
import { NetlinkConnection } from '../../netlink/connection.js';
import { NetlinkError, NetlinkProtocolError, errnoNumber, socketErrorCode } from '../../netlink/errors.js';
import { NLMSG_ERROR, NLM_F_ACK, NLM_F_REQUEST } from '../../netlink/message.js';
import {
  NFNL_SUBSYS_NFTABLES,
  NFPROTO_IPV4,
  NFPROTO_IPV6,
  NFPROTO_UNSPEC,
  netfilterType,
  writeNetfilterHeader,
} from '../../netlink/nfnetlink.js';
import { NETLINK_NETFILTER, type OpenNetlinkSocket } from '../../netlink/socket.js';
import { FAMILIES, type Family } from '../../values/address.js';

const NFNL_MSG_BATCH_BEGIN = 0x10;
const NFNL_MSG_BATCH_END = 0x11;
/** enum nf_tables_msg_types */
export const TableCommand = { new: 0, get: 1, delete: 2 } as const;
const NFTA_TABLE_NAME = 1;
/** kube-proxy's table in nftables mode, one of each family. */
export const KUBE_PROXY_TABLE = 'kube-proxy';
const BATCH_BUFFER = 512;
/** res_id of struct nfgenmsg, big-endian: which subsystem the batch is for. */
const RESOURCE_AT = 2;

/** Writes the batch of one command; returns how many messages it has. The middle one asks for the acknowledgement. */
export function writeTableBatch(
  writer: MessageWriter,
  command: number,
  family: Family,
  name: string,
  sequence: number,
): number {
  const border = (type: number, at: number): void => {
    const start = writer.beginMessage(type, NLM_F_REQUEST, at);
    const header = writer.offset;
    writeNetfilterHeader(writer, NFPROTO_UNSPEC);
    writer.buffer.writeUInt16BE(NFNL_SUBSYS_NFTABLES, header + RESOURCE_AT);
    writer.endMessage(start);
  };
  border(NFNL_MSG_BATCH_BEGIN, sequence);
  const type = netfilterType(NFNL_SUBSYS_NFTABLES, command);
  const start = writer.beginMessage(type, NLM_F_REQUEST | NLM_F_ACK, sequence + 1);
  writeNetfilterHeader(writer, family === 4 ? NFPROTO_IPV4 : NFPROTO_IPV6);
  writer.string(NFTA_TABLE_NAME, name);
  writer.endMessage(start);
  border(NFNL_MSG_BATCH_END, sequence + 2);
  return 3;
}

/** The families that have a table of kube-proxy's. Throws NetlinkError. */
export function kubeProxyTables(open: OpenNetlinkSocket): Family[] {
  const connection = new NetlinkConnection(open(NETLINK_NETFILTER));
  try {
    return FAMILIES.filter((family) => hasTable(connection, family, KUBE_PROXY_TABLE));
  } finally {
    connection.close();
  }
}

/**
 * Deletes kube-proxy's tables of both families, with all that is in them; returns the families that had one. Throws
 * NetlinkError.
 */
export function deleteKubeProxyTables(open: OpenNetlinkSocket): Family[] {
  const connection = new NetlinkConnection(open(NETLINK_NETFILTER));
  try {
    return FAMILIES.filter((family) => {
      if (!hasTable(connection, family, KUBE_PROXY_TABLE)) return false;
      changeTable(connection, TableCommand.delete, family, KUBE_PROXY_TABLE);
      return true;
    });
  } finally {
    connection.close();
  }
}

/** False as well where the kernel has no nf_tables, or not for this family. */
export function hasTable(connection: NetlinkConnection, family: Family, name: string): boolean {
  try {
    connection.request({
      operation: `find nftables table ${name}`,
      type: netfilterType(NFNL_SUBSYS_NFTABLES, TableCommand.get),
      write: (writer) => {
        writeNetfilterHeader(writer, family === 4 ? NFPROTO_IPV4 : NFPROTO_IPV6);
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

/** Makes or deletes a table, which is done or not done as a whole. Throws NetlinkError. */
export function changeTable(connection: NetlinkConnection, command: number, family: Family, name: string): void {
  const operation = `${command === TableCommand.delete ? 'delete' : 'make'} nftables table ${name} (IPv${family})`;
  const writer = new MessageWriter(Buffer.alloc(BATCH_BUFFER));
  const first = connection.takeSequences(3);
  const count = writeTableBatch(writer, command, family, name, first);
  connection.sendDatagram(operation, writer.buffer, writer.offset, count);
  try {
    // A batch that is refused as a whole is answered at its beginning.
    while (
      !connection.receiveMessages((message) => {
        if (message.type !== NLMSG_ERROR || message.sequence < first || message.sequence > first + 2) return false;
        const errno = answerErrno(message);
        if (errno !== 0)
          throw new NetlinkError({ operation, errno, extAck: answerText(message), sequence: message.sequence });
        return message.sequence === first + 1;
      })
    );
  } catch (error) {
    if (error instanceof NetlinkError) throw error;
    const code = error instanceof NetlinkProtocolError ? 'EBADMSG' : socketErrorCode(error);
    if (code === undefined) throw error;
    throw new NetlinkError({ operation, errno: errnoNumber(code), resultUnknown: true, cause: error });
  }
}
