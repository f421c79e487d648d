/** ipset and conntrack clients against the real kernel, compared with what ipset(8) and conntrack(8) print. */
import assert from 'node:assert/strict';
import { execFileSync, execSync } from 'node:child_process';
import { release } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { openNetlinkSocket } from '../../native/libc.js';
import { IpsetClient } from '../../src/kernel/ipset/client.js';
import { IpsetError } from '../../src/kernel/ipset/error.js';
import { type IpsetDefinition, addressPortEntry } from '../../src/values/ipset.js';
import { type Recording, recordingSocket, writeRecording } from '../fakes/netlink-recording.js';
import { FLOWS, SETS, conntrackSession, ipsetSession, parseEntry, server } from '../support/netfilter-sessions.js';
import { iptablesPrograms } from './harness/iptables-programs.js';

function record(name: string, description: string, recording: Pick<Recording, 'datagrams' | 'text'>): void {
  const directory = process.env['RECORD_DIR'];
  if (directory === undefined) return;
  writeRecording(join(directory, name), { description, kernel: release(), ...recording });
}

function output(command: string, ...args: string[]): string[] {
  const text = execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  return text.split('\n').filter((line) => line !== '');
}

function flows(): string[] {
  return ['ipv4', 'ipv6'].flatMap((family) => output('conntrack', '-L', '-f', family)).map((line) => line.trim());
}

test('every set type and family holds what ipset(8) prints', () => {
  const { open, datagrams } = recordingSocket(openNetlinkSocket);
  const session = ipsetSession(open);
  const text = output('ipset', 'save').filter((line) => line.startsWith('add '));
  assert.deepEqual(session.elements, text.sort());
  assert.deepEqual(
    session.failures.map(({ set, entry, error }) => [set, entry, error.code]),
    [[SETS.source.name, parseEntry(SETS.source.type, '192.0.2.23,tcp:80,0.0.0.0/0'), 'IPSET_ERR_INVALID_CIDR']],
  );
  assert.ok(text.includes('add KUBE-LOAD-BALANCER-SOURCE-CIDR 192.0.2.23,tcp:80,172.16.0.0/12'), 'the one behind it');
  record('ipset.json', 'ipsetSession of test/support/netfilter-sessions.ts; text: ipset save, elements sorted', {
    datagrams,
    text,
  });
});

test('a set that rules refer to cannot be destroyed, but replaced; kube-proxy finds its own again', () => {
  const client = new IpsetClient(openNetlinkSocket);
  const { server: set } = SETS;
  const match = ['-m', 'set', '--match-set', set.name, 'dst,dst', '-j', 'ACCEPT'];
  execFileSync(iptablesPrograms().IPTABLES, ['-A', 'FORWARD', ...match]);
  assert.throws(
    () => client.destroySet(set.name),
    (error) => error instanceof IpsetError && error.code === 'IPSET_ERR_BUSY',
  );
  const entries = [parseEntry(set.type, '10.96.9.9,tcp:9')];
  client.replaceSet(set, entries);
  assert.deepEqual(client.listEntries(set), entries);
  assert.equal(client.listSets().find(({ name }) => name === set.name)?.references, 1);
  // what kube-proxy runs at its start; it fails when an existing set differs, in maxelem above all
  const create = ['create', set.name, set.type, 'family', 'inet', 'hashsize', '1024', 'maxelem', '65536', '-exist'];
  assert.doesNotThrow(() => execFileSync('ipset', create, { stdio: 'pipe' }));
  execFileSync(iptablesPrograms().IPTABLES, ['-D', 'FORWARD', ...match]);
  client.close();
});

test('100,000 elements: a set of 65,536 grows while it is filled', () => {
  const client = new IpsetClient(openNetlinkSocket);
  const set: IpsetDefinition = { name: 'KUBE-BIG', type: 'hash:ip,port', family: 4 };
  client.createSet(set);
  const entries = Array.from({ length: 100_000 }, (_, i) =>
    addressPortEntry(server('TCP', `10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`, 80)),
  );
  const started = performance.now();
  const failures = client.addEntries(set, entries);
  console.log(`100,000 elements added in ${(performance.now() - started).toFixed(0)} ms, growing once`);
  assert.deepEqual(failures, []);
  assert.equal(client.listSets().find(({ name }) => name === set.name)?.elements, entries.length);
  assert.deepEqual(client.listEntries(set).sort(), entries.sort());
  assert.deepEqual(
    client.listSets().filter(({ name }) => name.endsWith('~')),
    [],
    'no temporary set is left',
  );
  assert.ok(client.counters.messagesSent < 300, `${client.counters.messagesSent} messages`);
  client.destroySet(set.name);
  client.close();
});

test('stale UDP flows are deleted, the others stay', async () => {
  for (const { args } of FLOWS) execSync(`conntrack -I -t 300 ${args}`, { stdio: 'pipe' });
  const before = flows();
  const { open, datagrams } = recordingSocket(openNetlinkSocket);
  const results = await conntrackSession(open);
  const stale = FLOWS.filter((flow) => flow.stale);
  assert.deepEqual(results, [
    { found: stale.length, deleted: stale.length, failures: [] },
    { found: 0, deleted: 0, failures: [] },
  ]);
  const kept = flows();
  for (const { args, stale: isStale } of FLOWS) {
    const [, source, destination, port] = /-s (\S+) -d (\S+) --sport (\d+)/.exec(args)!;
    const protocol = /-p (\S+)/.exec(args)![1]!;
    const isListed = (lines: string[]): boolean =>
      lines.some(
        (line) => line.startsWith(protocol) && line.includes(`src=${source} dst=${destination} sport=${port} `),
      );
    assert.ok(isListed(before), `${args} was there`);
    assert.equal(isListed(kept), !isStale, `${args} is ${isStale ? 'gone' : 'kept'}`);
  }
  record('conntrack.json', 'conntrackSession of test/support/netfilter-sessions.ts; text: conntrack -L before it', {
    datagrams,
    text: before,
  });
});
