/** IPVS and link clients against the real kernel, compared with what ipvsadm(8) and ip(8) print. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { release } from 'node:os';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { openNetlinkSocket } from '../../native/libc.js';
import { IpvsClient } from '../../src/kernel/ipvs/client.js';
import { LinkClient } from '../../src/kernel/rtnetlink/client.js';
import { type LinkEvent, LinkWatch } from '../../src/kernel/rtnetlink/watch.js';
import { formatAddress } from '../../src/values/address.js';
import { addressServerKey } from '../../src/values/virtual-server.js';
import { recordingSocket, writeRecording } from '../fakes/netlink-recording.js';
import {
  DUMMY,
  IPVS_FAILURES,
  RR,
  address,
  ipvsSession,
  linksSession,
  real,
  tableLines,
} from '../support/netlink-sessions.js';
import { loadModules } from './harness/kernel-state.js';

before(() => {
  loadModules('ip_vs', 'ip_vs_rr', 'ip_vs_mh', 'dummy', 'ipv6');
});

function output(command: string, ...args: string[]): string[] {
  return execFileSync(command, args, { encoding: 'utf8' })
    .split('\n')
    .filter((line) => line !== '');
}

function record(name: string, description: string, datagrams: ['>' | '<', string][], text: string[]): void {
  const directory = process.env['RECORD_DIR'];
  if (directory !== undefined)
    writeRecording(join(directory, name), { description, kernel: release(), datagrams, text });
}

test('the table is what ipvsadm prints, and every refused change is found in its batch', () => {
  execFileSync('ipvsadm', ['-C']);
  const { open, datagrams } = recordingSocket(openNetlinkSocket);
  const session = ipvsSession(open);
  const text = output('ipvsadm', '-Sn')
    .map((line) => line.trim())
    .sort();
  assert.deepEqual(session.lines, text);
  assert.deepEqual(session.failures, IPVS_FAILURES);
  assert.equal(session.info.version, '1.2.1');
  assert.deepEqual(session.timeouts[1], { ...session.timeouts[0], tcp: 800, udp: 200 });
  record('ipvs.json', 'ipvsSession of test/support/netlink-sessions.ts; text: ipvsadm -Sn, sorted', datagrams, text);
});

test('what ipvsadm made is listed with its forwarding method', () => {
  execFileSync('ipvsadm', ['-C']);
  execFileSync('ipvsadm', ['-A', '-t', '10.1.1.1:80', '-s', 'rr', '-p', '60', '-M', '255.255.255.0']);
  execFileSync('ipvsadm', ['-a', '-t', '10.1.1.1:80', '-r', '10.2.2.2', '-g']);
  const client = new IpvsClient(openNetlinkSocket);
  const key = addressServerKey('TCP', address('10.1.1.1'), 80);
  assert.deepEqual(client.listVirtualServers().servers, [
    { key, settings: { scheduler: 'rr', flags: 1, timeout: 60 }, modified: true },
  ]);
  assert.deepEqual(
    client.listRealServers(key).map(({ forwarding, weight }) => [forwarding, weight]),
    [['route', 1]],
  );
  assert.deepEqual(client.getVirtualServer(key), client.listVirtualServers().servers[0]);
  assert.equal(client.getVirtualServer(addressServerKey('TCP', address('10.1.1.1'), 81)), undefined);
  client.close();
});

test('10,000 real servers in batches: 40 datagrams, one acknowledgement each', () => {
  execFileSync('ipvsadm', ['-C']);
  const client = new IpvsClient(openNetlinkSocket);
  const key = addressServerKey('TCP', address('10.96.0.1'), 80);
  client.addVirtualServer(key, RR);
  assert.deepEqual(client.flush(), []);
  const start = { ...client.counters };
  const failures = [];
  for (let i = 0; i < 10_000; i++) {
    if (client.addRealServer(key, real(`10.128.${i >> 8}.${i & 255}`, 8080), 1)) failures.push(...client.flush());
  }
  failures.push(...client.flush());
  assert.deepEqual(failures, []);
  assert.equal(client.counters.messagesSent - start.messagesSent, 10_000);
  assert.equal(client.counters.datagramsSent - start.datagramsSent, 40);
  assert.equal(client.counters.datagramsReceived - start.datagramsReceived, 40);
  assert.equal(client.listRealServers(key).length, 10_000);
  assert.equal(tableLines(client).length, 10_001);
  client.close();
  execFileSync('ipvsadm', ['-C']);
});

test('addresses of the dummy are what ip prints; added twice or deleted twice is no failure', () => {
  const { open, datagrams } = recordingSocket(openNetlinkSocket);
  let shown: string[] = [];
  const session = linksSession(open, () => {
    shown = output('ip', '-o', 'addr', 'show', 'dev', DUMMY, 'scope', 'global');
  });
  const text = shown.map((line) => / inet6? ([^ ]+) /.exec(line)![1]!).sort();
  assert.deepEqual(session.addresses, text);
  assert.deepEqual(session.addresses, ['10.96.0.1/32', '10.96.0.4/32', 'fd00::1/128']);
  assert.ok(!shown.some((line) => line.includes('tentative')), 'usable at once');
  assert.deepEqual(session.failures, ['add-address 10.96.0.3: ENODEV']);
  assert.deepEqual([session.made, session.kind, session.deleted], [[true, false], 'dummy', [true, false]]);
  record('links.json', 'linksSession of test/support/netlink-sessions.ts; text: addresses by ip addr', datagrams, text);
});

test('changes by others arrive as events; additions to the ignored link do not; close ends the wait', async () => {
  const client = new LinkClient(openNetlinkSocket);
  const { index } = client.ensureDummy(DUMMY);
  const events: string[] = [];
  let arrived = (): void => undefined;
  const done = new Promise<void>((resolve) => (arrived = resolve));
  const watch = new LinkWatch(openNetlinkSocket, {
    onEvent: (event) => {
      events.push(describe(event));
      if (events.at(-1) === `link-removed ${DUMMY}`) arrived();
    },
    onOverrun: (reason) => assert.fail(String(reason)),
    onError: (error) => assert.fail(String(error)),
  });
  watch.ignoreAddressesAddedTo(index);
  execFileSync('ip', ['addr', 'add', '10.96.0.1/32', 'dev', DUMMY]);
  execFileSync('ip', ['addr', 'add', '10.96.0.9/32', 'dev', 'lo']);
  execFileSync('ip', ['addr', 'del', '10.96.0.1/32', 'dev', DUMMY]);
  execFileSync('ip', ['link', 'del', DUMMY]);
  await done;
  await watch.close();
  const ipv4 = events.filter((event) => !event.includes(':') && !event.startsWith('link-changed'));
  assert.deepEqual(ipv4, ['address-added 10.96.0.9', 'address-removed 10.96.0.1', `link-removed ${DUMMY}`]);
  execFileSync('ip', ['addr', 'del', '10.96.0.9/32', 'dev', 'lo']);
  client.close();
});

function describe(event: LinkEvent): string {
  if ('link' in event) return `${event.kind} ${event.link.name}`;
  return `${event.kind} ${formatAddress('route' in event ? event.route.address : event.address.address)}`;
}
