/**
 * Netlink going wrong under the whole reconciler: the rest of a batch lands, what failed is tried again and lands, and
 * metric and health say so meanwhile. Without verification: a failure must not need one to be made up for.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NLM_F_DUMP } from '../../../src/netlink/message.js';
import { IpvsCommand } from '../../../src/kernel/ipvs/message.js';
import { NETLINK_GENERIC, NETLINK_NETFILTER, NETLINK_ROUTE } from '../../../src/netlink/socket.js';
import { parseAddress } from '../../../src/values/address.js';
import { addressServerKey } from '../../../src/values/virtual-server.js';
import { scaleCluster } from '../../fakes/cluster-generator.js';
import { type FakeFault } from '../../fakes/fake-kernel-faults.js';
import { type WireMessage } from '../../fakes/netlink-bytes.js';
import { FaultRig } from '../../support/fault-rig.js';

const SERVICES = { services: 40, endpointsPerService: 5 };

/** Adopted an empty kernel, so that the next sync's first netlink message is the first of a batch of changes. */
async function adopted(): Promise<FaultRig> {
  const rig = new FaultRig();
  assert.equal(await rig.sync(), true);
  return rig;
}

/** The cluster arrives: 40 virtual servers with 5 real servers each, 240 messages in one batch. */
function addCluster(rig: FaultRig, scale = SERVICES): void {
  for (const object of scaleCluster(scale)) rig.core.set(object);
}

async function assertRecovered(rig: FaultRig, what: string): Promise<void> {
  assert.equal(await rig.sync(), true, `${what}: the next sync succeeds`);
  assert.deepEqual(rig.drift(), [], `${what}: everything is in the kernel`);
  assert.ok(!rig.hasVerified, `${what}: without a verification`);
  assert.deepEqual(rig.health(), { ...rig.health(), healthy: true, reasons: [] }, what);
  assert.equal(await rig.verify(), true);
  assert.equal(rig.verifiedDrift, 0, `${what}: a verification finds nothing left`);
}

for (const code of ['EBUSY', 'ENOBUFS', 'EINTR', 'ENOMEM', 'EPERM']) {
  test(`message 3 of 240 refused with ${code}: the rest lands, it alone is tried again`, async () => {
    const rig = await adopted();
    addCluster(rig);
    rig.kernel.faults.push({ at: 'message', code, skip: 2, protocol: NETLINK_GENERIC, text: 'injected' });
    assert.equal(await rig.sync(), false);
    const drift = rig.drift();
    assert.equal(drift.length, 1, drift.join());
    assert.match(drift[0]!, /^- -a -t 10\.96\.1\.0:80 -r 10\.128\./);
    assert.equal(rig.lastReport.failures.length, 1);
    assert.match(rig.lastReport.failures[0]!.message, new RegExp(`add-real-server .*${code}: injected`));
    assert.equal(await rig.metric('kubeproxy_ipvs_netlink_failures_total', `errno="${code}"`), 1);
    const health = rig.health();
    assert.equal(health.healthy, false);
    assert.match(health.reasons.join(), new RegExp(`waited.*${code}`));
    const written = rig.written.length;
    await assertRecovered(rig, code);
    assert.deepEqual(rig.written.slice(written), ['add'], 'one message made up for it');
  });
}

test('what is not known of one virtual server is asked for that one alone, what is of many in one list', async () => {
  for (const [services, lists] of [
    [1, 0],
    [300, 1],
  ] as const) {
    const rig = await adopted();
    addCluster(rig, { services, endpointsPerService: 5 });
    rig.kernel.faults.push({ at: 'message', code: 'EBUSY', protocol: NETLINK_GENERIC, stays: true });
    assert.equal(await rig.sync(), false);
    rig.kernel.faults.length = 0;
    let listed = 0;
    const isList = ({ body, flags }: WireMessage): boolean =>
      body[0] === IpvsCommand.getService && (flags & NLM_F_DUMP) !== 0;
    const when = (messages: readonly WireMessage[]): boolean => {
      listed += messages.filter(isList).length;
      return false;
    };
    rig.kernel.faults.push({ at: 'send', code: 'never', protocol: NETLINK_GENERIC, when });
    assert.equal(await rig.sync(), true);
    assert.deepEqual(rig.drift(), []);
    assert.equal(listed, lists, `${services} uncertain`);
  }
});

test('the first message of a virtual server refused: those that need it fail too, all land later', async () => {
  const rig = await adopted();
  addCluster(rig);
  rig.kernel.faults.push({ at: 'message', code: 'ENOMEM', protocol: NETLINK_GENERIC });
  assert.equal(await rig.sync(), false);
  assert.equal(rig.drift().length, 1 + SERVICES.endpointsPerService);
  await assertRecovered(rig, 'virtual server');
});

