import assert from 'node:assert/strict';
import { test } from 'node:test';
import { IpsetClient, isTemporarySet } from '../../../src/kernel/ipset/client.js';
import { IpsetError, IpsetUnavailableError, ipsetErrorName } from '../../../src/kernel/ipset/error.js';
import { IpsetListReader } from '../../../src/kernel/ipset/message.js';
import { AttributeReader } from '../../../src/netlink/attribute-reader.js';
import { NetlinkError, NetlinkProtocolError } from '../../../src/netlink/errors.js';
import { type IpsetDefinition, type IpsetEntry, type IpsetType } from '../../../src/values/ipset.js';
import { type FakeIpset } from '../../fakes/fake-kernel-ipset.js';
import { FakeNetfilter } from '../../fakes/fake-kernel-netfilter.js';
import { FakeKernel } from '../../fakes/fake-kernel.js';
import { attribute, nested, u8 } from '../../fakes/netlink-bytes.js';
import { Replay } from '../../fakes/netlink-recording.js';
import { ELEMENTS, SETS, ipsetSession, parseEntry } from '../../support/netfilter-sessions.js';

const SERVER: IpsetDefinition = SETS.server;

function fake(): { kernel: FakeKernel; ipset: FakeIpset; sent: Buffer[]; client: IpsetClient } {
  const kernel = new FakeKernel();
  const { ipset } = new FakeNetfilter(kernel);
  const sent: Buffer[] = [];
  kernel.onSend = (datagram) => void sent.push(datagram);
  return { kernel, ipset: ipset!, sent, client: new IpsetClient(kernel.open) };
}

function servers(count: number): IpsetEntry[] {
  return Array.from({ length: count }, (_, i) => parseEntry('hash:ip,port', `10.0.${i >> 8}.${i & 255},tcp:80`));
}

function isCode(code: string) {
  return (error: unknown): boolean => error instanceof IpsetError && error.code === code;
}

test('sends the bytes that the real kernel understood, and reads what it answered', () => {
  const replay = new Replay('test/fixtures/netlink/ipset.json');
  const session = ipsetSession(replay.open);
  assert.ok(replay.finished, 'the whole recording was used');
  assert.equal(session.protocol, 7);
  assert.deepEqual(session.elements, replay.recording.text);
  assert.equal(session.failures.length, 1);
  const names = session.sets.map(({ name }) => name).sort();
  assert.deepEqual(
    names,
    Object.values(SETS)
      .map(({ name }) => name as string)
      .sort(),
  );
  const ip = session.sets.find(({ name }) => name === SETS.ip.name);
  assert.deepEqual(ip, {
    name: SETS.ip.name,
    type: 'hash:ip',
    family: 4,
    revision: 5,
    maxElements: 1024,
    references: 0,
    elements: 2,
    hasTimeout: false,
  });
  const port = session.sets.find(({ name }) => name === SETS.port.name);
  assert.deepEqual(
    [port?.type, port?.family, port?.maxElements, port?.elements],
    ['bitmap:port', undefined, undefined, 3],
  );
});

test('the fake kernel holds the same conversation with the same results', () => {
  const { kernel } = fake();
  const session = ipsetSession(kernel.open);
  const { recording } = new Replay('test/fixtures/netlink/ipset.json');
  assert.deepEqual(session.elements, recording.text);
});

test('every type of element survives add and list', () => {
  const { client } = fake();
  for (const [key, definition] of Object.entries(SETS)) {
    const entries = ELEMENTS[key as keyof typeof SETS].map((text) => parseEntry(definition.type, text));
    client.createSet(definition);
    assert.deepEqual(client.addEntries(definition, entries), []);
    assert.deepEqual(client.addEntries(definition, entries), [], 'present elements are no error');
    assert.deepEqual(client.listEntries(definition).sort(), entries.sort());
    assert.deepEqual(client.deleteEntries(definition, [...entries, ...entries]), [], 'absent elements are no error');
    assert.deepEqual(client.listEntries(definition), []);
  }
});

test('thousands of elements go in one message', () => {
  const { client, sent } = fake();
  client.createSet(SERVER);
  sent.length = 0;
  assert.deepEqual(client.addEntries(SERVER, servers(1000)), []);
  assert.equal(sent.length, 1);
  assert.deepEqual(client.addEntries(SERVER, servers(10_000)), []);
  assert.ok(sent.length < 20, `${sent.length} messages`);
  assert.ok(sent.every((datagram) => datagram.length <= 0xffff));
  assert.equal(client.listEntries(SERVER).length, 10_000);
});

