/** What a sync costs in netlink messages and processes, whatever the machine: counts, not times. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { scaleCluster, scaleSlices } from '../../fakes/cluster-generator.js';
import { parseAddress } from '../../../src/values/address.js';
import { FaultRig } from '../../support/fault-rig.js';

const ENDPOINTS = 10;
const SAME = { services: 0, endpointsPerService: ENDPOINTS };

async function rigOf(services: number): Promise<FaultRig> {
  const rig = new FaultRig();
  for (const object of scaleCluster({ services, endpointsPerService: ENDPOINTS })) rig.core.set(object);
  assert.equal(await rig.sync(), true);
  assert.deepEqual(rig.drift(), []);
  return rig;
}

/** Messages, processes and kernel changes that `act` and a sync cost. */
async function costOf(rig: FaultRig, act: () => void, sync = () => rig.sync()): Promise<Cost> {
  const [messages, processes, written] = [rig.messages, rig.iptables.calls.length, rig.written.length];
  act();
  assert.equal(await sync(), true);
  assert.deepEqual(rig.drift(), []);
  const cost = { messages: rig.messages - messages, processes: rig.iptables.calls.length - processes };
  return { ...cost, written: rig.written.slice(written) };
}

interface Cost {
  readonly messages: number;
  readonly processes: number;
  readonly written: readonly string[];
}

function fewer(rig: FaultRig, service: number): void {
  for (const slice of scaleSlices(service, SAME))
    rig.core.set({ ...slice, endpoints: (slice['endpoints'] as unknown[]).slice(1) });
}

function same(rig: FaultRig, service: number): void {
  for (const slice of scaleSlices(service, SAME)) rig.core.set(slice);
}

function moved(rig: FaultRig, service: number): void {
  for (const slice of scaleSlices(service, SAME, { endpoint: 3, by: 1 })) rig.core.set(slice);
}

test('a change costs its own messages and no process, with 100 Services as with 2,000', async () => {
  const costs: Record<string, Cost>[] = [];
  for (const services of [100, 2000]) {
    const rig = await rigOf(services);
    costs.push({
      'endpoint removed': await costOf(rig, () => fewer(rig, 5)),
      'endpoint added': await costOf(rig, () => same(rig, 5)),
      'endpoint replaced': await costOf(rig, () => moved(rig, 7)),
      'nothing changed': await costOf(rig, () => same(rig, 9)),
      verification: await costOf(
        rig,
        () => undefined,
        () => rig.verify(),
      ),
    });
  }
  const [small, large] = costs as [Record<string, Cost>, Record<string, Cost>];
  console.log('messages with 2,000 Services:', JSON.stringify(large));
  assert.deepEqual(large, small);
  for (const what of ['endpoint removed', 'endpoint added', 'endpoint replaced']) {
    assert.ok(large[what]!.messages <= 4, `${what}: ${large[what]!.messages} messages`);
    assert.equal(large[what]!.processes, 0, what);
  }
  assert.deepEqual(large['nothing changed'], { messages: 0, processes: 0, written: [] });
  assert.deepEqual(large['verification']!.written, [], 'a verification that finds nothing writes nothing');
  assert.ok(large['verification']!.processes <= 2, 'at most iptables-save, once per family');
});

test('a change walks through no map or set that is as large as the cluster', async () => {
  const rig = await rigOf(2000);
  const walked = await walksDuring(1000, async () => {
    moved(rig, 7);
    assert.equal(await rig.sync(), true);
  });
  assert.deepEqual(walked, []);
  assert.notDeepEqual(
    await walksDuring(1000, () => rig.verify()),
    [],
    'what looks for walks finds those of a verification',
  );
});

test('a claim, a protected address and an address of a veth concern no Service that does not name them', async () => {
  const rig = await rigOf(2000);
  const service = (name: string, clusterIP: string, more: object) => ({
    kind: 'Service',
    metadata: { namespace: 'conflict', name, creationTimestamp: '2024-01-01T00:00:00Z' },
    spec: { clusterIP, ports: [{ port: 80 }], ...more },
  });
  rig.core.set(service('a', '10.99.0.1', { externalIPs: ['198.51.100.200'] }));
  assert.equal(await rig.sync(), true);
  const { cluster } = rig.core;
  const address = (text: string) => parseAddress(text)!;
  const steps: Record<string, () => unknown> = {
    'an older claim': () => rig.core.set(service('b', '10.99.0.2', { externalIPs: ['198.51.100.200', '10.99.0.1'] })),
    'a protected address': () => cluster.protect('x', { addresses: [address('198.51.100.200')], reason: 'needed' }),
    'no more protected': () => cluster.protect('x', undefined),
    'a veth': () => cluster.setLocalAddresses(new Set([...cluster.localAddresses, address('fe80::1234')])),
    'the claim is gone': () => rig.core.delete(service('b', '10.99.0.2', {})),
  };
  for (const [what, act] of Object.entries(steps)) {
    let dirty = 0;
    const walked = await walksDuring(1000, async () => {
      act();
      dirty = cluster.dirtyCount;
      await rig.core.update();
    });
    assert.deepEqual(walked, [], what);
    assert.ok(dirty <= 2, `${what}: ${dirty} Services dirty`);
  }
});

/** Where maps and sets of `size` and more were iterated while `work` went on. */
async function walksDuring(size: number, work: () => Promise<unknown>): Promise<string[]> {
  const walks: string[] = [];
  const restore: (() => void)[] = [];
  // The fakes stand for the kernel, which has its own ways to find something.
  const note = (stack: string): void => void (stack.split('\n')[2]?.includes('/test/fakes/') || walks.push(stack));
  for (const prototype of [Map.prototype, Set.prototype] as { readonly size: number }[])
    for (const name of ['keys', 'values', 'entries', 'forEach', Symbol.iterator]) {
      const original = Object.getOwnPropertyDescriptor(prototype, name)!;
      const value = function (this: { readonly size: number }, ...args: unknown[]): unknown {
        if (this.size >= size) note(new Error(`${String(name)} of ${this.size}`).stack ?? '');
        return (original.value as (...args: unknown[]) => unknown).apply(this, args);
      };
      Object.defineProperty(prototype, name, { ...original, value });
      restore.push(() => Object.defineProperty(prototype, name, original));
    }
  try {
    await work();
  } finally {
    for (const undo of restore) undo();
  }
  return walks;
}
