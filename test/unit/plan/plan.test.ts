/**
 * From what is to what shall be, in messages: what is sent, in which order, and whose virtual servers are left alone.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { type AppliedVirtualServer, sameSettings } from '../../../src/plan/applied.js';
import { type OwnershipTraces, isExcluded, leftByServiceProxy } from '../../../src/plan/ownership.js';
import {
  type IpvsOperations,
  inAddingOrder,
  planVirtualServer,
  rotationOf,
} from '../../../src/plan/virtual-server-plan.js';
import { type Address, parseAddress } from '../../../src/values/address.js';
import { type IpsetEntry, addressPortEntry, portEntry } from '../../../src/values/ipset.js';
import { parsePrefix } from '../../../src/values/prefix.js';
import {
  type RealServerKey,
  type RealServerList,
  type VirtualServerKey,
  addressServerKey,
  formatRealServer,
  fwmarkServerKey,
  realServerKey,
  realServerKeys,
  realServerList,
} from '../../../src/values/virtual-server.js';

const ip = (text: string): Address => parseAddress(text)!;
const TCP = addressServerKey('TCP', ip('10.96.0.1'), 80);
const UDP = addressServerKey('UDP', ip('10.96.0.1'), 53);
const SCTP = addressServerKey('SCTP', ip('10.96.0.1'), 99);
const RR = { scheduler: 'rr', flags: 0, timeout: 0 };
const EMPTY = '' as RealServerList;

const real = (host: number): RealServerKey => realServerKey(ip(`10.0.0.${host}`), 8080);
const list = (...hosts: number[]): RealServerList => realServerList(hosts.map(real));
const name = (key: RealServerKey): string => formatRealServer(key).replace(/^10\.0\.0\.(\d+):8080$/, '$1');

/** One virtual server as the kernel keeps it, which refuses what the kernel refuses. */
class Table implements IpvsOperations {
  readonly weights = new Map<RealServerKey, number>();
  readonly log: string[] = [];
  exists = false;
  settings = RR;
  /** Called after each operation. */
  check: () => void = () => undefined;

  addVirtualServer(_key: VirtualServerKey, settings: typeof RR): void {
    assert.ok(!this.exists);
    [this.exists, this.settings] = [true, settings];
    this.#note(`create ${settings.scheduler}`);
  }

  setVirtualServer(_key: VirtualServerKey, settings: typeof RR): void {
    assert.ok(this.exists);
    this.settings = settings;
    this.#note(`edit ${settings.scheduler}`);
  }

  addRealServers(server: VirtualServerKey, reals: RealServerList, from: number): void {
    for (const key of inAddingOrder(server, reals, from)) {
      assert.ok(this.exists && !this.weights.has(key));
      this.weights.set(key, 1);
      this.#note(`add ${name(key)} w1`);
    }
  }

  setRealServer(_server: VirtualServerKey, key: RealServerKey, weight: number): void {
    assert.ok(this.weights.has(key));
    this.weights.set(key, weight);
    this.#note(`set ${name(key)} w${weight}`);
  }

  deleteRealServer(_server: VirtualServerKey, key: RealServerKey): void {
    assert.ok(this.weights.delete(key));
    this.#note(`delete ${name(key)}`);
  }

  #note(line: string): void {
    this.log.push(line);
    this.check();
  }
}

function tableOf(applied: AppliedVirtualServer): Table {
  const table = new Table();
  table.exists = true;
  for (const key of realServerKeys(applied.realServers, 4)) table.weights.set(key, 1);
  for (const key of realServerKeys(applied.draining, 4)) table.weights.set(key, 0);
  for (const key of realServerKeys(applied.modified, 4)) table.weights.set(key, 7);
  return table;
}

function applied(active: RealServerList, more: Partial<AppliedVirtualServer> = {}): AppliedVirtualServer {
  return { settings: RR, realServers: active, draining: EMPTY, modified: EMPTY, ...more };
}

/** The operations that turn `before` into a pool of `wanted`, and what is applied afterwards. */
function plan(
  key: VirtualServerKey,
  before: AppliedVirtualServer | undefined,
  wanted: RealServerList,
  { settings = RR, rotation = 0 } = {},
): { log: string[]; after: AppliedVirtualServer } {
  const table = before === undefined ? new Table() : tableOf(before);
  const after = planVirtualServer(key, { settings, realServers: wanted }, before, table, rotation);
  return { log: table.log, after };
}

