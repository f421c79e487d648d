/**
 * The whole IPVS table read by getsockopt against what ipvsadm prints, and against the same table read in the other
 * ways.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { release } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { openNetlinkSocket } from '../../native/libc.js';
import { openOptionSocket } from '../../native/option-socket.js';
import { IpvsClient } from '../../src/kernel/ipvs/client.js';
import { type ObservedVirtualServer } from '../../src/kernel/ipvs/observed-table.js';
import { IpvsTable } from '../../src/kernel/ipvs/table.js';
import { type AppliedVirtualServer } from '../../src/plan/applied.js';
import { readTable } from '../../src/reconcile/observe-kernel.js';
import { type VirtualServerKey, formatVirtualServer } from '../../src/values/virtual-server.js';
import { writeRecording } from '../fakes/netlink-recording.js';
import { recordingOptionSocket } from '../fakes/option-recording.js';
import { RR, SERVERS, real, seenLines, sockoptSession } from '../support/netlink-sessions.js';
import { loadModules } from './harness/kernel-state.js';

/** As `ipvsadm -R` takes it. */
const MIXED = `
-A -t 10.96.0.1:443 -s rr
-a -t 10.96.0.1:443 -r 10.0.0.1:6443 -m -w 1
-a -t 10.96.0.1:443 -r 10.0.0.2:6443 -m -w 0
-a -t 10.96.0.1:443 -r 10.0.0.3:6443 -m -w 65535
-A -t 10.96.0.1:80 -s wrr -p 10800
-a -t 10.96.0.1:80 -r 10.0.0.9:8080 -m -w 1
-A -u 10.96.0.10:53 -s sh -b sh-fallback,sh-port
-a -u 10.96.0.10:53 -r 10.0.0.4:53 -m -w 1
-a -u 10.96.0.10:53 -r 255.254.253.252:65535 -m -w 1
-A --sctp-service 10.96.0.2:3868 -s mh -p 360 -b mh-port
-a --sctp-service 10.96.0.2:3868 -r 10.0.0.5:3868 -m -w 1
-A -t 203.0.113.7:0 -s rr -p 50 -M 255.255.255.0
-a -t 203.0.113.7:0 -r 10.0.0.6:0 -g -w 3
-a -t 203.0.113.7:0 -r 10.0.0.7:0 -i -w 1
-A -t 10.96.0.3:80 -s lc
-A -f 66051 -s rr
-a -f 66051 -r 10.0.0.3:80 -m -w 1
-A -f 17 -6 -s rr
-a -f 17 -6 -r [fd00::7]:80 -m -w 2
-A -t [fd00::10]:443 -s rr
-a -t [fd00::10]:443 -r [fd00::5]:6443 -m -w 1
-a -t [fd00::10]:443 -r [fd00::6]:6443 -m -w 0
-A -u [fd00::10]:53 -s rr
`;

const client = new IpvsClient(openNetlinkSocket);

before(() => {
  loadModules('ip_vs', 'ip_vs_rr', 'ip_vs_wrr', 'ip_vs_sh', 'ip_vs_mh', 'ip_vs_lc', 'ipv6');
  execFileSync('ipvsadm', ['-C']);
});

after(() => {
  execFileSync('ipvsadm', ['-C']);
  client.close();
});

/** The whole table, as if nothing of it were desired. */
async function readAll(
  table: IpvsTable,
  applied: ReadonlyMap<VirtualServerKey, AppliedVirtualServer>,
): Promise<Map<VirtualServerKey, AppliedVirtualServer>> {
  return (await readTable(table, { applied, desired: { virtualServers: new Map() } })).servers;
}

/** What ipvsadm prints, without what this program does not tell apart. */
function printedLines(): string[] {
  return execFileSync('ipvsadm', ['-Sn'], { encoding: 'utf8' })
    .split('\n')
    .map((line) => line.trim().replace(/ -M 255.255.255.0| --tun-type ipip/, ''))
    .filter((line) => line !== '')
    .sort();
}

/** The table by this reader, in the words of ipvsadm. */
async function lines(table: IpvsTable): Promise<string[]> {
  const found: string[] = [];
  const visit = (server: ObservedVirtualServer): void => void found.push(...seenLines(server));
  await table.read(visit, { mayHaveIPv6: true });
  return found.sort();
}

