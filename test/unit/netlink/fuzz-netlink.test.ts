/**
 * Hostile netlink: whatever bytes come, the decoders give a value or a typed error, and never look at a byte outside of
 * what they were given. That is checked by decoding the same bytes in front of and behind different surroundings.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { FlowReader } from '../../../src/kernel/conntrack/message.js';
import { IpsetListReader } from '../../../src/kernel/ipset/message.js';
import { readDestination, readService } from '../../../src/kernel/ipvs/message.js';
import { readAddress, readLink } from '../../../src/kernel/rtnetlink/message.js';
import { answerErrno, answerText } from '../../../src/netlink/answer.js';
import { AttributeReader } from '../../../src/netlink/attribute-reader.js';
import { NetlinkProtocolError } from '../../../src/netlink/errors.js';
import { genericAttributes } from '../../../src/netlink/genetlink.js';
import { type NetlinkMessage, emptyMessage, readMessage } from '../../../src/netlink/message.js';
import { netfilterAttributes } from '../../../src/netlink/nfnetlink.js';
import { type IpsetEntry, type IpsetType } from '../../../src/values/ipset.js';
import { attribute, netlinkMessage } from '../../fakes/netlink-bytes.js';
import { type Recording } from '../../fakes/netlink-recording.js';
import { fuzzRuns, fuzzSeeds } from '../../support/fuzz-seed.js';

const RECORDED = ['ipvs', 'links', 'ipset', 'conntrack'].flatMap((name) => {
  const path = new URL(`../../../../test/fixtures/netlink/${name}.json`, import.meta.url);
  const { datagrams } = JSON.parse(readFileSync(path, 'utf8')) as Recording;
  return datagrams.filter(([direction]) => direction === '<').map(([, hex]) => Buffer.from(hex, 'hex'));
});
const SET_TYPES: readonly IpsetType[] = [
  'hash:ip',
  'hash:ip,port',
  'hash:ip,port,ip',
  'hash:ip,port,net',
  'bitmap:port',
];

/** One change of a datagram; positions and lengths wrap around, so that every value means something. */
type Mutation =
  | { readonly kind: 'byte'; readonly at: number; readonly value: number }
  | { readonly kind: 'number'; readonly at: number; readonly value: number }
  | { readonly kind: 'cut'; readonly at: number }
  | { readonly kind: 'remove' | 'repeat'; readonly at: number; readonly length: number };

const position = fc.nat(4096);
const mutation: fc.Arbitrary<Mutation> = fc.oneof(
  fc.record({ kind: fc.constant('byte' as const), at: position, value: fc.nat(255) }),
  // 16-bit numbers in steps of two: lengths and types of attributes and messages
  fc.record({
    kind: fc.constant('number' as const),
    at: position.map((at) => at & ~1),
    value: fc.oneof(fc.nat(40), fc.constantFrom(0x7fff, 0x8000, 0xffff, 0xfffc), fc.nat(0xffff)),
  }),
  fc.record({ kind: fc.constant('cut' as const), at: position }),
  fc.record({ kind: fc.constantFrom('remove' as const, 'repeat' as const), at: position, length: fc.nat(64) }),
);
/**
 * Attributes whose lengths are true and whose payloads are of any length, in each other: short ones come at the very
 * end too.
 */
const { attributes } = fc.letrec<{ attributes: Buffer; one: Buffer }>((tie) => ({
  attributes: fc.array(tie('one'), { maxLength: 4 }).map((parts) => Buffer.concat(parts)),
  one: fc
    .tuple(
      fc.nat(26),
      fc.oneof(
        { maxDepth: 4 },
        fc.uint8Array({ maxLength: 20 }).map((bytes) => Buffer.from(bytes)),
        tie('attributes'),
      ),
    )
    .map(([type, payload]) => attribute(type, payload)),
}));
const message = fc
  .tuple(fc.constantFrom(2, 3, 16, 20, 0x607, 0x100), fc.constantFrom(0, 4, 8, 16, 20), fc.nat(0x3ff), attributes)
  .map(([type, header, flags, body]) =>
    netlinkMessage(type, flags, 1, 0, Buffer.concat([Buffer.alloc(header, 2), body])),
  );
const datagram = fc.oneof(
  { weight: 3, arbitrary: message },
  { weight: 1, arbitrary: fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)) },
  {
    weight: 4,
    arbitrary: fc
      .tuple(fc.constantFrom(...RECORDED), fc.array(mutation, { maxLength: 5 }))
      .map(([bytes, mutations]) => mutations.reduce(mutate, bytes)),
  },
);

