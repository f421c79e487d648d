/**
 * The IPVS table by getsockopt: recorded bytes of a real kernel, a fake one with the same bytes, and what comes between
 * reads.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, test } from 'node:test';
import { IpvsClient } from '../../../src/kernel/ipvs/client.js';
import { IpvsSockopt, IpvsSockoptError } from '../../../src/kernel/ipvs/sockopt.js';
import { IpvsTable } from '../../../src/kernel/ipvs/table.js';
import { readTable } from '../../../src/reconcile/observe-kernel.js';
import { type AppliedVirtualServer } from '../../../src/plan/applied.js';
import {
  type RealServerKey,
  type VirtualServerKey,
  addressServerKey,
  formatRealServer,
  formatVirtualServer,
  fwmarkServerKey,
  realServerKeys,
  realServerList,
} from '../../../src/values/virtual-server.js';
import { FakeIpvs } from '../../fakes/fake-kernel-ipvs.js';
import { FakeKernel } from '../../fakes/fake-kernel.js';
import { type FakeOptionFaults, fakeOptionSocket } from '../../fakes/fake-option-socket.js';
import { type Recording } from '../../fakes/netlink-recording.js';
import { replayOptionSocket } from '../../fakes/option-recording.js';
import { RR, address, real, seenLines, sockoptSession } from '../../support/netlink-sessions.js';

const RECORDING = join(import.meta.dirname, '../../../../test/fixtures/netlink/ipvs-sockopt.json');
const GET_SERVICES = 1154;
const GET_DESTS = 1156;
const WEB = addressServerKey('TCP', address('10.96.0.1'), 80);
const DNS = addressServerKey('UDP', address('10.96.0.10'), 53);
const WEB6 = addressServerKey('TCP', address('fd00::1'), 80);
const HOST_MASK = 0xffffffff;
const WANTED = { settings: RR, realServers: realServerList([real('10.0.0.1', 80)]) };

let kernel: FakeKernel;
let ipvs: FakeIpvs;
let client: IpvsClient;
let faults: FakeOptionFaults;
let table: IpvsTable;

beforeEach(() => {
  kernel = new FakeKernel();
  ipvs = new FakeIpvs(kernel);
  client = new IpvsClient(kernel.open);
  faults = {};
  table = new IpvsTable(client, { openOptionSocket: fakeOptionSocket(ipvs, faults) });
});

/** Puts a virtual server into the fake kernel; real servers by their text and weight. */
function put(key: VirtualServerKey, reals: Readonly<Record<string, number>> = {}): void {
  const realServers = Object.entries(reals).map(([text, weight]) => {
    const at = text.lastIndexOf(':');
    const state = { weight, forwarding: 0, active: 0, inactive: 0 };
    return [real(text.slice(0, at), Number(text.slice(at + 1))), state] as const;
  });
  ipvs.table.set(key, {
    settings: RR,
    netmask: key.length === 19 ? 128 : HOST_MASK,
    realServers: new Map(realServers),
  });
}

async function lines(mayHaveIPv6 = false): Promise<string[]> {
  const found: string[] = [];
  await table.read((server) => void found.push(...seenLines(server)), { mayHaveIPv6 });
  return found.sort();
}

/** Commands that the fake kernel got by netlink. */
function dumps(command: number): number {
  return ipvs.commands.get(command) ?? 0;
}

