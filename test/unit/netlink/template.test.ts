/** Templates: the same bytes as writing attribute by attribute, whatever the value. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { MessageWriter } from '../../../src/netlink/attribute-writer.js';
import { NetlinkProtocolError } from '../../../src/netlink/errors.js';
import { MessageTemplate } from '../../../src/netlink/message-template.js';

function write(writer: MessageWriter, value: string): void {
  const nested = writer.beginNested(7);
  writer.packed(1, value);
  writer.u32(2, 0xdeadbeef);
  writer.packed(3, value.slice(1)); // characters may stand in several places
  writer.endNested(nested);
}

test('a copied template is what writing the message gives', () => {
  const value = fc.string({
    unit: fc.integer({ min: 0, max: 255 }).map((code) => String.fromCharCode(code)),
    minLength: 6,
    maxLength: 6,
  });
  const template = new MessageTemplate(6, write);
  fc.assert(
    fc.property(fc.array(value, { minLength: 1, maxLength: 5 }), (values) => {
      const writer = new MessageWriter(Buffer.alloc(512));
      for (const one of values) write(writer, one);
      const copied = Buffer.alloc(writer.offset, 0x55);
      for (const [i, one] of values.entries()) template.copy(copied, i * template.bytes.length, one);
      assert.deepEqual(copied, writer.buffer.subarray(0, writer.offset));
    }),
  );
});

test('a message whose length depends on the value makes no template', () => {
  const uneven = (writer: MessageWriter, value: string): void => writer.packed(1, value.replaceAll('\0', ''));
  assert.throws(() => new MessageTemplate(8, uneven), NetlinkProtocolError);
});
