/**
 * Stale conntrack entries of UDP backends: gone in the end, whatever fails at first, and without holding up the event
 * loop.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { NETLINK_NETFILTER } from '../../../src/netlink/socket.js';
import { parseAddress } from '../../../src/values/address.js';
import { type FakeFault } from '../../fakes/fake-kernel-faults.js';
import { TestCluster } from '../../support/desired-cluster.js';
import { ReconcileRig } from '../../support/reconcile-rig.js';

const CTNETLINK = 1;
const PORT = { ports: [{ name: '', port: 53, protocol: 'UDP' }] };

async function dns(): Promise<ReconcileRig> {
  const cluster = new TestCluster({ families: [4] });
  cluster.service('dns', { clusterIP: '10.96.0.10', ports: [{ port: 53, protocol: 'UDP' }] });
  cluster.slice('dns', ['10.0.0.1', '10.0.0.2'], PORT);
  const rig = new ReconcileRig(cluster);
  await rig.sync();
  return rig;
}

/** A client with a fixed port that is sent to 10.0.0.BACKEND. */
function addFlow(rig: ReconcileRig, backend: number, port = 999): void {
  const client = { source: parseAddress('10.128.0.5')!, sourcePort: port };
  rig.kernel.netfilter.conntrack!.flows.push({
    id: port,
    protocol: 17,
    original: { ...client, destination: parseAddress('10.96.0.10')!, destinationPort: 53 },
    reply: {
      source: parseAddress(`10.0.0.${backend}`)!,
      sourcePort: 53,
      destination: client.source,
      destinationPort: port,
    },
  });
}

function flows(rig: ReconcileRig): number {
  return rig.kernel.netfilter.conntrack!.flows.length;
}

/** Every message to conntrack fails until the result is called. */
function breakConntrack(rig: ReconcileRig): () => void {
  const when: FakeFault['when'] = ([first]) => first!.type >> 8 === CTNETLINK;
  rig.kernel.faults.push({ at: 'send', code: 'ENOBUFS', protocol: NETLINK_NETFILTER, when, stays: true });
  return () => (rig.kernel.faults.length = 0);
}

describe('a clean-up that fails', () => {
  test('is tried again by itself, after ever longer waits, until it is done; it is told once', async () => {
    const rig = await dns();
    addFlow(rig, 2);
    const mend = breakConntrack(rig);
    rig.cluster.slice('dns', ['10.0.0.1'], PORT);
    const record = await rig.sync();
    assert.equal(record.ok, true, 'the table is right all the same');
    assert.notEqual(record.conntrack[0]!.error, undefined);
    const waits: number[] = [];
    for (let i = 0; i < 8; i++) {
      const { dueIn } = rig.reconciler;
      waits.push(dueIn);
      await rig.clock.advance(dueIn - 1);
      assert.equal((await rig.sync()).conntrack.length, 0, 'not sooner');
      await rig.clock.advance(1);
      const [again] = (await rig.sync()).conntrack;
      if (again === undefined) continue; // a verification was due
      assert.equal(again.isRepeated, true);
    }
    assert.deepEqual(waits.slice(0, 4), [1000, 2000, 4000, 8000]);
    assert.equal(flows(rig), 1);
    mend();
    await rig.clock.advance(60_000);
    assert.equal((await rig.sync()).conntrackDeleted, 1);
    assert.equal(flows(rig), 0);
    await rig.clock.advance(120_000);
    assert.deepEqual((await rig.sync()).conntrack, [], 'and then no more');
  });

  test('leaves alone what is served again meanwhile', async () => {
    const rig = await dns();
    const mend = breakConntrack(rig);
    rig.cluster.slice('dns', ['10.0.0.1'], PORT);
    await rig.sync();
    mend();
    rig.cluster.slice('dns', ['10.0.0.1', '10.0.0.2'], PORT);
    await rig.sync();
    addFlow(rig, 2);
    await rig.clock.advance(60_000);
    await rig.sync();
    assert.equal(flows(rig), 1, 'a live flow of a backend that is back');
  });

  test('goes with the next change', async () => {
    const rig = await dns();
    addFlow(rig, 1, 1001);
    addFlow(rig, 2, 1002);
    const mend = breakConntrack(rig);
    rig.cluster.slice('dns', ['10.0.0.1'], PORT);
    await rig.sync();
    mend();
    rig.cluster.slice('dns', ['10.0.0.3'], PORT);
    assert.equal((await rig.sync()).conntrackDeleted, 2);
    assert.equal(flows(rig), 0);
  });
});

test('100,000 entries are read with pauses', async () => {
  const rig = await dns();
  for (let i = 0; i < 100_000; i++) addFlow(rig, 1, 1 + (i % 60_000));
  addFlow(rig, 2, 60_001);
  rig.cluster.slice('dns', ['10.0.0.1'], PORT);
  let turns = 0;
  let isOver = false;
  const sync = rig.sync().finally(() => (isOver = true));
  const before = rig.kernel.netfilter.conntrack!.dumps;
  while (!isOver) {
    if (rig.kernel.netfilter.conntrack!.dumps > before) turns++;
    await nextTurn();
  }
  assert.equal((await sync).conntrackDeleted, 1);
  assert.ok(turns > 5, `${turns} turns of the event loop while the dump was read`);
});
