/** Rule fingerprints over a fake getsockopt that lays tables out as ip_tables and ip6_tables do. */
import { type OpenOptionSocket } from '../../../src/kernel/option-socket.js';
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import {
  GenerationFingerprints,
  TableFingerprints,
  openRuleFingerprints,
} from '../../../src/kernel/iptables/fingerprint.js';
import { type OpenNetlinkSocket } from '../../../src/netlink/socket.js';
import { FakeKernel } from '../../fakes/fake-kernel.js';
import { attribute, i32, netlinkMessage, text, u32 } from '../../fakes/netlink-bytes.js';

const EINVAL = 22;
const EAGAIN = 11;

interface Rule {
  readonly match: string;
  readonly packets: bigint;
}

/** The tables of both families; `hook` is called before each read, to change them under the reader's hands. */
class FakeTables {
  readonly tables = { 4: new Map<string, Rule[]>(), 6: new Map<string, Rule[]>() };
  hook: (option: number) => void = () => undefined;
  closed = 0;
  readonly asked: string[] = [];

  readonly open: OpenOptionSocket = (family = 4) => ({
    buffer: (size) => {
      const bytes = Buffer.alloc(size, 0xee);
      return { bytes, get: (option, length) => this.#get(family, option, bytes.subarray(0, length)) };
    },
    close: () => void this.closed++,
  });

  #get(family: 4 | 6, option: number, bytes: Buffer): number {
    this.hook(option);
    const name = bytes.toString('latin1', 0, bytes.indexOf(0));
    this.asked.push(`${family} ${name} ${option}`);
    const rules = this.tables[family].get(name);
    if (rules === undefined) return EINVAL;
    const blob = Buffer.concat(rules.map((rule) => entry(family, rule)));
    if (option === 64) {
      bytes.writeUInt32LE(blob.length, 80);
      return bytes.length === 84 ? 0 : EINVAL;
    }
    if (option !== 65 || bytes.length !== 40 + bytes.readUInt32LE(32)) return EINVAL;
    if (bytes.length !== 40 + blob.length) return EAGAIN;
    blob.copy(bytes, 40);
    return 0;
  }
}

/** struct ipt_entry or ip6t_entry, then 40 bytes for match and target. */
function entry(family: 4 | 6, { match, packets }: Rule): Buffer {
  const [next, counters, length] = family === 4 ? [90, 96, 112] : [142, 152, 168];
  const bytes = Buffer.alloc(length + 40);
  bytes.writeUInt16LE(bytes.length, next);
  bytes.writeBigUInt64LE(packets, counters);
  bytes.writeBigUInt64LE(packets * 100n, counters + 8);
  bytes.write(match, length);
  return bytes;
}

