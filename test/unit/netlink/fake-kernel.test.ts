/** The fake kernel's faults: every kind of them strikes every netlink family, once or until it is taken away. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NETLINK_GENERIC, NETLINK_NETFILTER, NETLINK_ROUTE } from '../../../src/netlink/socket.js';
import { type FakeFault } from '../../fakes/fake-kernel-faults.js';
import { attribute, netlinkMessage, splitMessages, u8 } from '../../fakes/netlink-bytes.js';
import { TestKernel } from '../../fakes/test-kernel.js';

const [REQUEST, DUMP, INTERRUPTED] = [1, 0x300, 0x10];

/** A dump of each family: all links, all virtual servers, all sets. */
const DUMPS: readonly (readonly [protocol: number, request: Buffer])[] = [
  [NETLINK_ROUTE, netlinkMessage(18, REQUEST | DUMP, 1, 0, Buffer.alloc(16))],
  [NETLINK_GENERIC, netlinkMessage(0x1f, REQUEST | DUMP, 1, 0, Buffer.from([4, 1, 0, 0]))],
  [NETLINK_NETFILTER, netlinkMessage(0x607, REQUEST | DUMP, 1, 0, Buffer.from([2, 0, 0, 0]), attribute(1, u8(7)))],
];

/** What becomes of the dump: `error CODE` at the socket, the errno in the answer, or its last flags and byte count. */
function dump(kernel: TestKernel, protocol: number, request: Buffer): string {
  const socket = kernel.open(protocol, []);
  const buffer = Buffer.alloc(65_536);
  try {
    socket.send(request, request.length);
    for (;;) {
      const datagram = buffer.subarray(0, socket.receive(buffer));
      if (datagram.length < 16) return `cut to ${datagram.length}`;
      const last = splitMessages(datagram).at(-1)!;
      if (last.type === 2) return `errno ${-last.body.readInt32LE()}`;
      if (last.type === 3) return (last.flags & INTERRUPTED) === 0 ? 'whole' : 'interrupted';
    }
  } catch (error) {
    return (error as { code: string }).code;
  } finally {
    socket.close();
  }
}

const FAULTS: readonly (readonly [fault: FakeFault, outcome: string])[] = [
  [{ at: 'message', code: 'EBUSY' }, 'errno 16'],
  [{ at: 'send', code: 'ENOMEM' }, 'ENOMEM'],
  [{ at: 'receive', code: 'ENOBUFS' }, 'ENOBUFS'],
  [{ at: 'answer', change: (datagram) => datagram.subarray(0, 9) }, 'cut to 9'],
  [{ at: 'answer', change: () => undefined }, 'EAGAIN'],
  [{ at: 'dump' }, 'interrupted'],
];

for (const [protocol, request] of DUMPS)
  for (const [fault, outcome] of FAULTS)
    test(`netlink family ${protocol}: ${fault.at} gives ${outcome}`, () => {
      const kernel = new TestKernel();
      if (outcome === 'EAGAIN') kernel.faults.push({ ...fault }, { ...fault, stays: true });
      else kernel.faults.push({ ...fault });
      kernel.faults.push({ ...fault, protocol: 99 });
      assert.equal(
        kernel.withoutFaults(() => dump(kernel, protocol, request)),
        'whole',
      );
      assert.equal(dump(kernel, protocol, request), outcome);
      kernel.faults.length = 0;
      kernel.faults.push({ ...fault, stays: true, when: () => false });
      assert.equal(dump(kernel, protocol, request), 'whole', 'it lets this one pass');
      assert.equal(kernel.faults.length, 1);
    });

test('a fault strikes once unless it stays; without permission every family refuses', () => {
  const kernel = new TestKernel();
  for (const [protocol, request] of DUMPS) {
    kernel.faults.push({ at: 'send', code: 'EINTR', protocol });
    assert.deepEqual([dump(kernel, protocol, request), dump(kernel, protocol, request)], ['EINTR', 'whole']);
    kernel.faults.push({ at: 'send', code: 'EINTR', protocol, stays: true });
    assert.deepEqual([dump(kernel, protocol, request), dump(kernel, protocol, request)], ['EINTR', 'EINTR']);
    kernel.permitted = false;
    kernel.faults.length = 0;
    assert.equal(dump(kernel, protocol, request), 'errno 1');
    kernel.permitted = true;
  }
  assert.throws(() => kernel.open(99, []), { code: 'EPROTONOSUPPORT' });
});