test('a mixed table is what ipvsadm prints, whichever way it is read', async () => {
  execFileSync('ipvsadm', ['-R'], { input: MIXED });
  const printed = printedLines();
  assert.equal(printed.length, MIXED.trim().split('\n').length);
  const sockopt = new IpvsTable(client, { openOptionSocket });
  assert.equal(sockopt.refusal, undefined);
  assert.deepEqual(await lines(sockopt), printed);
  assert.deepEqual(await lines(new IpvsTable(client)), printed);
  sockopt.close();
});

test('the bytes are those of the structures in the header file', () => {
  const { open, datagrams } = recordingOptionSocket(openOptionSocket);
  const lines = sockoptSession(open);
  const text = printedLines().filter((line) => !/ -6 |\[/.test(line));
  assert.deepEqual(lines, text);
  const directory = process.env['RECORD_DIR'];
  const description = 'sockoptSession of test/support/netlink-sessions.ts; text: ipvsadm -Sn, IPv4 only, sorted';
  if (directory !== undefined)
    writeRecording(join(directory, 'ipvs-sockopt.json'), { description, kernel: release(), datagrams, text });
});

test('a table that is as applied is the applied one; a change of any kind is seen', async () => {
  const table = new IpvsTable(client, { openOptionSocket });
  const applied = await readAll(table, new Map());
  const again = await readAll(table, applied);
  assert.deepEqual([...again.keys()].sort(), [...applied.keys()].sort());
  const other = [...again]
    .filter(([key, server]) => applied.get(key) !== server)
    .map(([key]) => formatVirtualServer(key));
  // Odd ones (other weights, other forwarding, a netmask) are put together anew each time.
  assert.deepEqual(other.sort(), ['TCP 10.96.0.1:443', 'TCP 203.0.113.7:0']);
  const changes: [string, string[]][] = [
    ['TCP 10.96.0.1:80', ['-e', '-t', '10.96.0.1:80', '-r', '10.0.0.9:8080', '-m', '-w', '0']],
    ['UDP 10.96.0.10:53', ['-d', '-u', '10.96.0.10:53', '-r', '10.0.0.4:53']],
    ['SCTP 10.96.0.2:3868', ['-E', '--sctp-service', '10.96.0.2:3868', '-s', 'mh', '-p', '361', '-b', 'mh-port']],
    ['TCP 10.96.0.3:80', ['-a', '-t', '10.96.0.3:80', '-r', '10.0.0.9:8080', '-m', '-w', '1']],
    ['TCP [fd00::10]:443', ['-e', '-t', '[fd00::10]:443', '-r', '[fd00::6]:6443', '-m', '-w', '1']],
  ];
  for (const [server, args] of changes) {
    const was = await readAll(table, applied);
    execFileSync('ipvsadm', args);
    const is = await readAll(table, was);
    const differing = [...is].filter(([key, seen]) => was.get(key) !== seen).map(([key]) => formatVirtualServer(key));
    assert.ok(differing.includes(server), `${server}: ${differing.join(', ')}`);
  }
  table.close();
});

test('a pool of 3,000 real servers, and one that is deleted while the table is read', async () => {
  execFileSync('ipvsadm', ['-C']);
  const { tcp, sctp } = SERVERS;
  client.addVirtualServer(tcp, RR);
  client.addVirtualServer(sctp, RR);
  client.addRealServer(sctp, real('10.0.0.5', 3868), 1);
  for (let i = 0; i < 3000; i++)
    if (client.addRealServer(tcp, real(`10.128.${i >> 8}.${i & 255}`, 8080), 1)) assert.deepEqual(client.flush(), []);
  assert.deepEqual(client.flush(), []);
  const table = new IpvsTable(client, { openOptionSocket });
  const applied = await readAll(table, new Map());
  assert.equal(applied.get(tcp)?.realServers.length, 6 * 3000);
  assert.equal((await readAll(table, applied)).get(tcp), applied.get(tcp));
  const seen: string[] = [];
  const visit = (server: ObservedVirtualServer): void => {
    seen.push(formatVirtualServer(server.key));
    if (seen.length > 1) return;
    client.deleteVirtualServer(server.key === tcp ? sctp : tcp);
    assert.deepEqual(client.flush(), []);
  };
  await table.read(visit, { mayHaveIPv6: false });
  assert.equal(seen.length, 1, 'gone before its real servers were read: not there');
  table.close();
});
