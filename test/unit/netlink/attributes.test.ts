import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { answerErrno, answerText } from '../../../src/netlink/answer.js';
import { AttributeReader } from '../../../src/netlink/attribute-reader.js';
import { MessageWriter, NLA_F_NESTED } from '../../../src/netlink/attribute-writer.js';
import { NetlinkProtocolError } from '../../../src/netlink/errors.js';
import { writeGenericHeader } from '../../../src/netlink/genetlink.js';
import { emptyMessage, readMessage } from '../../../src/netlink/message.js';
import { attribute, i32, netlinkMessage, packed, text, u16, u16be, u32, u8 } from '../../fakes/netlink-bytes.js';

function writer(size = 256): MessageWriter {
  // Old contents must not shine through padding.
  return new MessageWriter(Buffer.alloc(size, 0xee));
}

function written(made: MessageWriter): string {
  return made.buffer.toString('hex', 0, made.offset);
}

describe('writing', () => {
  test('a message with attributes of every kind, byte for byte', () => {
    const made = writer();
    const start = made.beginMessage(0x1f, 0x605, 7);
    made.u8(1, 0xab);
    made.u16(2, 0x1234);
    made.u16be(3, 443);
    made.u32(4, 0xfffffffe);
    made.u32be(5, 0x01020304);
    made.string(6, 'rr');
    made.packed(7, '\x0a\x60\x00\x01', 16);
    const outer = made.beginNested(8 | NLA_F_NESTED);
    made.bytes(9, Buffer.from([1, 2, 3, 4, 5]));
    made.endNested(outer);
    made.endMessage(start);
    const expected = netlinkMessage(
      0x1f,
      0x605,
      7,
      0,
      attribute(1, u8(0xab)),
      attribute(2, u16(0x1234)),
      attribute(3, u16be(443)),
      attribute(4, u32(0xfffffffe)),
      attribute(5, Buffer.from([1, 2, 3, 4])),
      attribute(6, text('rr')),
      attribute(7, packed('\x0a\x60\x00\x01', 16)),
      attribute(8 | NLA_F_NESTED, attribute(9, Buffer.from([1, 2, 3, 4, 5]))),
    );
    assert.equal(written(made), expected.toString('hex'));
  });

  test('a generic header: command, version, and nothing of what was there before', () => {
    const made = writer();
    writeGenericHeader(made, 3, 2);
    assert.equal(written(made), '03020000');
  });

  test('what does not fit throws and leaves the buffer alone', () => {
    const made = writer(24);
    made.beginMessage(1, 1, 1);
    made.u32(1, 1);
    assert.throws(() => made.u8(2, 1), NetlinkProtocolError);
    assert.equal(made.offset, 24);
    assert.throws(() => writer(0x20000).raw(1, 0x10000), NetlinkProtocolError);
  });
});

