import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { IpvsClient } from '../../../src/kernel/ipvs/client.js';
import { readProcIpVs } from '../../../src/kernel/ipvs/proc-ip-vs-read.js';
import { ProcFormatError, ProcIpVsParser, type ProcSummary } from '../../../src/kernel/ipvs/proc-ip-vs.js';
import { addressServerKey, formatRealServer, formatVirtualServer } from '../../../src/values/virtual-server.js';
import { FakeIpvs } from '../../fakes/fake-kernel-ipvs.js';
import { FakeKernel } from '../../fakes/fake-kernel.js';
import { type Recording } from '../../fakes/netlink-recording.js';
import { RR, SERVERS, address, real } from '../../support/netlink-sessions.js';

const RECORDING = join(import.meta.dirname, '../../../../test/fixtures/netlink/proc-ip-vs.json');
const RECORDED = (JSON.parse(readFileSync(RECORDING, 'utf8')) as Recording).text[0]!;
const HEADER = RECORDED.split('\n').slice(0, 3).join('\n') + '\n';

function parse(text: string | Buffer, chunk = 1 << 20): { lines: string[]; summary: ProcSummary } {
  const lines: string[] = [];
  const parser = new ProcIpVsParser((server) => {
    const name = server.key === undefined ? `FWM ${server.mark}` : formatVirtualServer(server.key);
    lines.push(`${name} ${server.scheduler}${server.persistent ? ' persistent' : ''}`);
    for (let i = 0; i < server.count; i++) {
      const counts = [server.weights[i], server.activeConnections[i], server.inactiveConnections[i]].join(' ');
      lines.push(`${name} -> ${formatRealServer(server.realServers[i]!)} ${server.forwardings[i]} ${counts}`);
    }
  });
  const bytes = Buffer.from(text);
  for (let i = 0; i < bytes.length; i += chunk) {
    const piece = Buffer.from(bytes.subarray(i, i + chunk));
    parser.push(piece);
    piece.fill(0); // the parser must not keep it
  }
  return { summary: parser.finish(), lines };
}

const EXPECTED = [
  'TCP 10.96.0.1:443 rr',
  'TCP 10.96.0.1:443 -> 10.0.0.2:6443 masquerade 0 0 0',
  'TCP 10.96.0.1:443 -> 10.0.0.1:6443 masquerade 7 0 0',
  'SCTP 10.96.0.2:3868 mh persistent',
  'UDP [fd00::10]:53 rr',
  'UDP [fd00::10]:53 -> [fd00::5]:5353 masquerade 100 0 0',
  'FWM 66051 IPv4 rr',
  'FWM 66051 IPv4 -> 10.0.0.3:80 masquerade 1 0 0',
  'FWM 17 IPv6 rr',
  'FWM 17 IPv6 -> [fd00::7]:80 masquerade 65535 0 0',
];

test('reads what a real kernel printed', () => {
  const { lines, summary } = parse(RECORDED);
  assert.deepEqual([...lines].sort(), [...EXPECTED].sort());
  assert.deepEqual(summary, { virtualServers: 5, realServers: 5, foreign: 0 });
});

test('however the file is cut into pieces', () => {
  const whole = parse(RECORDED);
  for (let size = 1; size < 200; size++) assert.deepEqual(parse(RECORDED, size), whole, `pieces of ${size}`);
});

test('reads a mark without real servers, one-packet scheduling, other methods, negative weights', () => {
  const text = `${HEADER}FWM  80000001 wrr ops 
TCP  0A600001:0050 sh ops persistent 1080000 FFFFFFFF
  -> 0A000001:1F90      Tunnel  -1     12         4294967295
  -> 0A000002:1F90      Route   1      0          0         
  -> 7F000001:1F90      Local   1      0          0         
`;
  assert.deepEqual(parse(text).lines, [
    'FWM 2147483649 wrr',
    'TCP 10.96.0.1:80 sh persistent',
    'TCP 10.96.0.1:80 -> 10.0.0.1:8080 tunnel -1 12 4294967295',
    'TCP 10.96.0.1:80 -> 10.0.0.2:8080 route 1 0 0',
    'TCP 10.96.0.1:80 -> 127.0.0.1:8080 local 1 0 0',
  ]);
});

test('skips and counts protocols without a name, with their real servers', () => {
  const server = '  -> 0A000002:1F90      Masq    1      0          0         \n';
  const { lines, summary } = parse(`${HEADER}IP_50  0A600001:0000 rr \n${server}UDP  0A600001:0035 rr  \n${server}`);
  assert.deepEqual(lines, ['UDP 10.96.0.1:53 rr', 'UDP 10.96.0.1:53 -> 10.0.0.2:8080 masquerade 1 0 0']);
  assert.deepEqual(summary, { virtualServers: 1, realServers: 1, foreign: 1 });
});

