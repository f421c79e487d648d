/** What `verify` and `plan` say: the differences and no others, without writing anything. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, describe, test } from 'node:test';
import { iptablesRules } from '../../../src/desired/iptables-rules.js';
import { type RuleSet } from '../../../src/desired/iptables-rule-set.js';
import { Iptables } from '../../../src/kernel/iptables/iptables.js';
import { Sysctl } from '../../../src/kernel/node/sysctl.js';
import { formatChange, formatPlan } from '../../../src/cli/plan-text.js';
import { nftRuleText } from '../../../src/plan/nftables-diff.js';
import { Drift } from '../../../src/reconcile/drift.js';
import { inspectNftables, inspectRules, inspectSysctls } from '../../../src/reconcile/inspect-node.js';
import { type Inspection, inspect } from '../../../src/reconcile/inspect.js';
import { parseAddress } from '../../../src/values/address.js';
import { type NftChain, type NftRule, type NftTable, NFTABLES_TABLE } from '../../../src/values/nftables.js';
import { addressServerKey, realServerKey } from '../../../src/values/virtual-server.js';
import { TestCluster } from '../../support/desired-cluster.js';
import { TestKernel } from '../../fakes/test-kernel.js';
import { ReconcileRig, web } from '../../support/reconcile-rig.js';

const ip = (text: string) => parseAddress(text)!;
const WEB = addressServerKey('TCP', ip('10.96.0.1'), 80);
const B = realServerKey(ip('10.0.0.2'), 8080);

/** Counts as `1 missing address`, and the changes. */
function told({ drift, changes }: Inspection): [counts: string[], changes: string[]] {
  const counts = [...drift.counts.values()].map(({ kind, object, count }) => `${count} ${kind} ${object}`).sort();
  return [counts, changes.map(formatChange)];
}

/** What a command of its own, with no memory of the daemon's, finds in the kernel of `rig`. */
async function inspected(rig: ReconcileRig, cluster: TestCluster): Promise<[string[], string[]]> {
  const other = new ReconcileRig(cluster, rig.kernel);
  const before = rig.state();
  const result = told(await inspect(cluster.updater, other.dataPlane.sources, []));
  assert.deepEqual(rig.state(), before, 'it wrote');
  return result;
}

