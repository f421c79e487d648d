import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';
import { join } from 'node:path';
import { IpvsClient, IpvsUnavailableError } from '../../../src/kernel/ipvs/client.js';
import { NetlinkError } from '../../../src/netlink/errors.js';
import { NETLINK_GENERIC, type NetlinkSocket } from '../../../src/netlink/socket.js';
import { addressServerKey, fwmarkServerKey } from '../../../src/values/virtual-server.js';
import { FakeIpvs } from '../../fakes/fake-kernel-ipvs.js';
import { FakeKernel } from '../../fakes/fake-kernel.js';
import { attribute, netlinkMessage, packed, text, u16, u16be, u32 } from '../../fakes/netlink-bytes.js';
import { Replay } from '../../fakes/netlink-recording.js';
import { IPVS_FAILURES, RR, SERVERS, address, ipvsSession, real } from '../../support/netlink-sessions.js';

const FIXTURES = join(import.meta.dirname, '../../../../test/fixtures/netlink');
const FAMILY = 0x1f;

let kernel: FakeKernel;
let ipvs: FakeIpvs;
let client: IpvsClient;

beforeEach(() => {
  kernel = new FakeKernel();
  ipvs = new FakeIpvs(kernel);
  client = new IpvsClient(kernel.open);
});

test('says to the kernel what it said to a real one, and reads the real answers', () => {
  const replay = new Replay(join(FIXTURES, 'ipvs.json'));
  const session = ipvsSession(replay.open);
  assert.ok(replay.finished);
  assert.deepEqual(session.lines, replay.recording.text);
  assert.deepEqual(session.failures, IPVS_FAILURES);
  assert.deepEqual(session.timeouts[1], { tcp: 800, tcpFin: 120, udp: 200 });
  assert.equal(session.info.version, '1.2.1');
});

test('the fake kernel behaves as the real one in the same session', () => {
  const { recording } = new Replay(join(FIXTURES, 'ipvs.json'));
  const session = ipvsSession(kernel.open);
  assert.deepEqual(session.lines, recording.text);
  assert.deepEqual(session.failures, IPVS_FAILURES);
});

test('adding a server and its real server, byte for byte', () => {
  const sent: string[] = [];
  const socket = (protocol: number): NetlinkSocket => {
    const opened = kernel.open(protocol);
    const send = opened.send.bind(opened);
    opened.send = (buffer, length) => {
      sent.push(Buffer.from(buffer.subarray(0, length)).toString('hex'));
      return send(buffer, length);
    };
    return opened;
  };
  client = new IpvsClient(socket);
  const key = addressServerKey('SCTP', address('fd00::1'), 443);
  client.addVirtualServer(key, { scheduler: 'mh', flags: 0x19, timeout: 10_800 });
  client.addRealServer(key, real('fd00::2', 8443), 5);
  assert.deepEqual(client.flush(), []);
  const service = [
    attribute(1, u16(10)),
    attribute(2, u16(132)),
    attribute(3, packed(address('fd00::1'))),
    attribute(4, u16be(443)),
  ];
  const settings = [
    attribute(6, text('mh')),
    attribute(7, u32(0x19), u32(0xffffffff)),
    attribute(8, u32(10_800)),
    attribute(9, u32(128)),
  ];
  const destination = [
    attribute(1, packed(address('fd00::2'))),
    attribute(2, u16be(8443)),
    attribute(3, u32(0)),
    attribute(4, u32(5)),
    attribute(5, u32(0)),
    attribute(6, u32(0)),
  ];
  const expected = Buffer.concat([
    netlinkMessage(FAMILY, 1, 2, 0, Buffer.from([1, 1, 0, 0]), attribute(1, ...service, ...settings)),
    netlinkMessage(FAMILY, 5, 3, 0, Buffer.from([5, 1, 0, 0]), attribute(1, ...service), attribute(2, ...destination)),
  ]);
  assert.equal(sent.at(-1), expected.toString('hex'));
});

test('one template serves many virtual servers, families and operations in turn', () => {
  const keys = [SERVERS.tcp, SERVERS.udp6, SERVERS.mark4, SERVERS.tcp, SERVERS.mark6, SERVERS.udp6];
  for (const key of new Set(keys)) client.addVirtualServer(key, RR);
  for (const [i, key] of keys.entries()) {
    const isIPv6 = key === SERVERS.udp6 || key === SERVERS.mark6;
    const server = real(isIPv6 ? `fd00::${i + 1}` : `10.0.0.${i + 1}`, 1000 + i);
    client.addRealServer(key, server, i);
    if (i === 1) client.setRealServer(key, server, 50);
    if (i === 2) client.deleteRealServer(key, server);
  }
  assert.deepEqual(client.flush(), []);
  assert.deepEqual(ipvs.dump(), [
    'FWM 17 IPv6 -> [fd00::5]:1004 weight=4',
    'FWM 17 IPv6 rr flags=0 timeout=0',
    'FWM 66051 IPv4 rr flags=0 timeout=0',
    'TCP 10.96.0.1:443 -> 10.0.0.1:1000 weight=0',
    'TCP 10.96.0.1:443 -> 10.0.0.4:1003 weight=3',
    'TCP 10.96.0.1:443 rr flags=0 timeout=0',
    'UDP [fd00::10]:53 -> [fd00::2]:1001 weight=50',
    'UDP [fd00::10]:53 -> [fd00::6]:1005 weight=5',
    'UDP [fd00::10]:53 rr flags=0 timeout=0',
  ]);
});

