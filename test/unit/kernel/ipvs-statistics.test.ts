/** What IPVS counts, as the kernel's messages tell it: 64 bits where it has them, one server or all. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { IpvsClient } from '../../../src/kernel/ipvs/client.js';
import { IpvsStatistics } from '../../../src/kernel/ipvs/statistics.js';
import { FakeIpvs } from '../../fakes/fake-kernel-ipvs.js';
import { FakeKernel } from '../../fakes/fake-kernel.js';
import { parseAddress } from '../../../src/values/address.js';
import { type VirtualServerKey, addressServerKey, formatVirtualServer } from '../../../src/values/virtual-server.js';

const WEB = addressServerKey('TCP', parseAddress('10.96.0.1')!, 80);
const DNS = addressServerKey('UDP', parseAddress('fd00:10:96::a')!, 53);

function kernel(): { ipvs: FakeIpvs; statistics: IpvsStatistics } {
  const fake = new FakeKernel();
  const ipvs = new FakeIpvs(fake);
  const client = new IpvsClient(fake.open);
  for (const key of [WEB, DNS]) client.addVirtualServer(key, { scheduler: 'rr', flags: 0, timeout: 0 });
  client.flush();
  return { ipvs, statistics: new IpvsStatistics(fake.open) };
}

test('counters of one virtual server are exact beyond 32 bits; nothing is undefined', () => {
  const { ipvs, statistics } = kernel();
  ipvs.table.get(WEB)!.statistics = [5n, 2n ** 32n + 7n, 3n, 2n ** 40n, 2n ** 52n + 1n];
  assert.deepEqual(statistics.of(WEB), {
    ...{ connections: 5, inPackets: 2 ** 32 + 7, outPackets: 3, inBytes: 2 ** 40, outBytes: 2 ** 52 + 1 },
  });
  ipvs.table.delete(WEB);
  assert.equal(statistics.of(WEB), undefined);
});

test('a kernel without numbers of 64 bits tells those of 32, and bytes in full', () => {
  const { ipvs, statistics } = kernel();
  Object.assign(ipvs.table.get(WEB)!, { statistics: [5n, 2n ** 32n + 7n, 3n, 2n ** 40n, 9n], isOld: true });
  const expected = { connections: 5, inPackets: 7, outPackets: 3, inBytes: 2 ** 40, outBytes: 9 };
  assert.deepEqual(statistics.of(WEB), expected);
});

test('one dump has those of every virtual server', async () => {
  const { ipvs, statistics } = kernel();
  ipvs.table.get(DNS)!.statistics = [1n, 2n, 3n, 4n, 5n];
  const found = new Map<VirtualServerKey, number>();
  await statistics.read((server, { outBytes }) => found.set(server, outBytes));
  assert.deepEqual(
    [...found].map(([key, bytes]) => `${formatVirtualServer(key)} ${bytes}`),
    ['TCP 10.96.0.1:80 0', 'UDP [fd00:10:96::a]:53 5'],
  );
});

test('without the kernel module it cannot be opened', () => {
  const fake = new FakeKernel();
  new FakeIpvs(fake).loaded = false;
  assert.throws(() => new IpvsStatistics(fake.open), { code: 'ENOENT' });
});
