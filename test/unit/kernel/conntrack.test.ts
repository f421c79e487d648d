import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConntrackClient, ConntrackUnavailableError, StaleFlows } from '../../../src/kernel/conntrack/client.js';
import { FlowReader } from '../../../src/kernel/conntrack/message.js';
import { NetlinkError, NetlinkProtocolError } from '../../../src/netlink/errors.js';
import { emptyMessage, readMessage } from '../../../src/netlink/message.js';
import { FakeKernel } from '../../fakes/fake-kernel.js';
import { type FakeConntrack, type FakeFlow } from '../../fakes/fake-kernel-conntrack.js';
import { FakeNetfilter } from '../../fakes/fake-kernel-netfilter.js';
import { splitMessages } from '../../fakes/netlink-bytes.js';
import { Replay } from '../../fakes/netlink-recording.js';
import { FLOWS, address, backend, conntrackSession, server, staleFlows } from '../../support/netfilter-sessions.js';

const PROTOCOLS: Readonly<Record<string, number>> = { udp: 17, tcp: 6 };

/** The fake's entry for the arguments of `conntrack -I`. */
function fakeFlow(args: string, id: number): FakeFlow {
  const value = (option: string): string => new RegExp(`${option} (\\S+)`).exec(args)![1]!;
  return {
    id,
    protocol: PROTOCOLS[value('-p')]!,
    original: {
      source: address(value('-s')),
      sourcePort: Number(value('--sport')),
      destination: address(value('-d')),
      destinationPort: Number(value('--dport')),
    },
    reply: {
      source: address(value('-r')),
      sourcePort: Number(value('--reply-port-src')),
      destination: address(value('-q')),
      destinationPort: Number(value('--reply-port-dst')),
    },
  };
}

function fake(): { kernel: FakeKernel; conntrack: FakeConntrack; client: ConntrackClient } {
  const kernel = new FakeKernel();
  const conntrack = new FakeNetfilter(kernel).conntrack!;
  conntrack.flows = FLOWS.map(({ args }, i) => fakeFlow(args, i + 1));
  return { kernel, conntrack, client: new ConntrackClient(kernel.open) };
}

const STALE = FLOWS.filter(({ stale }) => stale).length;
const KEPT = FLOWS.map(({ stale }, i) => (stale ? 0 : i + 1)).filter((id) => id > 0);
const ALL_GONE = { found: STALE, deleted: STALE, failures: [] };

test('sends the bytes that the real kernel understood, and reads what it answered', async () => {
  const replay = new Replay('test/fixtures/netlink/conntrack.json');
  const results = await conntrackSession(replay.open);
  assert.ok(replay.finished, 'the whole recording was used');
  assert.deepEqual(results, [ALL_GONE, { found: 0, deleted: 0, failures: [] }]);
});

for (const filter of ['yes', 'ignores', 'refuses'] as const) {
  test(`just the stale entries go, on a kernel whose dump filter answers: ${filter}`, async () => {
    const { client, conntrack } = fake();
    conntrack.filter = filter;
    assert.deepEqual(await client.deleteStale(staleFlows()), ALL_GONE);
    assert.deepEqual(
      conntrack.flows.map(({ id }) => id),
      KEPT,
    );
    if (filter === 'yes') assert.equal(conntrack.listed, FLOWS.length - 1, 'the TCP entry was not sent');
    const { dumps } = conntrack;
    await client.deleteStale(staleFlows());
    assert.equal(conntrack.dumps - dumps, 2, 'one dump a family, and a filter once refused is not tried again');
  });
}

test('a thousand pairs cost one dump, and nothing to look for costs none', async () => {
  const { client, conntrack, kernel } = fake();
  const stale = new StaleFlows();
  assert.deepEqual(await client.deleteStale(stale), { found: 0, deleted: 0, failures: [] });
  assert.equal(kernel.handled, 0);
  for (let i = 0; i < 1000; i++) stale.addPair(server('UDP', '10.96.0.10', 1 + i), backend('10.0.1.2', 5353));
  await client.deleteStale(stale);
  assert.equal(conntrack.dumps, 1);
});

test('an entry that vanished or was replaced meanwhile is no failure; a refusal is, and hides nothing', async () => {
  const { client, conntrack, kernel } = fake();
  kernel.onSend = (datagram) => {
    // between the dump and the deletion one is gone, one is a new entry with the same tuple
    if ((splitMessages(datagram)[0]!.type & 255) !== 2) return;
    conntrack.flows = conntrack.flows
      .filter(({ id }) => id !== 2)
      .map((flow) => (flow.id === 3 ? { ...flow, id: 99 } : flow));
  };
  assert.deepEqual(await client.deleteStale(staleFlows()), { found: STALE, deleted: STALE - 2, failures: [] });
  assert.ok(conntrack.flows.some(({ id }) => id === 99));
  const refusing = fake();
  refusing.kernel.faults.push({ at: 'send', code: 'EPERM', when: ([first]) => (first!.type & 255) === 2 });
  const result = await refusing.client.deleteStale(staleFlows());
  assert.deepEqual(
    result.failures.map(({ code }) => code),
    Array(4).fill('EPERM'),
    'all of IPv4',
  );
  assert.deepEqual([result.found, result.deleted], [STALE, 1], 'IPv6 went on');
});