describe('reading', () => {
  test('reads what was written', () => {
    const bytes = Buffer.concat([
      attribute(1, u8(9)),
      attribute(2 | NLA_F_NESTED, attribute(3, text('mh'))),
      attribute(4),
    ]);
    const reader = new AttributeReader().reset(bytes, 0, bytes.length);
    assert.ok(reader.next());
    assert.deepEqual([reader.type, reader.u8()], [1, 9]);
    assert.ok(reader.next());
    const inner = new AttributeReader().enter(reader);
    assert.ok(inner.next());
    assert.deepEqual([reader.type, inner.type, inner.string()], [2, 3, 'mh']);
    assert.ok(reader.next());
    assert.deepEqual([reader.type, reader.length], [4, 0]);
    assert.equal(reader.next(), false);
  });

  test('lying lengths and short payloads throw', () => {
    const all = (bytes: Buffer): void => {
      const reader = new AttributeReader().reset(bytes, 0, bytes.length);
      while (reader.next()) reader.u32();
    };
    const long = attribute(1, u32(1));
    long.writeUInt16LE(9);
    const tiny = attribute(1, u32(1));
    tiny.writeUInt16LE(3);
    for (const bytes of [
      long,
      tiny,
      attribute(1, u16(1)),
      attribute(1, u32(1)).subarray(0, 6),
      Buffer.from([8, 0, 1]),
    ]) {
      assert.throws(() => all(bytes), NetlinkProtocolError, bytes.toString('hex'));
    }
    assert.throws(() => new AttributeReader().reset(Buffer.alloc(4), 0, 5), NetlinkProtocolError);
  });

  test('any bytes either read inside their bounds or throw the typed error', () => {
    let [read, refused] = [0, 0];
    const small = fc.uint8Array({ maxLength: 64 });
    const structured = fc
      .array(fc.tuple(fc.integer({ min: 0, max: 12 }), fc.integer({ min: 0, max: 20 }), small), { maxLength: 5 })
      .map((parts) =>
        Buffer.concat(parts.map(([type, length, body]) => Buffer.concat([u16(length), u16(type), body]))),
      );
    fc.assert(
      fc.property(
        fc.oneof(
          small.map((bytes) => Buffer.from(bytes)),
          structured,
        ),
        (bytes) => {
          // The bytes around are not to be seen: a read beyond the end would find 0xff.
          const buffer = Buffer.concat([Buffer.alloc(16, 0xff), bytes, Buffer.alloc(16, 0xff)]);
          const [start, end] = [16, 16 + bytes.length];
          try {
            const reader = new AttributeReader().reset(buffer, start, end);
            while (reader.next()) {
              read++;
              assert.ok(reader.start >= start && reader.start <= reader.end && reader.end <= end);
              assert.ok(reader.string().length <= reader.length);
              const inner = new AttributeReader().enter(reader);
              while (inner.next()) assert.ok(inner.start >= reader.start && inner.end <= reader.end);
            }
          } catch (error) {
            refused++;
            if (!(error instanceof NetlinkProtocolError)) throw error;
          }
        },
      ),
      { numRuns: 3000, seed: 7 },
    );
    assert.ok(read > 100 && refused > 100, `${read} attributes read, ${refused} inputs refused`);
  });
});

describe('messages', () => {
  test('two in a datagram', () => {
    const datagram = Buffer.concat([netlinkMessage(20, 2, 5, 9, u8(1)), netlinkMessage(3, 2, 5, 9, i32(0))]);
    const message = emptyMessage(datagram);
    const next = readMessage(message, datagram, 0, datagram.length);
    assert.deepEqual([message.type, message.sequence, message.end - message.start, next], [20, 5, 1, 20]);
    assert.equal(readMessage(message, datagram, next, datagram.length), datagram.length);
    assert.equal(message.type, 3);
  });

  test('headers that are cut, and lengths that lie, throw', () => {
    const datagram = netlinkMessage(20, 0, 1, 1, u32(1));
    const message = emptyMessage(datagram);
    assert.throws(() => readMessage(message, datagram, 0, 15), NetlinkProtocolError);
    assert.throws(() => readMessage(message, datagram, 0, 19), NetlinkProtocolError);
    assert.throws(() => readMessage(message, datagram, 0, 21), NetlinkProtocolError);
    for (const length of [0, 15, 21, 0xffffffff]) {
      datagram.writeUInt32LE(length);
      assert.throws(() => readMessage(message, datagram, 0, 20), NetlinkProtocolError);
    }
  });

  test('the errno and the text of an error, with and without the request in it', () => {
    const request = netlinkMessage(20, 5, 3, 0, u32(1), u32(2));
    const read = (flags: number, ...body: Buffer[]): [number, string | undefined] => {
      const datagram = netlinkMessage(2, flags, 3, 0, ...body);
      const message = emptyMessage(datagram);
      readMessage(message, datagram, 0, datagram.length);
      return [answerErrno(message), answerText(message)];
    };
    const extended = attribute(1, text('Unknown device type'));
    assert.deepEqual(read(0x300, i32(-95), request.subarray(0, 16), extended), [95, 'Unknown device type']);
    assert.deepEqual(read(0x200, i32(-95), request, extended), [95, 'Unknown device type']);
    assert.deepEqual(read(0x100, i32(-17), request.subarray(0, 16)), [17, undefined]);
    assert.deepEqual(read(0, i32(0), request), [0, undefined]);
    assert.throws(() => read(0, u16(0)), NetlinkProtocolError);
    assert.throws(() => read(0x200, i32(-95), request.subarray(0, 16), extended), NetlinkProtocolError);
  });
});