describe('bytes', () => {
  test('of a real kernel are read as ipvsadm reads them, and what is asked is what it was asked', () => {
    const recording = JSON.parse(readFileSync(RECORDING, 'utf8')) as Recording;
    assert.ok(recording.text.length > 15);
    const replay = replayOptionSocket(recording);
    assert.deepEqual(sockoptSession(replay.open), recording.text);
    assert.ok(replay.finished());
  });

  test('of numbers with their highest bit set', async () => {
    put(fwmarkServerKey(4, 0xfedcba98), { '255.128.192.254:65535': 65_535 });
    put(addressServerKey('SCTP', address('255.254.253.252'), 65_534), { '128.129.130.131:33000': 0 });
    assert.deepEqual(await lines(), [
      '-A --sctp-service 255.254.253.252:65534 -s rr',
      '-A -f 4275878552 -s rr',
      '-a --sctp-service 255.254.253.252:65534 -r 128.129.130.131:33000 -m -w 0',
      '-a -f 4275878552 -r 255.128.192.254:65535 -m -w 65535',
    ]);
  });

  test('of settings: flags without the kernel’s own, a netmask is unusual, equal ones in a row are one object', () => {
    put(WEB);
    put(DNS);
    const odd = addressServerKey('TCP', address('10.96.0.2'), 80);
    put(odd);
    const settings = { scheduler: 'a-name-of-15-by', flags: 0x19, timeout: 10_800 };
    Object.assign(ipvs.table.get(odd)!, { settings, netmask: 0x00ffffff });
    const sockopt = new IpvsSockopt(fakeOptionSocket(ipvs));
    assert.equal(sockopt.readVirtualServers(), 3);
    assert.deepEqual(
      [0, 1, 2].map((i) => sockopt.settingsOf(i)),
      [RR, RR, settings],
    );
    assert.equal(sockopt.settingsOf(0), sockopt.settingsOf(1));
    assert.deepEqual(
      [0, 1, 2].map((i) => sockopt.isModified(i)),
      [false, false, true],
    );
  });
});