describe('an inspection', () => {
  test('of a synced kernel finds nothing', async () => {
    const rig = new ReconcileRig(web());
    await rig.sync();
    assert.deepEqual(await inspected(rig, web()), [[], []]);
  });

  test('of an empty kernel finds everything missing, and says all that a sync would do', async () => {
    const rig = new ReconcileRig(web());
    const [counts, changes] = await inspected(new ReconcileRig(), web());
    assert.deepEqual(counts, ['1 missing address', '1 missing link', '1 missing virtual_server', '38 missing set']);
    assert.deepEqual(
      changes.filter((line) => !line.startsWith('add set KUBE-')),
      [
        'add link kube-ipvs0',
        'add set entry KUBE-CLUSTER-IP 10.96.0.1,tcp:80',
        'add set entry KUBE-IPVS-IPS 10.96.0.1',
        'add virtual server TCP 10.96.0.1:80 rr',
        'add real server TCP 10.96.0.1:80 -> 10.0.0.1:8080',
        'add real server TCP 10.96.0.1:80 -> 10.0.0.2:8080',
        'add address 10.96.0.1 on kube-ipvs0',
      ],
    );
    assert.equal(changes.filter((line) => line.startsWith('add set KUBE-')).length, 38);
    // The witness of completeness: everything that a sync then makes has its line.
    await rig.sync();
    const made = [...rig.kernel.netfilter.ipset!.sets.keys()];
    for (const name of made)
      assert.ok(
        changes.some((line) => line.startsWith(`add set ${name} `)),
        name,
      );
  });

  test('tells the Service of each change, and groups by it', async () => {
    const cluster = web();
    cluster.service('api', { clusterIP: '10.96.0.2', ports: [{ port: 443 }] });
    const { sources } = new ReconcileRig(cluster, new TestKernel()).dataPlane;
    const { drift, changes } = await inspect(cluster.updater, sources, []);
    assert.equal(drift.total, 38 + 1 + 2 + 2);
    for (const change of changes)
      if (change.object !== 'link' && change.object !== 'set')
        assert.match(String(change.service), /^default\/(web|api)$/, JSON.stringify(change));
    const text = formatPlan(changes, false).split('\n');
    const headings = text.filter((line) => line.endsWith(':'));
    assert.deepEqual(headings, ['node:', 'default/api:', 'default/web:']);
    assert.equal(text.at(-2), `plan: ${changes.length} to add, 0 to change, 0 to delete; Services concerned: 2`);
  });

  test('adds the entries of a set that is missing or of another type', async () => {
    const rig = new ReconcileRig(web());
    await rig.sync();
    rig.kernel.netfilter.ipset!.sets.delete('KUBE-CLUSTER-IP');
    assert.deepEqual(await inspected(rig, web()), [
      ['1 missing set'],
      ['add set KUBE-CLUSTER-IP hash:ip,port IPv4', 'add set entry KUBE-CLUSTER-IP 10.96.0.1,tcp:80'],
    ]);
    await rig.verify();
    assert.deepEqual(await inspected(rig, web()), [[], []]);
  });

  test('does not take a backend that drains for a difference', async () => {
    const rig = new ReconcileRig(web());
    await rig.sync();
    Object.assign(rig.kernel.ipvs.table.get(WEB)!.realServers.get(B)!, { active: 3 });
    rig.cluster.slice('web', ['10.0.0.1']);
    await rig.sync();
    assert.equal(rig.weights('TCP 10.96.0.1:80'), '10.0.0.1:8080=1 10.0.0.2:8080=0');
    const cluster = web();
    cluster.slice('web', ['10.0.0.1']);
    assert.deepEqual(await inspected(rig, cluster), [[], []]);
  });

  test('takes a wanted backend of weight 0 for one', async () => {
    const rig = new ReconcileRig(web());
    await rig.sync();
    rig.kernel.ipvs.table.get(WEB)!.realServers.get(B)!.weight = 0;
    assert.deepEqual(await inspected(rig, web()), [
      ['1 changed real_server'],
      ['change real server TCP 10.96.0.1:80 -> 10.0.0.2:8080 weight 1'],
    ]);
  });

  test('names what is too much', async () => {
    const rig = new ReconcileRig(web());
    await rig.sync();
    const [counts, changes] = await inspected(rig, new TestCluster({ families: [4] }));
    assert.deepEqual(counts, ['1 extra address', '1 extra virtual_server', '2 extra set_entry']);
    assert.deepEqual(changes, [
      'delete virtual server TCP 10.96.0.1:80',
      'delete address 10.96.0.1 on kube-ipvs0',
      'delete set entry KUBE-CLUSTER-IP 10.96.0.1,tcp:80',
      'delete set entry KUBE-IPVS-IPS 10.96.0.1',
    ]);
  });
});

