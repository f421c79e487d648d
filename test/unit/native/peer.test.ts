import assert from 'node:assert/strict';
import { test } from 'node:test';
import { peerCredentials } from '../../../native/peer.js';
import { type Holder, InstanceLock } from '../../../src/daemon/instance-lock.js';

test('the kernel says who holds an abstract socket: this very process', async () => {
  const name = `\0kube-proxy-ipvs.peer.${process.pid}`;
  const seen: Holder[] = [];
  const options = {
    name,
    peerCredentials: (fd: number): Holder => {
      seen.push(peerCredentials(fd));
      return seen.at(-1)!;
    },
  };
  const lock = await InstanceLock.tryAcquire(options);
  assert.equal(await InstanceLock.tryAcquire(options), undefined);
  assert.deepEqual(seen, [{ pid: process.pid, uid: process.getuid!() }]);
  lock!.release();
  assert.throws(() => peerCredentials(-1), /cannot tell who holds/);
});
