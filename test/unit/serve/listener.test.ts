import assert from 'node:assert/strict';
import { get, request } from 'node:http';
import { Server, type Socket, connect } from 'node:net';
import { describe, it } from 'node:test';
import { ServeError } from '../../../src/serve/errors.js';
import { Listener, MAX_CONNECTIONS } from '../../../src/serve/listener.js';
import { router, sendText } from '../../../src/serve/respond.js';
import { fetchText, needsIPv6, recordingLog, serve, takenPort, until } from '../../support/http.js';

describe('listener', () => {
  const handler = router({
    '/healthz': (_request, response) => sendText(response, 200, 'ok'),
    '/livez': (_request, response) => sendText(response, 200, 'ok'),
  });

  it('serves both families on 0.0.0.0, as Go does', needsIPv6, async (t) => {
    const port = await serve(t, { host: '0.0.0.0', handler });
    assert.equal((await fetchText(port, '/healthz', { host: '127.0.0.1' })).status, 200);
    assert.equal((await fetchText(port, '/healthz', { host: '::1' })).status, 200);
  });

  it('retries a taken port, says so once, and listens when it is free', async (t) => {
    const { port, release } = await takenPort(t, '127.0.0.1');
    const { lines, log } = recordingLog();
    const options = {
      name: 'health server',
      host: '127.0.0.1',
      port,
      handler,
      log,
      fix: 'is kube-proxy still running?',
    };
    const listener = new Listener({ ...options, retryMs: [1, 4] });
    t.after(() => listener.close());
    await listener.start();
    assert.equal(listener.port, undefined);
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.deepEqual(lines, [
      `health server cannot listen on 127.0.0.1:${port}: another process has this port; is kube-proxy still running?; retrying until it succeeds`,
    ]);
    await release();
    await until(() => listener.port !== undefined);
    assert.equal((await fetchText(port, '/healthz')).status, 200);
    assert.equal(lines.length, 2);
  });

  it('where the kernel has no IPv6, every address is every IPv4 one; one that is not there is no other', async (t) => {
    const asked: unknown[] = [];
    const listen = Object.getOwnPropertyDescriptor(Server.prototype, 'listen')!.value as (...args: unknown[]) => Server;
    t.mock.method(Server.prototype, 'listen', function (this: Server, ...args: unknown[]) {
      const { host } = args[0] as { host: string };
      asked.push(host);
      if (host === '127.0.0.1' || host === '0.0.0.0')
        return listen.call(this, { ...(args[0] as object), host: '127.0.0.1' }, args[1]);
      const code = host === '::' ? refusal : 'EADDRNOTAVAIL';
      setImmediate(() => this.emit('error', Object.assign(new Error(code), { code })));
      return this;
    });
    let refusal = '';
    const at = async (host: string, code: string): Promise<boolean> => {
      refusal = code;
      asked.length = 0;
      const listener = new Listener({ name: 'x', host, port: 0, handler, log: recordingLog().log });
      await listener.start();
      const isListening = listener.port !== undefined;
      await listener.close();
      return isListening;
    };
    for (const host of ['0.0.0.0', '::'])
      for (const code of ['EAFNOSUPPORT', 'EADDRNOTAVAIL'])
        assert.deepEqual([await at(host, code), asked], [true, ['::', '0.0.0.0']], `${host} ${code}`);
    assert.deepEqual([await at('0.0.0.0', 'EADDRINUSE'), asked], [false, ['::']]);
    assert.deepEqual([await at('192.0.2.1', ''), asked], [false, ['192.0.2.1']]);
  });

  it('closed during an attempt that fails it plans no other, and says nothing', async (t) => {
    const { port } = await takenPort(t, '127.0.0.1');
    const { lines, log } = recordingLog();
    const listener = new Listener({ name: 'x', host: '127.0.0.1', port, handler, log, retryMs: [1, 1] });
    const starting = listener.start();
    await Promise.all([listener.close(), starting]);
    assert.deepEqual([lines, listener.port], [[], undefined]);
  });

  it('closed between two attempts it makes no further one', async (t) => {
    const { port } = await takenPort(t, '127.0.0.1');
    const listen = t.mock.method(Server.prototype, 'listen');
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const listener = new Listener({ name: 'x', host: '127.0.0.1', port, handler, log: recordingLog().log });
    await listener.start();
    await listener.close();
    t.mock.timers.tick(60_000);
    assert.equal(listen.mock.callCount(), 1);
  });

  it('an error of a server that listens is a log line, and no end of the process', async (t) => {
    const servers: Server[] = [];
    const listen = Object.getOwnPropertyDescriptor(Server.prototype, 'listen')!.value as (...args: unknown[]) => Server;
    t.mock.method(Server.prototype, 'listen', function (this: Server, ...args: unknown[]) {
      servers.push(this);
      return listen.apply(this, args);
    });
    const { lines, log } = recordingLog();
    const listener = new Listener({ name: 'x', host: '127.0.0.1', port: 0, handler, log });
    await listener.start();
    servers[0]!.emit('error', new Error('EMFILE'));
    assert.deepEqual(lines, ['x failed']);
    assert.equal((await fetchText(listener.port!, '/healthz')).status, 200);
    await listener.close();
  });

  it('an attempt under way has ended when it is closed, however it ends', async (t) => {
    for (const port of [0, (await takenPort(t, '127.0.0.1')).port]) {
      const options = { name: 'x', host: '127.0.0.1', port, handler, log: recordingLog().log, hardFail: true };
      const listener = new Listener(options);
      let hasEnded = false;
      void listener
        .start()
        .catch(() => undefined)
        .finally(() => (hasEnded = true));
      await listener.close();
      assert.ok(hasEnded, String(port));
    }
  });

  it('fails at once with bindAddressHardFail', async (t) => {
    const { port } = await takenPort(t, '127.0.0.1');
    const { lines, log } = recordingLog();
    const listener = new Listener({ name: 'x', host: '127.0.0.1', port, handler, log, hardFail: true });
    await assert.rejects(listener.start(), (error) => {
      assert.ok(error instanceof ServeError && error.code === 'EADDRINUSE' && error.cause instanceof Error);
      return true;
    });
    assert.deepEqual(lines, []);
  });

  it('closes at once although a client keeps its connection open', async () => {
    const { log } = recordingLog();
    const listener = new Listener({ name: 'x', host: '127.0.0.1', port: 0, handler, log });
    await listener.start();
    const closed = new Promise((resolve) => {
      get({ port: listener.port!, path: '/livez', headers: { Connection: 'keep-alive' } }, (response) => {
        response.resume().on('end', () => void listener.close().then(resolve));
      });
    });
    await closed;
    assert.equal(listener.port, undefined);
  });

  it('cuts off a request with oversized headers', async (t) => {
    const port = await serve(t, { handler });
    const status = await new Promise((resolve, reject) => {
      const sent = request({ port, path: '/healthz', headers: { 'X-Junk': 'x'.repeat(20_000) } }, (response) => {
        resolve(response.resume().statusCode);
      });
      sent.on('error', reject).end();
    });
    assert.equal(status, 431);
  });

  it('keeps 512 connections: of too many the quietest go, and a probe still gets its answer', async (t) => {
    const port = await serve(t, { handler });
    const sockets: Socket[] = [];
    t.after(() => sockets.forEach((socket) => socket.destroy()));
    let closed = 0;
    const open = (): Promise<void> =>
      new Promise((resolve, reject) => {
        const socket = connect(port, '127.0.0.1', resolve);
        socket.once('error', reject).once('close', () => closed++);
        socket.resume();
        sockets.push(socket);
      });
    // The first one speaks later than all others were opened: it is not the quietest.
    for (let i = 0; i < MAX_CONNECTIONS; i++) await open();
    await until(() => sockets.length === MAX_CONNECTIONS);
    const spoken = new Promise((resolve) => sockets[0]!.once('data', resolve));
    sockets[0]!.write('GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n');
    await spoken;
    for (let i = 0; i < 88; i++) await open();
    await until(() => closed >= 88);
    assert.equal((await fetchText(port, '/healthz')).status, 200);
    assert.equal(sockets[0]!.closed, false);
    assert.ok(sockets.slice(1, 80).every(({ closed: isClosed }) => isClosed));
  });

  it('closes connections that never sent a byte, too, and waits for a bind under way', async () => {
    const { log } = recordingLog();
    const listener = new Listener({ name: 'x', host: '127.0.0.1', port: 0, handler, log });
    const starting = listener.start();
    await Promise.all([listener.close(), starting]);
    assert.equal(listener.port, undefined);
    const other = new Listener({ name: 'x', host: '127.0.0.1', port: 0, handler, log });
    await other.start();
    const socket = connect(other.port!, '127.0.0.1');
    await new Promise((resolve) => socket.once('connect', resolve));
    const ended = new Promise((resolve) => socket.once('close', resolve).resume());
    socket.on('error', () => undefined);
    await Promise.all([other.close(), ended]);
  });
});
