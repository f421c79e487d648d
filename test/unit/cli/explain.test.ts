/**
 * What `explain` reads and prints; what it computes is in plan/packet-walk.test.ts, and the command as typed in the
 * test kernel.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { explanationAnswer, formatExplanation, parseQuestion } from '../../../src/cli/explain.js';
import { type Answer } from '../../../src/cli/see.js';
import { type Explanation } from '../../../src/daemon/answer/explain.js';
import { formatAddress } from '../../../src/values/address.js';

test('a destination has an address, a port and a protocol, TCP unless it is said', () => {
  const read = (destination: string, from?: string): string => {
    const { destination: address, port, protocol, from: source } = parseQuestion({ destination, from });
    return [formatAddress(address), port, protocol, source === undefined ? '' : formatAddress(source)].join(' ');
  };
  assert.equal(read('10.96.0.1:443'), '10.96.0.1 443 TCP ');
  assert.equal(read('[fd00:96::10]:53/udp', 'fd00::1'), 'fd00:96::10 53 UDP fd00::1');
  assert.equal(read('10.96.0.1:9/SCTP', '127.0.0.1'), '10.96.0.1 9 SCTP 127.0.0.1');
});

test('what cannot be read is named, with the form that is wanted', () => {
  for (const destination of [
    '',
    '10.96.0.1',
    'web:80',
    '10.96.0.1:0',
    '10.96.0.1:65536',
    'fd00::1:80',
    '[10.0.0.300]:80',
    '1.2.3.4:80/',
  ])
    assert.throws(() => parseQuestion({ destination }), /not a destination: .*ADDRESS:PORT/, destination);
  for (const destination of ['shop/web', 'web', 'kube-system/kube-dns'])
    assert.throws(() => parseQuestion({ destination }), new RegExp(`\`services ${destination}\` has the addresses`));
  assert.throws(() => parseQuestion({ destination: '10.96.0.10' }), /\/UDP\)$/);
  assert.throws(() => parseQuestion({ destination: '1.2.3.4:80/ICMP' }), /ICMP is not a protocol of Services/);
  assert.throws(() => parseQuestion({ destination: '1.2.3.4:80', from: 'pod' }), /--from pod is not an IP address/);
  assert.throws(() => parseQuestion({ destination: '1.2.3.4:80', from: 'fd00::1' }), /not of one family/);
});

const EXPLANATION: Explanation = {
  packet: { protocol: 'TCP', destination: 'fd00:96::1', port: 80, source: 'fd00::7', from: 'elsewhere' },
  steps: [
    {
      at: 'nat KUBE-SERVICES',
      text: 'this is the cluster IP and port of a Service: marked',
      rule: '-m set --match-set KUBE-6-CLUSTER-IP dst,dst -j KUBE-MARK-MASQ',
      entries: [{ set: 'KUBE-6-CLUSTER-IP', entry: 'fd00:96::1,tcp:80' }],
    },
  ],
  verdict: {
    ...{ kind: 'served', service: 'shop/web', virtualServer: 'TCP [fd00:96::1]:80', scheduler: 'rr' },
    persistenceTimeout: 600,
    backends: [
      { address: 'fd00::1', port: 8080, seenAs: 'node', answersThisWay: true },
      { address: 'fd00::2', port: 8080, seenAs: 'client', answersThisWay: false },
    ],
  },
  notes: ['filter INPUT has 3 rules of others, which are not looked into'],
  kernelDiffers: [],
};

test('steps are numbered, rules shown when asked for, and every backend says whom it sees', () => {
  assert.equal(
    formatExplanation(EXPLANATION, false),
    `TCP [fd00:96::1]:80 from fd00::7 (elsewhere)
  1. nat KUBE-SERVICES: this is the cluster IP and port of a Service: marked
=> served by shop/web, by one of these (rr, the same for 600 s):
   [fd00::1]:8080 sees an address of this node
   [fd00::2]:8080 sees the client itself, fd00::7; its answer does not come back this way: THE CLIENT HEARS NOTHING
note: filter INPUT has 3 rules of others, which are not looked into
the kernel has it so
`,
  );
  const wide = formatExplanation(EXPLANATION, true);
  assert.match(wide, /\n {5}rule: -m set --match-set KUBE-6-CLUSTER-IP dst,dst -j KUBE-MARK-MASQ\n/);
  assert.match(wide, /\n {5}KUBE-6-CLUSTER-IP has fd00:96::1,tcp:80\n/);
});

test('where the kernel differs it says what a sync would do, up to a bound', () => {
  const changes = Array.from({ length: 30 }, (_, i) => ({
    ...{ action: 'add', object: 'set_entry', set: 'KUBE-CLUSTER-IP' },
    entry: `10.96.0.${i},tcp:80`,
  })) as unknown as Explanation['kernelDiffers'];
  const text = formatExplanation({ ...EXPLANATION, kernelDiffers: changes }, false);
  assert.match(text, /THE KERNEL DIFFERS; a sync would\n {2}add set entry KUBE-CLUSTER-IP 10\.96\.0\.0,tcp:80\n/);
  assert.match(text, /\n {2}and 10 more \(-o wide names them\)\n$/);
});

test('every way that a packet can end has its words', () => {
  const outcome = (verdict: Explanation['verdict']): string | undefined =>
    formatExplanation({ ...EXPLANATION, verdict }, false)
      .split('\n')
      .find((line) => line.startsWith('=>'));
  const health = (localEndpoints: number) =>
    ({ kind: 'host', healthCheck: { service: 'shop/web', localEndpoints } }) as const;
  assert.deepEqual(
    [
      ...[outcome({ kind: 'refused', by: 'reset' }), outcome({ kind: 'refused', by: 'unreachable' })],
      ...[outcome({ kind: 'dropped' }), outcome({ kind: 'not-ours' })],
      outcome({ kind: 'host' }),
      ...[0, 1, 2].map((count) => outcome(health(count) as Explanation['verdict'])),
    ],
    [
      '=> refused, by a TCP reset',
      '=> refused, by "port unreachable"',
      '=> dropped: the client hears nothing',
      '=> not a Service: nothing here concerns it',
      '=> not a Service: a process of this node has it, or refuses it',
      '=> health check of shop/web: 503, 0 local endpoints',
      '=> health check of shop/web: 200, 1 local endpoints',
      '=> health check of shop/web: 200, 2 local endpoints',
    ],
  );
});

const linesOf = ({ text }: Answer): readonly string[] => text as readonly string[];

test('twenty backends are named, all of them if asked for; scripts get their names, and 2 where the kernel differs', () => {
  const backends = Array.from({ length: 23 }, (_, i) => ({
    ...{ address: `10.0.0.${i}`, port: 8080, seenAs: 'client', answersThisWay: true },
  }));
  const verdict = { ...EXPLANATION.verdict, backends } as Explanation['verdict'];
  const found = { ...EXPLANATION, verdict };
  const short = explanationAnswer(found, false);
  assert.equal(linesOf(short).filter((line) => line.startsWith('   10.0.0.')).length, 20);
  assert.ok(linesOf(short).includes('   and 3 more (-o wide names them)'));
  const wide = explanationAnswer(found, true);
  assert.equal(linesOf(wide).filter((line) => line.startsWith('   10.0.0.')).length, 23);
  assert.ok(!linesOf(wide).some((line) => line.includes('more (-o wide')));
  assert.deepEqual([short.code, short.names.length, short.names[3], short.data], [0, 23, '10.0.0.3:8080', found]);
  const twenty = { ...found, verdict: { ...verdict, backends: backends.slice(0, 20) } as Explanation['verdict'] };
  assert.ok(!linesOf(explanationAnswer(twenty, false)).some((line) => line.includes('more (-o wide')));
  const differing = { ...found, verdict: { kind: 'dropped' }, kernelDiffers: [{ action: 'add' }] };
  const answer = explanationAnswer(differing as unknown as Explanation, false);
  assert.deepEqual([answer.code, answer.names], [2, []]);
});