test('refused elements are named with set, element and errno, and all others land', () => {
  const { client, ipset } = fake();
  client.createSet(SERVER);
  const entries = servers(3000);
  let tries = 0;
  const doomed = new Set(
    [0, 1, 1500, 2998, 2999].map((i) => Buffer.from(entries[i]!.slice(3), 'latin1').toString('hex')),
  );
  ipset.refuse = (_set, element) => {
    tries++;
    return [...doomed].some((address) => element.includes(`08000140${address}`)) ? 4357 : 0;
  };
  const failures = client.addEntries(SERVER, entries);
  assert.deepEqual(
    failures.map(({ set, entry, error }) => [set, entries.indexOf(entry), error.code]),
    [0, 1, 1500, 2998, 2999].map((i) => [SERVER.name, i, 'IPSET_ERR_HASH_RANGE']),
  );
  assert.match(failures[0]!.error.message, /ipset add KUBE-CLUSTER-IP: IPSET_ERR_HASH_RANGE/);
  assert.equal(client.listEntries(SERVER).length, 2995);
  assert.ok(tries < 4000, `${tries} elements tried: nothing is sent again from the start`);
});

test('a list that is refused throughout costs few bytes more than its own', () => {
  const { client, ipset, sent } = fake();
  client.createSet(SERVER);
  ipset.refuse = () => 4357;
  sent.length = 0;
  assert.equal(client.addEntries(SERVER, servers(1000)).length, 1000);
  const bytes = sent.reduce((sum, { length }) => sum + length, 0);
  assert.ok(bytes < 1_000_000, `${bytes} bytes; without smaller messages it would be 20 MB`);
});

test('a full set is replaced by a larger one without losing an element or leaving a temporary set', () => {
  const { client, ipset } = fake();
  client.createSet(SERVER, 100);
  ipset.sets.get(SERVER.name)!.references = 3;
  const entries = servers(250);
  assert.deepEqual(client.addEntries(SERVER, entries), []);
  assert.deepEqual(client.listEntries(SERVER).sort(), entries.sort());
  assert.deepEqual(ipset.sets.get(SERVER.name)?.references, 3);
  assert.ok((ipset.sets.get(SERVER.name)?.maxElements ?? 0) >= 250);
  assert.deepEqual([...ipset.sets.keys()], [SERVER.name]);
});

test('a set that is full and cannot grow fails what did not land, and says why', () => {
  const { client, ipset } = fake();
  client.createSet(SERVER, 100);
  const replaced = client.listEntries(SERVER);
  assert.deepEqual(replaced, []);
  const entries = servers(250);
  const create = ipset.answer.bind(ipset);
  ipset.answer = (request) => ((request.type & 255) === 2 ? { error: 'ENOMEM' } : create(request));
  const failures = client.addEntries(SERVER, entries);
  assert.equal(client.listEntries(SERVER).length, 100);
  assert.equal(failures.length, 150);
  assert.ok(
    failures.every(
      ({ operation, set, error }) => operation === 'add' && set === SERVER.name && isCode('ENOMEM')(error),
    ),
  );
  const landed = new Set(client.listEntries(SERVER));
  assert.deepEqual(new Set([...landed, ...failures.map(({ entry }) => entry)]), new Set(entries));
});

test('a set whose entries expire is replaced by one in which they stay, as large as it was', () => {
  const { client, ipset } = fake();
  client.createSet(SERVER, 1000);
  client.addEntries(SERVER, servers(3));
  const present = client.listSets().find(({ name }) => name === SERVER.name)!;
  assert.equal(client.ensureSet(SERVER, { ...present, hasTimeout: true }), 'replaced');
  assert.equal(client.listEntries(SERVER).length, 3);
  assert.equal(ipset.sets.get(SERVER.name)?.maxElements, 1000);
});

test('replaceSet swaps, clears what a killed run left, and on failure leaves the set as it was', () => {
  const { client, ipset } = fake();
  client.createSet(SERVER);
  client.addEntries(SERVER, servers(5));
  client.createSet({ ...SERVER, name: `${SERVER.name}~` });
  client.replaceSet(SERVER, servers(3));
  assert.equal(client.listEntries(SERVER).length, 3);
  ipset.refuse = () => 4357;
  assert.throws(() => client.replaceSet(SERVER, servers(9)), isCode('IPSET_ERR_HASH_RANGE'));
  ipset.refuse = () => 0;
  assert.throws(() => client.replaceSet(SERVER, servers(9), 4), isCode('IPSET_ERR_HASH_FULL'));
  assert.equal(client.listEntries(SERVER).length, 3);
  assert.deepEqual([...ipset.sets.keys()], [SERVER.name]);
  assert.equal(isTemporarySet(`${SERVER.name}~`), true);
  assert.equal(isTemporarySet('others~'), false);
});

test('ensureSet creates, keeps what fits whatever its maxelem, and replaces what is of another type', () => {
  const { client, ipset } = fake();
  const present = () => client.listSets().find(({ name }) => name === SERVER.name);
  assert.equal(client.ensureSet(SERVER, present()), 'created');
  assert.equal(ipset.sets.get(SERVER.name)?.maxElements, 65_536, 'as kube-proxy makes it, for the way back');
  assert.equal(client.ensureSet(SERVER, present()), 'kept');
  client.destroySet(SERVER.name);
  client.createSet(SERVER, 1000);
  assert.equal(client.ensureSet(SERVER, present()), 'kept');
  client.destroySet(SERVER.name);
  client.createSet({ ...SERVER, family: 6 });
  assert.equal(client.ensureSet(SERVER, present()), 'replaced');
  client.destroySet(SERVER.name);
  client.createSet({ ...SERVER, type: 'hash:ip' });
  ipset.sets.get(SERVER.name)!.references = 1;
  assert.throws(() => client.ensureSet(SERVER, present()), isCode('IPSET_ERR_BUSY'));
});

