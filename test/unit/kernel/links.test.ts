import assert from 'node:assert/strict';
import { join } from 'node:path';
import { beforeEach, describe, test } from 'node:test';
import { addedAddressFilter } from '../../../src/kernel/rtnetlink/message.js';
import { type LinkEvent, LinkWatch } from '../../../src/kernel/rtnetlink/watch.js';
import { LinkClient } from '../../../src/kernel/rtnetlink/client.js';
import { NetlinkError } from '../../../src/netlink/errors.js';
import { type NetlinkSocket } from '../../../src/netlink/socket.js';
import { formatAddress } from '../../../src/values/address.js';
import { passesFilter } from '../../fakes/classic-bpf.js';
import { FakeLinks } from '../../fakes/fake-kernel-links.js';
import { FakeKernel, FakeSocket } from '../../fakes/fake-kernel.js';
import { netlinkMessage, u32, u8 } from '../../fakes/netlink-bytes.js';
import { Replay } from '../../fakes/netlink-recording.js';
import { address, linksSession } from '../../support/netlink-sessions.js';

const RECORDING = join(import.meta.dirname, '../../../../test/fixtures/netlink/links.json');

let kernel: FakeKernel;
let links: FakeLinks;
let client: LinkClient;

beforeEach(() => {
  kernel = new FakeKernel();
  links = new FakeLinks(kernel);
  client = new LinkClient(kernel.open);
});

function codes(): string[] {
  return client.flush().map(({ operation, address: of, error }) => `${operation} ${formatAddress(of)} ${error.code}`);
}

test('says to the kernel what it said to a real one, and reads the real answers', () => {
  const replay = new Replay(RECORDING);
  const session = linksSession(replay.open);
  assert.ok(replay.finished);
  assert.deepEqual(session.addresses, replay.recording.text);
  assert.deepEqual(session.failures, ['add-address 10.96.0.3: ENODEV']);
  assert.equal(session.kind, 'dummy');
});

test('the fake kernel behaves as the real one in the same session', () => {
  const recorded = linksSession(new Replay(RECORDING).open);
  assert.deepEqual(linksSession(kernel.open), recorded);
});

describe('the dummy link', () => {
  test('is made once, down as kube-proxy leaves it, and left up where somebody set it up', () => {
    const { index, created } = client.ensureDummy('kube-ipvs0');
    assert.deepEqual([created, links.find('kube-ipvs0')?.kind], [true, 'dummy']);
    assert.deepEqual(client.ensureDummy('kube-ipvs0'), { index, created: false });
    assert.equal(client.findLink('kube-ipvs0')?.up, false);
    links.setUp('kube-ipvs0', true);
    const { messagesSent } = client.counters;
    client.ensureDummy('kube-ipvs0');
    assert.equal(client.findLink('kube-ipvs0')?.up, true);
    assert.equal(client.counters.messagesSent - messagesSent, 2);
  });

  test('made by somebody else in between is taken', () => {
    links.addLink('kube-ipvs0', 'dummy', 0);
    kernel.faults.push({ at: 'message', code: 'ENODEV' });
    assert.equal(client.ensureDummy('kube-ipvs0').created, false);
    assert.equal(links.find('kube-ipvs0')?.flags, 0);
  });

  test('without its module is refused in the kernel’s words', () => {
    links.hasDummy = false;
    assert.throws(
      () => client.ensureDummy('kube-ipvs0'),
      (error) =>
        error instanceof NetlinkError &&
        error.message === 'create dummy link kube-ipvs0: EOPNOTSUPP: Unknown device type',
    );
    assert.throws(() => client.ensureDummy('a-name-of-16-chr'), /ENAMETOOLONG/);
  });

  test('what is said of it has no byte of what was said before: the kernel would take it for a family or a type', () => {
    const heads: string[] = [];
    kernel.onSend = (datagram) => {
      const [type, body] = [datagram.readUInt16LE(4), datagram.subarray(16)];
      if (type >= 16 && type <= 18) heads.push(body.subarray(0, 4).toString('hex'));
    };
    const { index } = client.ensureDummy('kube-ipvs0');
    for (const ip of ['10.96.0.1', 'fd00::1']) client.addAddress(index, address(ip));
    client.flush();
    client.findLink('kube-ipvs0');
    client.deleteLink('kube-ipvs0');
    client.ensureDummy('kube-ipvs0');
    assert.ok(heads.length >= 6, `${heads.length}`);
    assert.deepEqual(new Set(heads), new Set(['00000000']));
  });

  test('deleted twice is gone once', () => {
    client.ensureDummy('kube-ipvs0');
    assert.deepEqual([client.deleteLink('kube-ipvs0'), client.deleteLink('kube-ipvs0')], [true, false]);
    assert.equal(client.findLink('kube-ipvs0'), undefined);
  });
});