test('1,000 real servers cost 1,000 messages in 4 datagrams with 4 answers, however many virtual servers', () => {
  for (let i = 0; i < 100; i++) client.addVirtualServer(addressServerKey('TCP', address(`10.96.1.${i}`), 80), RR);
  client.flush();
  const before = { ...client.counters };
  let flushes = 0;
  for (let i = 0; i < 1000; i++) {
    const key = addressServerKey('TCP', address(`10.96.1.${i % 100}`), 80);
    if (!client.addRealServer(key, real(`10.0.${i >> 8}.${i & 255}`, 80), 1)) continue;
    flushes++;
    assert.deepEqual(client.flush(), []);
  }
  assert.equal(client.pending, 1000 - 3 * 256);
  assert.deepEqual(client.flush(), []);
  assert.equal(flushes, 3);
  assert.equal(client.counters.messagesSent - before.messagesSent, 1000);
  assert.equal(client.counters.datagramsSent - before.datagramsSent, 4);
  assert.equal(client.counters.datagramsReceived - before.datagramsReceived, 4);
});

test('message 3 of 128 fails: it is named, the rest lands, sent again it succeeds', () => {
  client.addVirtualServer(SERVERS.tcp, RR);
  client.flush();
  kernel.faults.push({ at: 'message', code: 'ENOMEM', skip: 2 });
  for (let i = 0; i < 128; i++) client.addRealServer(SERVERS.tcp, real(`10.0.0.${i}`, 80), 1);
  const [failure, ...others] = client.flush();
  assert.ok(failure);
  assert.equal(others.length, 0);
  assert.equal(failure.error.message, 'add-real-server TCP 10.96.0.1:443 -> 10.0.0.2:80: ENOMEM');
  assert.equal(ipvs.table.get(SERVERS.tcp)?.realServers.size, 127);
  client.addRealServer(failure.virtualServer, failure.realServer!, 1);
  assert.deepEqual(client.flush(), []);
  assert.equal(ipvs.table.get(SERVERS.tcp)?.realServers.size, 128);
});

test('lists connection counts, other forwarding methods and what others set up', () => {
  client.addVirtualServer(SERVERS.tcp, RR);
  client.addRealServer(SERVERS.tcp, real('10.0.0.1', 80), 1);
  client.flush();
  const server = ipvs.table.get(SERVERS.tcp)!;
  Object.assign(server.realServers.get(real('10.0.0.1', 80))!, { active: 3, inactive: 4, forwarding: 2, weight: -1 });
  server.netmask = 0x00ffffff;
  assert.deepEqual(client.listRealServers(SERVERS.tcp), [
    { key: real('10.0.0.1', 80), weight: -1, forwarding: 'tunnel', activeConnections: 3, inactiveConnections: 4 },
  ]);
  assert.deepEqual(client.listVirtualServers().servers, [{ key: SERVERS.tcp, settings: RR, modified: true }]);
  assert.deepEqual(client.listRealServers(SERVERS.sctp), []);
  assert.deepEqual(client.getVirtualServer(SERVERS.tcp), { key: SERVERS.tcp, settings: RR, modified: true });
  assert.equal(client.getVirtualServer(SERVERS.sctp), undefined);
  kernel.faults.push({ at: 'message', code: 'EPERM', protocol: NETLINK_GENERIC });
  assert.throws(() => client.getVirtualServer(SERVERS.sctp), /get virtual server SCTP .*EPERM/);
});

test('counts virtual servers of protocols without a name', () => {
  client.addVirtualServer(SERVERS.tcp, RR);
  client.addVirtualServer(SERVERS.udp6, RR);
  client.flush();
  kernel.faults.push({
    at: 'answer',
    // The protocol of the first server becomes ESP: message header 16, generic 4, nest 4, family 8, attribute header 4.
    change: (datagram) => {
      datagram.writeUInt16LE(50, 36);
      return datagram;
    },
  });
  const { servers, foreign } = client.listVirtualServers();
  assert.deepEqual([servers.map(({ key }) => key), foreign], [[SERVERS.udp6], 1]);
});

test('an interrupted dump is never returned', () => {
  for (let i = 0; i < 150; i++) client.addVirtualServer(fwmarkServerKey(4, i + 1), RR);
  assert.equal(client.flush().length, 0);
  kernel.faults.push({ at: 'dump' });
  assert.equal(client.listVirtualServers().servers.length, 150);
  assert.equal(client.counters.dumpRetries, 1);
});

test('without the module there is one typed error that names it, and no socket is left open', () => {
  ipvs.loaded = false;
  const open = kernel.openSockets;
  assert.throws(
    () => new IpvsClient(kernel.open),
    (error) =>
      error instanceof IpvsUnavailableError && /ip_vs/.test(error.message) && error.cause instanceof NetlinkError,
  );
  assert.equal(kernel.openSockets, open);
});

test('without permission nothing works and everything says so', () => {
  kernel.permitted = false;
  client.addVirtualServer(SERVERS.tcp, RR);
  assert.deepEqual(
    client.flush().map(({ error }) => error.code),
    ['EPERM'],
  );
  assert.throws(() => client.listVirtualServers(), /EPERM/);
  assert.throws(() => client.setTimeouts({ tcp: 1, tcpFin: 1, udp: 1 }), /EPERM/);
});

test('timeouts of 0 are left as they are', () => {
  client.setTimeouts({ tcp: 0, tcpFin: 60, udp: 0 });
  assert.deepEqual(ipvs.timeouts, { tcp: 900, tcpFin: 60, udp: 300 });
  assert.deepEqual(client.getTimeouts(), { tcp: 900, tcpFin: 60, udp: 300 });
});
