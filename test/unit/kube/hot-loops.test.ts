/** Whatever a server or something before it does, nobody is asked in a loop: every round waits, ever longer. */
import assert from 'node:assert/strict';
import { type Socket, createServer } from 'node:net';
import { type TestContext, test } from 'node:test';
import { KubeClient } from '../../../src/kube/client.js';
import { Reflector } from '../../../src/kube/reflector.js';
import { parseService } from '../../../src/model/service.js';
import { type FaultRule } from '../../fakes/api-server-faults.js';
import { startReflector } from '../../fakes/api-server-rig.js';
import { TestClock, TestSink, testService, until } from '../../fakes/api-server-testing.js';

const GROWING = [400, 800, 1600, 3200, 6400, 12_800, 15_000, 15_000, 15_000, 15_000];

/** Answers each request with `answer` and closes; counts the connections. */
async function rawServer(t: TestContext, answer: string): Promise<{ url: string; count: () => number }> {
  let count = 0;
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    count++;
    sockets.add(socket);
    socket.on('error', () => undefined);
    if (answer === '') socket.destroy();
    else socket.once('data', () => socket.end(answer));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const { port } = server.address() as { port: number };
  return { url: `http://127.0.0.1:${port}`, count: () => count };
}

const HEAD = 'HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/json\r\n\r\n';
for (const [name, answer] of [
  ['accepts and closes', ''],
  ['answers no HTTP', 'SSH-2.0-OpenSSH_9.2\r\n'],
  ['answers 200 and nothing', HEAD],
  ['answers 200 and HTML', `${HEAD}<html>login</html>\n`],
  ['answers 200 and an empty object', `${HEAD}{}\n`],
  ['answers 200 and an ERROR event', `${HEAD}{"type":"ERROR","object":{"kind":"Status","code":500,"reason":"x"}}\n`],
  [
    'answers 200 and an ERROR 410',
    `${HEAD}{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired"}}\n`,
  ],
] as const) {
  test(`a server that ${name}`, async (t) => {
    const server = await rawServer(t, answer);
    const clock = new TestClock();
    const client = new KubeClient({ master: server.url, clock, headerTimeoutMs: 600_000 });
    const log = { info: () => undefined, warn: () => undefined };
    const reflector = new Reflector({
      client,
      resource: 'services',
      path: '/api/v1/services',
      idleMs: 400_000,
      listIdleMs: 500_000,
      parse: parseService,
      sink: new TestSink(),
      onProblem: () => undefined,
      log,
      clock,
    });
    t.after(async () => {
      await reflector.close();
      client.close();
    });
    reflector.start();
    const { waits } = clock;
    await until('ten waits', () => waits.length >= 10);
    assert.deepEqual(waits.slice(0, 10), GROWING);
    // Falling back from a streaming list to pages is one request more, once or each round.
    assert.ok(server.count() <= 2 * waits.length + 2, `${server.count()} connections in ${waits.length} rounds`);
  });
}

test('a watch that gives one event and then 410, again and again, is not a list each time', async (t) => {
  const rig = await startReflector(t, { objects: [testService('a')] });
  await rig.synced();
  for (let i = 1; i < 8; i++) {
    await until('a watch', () => rig.reflector.state().lists === i && rig.server.watches.size === 1);
    await until('listed', () => rig.reflector.state().resourceVersion !== undefined);
    const seen = rig.sink.calls.length;
    rig.server.set(testService('a'));
    await until('the event', () => rig.sink.calls.length > seen);
    rig.server.compact();
    rig.server.disturb('error410');
  }
  await until('seven waits', () => rig.clock.waits.length >= 7);
  assert.deepEqual(rig.clock.waits.slice(0, 7), GROWING.slice(0, 7));
});

test('ERROR events and garbage on every watch: neither watches nor lists in a loop', async (t) => {
  const faults: readonly FaultRule[] = [
    { requests: ['watch'], times: 5, fault: { kind: 'streamError', code: 500, reason: 'InternalError' } },
    { requests: ['watch'], times: 5, fault: { kind: 'garbage' } },
  ];
  const rig = await startReflector(t, { objects: [testService('a')], faults, reflector: { streaming: false } });
  await until('all faults met', () => rig.reflector.state().failures === 10 && rig.server.watches.size === 1);
  assert.deepEqual(rig.clock.waits.slice(0, 10), GROWING);
});
