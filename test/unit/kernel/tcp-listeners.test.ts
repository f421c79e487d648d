/** Who listens, by lines as Linux 6.18 has them, and by the real /proc of this machine; what preflight makes of it. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { createServer as createHttpServer } from 'node:http';
import { endianness, tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, describe, test } from 'node:test';
import { checkPorts } from '../../../src/cli/preflight-ports.js';
import { isTaken, parseTcpTable, tcpListeners } from '../../../src/kernel/node/tcp-listeners.js';
import { sendText } from '../../../src/serve/respond.js';
import { formatAddress, parseAddress } from '../../../src/values/address.js';

const TCP = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:2809 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1056 1 0000000000000000 100 0 0 10 0
   1: 0100007F:D9AC 0100007F:2809 01 00000000:00000000 00:00000000 00000000     0        0 2211 1 0000000000000000 20 4 30 10 -1
  12: 00000000:2810 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1057 1 0000000000000000 100 0 0 10 0
`;
const TCP6 = `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1058 1 0000000000000000 100 0 0 10 0
   1: 000000FD00000000000000000B000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1059 1 0000000000000000 100 0 0 10 0
   2: 0000000000000000FFFF00000100007F:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1060 1 0000000000000000 100 0 0 10 0
`;
const shown = (text: string): string[] =>
  parseTcpTable(text).map(({ address, port }) => `${formatAddress(address)} ${port}`);

describe('listeners', () => {
  test('are the sockets in state LISTEN, with their addresses', { skip: endianness() !== 'LE' }, () => {
    assert.deepEqual(shown(TCP), ['127.0.0.1 10249', '0.0.0.0 10256']);
    assert.deepEqual(
      shown(TCP6).map((line) => line.split(' ')[1]),
      ['22', '80', '8080'],
    );
    assert.equal(shown(TCP6)[0], ':: 22');
    assert.deepEqual(shown('nonsense\n'), []);
  });

  test('that are really there are found, of both families', async (t) => {
    for (const host of ['127.0.0.1', '0.0.0.0', '::1', '::']) {
      const server = createServer();
      await new Promise<void>((resolve) => server.listen({ port: 0, host, ipv6Only: false }, resolve));
      t.after(() => server.close());
      const { port } = server.address() as AddressInfo;
      const found = tcpListeners().filter((one) => one.port === port);
      assert.deepEqual(
        found.map(({ address }) => formatAddress(address)),
        [host],
      );
    }
    assert.deepEqual(tcpListeners('/does/not/exist'), []);
  });

  test('keep others from an address, from all of a family, or from all', () => {
    const by = (address: string) => ({ address: parseAddress(address)!, port: 80 });
    const taken = (host: string, address: string): boolean => isTaken({ host, port: 80 }, by(address));
    for (const [host, address, expected] of [
      ['127.0.0.1', '127.0.0.1', true],
      ['127.0.0.1', '10.0.0.1', false],
      ['127.0.0.1', '0.0.0.0', true],
      ['0.0.0.0', '10.0.0.1', true],
      ['0.0.0.0', '::1', false],
      ['0.0.0.0', '::', true],
      ['127.0.0.1', '::', true],
      ['::', '10.0.0.1', true],
      ['::1', '0.0.0.0', false],
      ['::1', '::1', true],
      ['::1', 'fd00::1', false],
    ] as const)
      assert.equal(taken(host, address), expected, `${host} while ${address} listens`);
    assert.ok(!isTaken({ host: '127.0.0.1', port: 81 }, by('0.0.0.0')));
    assert.ok(isTaken({ host: '127.0.0.1', port: 80 }, { ...by('::'), address: MAPPED }), 'IPv4 on a socket of both');
    assert.ok(!isTaken({ host: '10.0.0.1', port: 80 }, { ...by('::'), address: MAPPED }));
  });
});

const MAPPED = parseAddress('::ffff:127.0.0.1') ?? assert.fail();

describe('preflight', () => {
  const listen = async (t: TestContext, server: ReturnType<typeof createServer>): Promise<number> => {
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    t.after(() => server.close());
    return (server.address() as AddressInfo).port;
  };

  test('tells a free port, the daemon, and somebody else', async (t) => {
    const free = await listen(t, createServer());
    const procRoot = mkdtempSync(join(tmpdir(), 'proc-'));
    mkdirSync(join(procRoot, 'net'));
    for (const name of ['tcp', 'tcp6']) writeFileSync(join(procRoot, 'net', name), '');
    const host = '127.0.0.1';
    const config = { healthzBindAddress: { host: '0.0.0.0', port: free }, metricsBindAddress: undefined };
    assert.deepEqual(await checkPorts(config, procRoot), [
      { name: `port ${free}`, state: 'ok', detail: `healthzBindAddress 0.0.0.0:${free} is free` },
    ]);
    const own = await listen(
      t,
      createHttpServer((_request, response) => sendText(response, 200, 'ok')),
    );
    const other = await listen(
      t,
      createHttpServer((_request, response) => response.end('ok')),
    );
    const both = {
      healthzBindAddress: { host: '0.0.0.0', port: own },
      metricsBindAddress: { host, port: other },
    };
    assert.deepEqual(await checkPorts(both), [
      { name: `port ${own}`, state: 'ok', detail: `healthzBindAddress 0.0.0.0:${own} is the running daemon's` },
      {
        ...{ name: `port ${other}`, state: 'warn' },
        detail:
          `metricsBindAddress 127.0.0.1:${other} is taken by another program (\`ss -ltnp sport = :${other}\` says ` +
          'whose): end it, or set metricsBindAddress',
      },
    ]);
  });
});
