/**
 * The whole reconciler with rules in nf_tables: IPVS and links are fakes, nf_tables are a real kernel's, in a network
 * namespace of our own, where this machine lets us.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { NFTABLES_TABLE } from '../../../src/values/nftables.js';
import { TestCluster } from '../../support/desired-cluster.js';
import { nftKernel } from '../../support/nft-kernel.js';
import { isInOwnNamespace, testInOwnNamespace } from '../../support/own-namespace.js';
import { ReconcileRig } from '../../support/reconcile-rig.js';

/** A Service with everything that fills sets, in both families. */
function cluster(): TestCluster {
  const made = new TestCluster({ families: [4, 6], widestRangesOnly: true });
  made.service(
    'web',
    {
      type: 'LoadBalancer',
      externalTrafficPolicy: 'Local',
      healthCheckNodePort: 32_000,
      clusterIPs: ['10.96.0.1', 'fd00:96::1'],
      loadBalancerSourceRanges: ['10.0.0.0/8', '10.1.0.0/16', '192.0.2.7/32', '2001:db8::/47'],
      ports: [{ port: 80, nodePort: 30_080 }],
      externalIPs: ['198.51.100.7'],
    },
    { ingress: [{ ip: '203.0.113.9' }, { ip: '2001:db8:9::9' }] },
  );
  made.slice('web', ['10.0.0.1', '10.0.0.2']);
  made.slice('web', ['fd00::1'], { name: 'web-6' });
  return made;
}

function nft(words: string): string {
  return execFileSync('nft', words.split(' '), { encoding: 'utf8' });
}

/** Rules and elements, without counters. */
function ruleset(): string {
  return nft('-s list ruleset');
}

const T = `ip ${NFTABLES_TABLE}`;
/** What somebody does, each as commands of nft. */
const DAMAGES: readonly (readonly [what: string, ...commands: string[]])[] = [
  ['the table put to sleep', `add table ${T} { flags dormant; }`],
  ['the table put to sleep and emptied', `add table ${T} { flags dormant; }`, `flush table ${T}`],
  ['a base chain that drops', `chain ${T} filter-INPUT { type filter hook input priority -1; policy drop; }`],
  ['a base chain of his own', `add chain ${T} his { type filter hook input priority 5; policy drop; }`],
  ['a chain renamed', `rename chain ${T} nat-KUBE-SERVICES nat-OTHER`],
  ['a base chain renamed', `rename chain ${T} nat-PREROUTING nat-OTHER`],
  ['a chain that leads into ours', `add chain ${T} his`, `add rule ${T} his jump nat-KUBE-SERVICES`],
  [
    'a chain that a map of his leads to',
    ...[`add chain ${T} his`, `add rule ${T} his drop`],
    `add map ${T} ways { type ipv4_addr : verdict; elements = { 192.0.2.1 : goto his }; }`,
    `insert rule ${T} nat-KUBE-SERVICES ip saddr vmap @ways`,
  ],
  ['all rules away', `flush table ${T}`],
  ['all elements away', `flush set ${T} KUBE-CLUSTER-IP`],
  ['a range split', ...splitRange()],
  ['the table of one family away', `delete table ${T}`],
];

function splitRange(): string[] {
  const set = `${T} KUBE-LOAD-BALANCER-SOURCE-CIDR`;
  const element = (range: string): string => `{ 203.0.113.9 . tcp . 80 . ${range} }`;
  return [
    `delete element ${set} ${element('10.0.0.0/8')}`,
    `add element ${set} ${element('10.0.0.0/9')}`,
    `add element ${set} ${element('10.128.0.0/10')}`,
  ];
}