describe('the table', () => {
  test('of 3,000 virtual servers costs one read each and one for all; without real servers none', async () => {
    for (let i = 0; i < 3000; i++)
      put(addressServerKey('TCP', address(`10.96.${i >> 8}.${i & 255}`), 80), { '10.0.0.1:80': 1 });
    put(WEB);
    faults.calls = 0;
    const { size } = ipvs.table;
    assert.equal((await lines()).length, size + 2999);
    assert.equal(faults.calls, 2 + 2999); // WEB is among the 3,000 and has none
  });

  test('is read in slices of 16 virtual servers at most where each takes long, and counts connections on the way', async (t) => {
    for (let i = 0; i < 1000; i++)
      put(addressServerKey('TCP', address(`10.96.${i >> 8}.${i & 255}`), 80), { '10.0.0.1:80': 1, '10.0.0.2:80': 1 });
    ipvs.table
      .get(addressServerKey('TCP', address('10.96.0.7'), 80))!
      .realServers.values()
      .next().value!.active = 5;
    let now = 0;
    t.mock.method(performance, 'now', () => (now += 0.6)); // more than a slice is to take
    const slices: number[] = [];
    let slice = 0;
    await table.read(() => void slice++, {
      mayHaveIPv6: false,
      turn: () => {
        slices.push(slice);
        slice = 0;
        return Promise.resolve();
      },
    });
    slices.push(slice);
    assert.equal(
      slices.reduce((sum, one) => sum + one, 0),
      1000,
    );
    assert.ok(Math.max(...slices) <= 16, String(slices));
    assert.deepEqual(table.counts, { realServers: 2000, connections: 5 });
  });

  test('has IPv6 by netlink: at first, while there is any, when some is applied in, and every tenth time', async () => {
    put(WEB, { '10.0.0.1:80': 1 });
    await lines();
    assert.equal(dumps(4), 1);
    await lines();
    assert.equal(dumps(4), 1);
    put(WEB6, { 'fd00::2:80': 1 });
    const both = [
      '-A -t 10.96.0.1:80 -s rr',
      '-A -t [fd00::1]:80 -s rr',
      '-a -t 10.96.0.1:80 -r 10.0.0.1:80 -m -w 1',
      '-a -t [fd00::1]:80 -r [fd00::2]:80 -m -w 1',
    ];
    assert.deepEqual(await lines(true), both);
    assert.deepEqual(await lines(), both);
    ipvs.table.delete(WEB6);
    await lines();
    const before = dumps(4);
    for (let i = 0; i < 10; i++) await lines();
    assert.equal(dumps(4), before + 1);
  });

  test('has what came or went between two reads as far as it is there', async () => {
    put(WEB, { '10.0.0.1:80': 1, '10.0.0.2:80': 1 });
    put(DNS, { '10.0.0.3:53': 1 });
    faults.before = (option) => {
      if (option !== GET_DESTS) return;
      faults.before = () => undefined;
      ipvs.table.delete(DNS);
      ipvs.table.get(WEB)!.realServers.delete(real('10.0.0.2', 80));
    };
    assert.deepEqual(await lines(), ['-A -t 10.96.0.1:80 -s rr', '-a -t 10.96.0.1:80 -r 10.0.0.1:80 -m -w 1']);
    faults.before = (option) => {
      if (option === GET_DESTS) ipvs.table.get(WEB)!.realServers.set(real('10.0.0.9', 80), state());
    };
    assert.deepEqual((await lines()).slice(1), [
      '-a -t 10.96.0.1:80 -r 10.0.0.1:80 -m -w 1',
      '-a -t 10.96.0.1:80 -r 10.0.0.9:80 -m -w 1',
    ]);
  });

  test('that shrinks or doubles while it is read has nothing of before, and all of after', async () => {
    for (let i = 0; i < 200; i++) put(addressServerKey('TCP', address('10.96.1.1'), 1000 + i));
    assert.equal((await lines()).length, 200);
    ipvs.table.clear();
    put(WEB);
    assert.deepEqual(await lines(), ['-A -t 10.96.0.1:80 -s rr']);
    faults.before = (option) => {
      if (option !== GET_SERVICES) return;
      for (let i = 0; i < 500; i++) put(addressServerKey('TCP', address('10.96.1.1'), 1000 + i));
    };
    assert.equal((await lines()).length, 501);
  });

  test('has real servers of the other family by netlink', async () => {
    put(WEB, { '10.0.0.1:80': 1, 'fd00::2:80': 1 });
    ipvs.table.get(WEB)!.realServers.get(real('fd00::2', 80))!.forwarding = 2;
    assert.deepEqual((await lines()).slice(1), [
      '-a -t 10.96.0.1:80 -r 10.0.0.1:80 -m -w 1',
      '-a -t 10.96.0.1:80 -r [fd00::2]:80 -i -w 1',
    ]);
  });

  test('is read by netlink alone when the kernel refuses getsockopt; a refusal later is an error', async () => {
    put(WEB, { '10.0.0.1:80': 1 });
    const refused = fakeOptionSocket(ipvs, { permitted: false });
    const other = new IpvsTable(client, { openOptionSocket: refused });
    assert.ok(other.refusal instanceof IpvsSockoptError);
    assert.equal(other.refusal.errno, 1);
    const found: string[] = [];
    await other.read((server) => void found.push(...seenLines(server)), { mayHaveIPv6: false });
    assert.deepEqual(found, await lines());
    faults.permitted = false;
    await assert.rejects(lines(), { name: 'IpvsSockoptError', operation: 'count virtual servers', errno: 1 });
  });
});

