/** Routes that stand for VIPs: their bytes, what a dump is asked for, and what of others' news gets through. */
import assert from 'node:assert/strict';
import { beforeEach, describe, test } from 'node:test';
import { LinkClient } from '../../../src/kernel/rtnetlink/client.js';
import { vipNewsFilter } from '../../../src/kernel/rtnetlink/route-message.js';
import { type LinkEvent, LinkWatch } from '../../../src/kernel/rtnetlink/watch.js';
import { type NetlinkSocket, NETLINK_ROUTE } from '../../../src/netlink/socket.js';
import { formatAddress } from '../../../src/values/address.js';
import { passesFilter } from '../../fakes/classic-bpf.js';
import { FakeLinks } from '../../fakes/fake-kernel-links.js';
import { FakeKernel } from '../../fakes/fake-kernel.js';
import { attribute, netlinkMessage, packed, u32, u8 } from '../../fakes/netlink-bytes.js';
import { address } from '../../support/netlink-sessions.js';

const LO = 1;
const [LOCAL_TABLE, MAIN_TABLE, OURS, BGP] = [255, 254, 75, 186];
const [NEWADDR, DELADDR, NEWROUTE, DELROUTE, NEWLINK] = [20, 21, 24, 25, 16];
const [REPLACE, CREATE, REQUEST, ACK] = [0x100, 0x400, 1, 4];

let kernel: FakeKernel;
let links: FakeLinks;
let client: LinkClient;
let sent: Buffer[];

beforeEach(() => {
  kernel = new FakeKernel();
  links = new FakeLinks(kernel);
  sent = [];
  client = new LinkClient((protocol, groups): NetlinkSocket => {
    const socket = kernel.open(protocol, groups);
    const send = socket.send.bind(socket);
    socket.send = (buffer, length) => {
      sent.push(Buffer.from(buffer.subarray(0, length)));
      return send(buffer, length);
    };
    return socket;
  });
});

/** struct rtmsg for a single address in a table. */
function routeBody(text: string, protocol: number, table = LOCAL_TABLE, scope = 254, type = 2): Buffer {
  const bytes = packed(address(text));
  const header = [bytes.length === 4 ? 2 : 10, bytes.length * 8, 0, 0, table, protocol, scope, type].map(u8);
  return Buffer.concat([...header, u32(0), attribute(1, bytes), attribute(4, u32(LO)), attribute(6, u32(75))]);
}

describe('a VIP as a route', () => {
  test('is `local ADDRESS dev lo table local proto 75 scope host metric 75`, made or put in the place of another', () => {
    client.routes.add(LO, address('10.96.0.1'));
    client.routes.delete(LO, address('fd00:96::1'));
    assert.deepEqual(client.routes.flush(), []);
    const flags = CREATE | REPLACE | REQUEST;
    const added = netlinkMessage(NEWROUTE, flags, 1, 0, routeBody('10.96.0.1', OURS));
    const deleted = netlinkMessage(DELROUTE, REQUEST | ACK, 2, 0, routeBody('fd00:96::1', OURS, LOCAL_TABLE, 0));
    assert.deepEqual(sent, [Buffer.concat([added, deleted])]);
  });

  test('comes and goes as often as asked, and a refusal names it', () => {
    links.routes.refuse = (one) => (formatAddress(one) === '10.96.0.2' ? 'EINVAL' : undefined);
    for (const text of ['10.96.0.1', '10.96.0.1', '10.96.0.2', 'fd00:96::1']) client.routes.add(LO, address(text));
    const failed = client.routes.flush().map(({ operation, error }) => `${operation} ${error.message}`);
    assert.deepEqual(failed, ['add-route add-route 10.96.0.2: EINVAL']);
    assert.deepEqual(links.routes.list(), ['10.96.0.1 dev 1', 'fd00:96::1 dev 1']);
    for (const text of ['10.96.0.1', '10.96.0.1', 'fd00:96::1']) client.routes.delete(LO, address(text));
    assert.deepEqual([client.routes.flush(), links.routes.list()], [[], []]);
  });

  test('that it is gone already is the only failure that is none, and only of a removal', () => {
    const failing = (code: string): string[] => {
      client.routes.add(LO, address('10.96.0.1'));
      client.routes.delete(LO, address('10.96.0.2'));
      kernel.faults.push({ at: 'message', code, stays: true });
      const failed = client.routes.flush().map(({ operation, error }) => `${operation} ${error.code}`);
      kernel.faults.length = 0;
      return failed;
    };
    assert.deepEqual(failing('ESRCH'), ['add-route ESRCH']);
    assert.deepEqual(failing('EPERM'), ['add-route EPERM', 'delete-route EPERM']);
  });

  test('takes a page for 56 of them, and one system call', () => {
    let full = 0;
    for (let i = 0; i < 112; i++) {
      if (!client.routes.add(LO, address(`fd00:96::${(i + 1).toString(16)}`))) continue;
      full++;
      client.routes.flush();
    }
    assert.deepEqual([full, sent.length, Math.max(...sent.map(({ length }) => length)) <= 4096], [2, 2, true]);
  });

  test('is listed without what others have: another protocol, type, table or a whole range', () => {
    client.routes.add(LO, address('10.96.0.1'));
    client.routes.add(LO, address('fd00:96::1'));
    client.routes.flush();
    links.routes.put('10.96.0.9', { protocol: 99, metric: 9 });
    links.routes.put('10.96.0.8', { type: 6 });
    assert.deepEqual(
      client.routes.list().map(({ address: one, index }) => `${formatAddress(one)} ${index}`),
      ['10.96.0.1 1', 'fd00:96::1 1'],
    );
  });

  test('there are none where the kernel has no table local yet; any other refusal is one', async () => {
    const list = (family: 4 | 6): Promise<string[]> =>
      client.routes.listPaced<string[]>(
        family,
        () => [],
        (found, _index, one) => found.push(one),
        () => Promise.resolve(),
      );
    const refused = (code: 'ENOENT' | 'EPERM'): void =>
      void kernel.faults.push({ at: 'message', protocol: NETLINK_ROUTE, code });
    refused('ENOENT');
    assert.deepEqual(client.routes.list(), []);
    refused('ENOENT');
    assert.deepEqual(await list(4), []);
    refused('EPERM');
    assert.throws(() => client.routes.list(), /list routes: EPERM/);
    refused('EPERM');
    await assert.rejects(list(6), /list routes: EPERM/);
  });
});

