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

  test('an instance on a later name is found by who gets an earlier one, and strangers on all of them keep nobody out', async () => {
    const other = `${name}.later`;
    const listen = async (path: string) => {
      const server = createServer().listen(path);
      await once(server, 'listening');
      return server;
    };
    const later = await listen(`${other}.2`);
    const instance = { name: other, peerCredentials: () => ({ pid: 4711, uid: 0 }) };
    assert.equal(await InstanceLock.tryAcquire(instance), undefined);
    const first = await listen(other); // what was tried before is free again
    first.close();
    later.close();
    const strangers = await Promise.all(
      Array.from({ length: 20 }, (_, i) => listen(i === 0 ? other : `${other}.${i}`)),
    );
    const lock = await InstanceLock.tryAcquire({ name: other, peerCredentials: () => ({ pid: 7, uid: 65_534 }) });
    assert.ok(lock !== undefined);
    lock.release();
    for (const server of strangers) server.close();
  });

  test('a name that cannot be had for another reason is an error', async () => {
    await assert.rejects(InstanceLock.tryAcquire({ name: '/nonexistent/lock' }), /EACCES|ENOENT/);
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