describe('connections of one virtual server', () => {
  const of = (key: VirtualServerKey, expected: number, from = table) =>
    [...from.connections(key, expected)].map(([real, count]) => `${formatRealServer(real)}=${count}`).sort();

  test('are active and inactive ones together, by one read', () => {
    put(WEB, { '10.0.0.1:80': 0, '10.0.0.2:80': 1 });
    put(DNS, { '10.0.0.9:53': 1 });
    put(fwmarkServerKey(4, 0x10203), { '10.0.0.7:80': 1 });
    Object.assign(ipvs.table.get(WEB)!.realServers.get(real('10.0.0.1', 80))!, { active: 2, inactive: 0x80000001 });
    faults.calls = 0;
    assert.deepEqual(of(WEB, 2), ['10.0.0.1:80=2147483651', '10.0.0.2:80=0']);
    assert.equal(faults.calls, 1);
    assert.deepEqual(of(WEB, 200), ['10.0.0.1:80=2147483651', '10.0.0.2:80=0']);
    assert.deepEqual(of(fwmarkServerKey(4, 0x10203), 1), ['10.0.0.7:80=0']);
    assert.equal(dumps(8), 0);
  });

  test('come by netlink when there are more real servers than expected, for IPv6, and without getsockopt', () => {
    put(WEB, { '10.0.0.1:80': 0, '10.0.0.2:80': 1 });
    put(WEB6, { 'fd00::2:80': 0 });
    for (const server of [WEB, WEB6])
      for (const state of ipvs.table.get(server)!.realServers.values()) state.inactive = 7;
    assert.deepEqual(of(WEB, 1), ['10.0.0.1:80=7', '10.0.0.2:80=7']);
    assert.deepEqual(of(WEB6, 1), ['[fd00::2]:80=7']);
    assert.equal(dumps(8), 2);
    assert.deepEqual(of(WEB, 2, new IpvsTable(client)), ['10.0.0.1:80=7', '10.0.0.2:80=7']);
  });

  test('are none where there is no such virtual server', () => {
    put(DNS, { '10.0.0.9:53': 1 });
    assert.deepEqual(of(WEB, 3), []);
    assert.deepEqual(of(WEB6, 3), []);
    put(WEB);
    assert.deepEqual(of(WEB, 3), [], 'nor where it has no real servers any more');
    assert.equal(dumps(8), 1, 'and one read says so');
  });
});