test('errors carry the name of the set and of the code', () => {
  const { client, ipset } = fake();
  client.createSet(SERVER);
  assert.throws(() => client.createSet(SERVER), isCode('EEXIST'));
  ipset.sets.get(SERVER.name)!.references = 1;
  assert.throws(() => client.destroySet(SERVER.name), /KUBE-CLUSTER-IP: IPSET_ERR_BUSY: the set is in use/);
  assert.equal(client.destroySet('KUBE-ABSENT'), false);
  assert.throws(() => client.listEntries({ ...SERVER, name: 'KUBE-ABSENT' }), isCode('ENOENT'));
  ipset.revisions.delete('hash:ip');
  assert.throws(() => client.createSet(SETS.ip), /IPSET_ERR_FIND_TYPE: the kernel lacks this set type/);
  assert.equal(ipsetErrorName(4352, 'bitmap:port'), 'IPSET_ERR_BITMAP_RANGE');
  assert.equal(ipsetErrorName(4352, 'hash:ip'), 'IPSET_ERR_HASH_FULL');
  assert.equal(ipsetErrorName(4399, 'hash:ip'), 'IPSET_ERR_4399');
});

test('an old kernel speaks protocol 6; one without ipset, or without nfnetlink, says which module to load', () => {
  const old = new FakeKernel();
  new FakeNetfilter(old).ipset!.protocol = 6;
  const client = new IpsetClient(old.open);
  assert.equal(client.protocolVersion, 6);
  client.createSet(SERVER);
  assert.deepEqual(client.addEntries(SERVER, servers(1)), []);
  const none = new FakeKernel();
  new FakeNetfilter(none).ipset = undefined;
  assert.throws(
    () => new IpsetClient(none.open),
    (error) => error instanceof IpsetUnavailableError && /modprobe ip_set/.test(error.message),
  );
  const refuse = (): never => {
    throw new NetlinkError({ operation: 'open', errno: 93 });
  };
  assert.throws(() => new IpsetClient(refuse), IpsetUnavailableError);
});

test('a refused send fails its elements; a lost answer marks them as unknown; the next message works', () => {
  const { client, kernel } = fake();
  client.createSet(SERVER);
  kernel.faults.push({ at: 'send', code: 'EPERM' });
  const refused = client.addEntries(SERVER, servers(3));
  assert.deepEqual(
    refused.map(({ error }) => [error.code, error.resultUnknown]),
    Array(3).fill(['EPERM', false]),
  );
  kernel.faults.push({ at: 'receive', code: 'ENOBUFS' });
  const lost = client.addEntries(SERVER, servers(3));
  assert.deepEqual(
    lost.map(({ error }) => [error.code, error.resultUnknown]),
    Array(3).fill(['ENOBUFS', true]),
  );
  kernel.faults.push({ at: 'answer', change: (answer) => answer.subarray(0, 10), stays: true });
  const cut = client.addEntries(SERVER, servers(2));
  assert.deepEqual(
    cut.map(({ error }) => error.resultUnknown),
    [true, true],
  );
  kernel.faults.length = 0;
  assert.deepEqual(client.addEntries(SERVER, servers(3)), []);
  assert.equal(client.listEntries(SERVER).length, 3);
});

test('elements that lie or lack a part give a typed error', () => {
  const reader = new IpsetListReader();
  const read = (type: IpsetType, ...element: Buffer[]): IpsetEntry[] => {
    const entries: IpsetEntry[] = [];
    const bytes = nested(8, nested(7, ...element));
    reader.elements(new AttributeReader().reset(bytes, 0, bytes.length), type, (entry) => entries.push(entry));
    return entries;
  };
  const ip = nested(1, attribute(0x4001, Buffer.from([10, 0, 0, 1])));
  const port = attribute(0x4004, Buffer.from([0, 80]));
  assert.deepEqual(read('hash:ip,port', ip, port, attribute(7, u8(6))), [
    parseEntry('hash:ip,port', '10.0.0.1,tcp:80'),
  ]);
  const wrong: [IpsetType, Buffer[]][] = [
    ['hash:ip', []],
    ['hash:ip', [nested(1)]],
    ['hash:ip', [nested(1, attribute(0x4001, Buffer.from([10, 0])))]],
    ['hash:ip', [nested(1, attribute(0x4002, Buffer.from([10, 0, 0, 1])))]],
    ['hash:ip', [Buffer.from([200, 0, 1, 0])]],
    ['hash:ip,port', [ip]],
    ['hash:ip,port', [ip, attribute(0x4004, Buffer.from([80]))]],
    ['hash:ip,port,ip', [ip, port, attribute(7, u8(6))]],
    ['bitmap:port', [ip]],
  ];
  for (const [type, element] of wrong) assert.throws(() => read(type, ...element), NetlinkProtocolError, type);
});
