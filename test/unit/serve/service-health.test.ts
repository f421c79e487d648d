import assert from 'node:assert/strict';
import { type Socket, connect } from 'node:net';
import { describe, it, type TestContext } from 'node:test';
import { ServiceHealthServer } from '../../../src/serve/service-health.js';
import { type Address, parseAddress } from '../../../src/values/address.js';
import { fetchText, needsIPv6, recordingLog, takenPort, until } from '../../support/http.js';

describe('service health check ports', () => {
  const LOOPBACK_4 = parseAddress('127.0.0.1')!;
  const LOOPBACK_6 = parseAddress('::1')!;

  async function freePort(t: TestContext): Promise<number> {
    const { port, release } = await takenPort(t, '127.0.0.1');
    await release();
    return port;
  }

  function create(t: TestContext, isHealthy = () => true) {
    const { lines, log } = recordingLog();
    const server = new ServiceHealthServer({ log, isProxyHealthy: isHealthy, retryMs: [1, 2] });
    t.after(() => server.close());
    return { server, lines };
  }

  const one = (port: number, localEndpoints: number, name = 'web') =>
    new Map([[port, { namespace: 'default', name, localEndpoints }]]);

  it("answers in kube-proxy's words with the count as weight", async (t) => {
    let healthy = true;
    const { server } = create(t, () => healthy);
    const port = await freePort(t);
    await server.update(one(port, 2), 'all');
    const green = await fetchText(port, '/');
    assert.equal(green.status, 200);
    assert.equal(green.headers['content-type'], 'application/json');
    assert.equal(green.headers['x-content-type-options'], 'nosniff');
    assert.equal(green.headers['x-load-balancing-endpoint-weight'], '2');
    assert.equal(
      green.body,
      '{\n\t"service": {\n\t\t"namespace": "default",\n\t\t"name": "web"\n\t},\n\t"localEndpoints": 2,\n\t"serviceProxyHealthy": true\n}',
    );
    healthy = false;
    assert.equal((await fetchText(port, '/')).status, 503);
  });

  it('answers 503 without local endpoints, on the same socket as before', async (t) => {
    const { server } = create(t);
    const port = await freePort(t);
    await server.update(one(port, 1), [LOOPBACK_4]);
    const before = server.listening;
    await server.update(one(port, 0), [LOOPBACK_4]);
    assert.deepEqual(server.listening, before);
    const answer = await fetchText(port, '/');
    assert.deepEqual([answer.status, answer.headers['x-load-balancing-endpoint-weight']], [503, '0']);
  });

  it('follows the node addresses and the Services', needsIPv6, async (t) => {
    const { server } = create(t);
    const [first, second] = [await freePort(t), await freePort(t)];
    const keys = async (ports: number[], addresses: Address[]): Promise<string[]> => {
      await server.update(new Map(ports.flatMap((port) => [...one(port, 1)])), addresses);
      return [...server.listening.keys()].sort();
    };
    assert.deepEqual(await keys([first], [LOOPBACK_4]), [`127.0.0.1:${first}`]);
    await assert.rejects(fetchText(first, '/', { host: '::1' }), { code: 'ECONNREFUSED' });
    assert.deepEqual(await keys([first], [LOOPBACK_4, LOOPBACK_6]), [`127.0.0.1:${first}`, `[::1]:${first}`]);
    assert.equal((await fetchText(first, '/', { host: '::1' })).status, 200);
    assert.deepEqual(await keys([second], [LOOPBACK_6]), [`[::1]:${second}`]);
    await assert.rejects(fetchText(first, '/'), { code: 'ECONNREFUSED' });
    assert.deepEqual(await keys([], []), []);
    await assert.rejects(fetchText(second, '/', { host: '::1' }), { code: 'ECONNREFUSED' });
  });

  it('logs one clear line for a port in use, and takes the port when it is free', async (t) => {
    const { port, release } = await takenPort(t, '127.0.0.1');
    const { server, lines } = create(t);
    await server.update(one(port, 1), [LOOPBACK_4]);
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.equal(lines.length, 1);
    assert.match(
      lines[0]!,
      /^health check of Service default\/web cannot listen on .*: another process has this port; a process/,
    );
    await release();
    await until(() => server.listening.get(`127.0.0.1:${port}`) === port);
    assert.equal((await fetchText(port, '/')).status, 200);
  });

  it('stops retrying when the Service goes', async (t) => {
    const { port, release } = await takenPort(t, '127.0.0.1');
    const { server } = create(t);
    await server.update(one(port, 1), [LOOPBACK_4]);
    await server.update(new Map(), [LOOPBACK_4]);
    await release();
    await new Promise((resolve) => setTimeout(resolve, 20));
    await assert.rejects(fetchText(port, '/'), { code: 'ECONNREFUSED' });
  });

  it('leaves other ports alone when one Service takes over another port', async (t) => {
    const { server } = create(t);
    const port = await freePort(t);
    await server.update(one(port, 1, 'old'), [LOOPBACK_4]);
    await server.update(one(port, 4, 'new'), [LOOPBACK_4]);
    const answer = JSON.parse((await fetchText(port, '/')).body) as {
      service: { name: string };
      localEndpoints: number;
    };
    assert.deepEqual([answer.service.name, answer.localEndpoints], ['new', 4]);
  });

  it('takes updates one after the other, whatever comes between: the last one holds (seeded)', async (t) => {
    const { server, lines } = create(t);
    const ports = [await freePort(t), await freePort(t), await freePort(t)];
    const unhandled: unknown[] = [];
    const note = (reason: unknown): void => void unhandled.push(reason);
    process.on('unhandledRejection', note);
    t.after(() => process.off('unhandledRejection', note));
    let seed = 20261126;
    const random = (below: number): number => {
      seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff;
      return (seed >> 8) % below;
    };
    for (let round = 0; round < 60; round++) {
      let wanted: number[] = [];
      const running: Promise<void>[] = [];
      for (let i = 0; i <= random(5); i++) {
        wanted = ports.filter(() => random(2) === 0);
        const services = new Map(wanted.flatMap((port) => [...one(port, random(3), `s${random(3)}`)]));
        running.push(server.update(services, [LOOPBACK_4]));
        for (let turns = random(4); turns > 0; turns--) await new Promise((resolve) => setImmediate(resolve));
      }
      await Promise.all(running);
      const expected = wanted.map((port) => [`127.0.0.1:${port}`, port]).sort();
      assert.deepEqual([...server.listening].sort(), expected, `round ${round}`);
    }
    assert.deepEqual(unhandled, []);
    assert.deepEqual(lines, []);
  });

  it('outlives a Service that is gone before its port was opened (X-M2)', async (t) => {
    const { server } = create(t);
    const [old, young] = [await freePort(t), await freePort(t)];
    await server.update(one(old, 1), [LOOPBACK_4]);
    // The first update closes a port and waits for that; the second takes away what the first is about to open.
    await Promise.all([server.update(one(young, 1), [LOOPBACK_4]), server.update(new Map(), [LOOPBACK_4])]);
    assert.deepEqual([...server.listening], []);
    await assert.rejects(fetchText(young, '/'), { code: 'ECONNREFUSED' });
  });

  it('logs what goes wrong in an update, and the next update works', async (t) => {
    const { server, lines } = create(t);
    const port = await freePort(t);
    const broken = {
      keys: () => {
        throw new Error('no keys');
      },
    } as unknown as Map<number, never>;
    await server.update(broken, [LOOPBACK_4]);
    assert.deepEqual(lines, ['the health check node ports could not be updated']);
    await server.update(one(port, 1), [LOOPBACK_4]);
    assert.equal((await fetchText(port, '/')).status, 200);
  });

  it('cuts keep-alive clients of a port that is removed', async (t) => {
    const { server } = create(t);
    const port = await freePort(t);
    await server.update(one(port, 1), [LOOPBACK_4]);
    const socket: Socket = connect(port, '127.0.0.1');
    t.after(() => socket.destroy());
    const answered = new Promise((resolve) => socket.once('data', resolve));
    socket.write('GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n');
    await answered;
    const closed = new Promise((resolve) => socket.once('close', resolve).resume());
    await Promise.all([server.update(new Map(), [LOOPBACK_4]), closed]);
    await assert.rejects(fetchText(port, '/'), { code: 'ECONNREFUSED' });
  });
});