test('an entry of which only half is told is left alone, whatever came before it', async () => {
  const { client, conntrack } = fake();
  const half = { ...conntrack.flows[1]!, id: 77, reply: undefined };
  conntrack.flows.splice(2, 0, half);
  assert.deepEqual(await client.deleteStale(staleFlows()), ALL_GONE);
  assert.ok(conntrack.flows.includes(half));
});

test('what counts as stale: pair, unanswered, backend behind any address', () => {
  const matches = (stale: StaleFlows): number[] =>
    FLOWS.map(({ args }, i) => ({ flow: fakeFlow(args, i), i }))
      .filter(({ flow }) => {
        const tuple = (one: FakeFlow['reply']) => ({ ...one, protocol: flow.protocol }) as never;
        return stale.matches({ original: tuple(flow.original), reply: tuple(flow.reply) });
      })
      .map(({ i }) => i);
  const pair = new StaleFlows();
  pair.addPair(server('UDP', '10.96.0.10', 53), backend('10.0.1.1', 5353));
  assert.deepEqual(matches(pair), [0]);
  const unanswered = new StaleFlows();
  unanswered.addUnanswered(server('UDP', '10.96.0.12', 53));
  assert.deepEqual(matches(unanswered), [4]);
  const direct = new StaleFlows();
  direct.addBackend('UDP', backend('10.0.9.9', 99));
  assert.deepEqual(matches(direct), [5], 'traffic straight to the pod, without a Service, is left alone');
  const tcp = new StaleFlows();
  tcp.addBackend('TCP', backend('10.0.1.2', 5353));
  assert.deepEqual(matches(tcp), [8]);
});

test('without nf_conntrack_netlink, or without nfnetlink, the error names the module', async () => {
  const kernel = new FakeKernel();
  new FakeNetfilter(kernel).conntrack = undefined;
  await assert.rejects(
    () => new ConntrackClient(kernel.open).deleteStale(staleFlows()),
    (error) => error instanceof ConntrackUnavailableError && /modprobe nf_conntrack_netlink/.test(error.message),
  );
  const refuse = (): never => {
    throw new NetlinkError({ operation: 'open', errno: 93 });
  };
  assert.throws(() => new ConntrackClient(refuse), ConntrackUnavailableError);
});

test('once the module is loaded the kernel is asked for what concerns it alone, as if it had always been there', async () => {
  const kernel = new FakeKernel();
  const netfilter = new FakeNetfilter(kernel);
  const { conntrack } = netfilter;
  netfilter.conntrack = undefined;
  const client = new ConntrackClient(kernel.open);
  await assert.rejects(() => client.deleteStale(staleFlows()), ConntrackUnavailableError);
  netfilter.conntrack = conntrack;
  conntrack!.flows = FLOWS.map(({ args }, i) => fakeFlow(args, i + 1));
  assert.deepEqual(await client.deleteStale(staleFlows()), ALL_GONE);
  assert.equal(conntrack!.listed, FLOWS.length - 1, 'the TCP entry was not sent');
});

test('a dump that fails for another reason is told by it, and is neither tried without the filter nor blamed on a module', async () => {
  for (const filter of ['yes', 'refuses'] as const)
    for (const code of ['EPERM', 'ENOMEM']) {
      const { kernel, conntrack, client } = fake();
      conntrack.filter = filter;
      if (filter === 'refuses') await client.deleteStale(staleFlows());
      const before = conntrack.dumps;
      kernel.faults.push({ at: 'message', code });
      await assert.rejects(
        client.deleteStale(staleFlows()),
        (error) => error instanceof NetlinkError && error.code === code,
      );
      assert.equal(conntrack.dumps, before);
    }
});

test('every truncation of a recorded entry is a typed error or an incomplete one, never a read out of bounds', () => {
  const { recording } = new Replay('test/fixtures/netlink/conntrack.json');
  const datagram = Buffer.from(recording.datagrams.find(([direction]) => direction === '<')![1], 'hex');
  const length = datagram.readUInt32LE(0);
  let typed = 0;
  for (let cut = 16; cut < length; cut++) {
    const bytes = Buffer.from(datagram.subarray(0, cut));
    bytes.writeUInt32LE(cut, 0);
    const message = emptyMessage(bytes);
    readMessage(message, bytes, 0, cut);
    try {
      new FlowReader().read(message);
    } catch (error) {
      assert.ok(error instanceof NetlinkProtocolError, String(error));
      typed++;
    }
  }
  assert.ok(typed > 100, `${typed} truncations were noticed`);
});