function mutate(bytes: Buffer, change: Mutation): Buffer {
  if (bytes.length < 2) return bytes;
  const at = change.at % bytes.length;
  if (change.kind === 'cut') return bytes.subarray(0, at);
  if (change.kind === 'remove') return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + change.length)]);
  if (change.kind === 'repeat')
    return Buffer.concat([bytes.subarray(0, at + change.length), bytes.subarray(at)]).subarray(0, 8192);
  const copy = Buffer.from(bytes);
  if (change.kind === 'byte') copy[at] = change.value;
  if (change.kind === 'number') copy.writeUInt16LE(change.value, Math.min(at, copy.length - 2));
  return copy;
}

/** The value, or the error's message; anything but a NetlinkProtocolError is thrown on. */
function outcome(decode: () => unknown): unknown {
  try {
    return decode();
  } catch (error) {
    if (error instanceof NetlinkProtocolError) return error.message;
    throw error;
  }
}

/** What every decoder makes of every message of a datagram that lies in `buffer` from `start` to `end`. */
function decodeAll(buffer: Buffer, start: number, end: number): unknown[] {
  const message = emptyMessage(buffer);
  const results: unknown[] = [];
  for (let offset = start; offset < end;) {
    const next = outcome(() => readMessage(message, buffer, offset, end));
    results.push(next);
    if (typeof next !== 'number') break;
    assert.ok(next > offset && next <= end, 'goes on, and not too far');
    assert.ok(message.start >= start && message.start <= message.end && message.end <= end);
    results.push(...decodeMessage(message));
    offset = next;
  }
  return results.map((result) => (typeof result === 'number' ? result - (result >= start ? start : 0) : result));
}

function decodeMessage(message: NetlinkMessage): unknown[] {
  const reader = new AttributeReader();
  const nested = new AttributeReader();
  const generic = (): AttributeReader => genericAttributes(message, reader);
  const netfilter = (): AttributeReader => netfilterAttributes(message, reader);
  const inFirst = <Result>(outer: () => AttributeReader, read: (inner: AttributeReader) => Result): unknown =>
    outcome(() => (outer().next() ? read(nested.enter(reader)) : 'empty'));
  return [
    { type: message.type, flags: message.flags, sequence: message.sequence },
    outcome(() => answerErrno(message)),
    outcome(() => answerText(message)),
    inFirst(generic, readService),
    inFirst(generic, (inner) => readDestination(inner, 4)),
    inFirst(generic, (inner) => readDestination(inner, 6)),
    outcome(() => readLink(message, reader, nested)),
    outcome(() => readAddress(message, reader)),
    outcome(() => new IpsetListReader().header(netfilter())),
    ...SET_TYPES.map((type) => outcome(() => setEntries(netfilter(), type))),
    outcome(() => flow(message)),
  ];
}

function setEntries(attributes: AttributeReader, type: IpsetType): IpsetEntry[] {
  const entries: IpsetEntry[] = [];
  new IpsetListReader().elements(attributes, type, (entry) => entries.push(entry));
  return entries;
}

function flow(message: NetlinkMessage): unknown {
  const reader = new FlowReader();
  return reader.read(message) && { ...reader.flow, identity: reader.identityOf(message).toString('hex') };
}

/** The datagram with other bytes before and after it. */
function surrounded(bytes: Buffer, filling: number): unknown[] {
  const buffer = Buffer.alloc(64 + bytes.length + 256, filling);
  bytes.copy(buffer, 64);
  return decodeAll(buffer, 64, 64 + bytes.length);
}

for (const seed of fuzzSeeds('netlink decoders')) {
  test(`no bytes make a decoder look outside its message (seed ${seed})`, () => {
    const options = { seed, numRuns: fuzzRuns(3000) };
    fc.assert(
      fc.property(datagram, (bytes) => {
        const clean = surrounded(bytes, 0);
        assert.deepEqual(surrounded(bytes, 0xff), clean);
        assert.deepEqual(surrounded(bytes, 0x04), clean);
      }),
      options,
    );
  });
}

test('the recorded datagrams decode to something: the fuzz starts from what is understood', () => {
  const values = RECORDED.flatMap((bytes) => surrounded(bytes, 0)).filter((value) => typeof value === 'object');
  const text = JSON.stringify(values);
  for (const known of ['"scheduler":"rr"', '"prefixLength"', '"hash:ip,port,net"', '"identity"'])
    assert.ok(text.includes(known), known);
});