describe('a virtual server', () => {
  test('that is new is made before its backends', () => {
    assert.deepEqual(plan(TCP, undefined, list(1, 2)).log, ['create rr', 'add 1 w1', 'add 2 w1']);
    assert.deepEqual(plan(TCP, undefined, EMPTY).log, ['create rr']);
  });

  test('that is as wanted costs nothing', () => {
    assert.deepEqual(plan(TCP, applied(list(1, 2)), list(2, 1)).log, []);
    assert.deepEqual(plan(UDP, applied(EMPTY), EMPTY).log, []);
  });

  test('is edited in place when its settings differ, without touching backends', () => {
    const settings = { scheduler: 'lc', flags: 1, timeout: 600 };
    const { log, after } = plan(TCP, applied(list(1)), list(1), { settings });
    assert.deepEqual(log, ['edit lc']);
    assert.deepEqual(after, applied(list(1), { settings }));
  });

  test('has the same settings when scheduler, flags and timeout are', () => {
    assert.ok(sameSettings({ ...RR }, { ...RR }));
    for (const other of [{ scheduler: 'lc' }, { flags: 1 }, { timeout: 1 }])
      assert.ok(!sameSettings(RR, { ...RR, ...other }));
  });
});

describe('a backend', () => {
  test('is added before another is taken out', () => {
    assert.deepEqual(plan(TCP, applied(list(1)), list(2)).log, ['add 2 w1', 'set 1 w0']);
    assert.deepEqual(plan(UDP, applied(list(1)), list(2)).log, ['add 2 w1', 'delete 1']);
  });

  test('that is removed drains for TCP, and is deleted for UDP and SCTP', () => {
    const drained = plan(TCP, applied(list(1, 2)), list(1));
    assert.deepEqual([drained.log, drained.after], [['set 2 w0'], applied(list(1), { draining: list(2) })]);
    for (const key of [UDP, SCTP]) {
      const { log, after } = plan(key, applied(list(1, 2)), list(1));
      assert.deepEqual([log, after], [['delete 2'], applied(list(1))]);
    }
  });

  test('that drains goes on draining', () => {
    const { log, after } = plan(TCP, applied(list(1), { draining: list(2) }), list(1));
    assert.deepEqual([log, after], [[], applied(list(1), { draining: list(2) })]);
  });

  test('that drains for UDP or SCTP, as another program may leave it, is deleted', () => {
    for (const key of [UDP, SCTP]) {
      const { log, after } = plan(key, applied(list(1), { draining: list(2) }), list(1));
      assert.deepEqual([log, after], [['delete 2'], applied(list(1))]);
    }
  });

  test('that comes back while it drains has its weight again, and is neither deleted nor added', () => {
    const { log, after } = plan(TCP, applied(list(1), { draining: list(2, 3) }), list(1, 2));
    assert.deepEqual([log, after], [['set 2 w1'], applied(list(1, 2), { draining: list(3) })]);
  });

  test('that somebody edited is set right when wanted, and drained when not', () => {
    const { log, after } = plan(TCP, applied(list(1), { modified: list(2, 3) }), list(1, 2));
    assert.deepEqual([log, after], [['set 2 w1', 'set 3 w0'], applied(list(1, 2), { draining: list(3) })]);
    assert.deepEqual(plan(UDP, applied(EMPTY, { modified: list(3) }), EMPTY).log, ['delete 3']);
  });

  test('of several new ones is added in an order that differs from node to node', () => {
    const order = (rotation: number): string[] => plan(TCP, undefined, list(1, 2, 3), { rotation }).log.slice(1);
    assert.deepEqual(order(0), ['add 1 w1', 'add 2 w1', 'add 3 w1']);
    assert.deepEqual(order(1), ['add 2 w1', 'add 3 w1', 'add 1 w1']);
    assert.deepEqual(order(5), ['add 3 w1', 'add 1 w1', 'add 2 w1']);
    const firsts = new Set<number>();
    for (let node = 0; node < 50; node++) firsts.add(rotationOf(rotationOf(0, `node-${node}` as never), TCP) % 10);
    assert.ok(firsts.size >= 8, `50 nodes start at ${firsts.size} of 10 backends`);
  });
});

