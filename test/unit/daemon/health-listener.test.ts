/** The health server listens before anything else, and answers by whatever is there. */
import assert from 'node:assert/strict';
import { type RequestListener } from 'node:http';
import { type AddressInfo, type Server, createServer } from 'node:net';
import { type TestContext, test } from 'node:test';
import { HealthListener } from '../../../src/daemon/health-listener.js';
import { until } from '../../fakes/api-server-testing.js';

const answer =
  (text: string): RequestListener =>
  (_request, response) =>
    void response.end(text);
const log = { info: () => undefined, warn: () => undefined };

async function occupied(t: TestContext): Promise<{ port: number; server: Server }> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => server.close());
  return { port: (server.address() as AddressInfo).port, server };
}

function listener(t: TestContext, port: number, hardFail: boolean): HealthListener {
  const made = new HealthListener({
    address: { host: '127.0.0.1', port },
    hardFail,
    beginning: answer('starting'),
    log,
    retryMs: [5, 5],
  });
  t.after(() => made.close());
  return made;
}

async function get(port: number): Promise<string> {
  try {
    return await (await fetch(`http://127.0.0.1:${port}/livez`, { headers: { connection: 'close' } })).text();
  } catch {
    return 'nothing';
  }
}

test('answers from the start, and by the real thing once that is there, on the same socket', async (t) => {
  const { port, server } = await occupied(t);
  await new Promise((resolve) => server.close(resolve));
  const health = listener(t, port, true);
  await health.start();
  assert.equal(await get(port), 'starting');
  await health.insist();
  health.serve(answer('real'));
  assert.equal(await get(port), 'real');
});

test('a port that another instance has is waited for; under bindAddressHardFail only until the lock is ours', async (t) => {
  const { port, server } = await occupied(t);
  const patient = listener(t, port, false);
  await patient.start();
  await patient.insist();
  const strict = listener(t, port, true);
  await strict.start();
  await assert.rejects(strict.insist(), /another process has this port/);
  await new Promise((resolve) => server.close(resolve));
  await until('listening', () => patient.port !== undefined);
  assert.equal(await get(port), 'starting');
});

test('without an address nothing listens, and nothing fails', async () => {
  const none = new HealthListener({ address: undefined, hardFail: true, beginning: answer(''), log });
  await none.start();
  await none.insist();
  none.serve(answer(''));
  await none.close();
});
