import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { describe, test } from 'node:test';
import { type Holder, InstanceLock } from '../../../src/daemon/instance-lock.js';

describe('the instance lock', () => {
  const name = `\0kube-proxy-ipvs.test.${process.pid}`;
  const forever = new AbortController().signal;

  test('held by somebody who is not root does not count, on any of its names; an instance does, and is named', async () => {
    const other = `${name}.strangers`;
    const servers = [other, `${other}.1`].map((path) => createServer().listen(path));
    await Promise.all(servers.map((server) => once(server, 'listening')));
    let peer: Holder = { pid: 7, uid: 65_534 };
    const options = { name: other, peerCredentials: () => peer, limitMs: 300 };
    const lock = await InstanceLock.tryAcquire(options);
    assert.ok(lock !== undefined, 'the third name was free');
    peer = { pid: 4711, uid: 0 };
    assert.equal(await InstanceLock.tryAcquire(options), undefined);
    const told: Holder[] = [];
    await assert.rejects(
      InstanceLock.acquire((holder) => told.push(holder), forever, options),
      /^InstanceLockError: another instance \(pid 4711\) has held this node/,
    );
    assert.deepEqual(told, [peer]);
    lock.release();
    for (const server of servers) server.close();
  });

  test('is had by one at a time; the next has it the moment it is released', async () => {
    let waits = 0;
    const first = await InstanceLock.acquire(() => waits++, forever, { name });
    assert.equal(waits, 0);
    let second: InstanceLock | undefined;
    const waiting = new Promise<void>((resolve) => {
      void InstanceLock.acquire(
        () => {
          waits++;
          resolve();
        },
        forever,
        { name },
      ).then((lock) => (second = lock));
    });
    await waiting;
    assert.deepEqual([waits, second], [1, undefined]);
    first.release();
    while (second === undefined) await new Promise((resolve) => setTimeout(resolve, 10));
    assert.equal(waits, 1);
    second.release();
  });

  test('is no longer waited for once the signal aborts', async () => {
    const held = await InstanceLock.acquire(() => undefined, forever, { name });
    const stop = new AbortController();
    await assert.rejects(InstanceLock.acquire(() => stop.abort(), stop.signal, { name }));
    await assert.rejects(InstanceLock.acquire(() => undefined, stop.signal, { name }));
    held.release();
  });
});
