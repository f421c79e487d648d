/** Batches and dumps against the fake kernel, with faults. */
import assert from 'node:assert/strict';
import { beforeEach, describe, test } from 'node:test';
import { NetlinkBatch } from '../../../src/netlink/batch.js';
import { NetlinkConnection } from '../../../src/netlink/connection.js';
import { NetlinkError, NetlinkProtocolError } from '../../../src/netlink/errors.js';
import { FakeKernel } from '../../fakes/fake-kernel.js';
import { netlinkMessage, u32 } from '../../fakes/netlink-bytes.js';

const PROTOCOL = 5;
const TYPE = 0x20;
const [SET, LIST] = [0, 1];

let kernel: FakeKernel;
let connection: NetlinkConnection;
/** What the fake kernel was told, in order. */
let values: number[];

beforeEach(() => {
  kernel = new FakeKernel();
  values = [];
  kernel.addFamily(PROTOCOL, (request, isDump) => {
    if (isDump) return { messages: values.map((value) => ({ type: TYPE + LIST, body: u32(value) })) };
    values.push(request.body.readUInt32LE());
    return {};
  });
  connection = new NetlinkConnection(() => kernel.open(PROTOCOL));
});

function batchOf(count: number, maxMessages = 128): NetlinkBatch<number> {
  const batch = new NetlinkBatch<number>(connection, (tag) => `set ${tag}`, { maxMessages });
  for (let i = 0; i < count; i++) {
    const writer = batch.begin(TYPE + SET, 0);
    writer.buffer.writeUInt32LE(i, writer.reserve(4));
    batch.end(i);
  }
  return batch;
}

function list(): number[] {
  return connection.dump({ operation: 'list', type: TYPE + LIST }, (message, items: number[]) => {
    items.push(message.buffer.readUInt32LE(message.start));
  });
}

function outcome(batch: NetlinkBatch<number>): string[] {
  return batch.flush().map(({ tag, error }) => `${tag} ${error.code}${error.resultUnknown ? '?' : ''}`);
}

describe('a batch', () => {
  test('is one datagram and one acknowledgement', () => {
    assert.deepEqual(batchOf(128).flush(), []);
    assert.equal(values.length, 128);
    assert.deepEqual(connection.counters, {
      messagesSent: 128,
      datagramsSent: 1,
      datagramsReceived: 1,
      dumpRetries: 0,
    });
  });

  test('names the message that failed, with errno and text, and lets the others land', () => {
    kernel.faults.push({ at: 'message', code: 'ENOMEM', skip: 2, text: 'out of luck' });
    const [failure, ...others] = batchOf(128).flush();
    assert.ok(failure);
    assert.deepEqual(others, []);
    assert.equal(failure.tag, 2);
    assert.equal(failure.error.message, 'set 2: ENOMEM: out of luck');
    assert.deepEqual([failure.error.errno, failure.error.extAck, failure.error.sequence], [12, 'out of luck', 3]);
    assert.equal(values.length, 127);
  });

  test('finds failures at the first and at the last message, and in a batch that fails as a whole', () => {
    kernel.faults.push({ at: 'message', code: 'EBUSY' }, { at: 'message', code: 'EEXIST', skip: 4 });
    assert.deepEqual(outcome(batchOf(6)), ['0 EBUSY', '5 EEXIST']);
    kernel.permitted = false;
    assert.deepEqual(outcome(batchOf(3)), ['0 EPERM', '1 EPERM', '2 EPERM']);
  });

  test('is full by messages or by bytes, and empty after flush', () => {
    assert.equal(batchOf(127).full, false);
    assert.equal(batchOf(128).full, true);
    const small = new NetlinkBatch<number>(connection, String, { bufferSize: 64, maxMessageSize: 32 });
    const template = netlinkMessage(TYPE, 1, 0, 0, u32(4), u32(5));
    assert.equal(small.append(template, 1), 0);
    assert.equal(small.full, false);
    assert.equal(small.append(template, 2), 24);
    assert.equal(small.full, true);
    assert.throws(() => small.append(netlinkMessage(TYPE, 1, 0, 0, Buffer.alloc(20)), 3), NetlinkProtocolError);
    assert.equal(small.pending, 2);
    assert.deepEqual(small.flush(), []);
    assert.deepEqual([small.pending, small.full], [0, false]);
    assert.deepEqual(values, [4, 4]);
  });

  test('drops a message that was begun and not ended', () => {
    const batch = batchOf(1);
    batch.begin(TYPE, 0).reserve(40);
    assert.deepEqual(batch.flush(), []);
    assert.deepEqual(values, [0]);
    assert.throws(() => batch.end(1), NetlinkProtocolError);
  });

  test('lost answers make results unknown, never successes', () => {
    kernel.faults.push({ at: 'receive', code: 'ENOBUFS' });
    assert.deepEqual(outcome(batchOf(3)), ['0 ENOBUFS?', '1 ENOBUFS?', '2 ENOBUFS?']);
    kernel.faults.push({ at: 'answer', change: () => undefined });
    assert.deepEqual(outcome(batchOf(2)), ['0 EAGAIN?', '1 EAGAIN?']);
    // An error that did arrive is known for what it is.
    kernel.faults.push({ at: 'message', code: 'EBUSY' }, { at: 'answer', change: (datagram) => datagram });
    kernel.faults.push({ at: 'answer', change: () => undefined });
    assert.deepEqual(outcome(batchOf(2)), ['0 EBUSY', '1 EAGAIN?']);
    assert.deepEqual(outcome(batchOf(2)), [], 'and the next batch is sound');
  });

  test('truncated datagrams and garbage make results unknown', () => {
    for (const change of [
      (datagram: Buffer) => datagram.subarray(0, 18),
      (datagram: Buffer) => datagram.subarray(0, 7),
      () => Buffer.from('garbage that is no netlink header'),
    ]) {
      kernel.faults.push({ at: 'answer', change });
      assert.deepEqual(outcome(batchOf(2)), ['0 EBADMSG?', '1 EBADMSG?']);
      assert.deepEqual(outcome(batchOf(2)), []);
    }
  });

  test('a refused send fails every message, with a result that is known', () => {
    kernel.faults.push({ at: 'send', code: 'ENOBUFS' });
    assert.deepEqual(outcome(batchOf(2)), ['0 ENOBUFS', '1 ENOBUFS']);
    assert.deepEqual(values, []);
  });

  test('a short send leaves every result unknown', () => {
    const socket = kernel.open(PROTOCOL);
    const send = socket.send.bind(socket);
    socket.send = (buffer, length) => send(buffer, length) - 1;
    connection = new NetlinkConnection(() => socket);
    assert.deepEqual(outcome(batchOf(2)), ['0 EMSGSIZE?', '1 EMSGSIZE?']);
  });

  test('EINTR is retried on both sides', () => {
    kernel.faults.push({ at: 'send', code: 'EINTR' }, { at: 'receive', code: 'EINTR' });
    assert.deepEqual(outcome(batchOf(2)), []);
    assert.deepEqual(values, [0, 1]);
    assert.deepEqual(kernel.faults, []);
  });

  test('answers to earlier requests are skipped', () => {
    const stale = netlinkMessage(2, 0, 1, 0, u32(0xffffffff), Buffer.alloc(16));
    connection.takeSequences(10);
    kernel.faults.push({ at: 'answer', change: (datagram) => Buffer.concat([stale, datagram]) });
    assert.deepEqual(outcome(batchOf(2)), []);
  });
});