test('malformed lines are refused with their number', () => {
  const server = 'TCP  0A600001:0050 rr  \n';
  for (const bad of [
    '  -> 0A000002:1F90      Masq    1      0          0         \n',
    'TCP  0A600001-0050 rr  \n',
    'TCP  0A60000G:0050 rr  \n',
    'TCP  0A600001:005\n',
    'TCP  0A600001:0050\n',
    'TCP  0A600001:0050 rr surprising\n',
    'TCP  [fd00:0000:0000:0000:0000:0000:0000:0010:0035 rr \n',
    'TCP  [fd00:0000:0000]:0035 rr \n',
    '\n',
    '?? what\n',
    `${server}  -> 0A000002:1F90      Masq    1      0\n`,
    `${server}  -> 0A000002:1F90      Masq    1      0     x\n`,
    `${server}  -> 0A000002:1F90      Masq    1      0     99999999999999999999\n`,
    `${server}  -> 0A000002:1F90      Pigeon  1      0     0\n`,
    `${server}  -> \n`,
    `TCP ${' '.repeat(2000)}`,
  ]) {
    assert.throws(() => parse(HEADER + bad), ProcFormatError, bad);
    assert.throws(() => parse(HEADER + bad, 7), ProcFormatError, bad);
  }
  assert.throws(() => parse(`${HEADER}${server}nonsense`), /line 5: unknown protocol: "nonsense"/);
  assert.throws(() => parse(''), ProcFormatError);
  assert.throws(() => parse('no table at all\n'), ProcFormatError);
});

test('any damage gives a table or the typed error', () => {
  let [good, refused] = [0, 0];
  const damage = fc.array(fc.tuple(fc.nat(RECORDED.length - 1), fc.integer({ min: 0, max: 255 })), { maxLength: 3 });
  fc.assert(
    fc.property(damage, fc.nat(RECORDED.length), fc.integer({ min: 1, max: 300 }), (bytes, cut, chunk) => {
      const text = Buffer.from(RECORDED);
      for (const [at, byte] of bytes) text[at] = byte;
      try {
        parse(text.subarray(0, Math.max(cut, RECORDED.length >> 1)), chunk);
        good++;
      } catch (error) {
        refused++;
        if (!(error instanceof ProcFormatError)) throw error;
      }
    }),
    { numRuns: 2000, seed: 11 },
  );
  assert.ok(good > 50 && refused > 50, `${good} read, ${refused} refused`);
});

test('reads a file; what the fake kernel prints is what its table holds', async () => {
  const ipvs = new FakeIpvs(new FakeKernel());
  const { table } = ipvs;
  for (let i = 0; i < 5000; i++) {
    const realServers = new Map([[real('fd00::9', i), { weight: i, forwarding: 0, active: 1, inactive: 2 }]]);
    table.set(addressServerKey('UDP', address('fd00::10'), i), {
      settings: RR,
      netmask: 128,
      realServers,
    });
  }
  const directory = mkdtempSync(join(tmpdir(), 'proc-'));
  try {
    const path = join(directory, 'ip_vs');
    writeFileSync(path, ipvs.proc());
    let seen = 0;
    const summary = await readProcIpVs((server) => {
      seen++;
      assert.deepEqual(server.realServers.slice(0, server.count), [...table.get(server.key!)!.realServers.keys()]);
    }, path);
    assert.equal(seen, table.size);
    assert.equal(summary.realServers, table.size);
    await assert.rejects(
      readProcIpVs(() => undefined, join(directory, 'none')),
      { code: 'ENOENT' },
    );
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test('the fake kernel prints a session as the real one did', () => {
  const kernel = new FakeKernel();
  const ipvs = new FakeIpvs(kernel);
  const client = new IpvsClient(kernel.open);
  client.addVirtualServer(SERVERS.tcp, RR);
  client.addRealServer(SERVERS.tcp, real('10.0.0.2', 6443), 0);
  client.addRealServer(SERVERS.tcp, real('10.0.0.1', 6443), 7);
  client.addVirtualServer(SERVERS.sctp, { scheduler: 'mh', flags: 0x19, timeout: 10_800 });
  client.addVirtualServer(SERVERS.udp6, RR);
  client.addRealServer(SERVERS.udp6, real('fd00::5', 5353), 100);
  client.addVirtualServer(SERVERS.mark4, RR);
  client.addRealServer(SERVERS.mark4, real('10.0.0.3', 80), 1);
  client.addVirtualServer(SERVERS.mark6, RR);
  client.addRealServer(SERVERS.mark6, real('fd00::7', 80), 65_535);
  assert.deepEqual(client.flush(), []);
  const squeeze = (text: string): string[] => text.split('\n').map((line) => line.trim().replace(/ +/g, ' '));
  assert.deepEqual(squeeze(ipvs.proc()).sort(), squeeze(RECORDED).sort());
});