test('a message of every batch refused, several times in a row', async () => {
  const rig = await adopted();
  addCluster(rig);
  for (let i = 0; i < 4; i++) {
    for (const skip of [5, 100])
      rig.kernel.faults.push({ at: 'message', code: 'EBUSY', skip, protocol: NETLINK_GENERIC });
    await rig.sync();
    rig.kernel.faults.length = 0;
  }
  await assertRecovered(rig, 'again and again');
});

const LOST: readonly [what: string, fault: FakeFault, isSeen: boolean][] = [
  ['send: EINTR', { at: 'send', code: 'EINTR' }, false],
  ['send: ENOBUFS', { at: 'send', code: 'ENOBUFS' }, true],
  ['send: ENOMEM', { at: 'send', code: 'ENOMEM' }, true],
  ['send: EPERM', { at: 'send', code: 'EPERM' }, true],
  ['receive: EINTR', { at: 'receive', code: 'EINTR' }, false],
  ['receive: ENOBUFS', { at: 'receive', code: 'ENOBUFS' }, true],
  ['receive: ENOMEM', { at: 'receive', code: 'ENOMEM' }, true],
  ['answer cut in its header', { at: 'answer', change: (datagram) => datagram.subarray(0, 10) }, true],
  ['answer cut in its payload', { at: 'answer', change: (datagram) => datagram.subarray(0, 18) }, true],
  ['answer lost', { at: 'answer', change: () => undefined }, true],
  ['answer of zeros', { at: 'answer', change: (datagram) => Buffer.alloc(datagram.length) }, true],
  ['answer empty', { at: 'answer', change: () => Buffer.alloc(0) }, true],
];

for (const [what, fault, isSeen] of LOST) {
  test(`IPVS batch, ${what}: what is unknown is read back, nothing is lost`, async () => {
    const rig = await adopted();
    addCluster(rig);
    rig.kernel.faults.push(fault);
    assert.equal(await rig.sync(), !isSeen, 'the sync says whether something failed');
    assert.equal(rig.kernel.faults.length, 0, 'the fault struck');
    assert.equal(rig.health().healthy, !isSeen);
    assert.equal((await rig.metric('kubeproxy_ipvs_netlink_failures_total')) > 0, isSeen);
    if (isSeen) await assertRecovered(rig, what);
    assert.deepEqual(rig.drift(), []);
  });
}

for (const code of ['EBUSY', 'ENOMEM', 'EPERM', 'EINTR']) {
  test(`an address refused with ${code} is bound by the next sync, the others at once`, async () => {
    const rig = await adopted();
    addCluster(rig);
    rig.kernel.faults.push({ at: 'message', code, skip: 7, protocol: NETLINK_ROUTE });
    assert.equal(await rig.sync(), false);
    assert.deepEqual(rig.drift(), ['- address 10.96.1.7']);
    assert.equal(await rig.metric('kubeproxy_ipvs_netlink_failures_total', `errno="${code}"`), 1);
    await assertRecovered(rig, code);
  });
}

for (const attempts of [1, 3]) {
  test(`a dump interrupted ${attempts} times is started again, and nothing is touched for it`, async () => {
    const rig = await adopted();
    addCluster(rig);
    await rig.sync();
    const written = rig.written.length;
    for (let i = 0; i < attempts; i++) rig.kernel.faults.push({ at: 'dump' });
    assert.equal(await rig.verify(), true);
    assert.equal(rig.kernel.faults.length, 0);
    assert.equal(rig.verifiedDrift, 0);
    assert.equal(rig.written.length, written);
  });
}

test('a dump that is interrupted without end fails the verification, which is made up for', async () => {
  const rig = await adopted();
  addCluster(rig);
  await rig.sync();
  const written = rig.written.length;
  for (let i = 0; i < 8; i++) rig.kernel.faults.push({ at: 'dump' });
  assert.equal(await rig.verify(), false);
  assert.equal(rig.written.length, written, 'nothing is repaired from half a dump');
  assert.equal(await rig.metric('kubeproxy_ipvs_sync_failures_total', 'stage="sync"'), 1);
  assert.match(rig.health().reasons.join(), /EINTR/);
  rig.kernel.links.removeAddress('kube-ipvs0', '10.96.1.7');
  assert.equal(await rig.sync(), true, 'the next sync verifies, though its interval has not passed');
  assert.equal(rig.verifiedDrift, 1);
  assert.deepEqual(rig.drift(), []);
  assert.equal(rig.health().healthy, true);
});

