/** kube-proxy's nftables tables: the bytes of the batch, and answers to it; nftables-real.test.ts has a real kernel. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KUBE_PROXY_TABLE, deleteTables } from '../../../src/kernel/nftables/tables.js';
import { NftTransaction } from '../../../src/kernel/nftables/transaction.js';
import { NetlinkConnection } from '../../../src/netlink/connection.js';
import { NetlinkError } from '../../../src/netlink/errors.js';
import { type NetlinkSocket } from '../../../src/netlink/socket.js';

/** struct nlmsghdr: length, type, flags, sequence, port; then struct nfgenmsg: family, version 0, be16 resource. */
function message(type: number, flags: number, sequence: number, family: number, resource: number, rest = ''): Buffer {
  const body = Buffer.concat([Buffer.from([family, 0, resource >> 8, resource & 255]), Buffer.from(rest, 'hex')]);
  const header = Buffer.alloc(16);
  header.writeUInt32LE(16 + body.length, 0);
  header.writeUInt16LE(type, 4);
  header.writeUInt16LE(flags, 6);
  header.writeUInt32LE(sequence, 8);
  return Buffer.concat([header, body]);
}

/** nlattr of NFTA_TABLE_NAME (1): length 4 + 11, type 1, `kube-proxy` and its NUL, one byte of padding. */
const NAME = `0f000100${Buffer.from('kube-proxy\0').toString('hex')}00`;

test('the batch is BEGIN and END for subsystem 10 around NFT_MSG_DELTABLE, which alone is acknowledged', () => {
  for (const [family, protocol] of [
    [4, 2],
    [6, 10],
  ] as const) {
    const { open, datagrams } = kernel({ 0x0a02: 0 });
    const connection = new NetlinkConnection(open);
    new NftTransaction(connection, family, KUBE_PROXY_TABLE).commit('delete', [{ verb: 'delete-table' }]);
    const wanted = [message(0x10, 1, 1, 0, 10), message(0x0a02, 5, 2, protocol, 0, NAME), message(0x11, 1, 3, 0, 10)];
    assert.deepEqual(datagrams, [Buffer.concat(wanted).toString('hex')]);
  }
});

/** A kernel that answers the messages of each datagram by their types with an errno; 0 is an acknowledgement. */
function kernel(errnos: Readonly<Record<number, number>>) {
  const sent: number[] = [];
  const datagrams: string[] = [];
  const open = (): NetlinkSocket => {
    const queue: Buffer[] = [];
    return {
      send: (bytes, length) => {
        const datagram = Buffer.from(bytes.subarray(0, length));
        datagrams.push(datagram.toString('hex'));
        for (let at = 0; at < length; at += datagram.readUInt32LE(at)) {
          const type = datagram.readUInt16LE(at + 4);
          sent.push(type);
          const errno = errnos[type];
          if (errno === undefined) continue;
          const answer = Buffer.alloc(36);
          answer.writeUInt32LE(36, 0);
          answer.writeUInt16LE(2, 4);
          datagram.copy(answer, 8, at + 8, at + 12);
          answer.writeInt32LE(-errno, 16);
          queue.push(answer);
        }
        return length;
      },
      receive: (bytes) => {
        const answer = queue.shift();
        if (answer === undefined) throw Object.assign(new Error('EAGAIN'), { code: 'EAGAIN' });
        bytes.set(answer);
        return answer.length;
      },
      waitReadable: () => Promise.resolve(),
      attachFilter: () => undefined,
      close: () => undefined,
    };
  };
  return { open, sent, datagrams };
}

test('nothing is deleted where there is no table, and no nf_tables at all is no error', () => {
  for (const errno of [2, 22, 95]) {
    const { open, sent } = kernel({ 0x0a01: errno });
    assert.deepEqual(deleteTables(open, KUBE_PROXY_TABLE), []);
    assert.deepEqual(sent, [0x0a01, 0x0a01]);
  }
});

test('a table that is there is deleted; a refusal of the batch or of the table is thrown', () => {
  assert.deepEqual(deleteTables(kernel({ 0x0a01: 0, 0x0a02: 0 }).open, KUBE_PROXY_TABLE), [4, 6]);
  for (const refusal of [{ 0x10: 1 }, { 0x0a02: 1 }])
    assert.throws(
      () => deleteTables(kernel({ 0x0a01: 0, ...refusal }).open, KUBE_PROXY_TABLE),
      (error) => error instanceof NetlinkError && error.code === 'EPERM' && /delete nftables table/.test(error.message),
    );
  assert.throws(
    () => deleteTables(kernel({ 0x0a01: 0 }).open, KUBE_PROXY_TABLE),
    (error) => error instanceof NetlinkError && error.resultUnknown,
  );
});
