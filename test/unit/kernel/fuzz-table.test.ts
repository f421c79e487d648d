/** The IPVS table by its two readers: random tables read alike by both. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { IpvsClient } from '../../../src/kernel/ipvs/client.js';
import { IpvsTable, type IpvsTableOptions } from '../../../src/kernel/ipvs/table.js';
import { addressFromBytes } from '../../../src/values/address.js';
import {
  type VirtualServerKey,
  addressServerKey,
  formatRealServer,
  formatVirtualServer,
  fwmarkServerKey,
  realServerKey,
} from '../../../src/values/virtual-server.js';
import { FakeIpvs, type FakeVirtualServer } from '../../fakes/fake-kernel-ipvs.js';
import { FakeKernel } from '../../fakes/fake-kernel.js';
import { fakeOptionSocket } from '../../fakes/fake-option-socket.js';
import { fuzzRuns, fuzzSeeds } from '../../support/fuzz-seed.js';

const port = fc.integer({ min: 1, max: 65535 });
const address = fc
  .oneof(fc.uint8Array({ minLength: 4, maxLength: 4 }), fc.uint8Array({ minLength: 16, maxLength: 16 }))
  .map((bytes) => addressFromBytes(bytes, 0, bytes.length === 4 ? 4 : 6));
const realState = fc.record({
  weight: fc.oneof(fc.constantFrom(0, 1), fc.nat(0x7fffffff)),
  forwarding: fc.nat(3),
  active: fc.nat(100_000),
  inactive: fc.nat(100_000),
});
const virtualServer = fc
  .tuple(
    address,
    fc.constantFrom('TCP' as const, 'UDP' as const, 'SCTP' as const),
    port,
    fc.option(fc.integer({ min: 1, max: 0xffffffff }), { freq: 5 }),
  )
  .chain(([vip, protocol, number, mark]) => {
    const family = vip.length === 4 ? 4 : 6;
    const key = mark === null ? addressServerKey(protocol, vip, number) : fwmarkServerKey(family, mark);
    const real = fc.tuple(address, port).filter(([ip]) => ip.length === vip.length);
    return fc.record({
      key: fc.constant(key),
      scheduler: fc.constantFrom('rr', 'wlc', 'mh', 'lblcr'),
      timeout: fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 86_400 })),
      flags: fc.constantFrom(0, 8, 0x10, 0x18),
      reals: fc.array(fc.tuple(real, realState), { maxLength: 6 }),
    });
  });

function fill(table: FakeIpvs, servers: readonly ReturnType<typeof toServer>[]): void {
  for (const [key, server] of servers) table.table.set(key, server);
}

type Drawn = typeof virtualServer extends fc.Arbitrary<infer T> ? T : never;

function toServer({ key, scheduler, timeout, flags, reals }: Drawn): [VirtualServerKey, FakeVirtualServer] {
  const settings = { scheduler, timeout, flags: flags | (timeout > 0 ? 1 : 0) };
  const realServers = new Map(reals.map(([[ip, number], state]) => [realServerKey(ip, number), { ...state }]));
  const isIPv4 = key.length === 7 || (key.length === 6 && key.charCodeAt(5) === 4);
  return [key, { settings, netmask: isIPv4 ? 0xffffffff : 128, realServers }];
}

async function readBy(kernel: FakeKernel, options: IpvsTableOptions): Promise<string[]> {
  const lines: string[] = [];
  const client = new IpvsClient(kernel.open);
  await new IpvsTable(client, options).read(
    (seen) => {
      if (seen.key.charCodeAt(0) === 0) return; // marks are nobody's business, and the readers show them as they can
      const { scheduler, flags, timeout } = seen.settings;
      lines.push(`${formatVirtualServer(seen.key)} ${scheduler} ${flags} ${timeout} ${seen.modified}`);
      for (let i = 0; i < seen.count; i++)
        lines.push(
          `${formatVirtualServer(seen.key)} -> ${formatRealServer(seen.realServer(i))} ${seen.weight(i)} ${seen.forwarding(i)}`,
        );
    },
    { mayHaveIPv6: true },
  );
  client.close();
  return lines.sort();
}

for (const seed of fuzzSeeds('IPVS tables')) {
  test(`getsockopt and netlink dumps show the same table (seed ${seed})`, async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(virtualServer, { maxLength: 12 }), async (drawn) => {
        const kernel = new FakeKernel();
        const table = new FakeIpvs(kernel);
        fill(table, drawn.map(toServer));
        const dumped = await readBy(kernel, {});
        assert.deepEqual(await readBy(kernel, { openOptionSocket: fakeOptionSocket(table) }), dumped);
        const marks = [...table.table.keys()].filter((key) => key.length === 6).length;
        const reals = dumped.filter((line) => line.includes(' -> ')).length;
        assert.equal(dumped.length - reals, table.table.size - marks);
      }),
      { seed, numRuns: fuzzRuns(150) },
    );
  });
}