for (const code of ['EPERM', 'ENOBUFS', 'ENOMEM']) {
  test(`ipset: send fails with ${code}: IPVS goes on, the elements follow`, async () => {
    const rig = await adopted();
    addCluster(rig);
    rig.kernel.faults.push({ at: 'send', code, protocol: NETLINK_NETFILTER });
    await rig.sync();
    assert.ok(
      !rig.drift().some((line) => line.startsWith('- -')),
      'every virtual and real server is there all the same',
    );
    await assertRecovered(rig, code);
  });
}

test('ipset: elements that the kernel refuses are named and tried again, the others are there', async () => {
  const rig = await adopted();
  addCluster(rig);
  const ipset = rig.kernel.netfilter.ipset!;
  let refused = 0;
  ipset.refuse = (set, element) =>
    set === 'KUBE-CLUSTER-IP' && element.includes('0a600103') && ++refused > 0 ? 12 : 0;
  assert.equal(await rig.sync(), false);
  assert.deepEqual(rig.drift(), ['- add KUBE-CLUSTER-IP 10.96.1.3,tcp:80']);
  assert.match(rig.lastReport.failures[0]!.message, /KUBE-CLUSTER-IP 10\.96\.1\.3,tcp:80.*ENOMEM/);
  assert.equal(await rig.sync(), false);
  assert.equal(refused, 2, 'tried once per sync');
  ipset.refuse = () => 0;
  await assertRecovered(rig, 'element');
});

test('ipset: a change that finds its set gone brings back all that was in it, and in one made of another type', async () => {
  const rig = await adopted();
  addCluster(rig);
  assert.equal(await rig.sync(), true);
  const { sets } = rig.kernel.netfilter.ipset!;
  sets.delete('KUBE-CLUSTER-IP');
  sets.get('KUBE-EXTERNAL-IP')!.type = 'hash:ip';
  for (const object of scaleCluster({ ...SERVICES, services: 41 })) rig.core.set(object);
  assert.equal(await rig.sync(), false);
  assert.equal(rig.lastReport.failures[0]!.code, 'ENOENT');
  assert.equal(await rig.sync(), true);
  assert.deepEqual(rig.drift(), []);
  assert.equal(rig.verifiedDrift, 40, 'missing was what the change had not brought');
  assert.equal(sets.get('KUBE-EXTERNAL-IP')!.type, 'hash:ip,port');
});

test('ipset: a truncated answer leaves nothing undone', async () => {
  const rig = await adopted();
  addCluster(rig);
  const change = (answer: Buffer): Buffer => answer.subarray(0, 9);
  rig.kernel.faults.push({ at: 'answer', change, protocol: NETLINK_NETFILTER });
  await rig.sync();
  await assertRecovered(rig, 'truncated');
});

test('without permission nothing changes and everything says so; with it again all lands', async () => {
  const rig = new FaultRig();
  addCluster(rig);
  rig.kernel.permitted = false;
  assert.equal(await rig.sync(), false);
  assert.equal(rig.reconciler.adopted, false);
  assert.deepEqual(rig.kernel.ipvs.dump(), []);
  assert.match(rig.health().reasons.join(), /EPERM/);
  assert.equal(await rig.metric('kubeproxy_ipvs_sync_failures_total', 'stage="sync"'), 1);
  rig.kernel.permitted = true;
  await assertRecovered(rig, 'permission');
});

test('the dummy link vanishes between two changes: it is made again with all its addresses', async () => {
  const rig = await adopted();
  addCluster(rig);
  await rig.sync();
  rig.kernel.links.deleteLink('kube-ipvs0');
  for (const object of scaleCluster({ services: 42, endpointsPerService: 1 })) rig.core.set(object);
  await rig.sync();
  await rig.sync();
  assert.deepEqual(rig.drift(), []);
});

test('a virtual server of somebody else on a VIP goes in one verification, even when the link was lost with it', async () => {
  const rig = await adopted();
  addCluster(rig);
  await rig.sync();
  const vip = parseAddress('10.96.1.7')!;
  const foreign = parseAddress('172.30.0.7')!;
  for (const address of [vip, foreign])
    rig.kernel.ipvs.table.set(addressServerKey('TCP', address, 7001), {
      settings: { scheduler: 'wlc', flags: 0, timeout: 0 },
      netmask: 0xffffffff,
      realServers: new Map(),
    });
  rig.kernel.links.deleteLink('kube-ipvs0');
  rig.reconciler.prerequisites.linkLost();
  assert.equal(await rig.sync(), true);
  assert.ok(rig.hasVerified);
  assert.deepEqual(rig.drift(), ['+ -A -t 172.30.0.7:7001 -s wlc'], 'what is not on a VIP is left alone');
});
