/** Lines of /proc/net/ip_vs_conn as the kernel prints them: ip_vs_conn_seq_show, %08X for IPv4 and %pI6 for IPv6. */
import assert from 'node:assert/strict';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { parseConnection, readConnections } from '../../../src/kernel/ipvs/connection-table.js';
import { formatAddress } from '../../../src/values/address.js';
import { formatVirtualServer } from '../../../src/values/virtual-server.js';

const HEADING = 'Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData';
const LINES = [
  'TCP 0A80000A D431 0A600014 0050 0A80000C 1F90 ESTABLISHED     899',
  'UDP fd00:0010:0000:0000:0000:0000:0000:000a 0035 fd00:0096:0000:0000:0000:0000:0000:000a 0035 fd00:0010:0000:0000:0000:0000:0000:000b 14E9 UDP             299',
  'SCTP 0A80000A D431 0A600014 0F1C 0A80000C 0F1C ESTABLISHED     900 sip call-id',
];

function shown(line: string): string | undefined {
  const found = parseConnection(line);
  if (found === undefined) return undefined;
  const { virtualServer, client, clientPort, backend, backendPort, state, expiresSeconds } = found;
  return `${formatVirtualServer(virtualServer)} ${formatAddress(client)} ${clientPort} ${formatAddress(backend)} ${backendPort} ${state} ${expiresSeconds}`;
}

test('a connection of either family is read', () => {
  assert.deepEqual(LINES.map(shown), [
    'TCP 10.96.0.20:80 10.128.0.10 54321 10.128.0.12 8080 ESTABLISHED 899',
    'UDP [fd00:96::a]:53 fd00:10::a 53 fd00:10::b 5353 UDP 299',
    'SCTP 10.96.0.20:3868 10.128.0.10 54321 10.128.0.12 3868 ESTABLISHED 900',
  ]);
});

test('the heading, other protocols and broken lines are passed over', () => {
  const broken = ['', HEADING, 'ESP 0A80000A 0000 0A600014 0000 0A80000C 0000 NONE 1', 'TCP 0A80000A D431 0A600014'];
  for (const line of [...broken, LINES[0]!.replace('0A600014', '0A6000'), LINES[0]!.replace('899', 'x')])
    assert.equal(parseConnection(line), undefined, line);
});

test('a file is read as it goes; one that is not there is an error', async () => {
  const path = join(mkdtempSync(join(tmpdir(), 'conn-')), 'ip_vs_conn');
  writeFileSync(path, `${[HEADING, ...Array.from({ length: 5000 }, () => LINES.join('\n'))].join('\n')}\n`);
  let count = 0;
  await readConnections(() => count++, path);
  assert.equal(count, 15_000);
  await assert.rejects(
    readConnections(() => count++, '/does/not/exist'),
    /ENOENT/,
  );
});
