/** When what is known of the cluster is enough to begin with. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { StartGate, type StartGateOptions } from '../../../src/daemon/cluster/start-gate.js';
import { type NodeInfo } from '../../../src/model/node.js';
import { parseAddress } from '../../../src/values/address.js';
import { parsePrefix } from '../../../src/values/prefix.js';
import { HandClock } from '../../fakes/hand-clock.js';

interface Rig {
  readonly gate: StartGate;
  readonly clock: HandClock;
  readonly logged: string[];
  opened: number;
}

function rig(options: Partial<StartGateOptions> = {}): Rig {
  const clock = new HandClock();
  const logged: string[] = [];
  const log = (_fields: object, message: string): void => void logged.push(message);
  const made: Rig = {
    clock,
    logged,
    opened: 0,
    gate: new StartGate({
      nodeName: 'node-7',
      needs: { addresses: false, podCIDRs: false },
      nodeWaitMs: 30_000,
      absentNodeWaitMs: 30_000,
      clock,
      log: { info: log, warn: log },
      onOpen: () => made.opened++,
      ...options,
    }),
  };
  return made;
}

function node(fields: { address?: string; podCIDR?: string } = {}): NodeInfo {
  const addresses = fields.address === undefined ? [] : [parseAddress(fields.address)!];
  const podCIDRs = fields.podCIDR === undefined ? [] : [parsePrefix(fields.podCIDR)!];
  return { name: 'node-7', zone: '', addresses, podCIDRs, eligible: true };
}

function listServices({ gate }: Rig): void {
  gate.listed('services');
  gate.listed('endpointslices');
}

test('opens with the Node, in whatever order the three come', async () => {
  const first = rig();
  listServices(first);
  assert.equal(first.opened, 0);
  first.gate.nodeSeen(node());
  assert.equal(first.opened, 1);
  first.gate.listed('nodes');
  first.gate.nodeSeen(node());
  await first.clock.advance(1_000_000);
  assert.equal(first.opened, 1, 'once');
  const second = rig();
  second.gate.nodeSeen(node());
  second.gate.listed('nodes');
  second.gate.listed('endpointslices');
  assert.match(second.gate.waitsFor!, /^the first lists of services$/);
  second.gate.listed('services');
  assert.equal(second.opened, 1);
  assert.equal(second.gate.waitsFor, undefined);
});

test('a Node that the configuration does not need is waited for, 30 seconds from when the others are there', async () => {
  const one = rig();
  await one.clock.advance(100_000);
  listServices(one);
  await one.clock.advance(29_999);
  assert.equal(one.opened, 0);
  assert.equal(one.gate.waitsFor, 'the Node object node-7');
  await one.clock.advance(1);
  assert.equal(one.opened, 1);
  assert.match(one.logged.at(-1)!, /^no Node object of this name yet/);
});

test('a dry run does not wait for a Node that is not there, and does for one that is not heard of', async () => {
  const absent = rig({ absentNodeWaitMs: 0 });
  listServices(absent);
  assert.equal(absent.opened, 0);
  absent.gate.listed('nodes');
  assert.equal(absent.opened, 1);
});

for (const [needs, lacking, enough] of [
  [{ addresses: true, podCIDRs: false }, node({ podCIDR: '10.1.0.0/24' }), node({ address: '10.0.0.7' })],
  [{ addresses: false, podCIDRs: true }, node({ address: '10.0.0.7' }), node({ podCIDR: '10.1.0.0/24' })],
  [
    { addresses: true, podCIDRs: true },
    node({ address: '10.0.0.7' }),
    node({ address: '10.0.0.7', podCIDR: 'fd00::/64' }),
  ],
] as const) {
  test(`${JSON.stringify(needs)}: waits without limit, and says so every minute`, async () => {
    const one = rig({ needs, absentNodeWaitMs: 0 });
    listServices(one);
    one.gate.listed('nodes');
    one.gate.nodeSeen(lacking);
    await one.clock.advance(3_600_000);
    assert.equal(one.opened, 0);
    assert.ok(one.logged.length >= 60, `${one.logged.length} lines in an hour`);
    const what = needs.addresses ? /nodePortAddresses "primary"/ : /detectLocalMode NodeCIDR/;
    assert.match(one.logged.at(-1)!, what);
    assert.match(one.logged.at(-1)!, /what is in the kernel stays as it is/);
    assert.match(one.gate.waitsFor!, what);
    one.gate.nodeSeen(enough);
    assert.equal(one.opened, 1);
    const lines = one.logged.length;
    await one.clock.advance(3_600_000);
    assert.equal(one.logged.length, lines);
  });
}

test('closed, it opens no more', async () => {
  const one = rig();
  listServices(one);
  one.gate.close();
  await one.clock.advance(100_000);
  one.gate.nodeSeen(node());
  assert.equal(one.opened, 0);
});