test('whatever the table holds, the plan makes the wanted pool, and never an empty one on the way', () => {
  const places = fc.array(fc.constantFrom('active', 'draining', 'modified', 'absent'), { minLength: 8, maxLength: 8 });
  const wantedHosts = fc.subarray([0, 1, 2, 3, 4, 5, 6, 7]);
  fc.assert(
    fc.property(places, wantedHosts, fc.constantFrom(TCP, UDP, SCTP), fc.nat(20), (where, hosts, key, rotation) => {
      const at = (place: string): RealServerList =>
        list(...where.flatMap((one, host) => (one === place ? [host] : [])));
      const before = applied(at('active'), { draining: at('draining'), modified: at('modified') });
      const wanted = list(...hosts);
      const table = tableOf(before);
      const usable = (): boolean => [...table.weights.values()].some((weight) => weight > 0);
      if (before.realServers !== '' && wanted !== '') table.check = () => assert.ok(usable());
      const after = planVirtualServer(key, { settings: RR, realServers: wanted }, before, table, rotation);
      const withWeight = (weight: number): RealServerList =>
        realServerList([...table.weights].filter(([, one]) => one === weight).map(([one]) => one));
      assert.deepEqual(after, applied(withWeight(1), { draining: withWeight(0) }));
      assert.equal(after.realServers, wanted);
      if (key !== TCP) assert.equal(after.draining, '');
      const again = new Table();
      planVirtualServer(key, { settings: RR, realServers: wanted }, after, again, rotation);
      assert.deepEqual(again.log, []);
    }),
    { numRuns: 500 },
  );
});

describe('a virtual server in the kernel at start is ours', () => {
  const nothing: OwnershipTraces = {
    boundAddresses: new Set(),
    addressPorts: new Set(),
    nodePorts: { TCP: new Set(), UDP: new Set() },
    localAddresses: new Set(),
  };
  const no = (): boolean => false;
  const yes = (): boolean => true;
  const ports = (...numbers: number[]): Set<IpsetEntry> => new Set(numbers.map(portEntry));

  test('when its address is on the dummy link', () => {
    const traces = { ...nothing, boundAddresses: new Set([ip('10.96.0.1')]) };
    assert.ok(leftByServiceProxy(TCP, traces, no));
    assert.ok(leftByServiceProxy(SCTP, traces, no));
    assert.ok(!leftByServiceProxy(addressServerKey('TCP', ip('10.96.0.2'), 80), traces, yes));
  });

  test('when its address, protocol and port are in a set', () => {
    const traces = { ...nothing, addressPorts: new Set([addressPortEntry(TCP)]) };
    assert.ok(leftByServiceProxy(TCP, traces, no));
    assert.ok(!leftByServiceProxy(UDP, traces, yes));
    assert.ok(!leftByServiceProxy(addressServerKey('TCP', ip('10.96.0.1'), 81), traces, yes));
  });

  test('when its port is a node port of its protocol, and its address local or its backends all endpoints', () => {
    const nodePorts = { TCP: ports(80, 99), UDP: ports(5353) };
    const traces = { ...nothing, nodePorts };
    assert.ok(!leftByServiceProxy(TCP, traces, no), 'a keepalived in front of NodePorts uses their numbers');
    assert.ok(leftByServiceProxy(TCP, traces, yes));
    const local = { ...traces, localAddresses: new Set([ip('10.96.0.1')]) };
    assert.ok(leftByServiceProxy(TCP, local, no));
    assert.ok(!leftByServiceProxy(UDP, local, yes));
    assert.ok(!leftByServiceProxy(SCTP, local, yes), 'SCTP has no bitmap');
  });

  test('never without a trace, and never when it is keyed by a mark', () => {
    assert.ok(!leftByServiceProxy(TCP, { ...nothing, localAddresses: new Set([ip('10.96.0.1')]) }, yes));
    const all = { ...nothing, nodePorts: { TCP: ports(80), UDP: ports(53) } };
    assert.ok(!leftByServiceProxy(fwmarkServerKey(4, 80), all, yes));
  });

  test('but left in place when it is excluded, by address of its own family', () => {
    const cidrs = ['10.96.0.0/24', 'fd00::/16'].map((text) => parsePrefix(text)!);
    assert.ok(isExcluded(TCP, cidrs));
    assert.ok(!isExcluded(addressServerKey('TCP', ip('10.96.1.1'), 80), cidrs));
    assert.ok(isExcluded(addressServerKey('TCP', ip('fd00::1'), 80), cidrs));
    assert.ok(!isExcluded(fwmarkServerKey(4, 1), [parsePrefix('0.0.0.0/0')!]));
    assert.ok(!isExcluded(TCP, []));
  });
});