if (isInOwnNamespace) {
  const kernel = nftKernel();
  const rigOf = (made: TestCluster): ReconcileRig =>
    new ReconcileRig(made, kernel, [], undefined, { rules: 'nftables', nodePortAddresses: all() });
  const made = cluster();
  const rig = rigOf(made);
  const settle = (): Promise<void> => rig.dataPlane.rules.settled();

  test('inside: the first sync fills sets and writes rules; nothing drifts', async () => {
    assert.ok((await rig.sync()).ok);
    await settle();
    assert.equal(rig.dataPlane.rules.lastError, undefined);
    assert.match(ruleset(), /10\.96\.0\.1 \. tcp \. 80/);
    assert.match(
      nft(`list set ip ${NFTABLES_TABLE} KUBE-LOAD-BALANCER-SOURCE-CIDR`),
      /203\.0\.113\.9 \. tcp \. 80 \. 10\.0\.0\.0\/8/,
    );
    assert.deepEqual(await rig.verify(), []);
    await settle();
    assert.equal(rig.dataPlane.rules.writes, 2, 'once for each family');
  });

  test('inside: a change sends messages about what changes, whatever else there is', async () => {
    const sent = (): number => rig.clients.nftables!.counters.messagesSent;
    const before = sent();
    made.service('small', { clusterIP: '10.96.0.77' });
    await rig.sync();
    // One transaction of three messages for each of CLUSTER-IP, IPVS-IPS and NO-ENDPOINTS.
    assert.equal(sent() - before, 9);
    assert.match(ruleset(), /10\.96\.0\.77/);
    made.state.deleteService('default/small');
    await rig.sync();
    assert.equal(sent() - before, 18);
    assert.doesNotMatch(ruleset(), /10\.96\.0\.77/);
  });

  test('inside: source ranges are changed without one that overlaps in the way', async () => {
    const ranges = (): string => nft(`list set ip ${NFTABLES_TABLE} KUBE-LOAD-BALANCER-SOURCE-CIDR`);
    const service = (loadBalancerSourceRanges: readonly string[]): void =>
      made.service(
        'ranged',
        { type: 'LoadBalancer', clusterIP: '10.96.0.78', loadBalancerSourceRanges },
        { ingress: [{ ip: '203.0.113.10' }] },
      );
    service(['10.0.0.0/8', '10.1.0.0/16']);
    assert.ok((await rig.sync()).ok);
    assert.match(ranges(), /113\.10 \. tcp \. 80 \. 10\.0\.0\.0\/8/);
    service(['10.1.0.0/16', '10.2.0.0/16']);
    assert.ok((await rig.sync()).ok);
    assert.doesNotMatch(ranges(), /113\.10 \. tcp \. 80 \. 10\.0\.0\.0\/8/);
    assert.match(ranges(), /113\.10 \. tcp \. 80 \. 10\.1\.0\.0\/16/);
    service(['10.0.0.0/8']);
    assert.ok((await rig.sync()).ok);
    assert.deepEqual(await rig.verify(), []);
    made.state.deleteService('default/ranged');
    await rig.sync();
  });

  test('inside: drift is counted as with iptables, and mended', async () => {
    const wanted = ruleset();
    const table = `ip ${NFTABLES_TABLE}`;
    nft(`delete element ${table} KUBE-CLUSTER-IP { 10.96.0.1 . tcp . 80 }`);
    nft(`add element ${table} KUBE-IPVS-IPS { 192.0.2.99 }`);
    nft(`flush chain ${table} filter-INPUT`);
    assert.deepEqual(await rig.verify(), ['1 extra set_entry', '1 missing set_entry']);
    await settle();
    assert.equal(sorted(ruleset()), sorted(wanted));
    nft('flush ruleset');
    const drift = await rig.verify();
    assert.ok(drift.includes('38 missing set'), String(drift));
    await settle();
    assert.deepEqual(await rig.verify(), []);
    await settle();
    assert.equal(sorted(ruleset()), sorted(wanted));
    nft('add table ip somebody');
    assert.deepEqual(await rig.verify(), []);
    assert.match(ruleset(), /table ip somebody/);
    nft('delete table ip somebody');
  });

  for (const [what, ...commands] of DAMAGES)
    test(`inside: mended and counted: ${what}`, async () => {
      const wanted = ruleset();
      for (const command of commands) nft(command);
      assert.notEqual(sorted(ruleset()), sorted(wanted));
      const before = rig.dataPlane.rules.writes;
      const sets = await rig.verify();
      await settle();
      assert.equal(rig.dataPlane.rules.lastError, undefined);
      assert.ok(sets.length > 0 || rig.dataPlane.rules.writes > before, 'nobody noticed');
      assert.equal(sorted(ruleset()), sorted(wanted));
      assert.deepEqual(await rig.verify(), []);
      await settle();
      const { writes } = rig.dataPlane.rules;
      await rig.verify();
      await settle();
      assert.equal(rig.dataPlane.rules.writes, writes, 'written once');
    });

  test('inside: a restart takes over what is there and writes nothing', async () => {
    const wanted = ruleset();
    const next = rigOf(cluster());
    assert.ok((await next.sync()).ok);
    await next.dataPlane.rules.settled();
    assert.equal(next.dataPlane.rules.writes, 0);
    assert.equal(next.reports[0]!.setEntries, 0);
    assert.equal(ruleset(), wanted);
  });
} else testInOwnNamespace('the reconciler keeps rules and sets in a real kernel’s nf_tables', 5 + DAMAGES.length);

/** Elements come in no order. */
function sorted(text: string): string {
  return text
    .replace(/[\s,]+/g, '\n')
    .split('\n')
    .sort()
    .join('\n');
}

function all() {
  const selection = { all: true, primary: false, cidrs: [] };
  return { 4: selection, 6: selection };
}
