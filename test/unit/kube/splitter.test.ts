import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { LineSplitter, ListSplitter } from '../../../src/kube/json-splitter.js';
import { parseJson } from '../../../src/kube/wire.js';

/** Cuts `bytes` at the given places (taken modulo the length), however they fall. */
function chunks(bytes: Buffer, cuts: readonly number[]): Buffer[] {
  const at = [...new Set(cuts.map((cut) => cut % (bytes.length + 1)))].sort((a, b) => a - b);
  return [0, ...at].map((start, i) => bytes.subarray(start, at[i] ?? bytes.length));
}

const cuts = fc.array(fc.nat(), { maxLength: 40 });
const text = fc.string({ unit: 'binary' });

test('lines come out whole, wherever the chunks are cut (also inside of a character)', () => {
  fc.assert(
    fc.property(fc.array(fc.jsonValue({ maxDepth: 3 })), cuts, (values, places) => {
      const body = Buffer.from(values.map((value) => `${JSON.stringify(value)}\n`).join(''));
      const splitter = new LineSplitter();
      const lines = chunks(body, places).flatMap((chunk) => [...splitter.push(chunk)].map((line) => line.toString()));
      assert.deepEqual(
        lines,
        values.map((value) => JSON.stringify(value)),
      );
      assert.equal(splitter.pending, 0);
    }),
  );
});

test('a line of 8 MB in 64 KiB chunks comes out whole, and what follows too', () => {
  const line = JSON.stringify({ padding: 'ä'.repeat(4_000_000) });
  const body = Buffer.from(`${line}\n{"next":1}\n{"half`);
  const splitter = new LineSplitter();
  const lines: Buffer[] = [];
  for (let i = 0; i < body.length; i += 65_536) lines.push(...splitter.push(body.subarray(i, i + 65_536)));
  assert.equal(lines.length, 2);
  assert.equal(lines[0]!.toString(), line);
  assert.equal(splitter.pending, 6);
});

test('a line that never ends is refused before it fills the memory', () => {
  const splitter = new LineSplitter();
  const chunk = Buffer.alloc(1024 * 1024, 0x78);
  assert.throws(() => {
    for (let i = 0; i < 100; i++) assert.deepEqual([...splitter.push(chunk)], []);
  }, RangeError);
});

test('items are cut out of any list, the rest stays a list with its metadata', () => {
  const item = fc.dictionary(text, fc.jsonValue({ maxDepth: 2 }));
  const extra = fc.dictionary(
    fc.oneof(text, fc.constantFrom('x"items"', 'Items', 'items ')),
    fc.oneof(fc.array(fc.jsonValue({ maxDepth: 1 })), fc.constant({ items: [{ inner: 1 }] }), text),
    { maxKeys: 3 },
  );
  fc.assert(
    fc.property(
      fc.array(item),
      extra,
      extra,
      cuts,
      fc.constantFrom(undefined, 1),
      (items, before, after, places, indent) => {
        const list = { ...before, kind: 'FooList', items, metadata: { resourceVersion: '7' }, ...after };
        if (Object.hasOwn(before, 'items') || Object.hasOwn(after, 'items')) return;
        const body = Buffer.from(JSON.stringify(list, undefined, indent));
        const splitter = new ListSplitter();
        const found = chunks(body, places).flatMap((chunk) =>
          [...splitter.push(chunk)].map((bytes) => JSON.parse(bytes.toString()) as unknown),
        );
        assert.deepEqual(found, JSON.parse(JSON.stringify(items)));
        assert.deepEqual(
          JSON.parse(splitter.envelope().toString()),
          JSON.parse(JSON.stringify({ ...list, items: [] })),
        );
      },
    ),
  );
});

test('a truncated list leaves an envelope that does not parse', () => {
  const body = Buffer.from('{"kind":"FooList","metadata":{"resourceVersion":"7"},"items":[{"a":1},{"b":2}]}');
  for (let length = 1; length < body.length; length++) {
    const splitter = new ListSplitter();
    for (const item of splitter.push(body.subarray(0, length))) JSON.parse(item.toString());
    assert.throws(() => JSON.parse(splitter.envelope().toString()) as unknown, SyntaxError, `cut at ${length}`);
  }
});

test('elements that are no objects are left out, wherever the chunks are cut, and spoil none of the others', () => {
  const body = Buffer.from('{"items":[[1,[2]],{"a":1},"text",3,[{}],{"b":[4]},[5]],"metadata":{},"items":[{"c":6}]}');
  for (const size of [1, 2, 3, 5, 8, body.length]) {
    const splitter = new ListSplitter();
    const found: string[] = [];
    for (let at = 0; at < body.length; at += size)
      for (const item of splitter.push(body.subarray(at, at + size))) found.push(item.toString());
    assert.deepEqual(found, ['{"a":1}', '{"b":[4]}', '{"c":6}'], `in pieces of ${size}`);
  }
});

test('random bytes never make the splitters throw anything but their size limit', () => {
  const bytes = fc.array(fc.constantFrom(...Buffer.from('{}[],:"\\ns items1\n')), { maxLength: 300 });
  fc.assert(
    fc.property(bytes, cuts, (values, places) => {
      const body = Buffer.from(values);
      const [lines, list] = [new LineSplitter(), new ListSplitter()];
      let count = 0;
      for (const chunk of chunks(body, places)) count += [...lines.push(chunk), ...list.push(chunk)].length;
      assert.ok(count + list.envelope().length <= 2 * body.length + 1);
    }),
  );
});

test('managedFields are dropped before parsing, and nothing else', () => {
  const withoutManaged = (value: unknown): unknown =>
    JSON.parse(JSON.stringify(value), function (this: unknown, key: string, inner: unknown) {
      return key === 'managedFields' && Array.isArray(inner) ? [] : inner;
    }) as unknown;
  fc.assert(
    fc.property(fc.array(fc.jsonValue({ maxDepth: 3 })), text, (managedFields, note) => {
      const object = {
        metadata: { name: note, managedFields, annotations: { a: '"managedFields":[{' } },
        spec: [note],
      };
      const parsed = parseJson('test', Buffer.from(JSON.stringify(object)));
      assert.deepEqual((parsed as { spec: unknown }).spec, [note]);
      assert.deepEqual(withoutManaged(parsed), withoutManaged(object));
    }),
  );
});