describe('addresses', () => {
  test('that are there, or gone, already are no failures; others are named', () => {
    const { index } = client.ensureDummy('kube-ipvs0');
    for (const text of ['10.96.0.1', 'fd00::1', '10.96.0.1', 'fd00::1']) client.addAddress(index, address(text));
    client.deleteAddress(index, address('10.96.0.77'));
    client.addAddress(777, address('10.96.0.2'));
    assert.deepEqual(codes(), ['add-address 10.96.0.2 ENODEV']);
    assert.deepEqual(links.addressesOf('kube-ipvs0'), ['10.96.0.1/32', 'fd00::1/128']);
    client.deleteAddress(index, address('10.96.0.1'));
    kernel.faults.push({ at: 'message', code: 'ENOMEM' });
    assert.deepEqual(codes(), ['delete-address 10.96.0.1 ENOMEM']);
  });

  test('an unknown result stays a failure, whatever its errno', () => {
    const { index } = client.ensureDummy('kube-ipvs0');
    client.addAddress(index, address('10.96.0.1'));
    kernel.faults.push({ at: 'answer', change: () => undefined });
    const [failure] = client.flush();
    assert.equal(failure?.error.resultUnknown, true);
  });

  test('12,000 are listed by one dump, of one link or of all', () => {
    const { index } = client.ensureDummy('kube-ipvs0');
    let failed = 0;
    for (let i = 0; i < 12_000; i++) {
      if (client.addAddress(index, address(`10.97.${i >> 8}.${i & 255}`))) failed += client.flush().length;
    }
    assert.equal(failed + client.flush().length, 0);
    assert.equal(client.listAddresses(index).length, 12_000);
    const all = client.listAddresses();
    assert.equal(all.length, 12_002);
    assert.deepEqual(all.slice(0, 2), [
      { index: 1, address: address('127.0.0.1'), prefixLength: 8, scope: 254, flags: 0x80 },
      { index: 1, address: address('::1'), prefixLength: 128, scope: 254, flags: 0x80 },
    ]);
  });
});

describe('the filter for added addresses', () => {
  const message = (type: number, index: number): Buffer => {
    return netlinkMessage(type, 0, 0, 0, u8(2), u8(32), u8(0), u8(0), u32(index));
  };

  test('drops additions to its link and nothing else', () => {
    const filter = addedAddressFilter(0x01020304);
    assert.equal(passesFilter(filter, message(20, 0x01020304)), false);
    assert.equal(passesFilter(filter, message(20, 0x04030201)), true);
    assert.equal(passesFilter(filter, message(21, 0x01020304)), true);
    assert.equal(passesFilter(filter, message(16, 0x01020304)), true);
    assert.equal(passesFilter(filter, netlinkMessage(2, 0, 0, 0)), true, 'the answer that ends the wait');
  });
});