describe('an inspection of the node', () => {
  const nothing = (): Inspection => ({ drift: new Drift(), changes: [] });
  const masqueradeMark = 0x4000;
  const rules = iptablesRules({
    ...{ family: 4, masqueradeMark, masqueradeAll: false, randomFully: true },
    detectLocal: { mode: 'none' },
  });
  const saved = ({ tables }: RuleSet): string =>
    tables
      .flatMap(({ name, chains, jumps }) => [
        `*${name}`,
        ...chains.map((chain) => `:${chain.name} - [0:0]`),
        ...chains.flatMap((chain) => chain.rules.map((rule) => `-A ${chain.name} ${rule}`)),
        ...jumps.map((jump) => `-A ${jump.chain} ${jump.rule}`),
        'COMMIT\n',
      ])
      .join('\n');
  const iptables = (stdout: string): Iptables => {
    const commands = { save: 'save', restore: 'restore' };
    const tools = { backend: 'nft', version: '1.8.9', randomFully: true, restoreWaits: true, reason: '' } as const;
    return new Iptables({ ...tools, commands: { 4: commands, 6: commands } }, async (command) => {
      assert.equal(command, 'save', 'it wrote');
      return { stdout, stderr: '' };
    });
  };

  test('finds no rule wrong where all are right, and names the chain of one that is not', async () => {
    const right = nothing();
    await inspectRules(iptables(saved(rules)), [rules], right);
    assert.deepEqual(told(right), [[], []]);
    const wrong = nothing();
    const filter = rules.tables.find(({ name }) => name === 'filter')!;
    const forward = filter.chains.find(({ name }) => name === 'KUBE-FORWARD')!.rules.length;
    await inspectRules(iptables(saved(rules).replace('-A KUBE-FORWARD ', '-A OTHER ')), [rules], wrong);
    assert.deepEqual(told(wrong), [['1 changed rule'], [`change chain filter KUBE-FORWARD (IPv4), ${forward} rules`]]);
  });

  test('of nf_tables it names the chain that is missing, too many or changed, with its rules', async () => {
    const mark = (data: string): NftRule => [{ name: 'immediate', register: 8, data }];
    const [one, two, three] = ['one', 'two', 'three'].map((name) => ({ name, rules: [mark(name)] }));
    const table = (...chains: NftChain[]): NftTable => ({ family: 4, name: NFTABLES_TABLE, chains });
    const desired = table(one!, two!);
    const look = async (observed: NftTable | undefined): Promise<Inspection> => {
      const found = nothing();
      await inspectNftables({ readTable: () => Promise.resolve(observed) }, [desired], found);
      return found;
    };
    assert.deepEqual(told(await look(desired)), [[], []]);
    const wrong = await look(table({ ...one!, rules: [mark('x'), mark('y')] }, three!));
    assert.deepEqual(told(wrong), [
      ['1 changed rule', '1 extra rule', '1 missing rule'],
      [
        `change chain ${NFTABLES_TABLE} one (IPv4), 1 rules`,
        `add chain ${NFTABLES_TABLE} two (IPv4), 1 rules`,
        `delete chain ${NFTABLES_TABLE} three (IPv4), 1 rules`,
      ],
    ]);
    const rules = wrong.changes.map((change) => change.object === 'rule' && [change.before, change.after]);
    const text = (...of: NftRule[]): string[] => of.map(nftRuleText);
    assert.deepEqual(rules, [
      [text(mark('x'), mark('y')), text(mark('one'))],
      [[], text(mark('two'))],
      [text(mark('three')), []],
    ]);
    const empty = await look(undefined);
    assert.deepEqual(told(empty)[0], ['2 missing rule']);
  });

  test("tells every rule that a takeover from kube-proxy's recorded ones would write or remove, each once", async () => {
    const recorded = readFileSync('test/fixtures/kube-proxy-1.36/iptables.txt', 'utf8');
    const found = nothing();
    await inspectRules(iptables(recorded), [rules], found);
    assert.equal(found.changes.length, found.drift.total);
    assert.ok(found.changes.length > 3);
    const lines = found.changes.map(formatChange);
    assert.equal(new Set(lines).size, lines.length, 'the same line twice');
    for (const change of found.changes) {
      assert.ok(change.object === 'rule');
      if (change.what === 'jump') assert.equal(change.before.length + change.after.length, 1);
      else if (change.action !== 'delete') {
        const chains = rules.tables.find(({ name }) => name === change.table)!.chains;
        assert.deepEqual(change.after, chains.find(({ name }) => name === change.chain)!.rules);
      }
      for (const rule of change.before) assert.ok(recorded.includes(`-A ${change.chain} ${rule}\n`), rule);
    }
  });

  test('finds sysctls that differ, lower ones where a minimum is wanted, and leaves out what the kernel need not have', () => {
    const root = mkdtempSync(join(tmpdir(), 'sysctls-'));
    after(() => rmSync(root, { recursive: true, force: true }));
    for (const [name, value] of [
      ['net.ipv4.ip_forward', '0'],
      ['net.ipv4.vs.conntrack', '1'],
      ['net.netfilter.nf_conntrack_max', '5000'],
    ] as const) {
      const path = join(root, ...name.split('.'));
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, `${value}\n`);
    }
    const found = nothing();
    const wanted = [
      { name: 'net.ipv4.ip_forward', value: 1, required: true },
      { name: 'net.ipv4.vs.conntrack', value: 1, required: true },
      { name: 'net.ipv4.vs.expire_nodest_conn', value: 1, required: true },
      { name: 'net.netfilter.nf_conntrack_max', value: 4000, atLeast: 'after-start' as const, required: false },
      { name: 'net.netfilter.nf_conntrack_udp_timeout', value: 30, required: false },
    ];
    const sysctl = new Sysctl(root);
    inspectSysctls({ sysctl, desired: wanted }, found);
    assert.deepEqual(told(found), [
      ['1 changed sysctl', '1 missing sysctl'],
      [
        'change sysctl net.ipv4.ip_forward from 0 to 1',
        'change sysctl net.ipv4.vs.expire_nodest_conn from nothing to 1',
      ],
    ]);
    inspectSysctls({ sysctl, desired: [{ ...wanted[3]!, value: 6000 }] }, found);
    const name = 'net.netfilter.nf_conntrack_max';
    assert.deepEqual(found.changes.at(-1), { action: 'change', object: 'sysctl', name, before: 5000, after: 6000 });
  });
});
