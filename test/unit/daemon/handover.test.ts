/** What is left of iptables when the rules move to nf_tables: found without a program, and removed at the end. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { pino } from 'pino';
import { type Handover, handoverTo } from '../../../src/daemon/rules/handover.js';
import { ipsetDefinitions } from '../../../src/desired/ipset-definitions.js';
import { type RunCommand } from '../../../src/kernel/command.js';
import { IpsetClient } from '../../../src/kernel/ipset/client.js';
import { TestKernel } from '../../fakes/test-kernel.js';
import { FakeIptables } from '../../support/fake-iptables.js';
import { parseEntry } from '../../support/netfilter-sessions.js';

const SET = ipsetDefinitions(4).find(({ name }) => name === 'KUBE-CLUSTER-IP')!;
const ENTRY = parseEntry('hash:ip,port', '10.96.0.1,tcp:443');

class Node {
  readonly kernel = new TestKernel();
  readonly iptables = new FakeIptables();
  readonly programs: string[] = [];
  readonly logged: string[] = [];
  readonly procNet: string;

  constructor(t: TestContext) {
    this.procNet = mkdtempSync(join(tmpdir(), 'handover-'));
    t.after(() => rmSync(this.procNet, { recursive: true }));
  }

  /** iptables-legacy alone. */
  run: RunCommand = (command, args, options) => {
    this.programs.push(command);
    if (args.includes('--version')) return Promise.resolve({ stdout: 'iptables v1.8.9 (legacy)\n', stderr: '' });
    const family = command.startsWith('ip6') ? 6 : 4;
    return this.iptables.run(`${command.includes('save') ? 'save' : 'restore'}-${family}`, args, options);
  };

  fill(): void {
    const ipset = new IpsetClient(this.kernel.open);
    ipset.createSet(SET);
    assert.deepEqual(ipset.addEntries(SET, [ENTRY]), []);
    ipset.close();
    const jump = '-m comment --comment "kubernetes service portals" -j KUBE-SERVICES';
    const chains = { PREROUTING: [jump], 'KUBE-SERVICES': ['-j RETURN'], MINE: ['-j RETURN'] };
    this.iptables.tables['save-4']!.set('nat', new Map(Object.entries(chains)));
  }

  handover(): Handover | undefined {
    const log = pino(
      { level: 'info' },
      { write: (line) => void this.logged.push((JSON.parse(line) as { msg: string }).msg) },
    );
    const isPresent = (module: string): boolean => module !== 'nf_tables';
    const { run, procNet } = this;
    return handoverTo('nftables', { open: this.kernel.open, run, log, isPresent, procNet });
  }
}

test('sets that are there say whose virtual servers are; then they go, with the chains, and nothing of others', async (t) => {
  const node = new Node(t);
  node.fill();
  const handover = node.handover()!;
  assert.deepEqual(handover.sets?.entriesOf(SET), [ENTRY]);
  assert.deepEqual([node.programs, node.logged], [[], []], 'no program is started to find out');
  await handover.finish();
  assert.equal(node.kernel.netfilter.ipset!.sets.size, 0);
  assert.deepEqual([...node.iptables.tables['save-4']!.get('nat')!.keys()].sort(), ['MINE', 'PREROUTING']);
  assert.deepEqual(node.logged, ['rules are in nf_tables: removed those of iptables']);
  await handover.finish();
  assert.equal(node.logged.length, 1, 'there is nothing more');
  handover.close();
});

test('a chain that others use, and a set that cannot go, are told', async (t) => {
  const node = new Node(t);
  node.fill();
  const nat = node.iptables.tables['save-4']!.get('nat')!;
  nat.set('MINE', ['-p udp -j KUBE-SERVICES']);
  node.kernel.netfilter.ipset!.sets.get(SET.name)!.references = 1;
  const handover = node.handover()!;
  await handover.finish();
  assert.deepEqual([nat.get('KUBE-SERVICES'), node.kernel.netfilter.ipset!.sets.size], [[], 1]);
  const text = node.logged.join('\n');
  assert.match(text, /^kept because a rule of somebody else leads to it: IPv4 nat KUBE-SERVICES .*MINE/m);
  assert.match(text, /^not removed: .*KUBE-CLUSTER-IP/m);
  handover.close();
});

test('legacy tables with a nat table may have chains; others, and a fresh node, have nothing to hand over', (t) => {
  assert.equal(new Node(t).handover(), undefined);
  for (const [name, table, isThere] of [
    ['ip_tables_names', 'filter\n', false],
    ['ip_tables_names', 'filter\nnat\n', true],
    ['ip6_tables_names', 'nat\n', true],
  ] as const) {
    const node = new Node(t);
    writeFileSync(join(node.procNet, name), table);
    const handover = node.handover();
    assert.deepEqual([handover !== undefined, handover?.sets], [isThere, undefined], `${name} ${table}`);
    handover?.close();
  }
});

test('without ipset in the kernel the chains go all the same; programs that fail are a log line', async (t) => {
  const node = new Node(t);
  node.fill();
  node.kernel.netfilter.ipset = undefined;
  writeFileSync(join(node.procNet, 'ip_tables_names'), 'nat\n');
  const handover = node.handover()!;
  assert.equal(handover.sets, undefined);
  node.run = () => Promise.reject(new RangeError('a fault of our own'));
  await node.handover()!.finish();
  assert.deepEqual(node.logged, ['the rules of iptables could not be removed']);
  await handover.finish();
  assert.ok(!node.iptables.tables['save-4']!.get('nat')!.has('KUBE-SERVICES'));
  handover.close();
});