describe('iptables-legacy', () => {
  const directory = mkdtempSync(join(tmpdir(), 'fingerprint-'));
  after(() => rmSync(directory, { recursive: true }));
  const exist = (ip: string, ip6: string): void => {
    writeFileSync(join(directory, 'ip_tables_names'), ip);
    writeFileSync(join(directory, 'ip6_tables_names'), ip6);
  };
  const rule = (match: string, packets = 0n): Rule => ({ match, packets });

  test('counters do not count, rules, their order and their table do; the families are apart', () => {
    exist('filter\nnat\n', 'nat\n');
    const fake = new FakeTables();
    const rules = (...nat: Rule[]): void => {
      fake.tables[4].set('nat', nat);
      fake.tables[6].set('nat', nat);
    };
    fake.tables[4].set('filter', [rule('input')]);
    const fingerprints = new TableFingerprints(fake.open, directory);
    const now = (): [string, string] => [fingerprints.read(4)!, fingerprints.read(6)!];
    rules(rule('a'), rule('b'));
    const before = now();
    assert.notEqual(before[0], undefined);
    rules(rule('a', 7n), rule('b', 2n ** 50n));
    assert.deepEqual(now(), before);
    for (const other of [
      [rule('a')],
      [rule('a'), rule('b'), rule('c')],
      [rule('b'), rule('a')],
      [rule('a'), rule('B')],
    ]) {
      rules(...other);
      const [four, six] = now();
      assert.notEqual(four, before[0]);
      assert.notEqual(six, before[1]);
    }
    rules(rule('a'), rule('b'));
    assert.deepEqual(now(), before);
    fake.tables[4].set('filter', [rule('output')]);
    assert.notEqual(fingerprints.read(4), before[0]);
    assert.equal(fingerprints.read(6), before[1]);
    fingerprints.close();
    assert.equal(fake.closed, 2);
  });

  test('a table of many rules is read whole', () => {
    exist('nat\n', '');
    const fake = new FakeTables();
    const many = Array.from({ length: 5000 }, (_, i) => rule(`rule ${i}`));
    fake.tables[4].set('nat', many);
    const fingerprints = new TableFingerprints(fake.open, directory);
    const before = fingerprints.read(4);
    many[4999] = rule('another');
    assert.notEqual(fingerprints.read(4), before);
  });

  test('only tables that exist are asked for: asking makes the kernel load them', () => {
    exist('nat\n', '');
    const fake = new FakeTables();
    fake.tables[4].set('nat', [rule('a')]);
    const fingerprints = new TableFingerprints(fake.open, directory);
    fingerprints.read(4);
    fingerprints.read(6);
    assert.deepEqual(fake.asked, ['4 nat 64', '4 nat 65']);
  });

  test('whatever cannot be read or understood has no fingerprint', () => {
    exist('nat\n', 'nat\n');
    const fake = new FakeTables();
    const fingerprints = new TableFingerprints(fake.open, directory);
    assert.equal(fingerprints.read(4), undefined); // refused
    fake.tables[4].set('nat', [rule('a')]);
    assert.ok(fingerprints.read(4));
    fake.hook = (option) => option === 65 && fake.tables[4].set('nat', [rule('a'), rule('b')]);
    assert.equal(fingerprints.read(4), undefined); // replaced in between
    const broken = new FakeTables();
    broken.tables[4].set('nat', [rule('a')]);
    broken.tables[6] = broken.tables[4];
    const mixed = new TableFingerprints((family) => broken.open(family === 4 ? 6 : 4), directory);
    assert.equal(mixed.read(4), undefined); // not this family's layout
    assert.equal(new TableFingerprints(fake.open, join(directory, 'none')).read(4), undefined);
  });
});

describe('iptables-nft', () => {
  /** A socket that answers each request with what `answer` makes, and with its acknowledgement. */
  function socket(answer: (sequence: number) => Buffer[]): OpenNetlinkSocket {
    let queue: Buffer[] = [];
    return () => ({
      send: (bytes, length) => {
        const request = Buffer.from(bytes.subarray(0, length));
        assert.equal(request.toString('hex', 4, 8), '100a0500'); // type 10 << 8 | 16, REQUEST | ACK
        queue = answer(request.readUInt32LE(8));
        return length;
      },
      receive: (bytes) => queue.shift()!.copy(bytes),
      waitReadable: () => Promise.resolve(),
      attachFilter: () => undefined,
      close: () => undefined,
    });
  }

  const error = (sequence: number, errno: number): Buffer =>
    netlinkMessage(2, 0, sequence, 1, i32(-errno), Buffer.alloc(16));

  test('the generation is the fingerprint', () => {
    let generation = 5;
    const open = socket((sequence) => {
      const name = attribute(3, text('node'));
      const body = [Buffer.alloc(4), attribute(1, u32(generation).reverse()), name];
      return [netlinkMessage(0xa0f, 0, sequence, 1, ...body), error(sequence, 0)];
    });
    const fingerprints = new GenerationFingerprints(open);
    const before = fingerprints.read();
    assert.equal(before, 'generation 5');
    assert.equal(fingerprints.read(), before);
    generation = 0x01020304;
    assert.equal(fingerprints.read(), `generation ${0x01020304}`);
    fingerprints.close();
  });

  test('a kernel without nf_tables has none', () => {
    const fingerprints = new GenerationFingerprints(socket((sequence) => [error(sequence, EINVAL)]));
    assert.equal(fingerprints.read(), undefined);
  });
});

test('what is missing makes no fingerprints', () => {
  const { open } = new FakeKernel();
  const refuse = (): never => {
    throw new Error('no sockets today');
  };
  assert.equal(openRuleFingerprints('legacy', { netlink: open, options: undefined }), undefined);
  assert.equal(openRuleFingerprints('legacy', { netlink: open, options: refuse }), undefined);
  assert.equal(openRuleFingerprints('nft', { netlink: refuse, options: undefined }), undefined);
});