describe('compared with what is applied', () => {
  const readAs = (applied: ReadonlyMap<VirtualServerKey, AppliedVirtualServer>, desired: VirtualServerKey[]) =>
    readTable(table, { applied, desired: { virtualServers: new Map(desired.map((key) => [key, WANTED])) } });
  const read = async (applied: ReadonlyMap<VirtualServerKey, AppliedVirtualServer>) =>
    (await readAs(applied, [])).servers;

  test('what is as applied is the applied object, in whatever order the kernel has it', async () => {
    put(WEB, { '10.0.0.3:80': 1, '10.0.0.1:80': 1, '10.0.0.2:81': 0, '10.0.0.2:80': 1, '10.0.0.0:82': 0 });
    put(WEB6, { 'fd00::3:80': 1, 'fd00::1:80': 0, 'fd00::2:80': 1 });
    put(DNS);
    put(fwmarkServerKey(4, 17), { '10.0.0.1:80': 1 });
    const applied = await read(new Map());
    assert.deepEqual([...applied.keys()].map(formatVirtualServer).sort(), [
      'TCP 10.96.0.1:80',
      'TCP [fd00::1]:80',
      'UDP 10.96.0.10:53',
    ]);
    const again = await read(applied);
    for (const [key, server] of applied) assert.equal(again.get(key), server);
  });

  test('only what differs or is not desired is kept, and what is applied and missing is named', async () => {
    put(WEB, { '10.0.0.1:80': 1 });
    put(DNS, { '10.0.0.1:53': 1 });
    put(WEB6, { 'fd00::2:80': 1 });
    const applied = await read(new Map());
    const kept = async (desired: VirtualServerKey[]) => {
      const { servers, missing } = await readAs(applied, desired);
      return [[...missing].map(formatVirtualServer), ...[...servers.keys()].map(formatVirtualServer).sort()];
    };
    assert.deepEqual(await kept([WEB, DNS, WEB6]), [[]]);
    assert.deepEqual(await kept([WEB]), [[], 'TCP [fd00::1]:80', 'UDP 10.96.0.10:53']);
    ipvs.table.get(DNS)!.realServers.clear();
    const other = addressServerKey('TCP', address('10.96.0.7'), 80);
    put(other);
    assert.deepEqual(await kept([WEB, DNS, WEB6]), [[], 'TCP 10.96.0.7:80', 'UDP 10.96.0.10:53']);
    ipvs.table.delete(WEB6);
    assert.deepEqual(await kept([WEB, DNS, WEB6]), [['TCP [fd00::1]:80'], 'TCP 10.96.0.7:80', 'UDP 10.96.0.10:53']);
  });

  test('what is not applied yet but is as desired shares the string of real servers with it', async () => {
    put(WEB, { '10.0.0.1:80': 1 });
    put(DNS, { '10.0.0.2:53': 1 });
    const { servers } = await readAs(new Map(), [WEB, DNS]);
    assert.deepEqual(servers.get(WEB), { ...WANTED, draining: '', modified: '' });
    assert.equal(servers.get(WEB)!.settings, WANTED.settings);
    assert.deepEqual(servers.get(DNS), {
      settings: RR,
      realServers: realServerList([real('10.0.0.2', 53)]),
      draining: '',
      modified: '',
    });
  });

  test('any difference is seen: a real server more, less, another, heavier, drained, otherwise reached; settings', async () => {
    put(WEB, { '10.0.0.1:80': 1, '10.0.0.2:80': 1, '10.0.0.3:80': 0 });
    const applied = await read(new Map());
    const server = () => ipvs.table.get(WEB)!;
    const reals = () => server().realServers;
    const [one, three, nine] = [real('10.0.0.1', 80), real('10.0.0.3', 80), real('10.0.0.9', 80)];
    const changes: (() => void)[] = [
      () => reals().set(nine, state()),
      () => reals().delete(one),
      () => reals().delete(one) && reals().set(nine, state()),
      () => reals().delete(one) && reals().set(real('10.0.0.1', 81), state()),
      () => (reals().get(one)!.weight = 2),
      () => (reals().get(one)!.weight = 0),
      () => (reals().get(three)!.weight = 1),
      () => Object.assign(reals().get(three)!, { weight: 1 }) && (reals().get(one)!.weight = 0),
      () => (reals().get(one)!.forwarding = 3),
      () => (server().netmask = 0xff),
      () => (server().settings = { ...RR, scheduler: 'wrr' }),
      () => (server().settings = { ...RR, flags: 0x8 }),
      () => (server().settings = { ...RR, timeout: 5 }),
    ];
    for (const [index, change] of changes.entries()) {
      put(WEB, { '10.0.0.1:80': 1, '10.0.0.2:80': 1, '10.0.0.3:80': 0 });
      assert.equal((await read(applied)).get(WEB), applied.get(WEB), `before change ${index}`);
      change();
      const seen = (await read(applied)).get(WEB)!;
      assert.notDeepEqual(seen, applied.get(WEB), `change ${index}`);
    }
  });

  test('any pool in any order is found again, and any other pool is not', async () => {
    let seed = 7;
    const random = (below: number): number => (seed = (seed * 48_271) % 2_147_483_647) % below;
    for (let round = 0; round < 300; round++) {
      const all = Array.from({ length: 1 + random(40) }, () => `10.0.${random(2)}.${random(6)}:${80 + random(3)}`);
      put(WEB, Object.fromEntries(all.map((text) => [text, random(4) === 0 ? 0 : 1])));
      const applied = await read(new Map());
      const kept = applied.get(WEB)!;
      assert.equal((await read(applied)).get(WEB), kept);
      const keys: RealServerKey[] = realServerKeys(kept.realServers, 4);
      if (keys.length === 0) continue;
      keys[random(keys.length)] = real('10.9.9.9', random(65_536));
      const other = { ...kept, realServers: realServerList(keys) };
      assert.deepEqual((await read(new Map([[WEB, other]]))).get(WEB), kept);
    }
  });
});

function state(): { weight: number; forwarding: number; active: number; inactive: number } {
  return { weight: 1, forwarding: 0, active: 0, inactive: 0 };
}