describe('a request', () => {
  test('throws what the kernel answered', () => {
    const set = {
      operation: 'set it',
      type: TYPE + SET,
      write: (writer: { reserve(length: number): number }) => writer.reserve(4),
    };
    connection.request(set);
    assert.equal(values.length, 1);
    kernel.faults.push({ at: 'message', code: 'EPERM', text: 'not you' });
    assert.throws(
      () => connection.request(set),
      (error) => error instanceof NetlinkError && error.message === 'set it: EPERM: not you' && !error.resultUnknown,
    );
    kernel.faults.push({ at: 'answer', change: () => undefined });
    assert.throws(
      () => connection.request(set),
      (error) =>
        error instanceof NetlinkError &&
        error.resultUnknown &&
        error.message.endsWith(' (answer lost, result unknown)'),
    );
  });
});

describe('a dump', () => {
  beforeEach(() => {
    values = Array.from({ length: 250 }, (_, i) => i);
  });

  test('gathers all its parts', () => {
    assert.deepEqual(list(), values);
    assert.equal(connection.counters.datagramsReceived, 4);
  });

  test('starts again when interrupted, and gives up with a typed error', () => {
    kernel.faults.push({ at: 'dump' }, { at: 'dump' });
    assert.deepEqual(list(), values);
    assert.equal(connection.counters.dumpRetries, 2);
    for (let i = 0; i < 8; i++) kernel.faults.push({ at: 'dump' });
    assert.throws(
      () => list(),
      (error) => error instanceof NetlinkError && error.code === 'EINTR',
    );
    assert.deepEqual(list(), values);
  });

  test('starts again after an overrun', () => {
    kernel.faults.push({ at: 'receive', code: 'ENOBUFS' });
    assert.deepEqual(list(), values);
    assert.equal(connection.counters.dumpRetries, 1);
  });

  test('that is refused throws the errno; so does one that ends with an errno', () => {
    kernel.faults.push({ at: 'message', code: 'EPERM' });
    assert.throws(
      () => list(),
      (error) => error instanceof NetlinkError && error.code === 'EPERM',
    );
    values = [];
    kernel.faults.push({
      at: 'answer',
      change: (datagram) => {
        datagram.writeInt32LE(-12, 16);
        return datagram;
      },
    });
    assert.throws(
      () => list(),
      (error) => error instanceof NetlinkError && error.code === 'ENOMEM',
    );
  });

  test('cut short throws, and leaves nothing for the next', () => {
    for (const change of [(datagram: Buffer) => datagram.subarray(0, 1001), () => Buffer.alloc(40, 0xff)]) {
      kernel.faults.push({ at: 'answer', change });
      assert.throws(() => list(), NetlinkProtocolError);
      assert.deepEqual(list(), values);
    }
    kernel.faults.push({ at: 'answer', change: (datagram) => datagram });
    kernel.faults.push(
      { at: 'answer', change: (datagram) => datagram },
      { at: 'answer', change: (datagram) => datagram },
    );
    kernel.faults.push({ at: 'answer', change: () => undefined });
    assert.throws(
      () => list(),
      (error) => error instanceof NetlinkError && error.resultUnknown,
    );
  });

  test('whose decoder throws leaves nothing for the next', () => {
    const bad = (): never => {
      throw new NetlinkProtocolError('cannot read this');
    };
    assert.throws(() => connection.dump({ operation: 'list', type: TYPE + LIST }, bad), /cannot read this/);
    assert.deepEqual(list(), values);
  });
});