describe('the filter of news where VIPs are routes', () => {
  const passes = (type: number, body: Buffer, flags = 0): boolean =>
    passesFilter(vipNewsFilter(7), netlinkMessage(type, flags, 0, 0, body));
  const addressBody = (index: number): Buffer => Buffer.concat([u8(2), u8(32), u8(0), u8(0), u32(index)]);

  test('passes a removal of ours, and whatever of table local took the place of another', () => {
    assert.equal(passes(DELROUTE, routeBody('10.96.0.1', OURS)), true);
    assert.equal(passes(DELROUTE, routeBody('fd00::1', OURS)), true);
    assert.equal(passes(NEWROUTE, routeBody('10.96.0.1', BGP), REPLACE | CREATE), true);
    assert.equal(passes(NEWROUTE, routeBody('10.96.0.1', 3, LOCAL_TABLE, 0, 6), REPLACE), true);
  });

  test('drops a routing daemon’s floods, the kernel’s own routes and our additions', () => {
    for (const protocol of [2, 3, 4, BGP]) {
      for (const type of [NEWROUTE, DELROUTE]) {
        assert.equal(passes(type, routeBody('192.0.2.1', protocol, MAIN_TABLE, 0, 1)), false);
        assert.equal(passes(type, routeBody('192.0.2.1', protocol)), false);
      }
      assert.equal(passes(NEWROUTE, routeBody('192.0.2.1', protocol, MAIN_TABLE, 0, 1), REPLACE), false);
    }
    assert.equal(passes(NEWROUTE, routeBody('10.96.0.1', OURS), CREATE), false);
    assert.equal(passes(DELROUTE, routeBody('10.96.0.1', OURS, MAIN_TABLE)), false);
  });

  test('passes links, and addresses of every link but the dummy', () => {
    assert.equal(passes(NEWLINK, Buffer.alloc(16)), true);
    for (const type of [NEWADDR, DELADDR]) {
      assert.equal(passes(type, addressBody(7)), false);
      assert.equal(passes(type, addressBody(2)), true);
    }
  });
});

describe('a watch of routes', () => {
  const turn = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 5));

  async function events(hearsRoutes: boolean, what: () => void): Promise<string[]> {
    const seen: LinkEvent[] = [];
    const fail = (reason: unknown): void => assert.fail(String(reason));
    const handlers = { onEvent: (event: LinkEvent) => void seen.push(event), onOverrun: fail, onError: fail };
    const watch = new LinkWatch(kernel.open, handlers, hearsRoutes);
    what();
    await turn();
    await watch.close();
    return seen.map((event) => ('route' in event ? `${event.kind} ${formatAddress(event.route.address)}` : event.kind));
  }

  const changes = (): void => {
    links.routes.put('10.96.0.1');
    links.routes.put('10.96.0.2');
    links.routes.put('10.96.0.2', { type: 6, protocol: 3 });
    links.routes.remove('10.96.0.1');
    links.routes.put('10.96.0.3', { protocol: BGP, metric: 20 });
    links.routes.remove('10.96.0.3', 20);
  };

  test('hears of ours that go and of those whose place is taken', async () => {
    assert.deepEqual(await events(true, changes), ['route-replaced 10.96.0.2', 'route-removed 10.96.0.1']);
  });

  test('is no member of the groups where VIPs are addresses', async () => {
    assert.deepEqual(await events(false, changes), []);
    assert.equal(NETLINK_ROUTE, 0);
  });
});