describe('the watch', () => {
  let events: string[];
  let overruns: unknown[];
  let watch: LinkWatch;
  let socket: FakeSocket;

  beforeEach(() => {
    events = [];
    overruns = [];
    const open = (protocol: number, groups?: readonly number[]): NetlinkSocket => {
      const opened = kernel.open(protocol, groups);
      assert.ok(opened instanceof FakeSocket);
      return (socket = opened);
    };
    watch = new LinkWatch(open, {
      onEvent: (event) => events.push(describeEvent(event)),
      onOverrun: (reason) => overruns.push(reason),
      onError: (error) => assert.fail(String(error)),
    });
  });

  const turn = (): Promise<void> => new Promise((resolve) => setImmediate(() => setImmediate(resolve)));

  test('tells what happens to links and addresses', async () => {
    links.addLink('eth0');
    links.addAddress('eth0', '192.0.2.1', 24);
    links.addAddress('eth0', 'fd00::1', 64);
    await turn();
    links.removeAddress('eth0', '192.0.2.1');
    links.setUp('eth0', false);
    links.deleteLink('eth0');
    await turn();
    assert.deepEqual(events, [
      'link-changed eth0 up',
      'address-added 192.0.2.1/24',
      'address-added fd00::1/64',
      'address-removed 192.0.2.1/24',
      'link-changed eth0 down',
      'address-removed fd00::1/64',
      'link-removed eth0 down',
    ]);
    await watch.close();
  });

  test('ignores what is added to one link, still sees what is removed', async () => {
    const { index } = links.addLink('kube-ipvs0', 'dummy');
    await turn();
    watch.ignoreAddressesAddedTo(index);
    links.addAddress('kube-ipvs0', '10.96.0.1', 32);
    links.addAddress('lo', '10.96.0.2', 32);
    links.removeAddress('kube-ipvs0', '10.96.0.1');
    await turn();
    assert.deepEqual(events.slice(1), ['address-added 10.96.0.2/32', 'address-removed 10.96.0.1/32']);
    await watch.close();
  });

  test('reports lost and unreadable events, and goes on', async () => {
    kernel.faults.push({ at: 'receive', code: 'EINTR' }, { at: 'receive', code: 'ENOBUFS' });
    socket.wakeReaders();
    await turn();
    assert.equal(overruns.length, 1);
    socket.deliver(Buffer.alloc(9));
    socket.deliver(netlinkMessage(20, 0, 0, 0, u8(2)));
    await turn();
    assert.equal(overruns.length, 3);
    links.addAddress('lo', '10.96.0.2', 32);
    await turn();
    assert.deepEqual(events, ['address-added 10.96.0.2/32']);
    await watch.close();
  });

  test('handles a burst without losing one', async () => {
    for (let i = 0; i < 1000; i++) links.addAddress('lo', `10.97.${i >> 8}.${i & 255}`, 32);
    while (events.length < 1000) await turn();
    assert.equal(new Set(events).size, 1000);
    await watch.close();
  });

  test('ends its wait at close, closes the socket, tells nothing more', async () => {
    const before = kernel.openSockets;
    const closed = watch.close();
    links.addLink('late');
    await closed;
    await watch.close();
    assert.deepEqual(events, []);
    assert.equal(kernel.openSockets, before - 1);
  });

  test('a socket that fails for good is an error, once', async () => {
    await watch.close();
    const errors: unknown[] = [];
    watch = new LinkWatch(kernel.open, {
      onEvent: () => assert.fail('no event'),
      onOverrun: () => assert.fail('no overrun'),
      onError: (error) => errors.push(error),
    });
    kernel.faults.push({ at: 'receive', code: 'EBADF' });
    links.addLink('eth0');
    await turn();
    assert.equal(errors.length, 1);
    await watch.close();
  });
});

function describeEvent(event: LinkEvent): string {
  if ('link' in event) return `${event.kind} ${event.link.name} ${event.link.up ? 'up' : 'down'}`;
  if ('route' in event) return `${event.kind} ${formatAddress(event.route.address)}`;
  return `${event.kind} ${formatAddress(event.address.address)}/${event.address.prefixLength}`;
}
